//! What can be wrong with a scheme, a model for it, or the files of a run.

use std::path::PathBuf;

use edgethink_model::gguf::GgufError;
use edgethink_model::{AdapterError, LoadError, WeightsError};
use thiserror::Error;

/// A model cannot be quantized.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The scheme is no TOML of the known keys.
    #[error("the scheme cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// A value of the scheme is out of range.
    #[error("`{key}` of the scheme is {found}; expected {expected}")]
    Scheme {
        /// The key, with its table.
        key: &'static str,
        /// The value.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The model has no room for a transform.
    #[error("the transform `{transform}` cannot be folded into this model: {reason}")]
    Transform {
        /// Key in `[transforms]`.
        transform: &'static str,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// Rows do not divide into groups.
    #[error(
        "the tensor `{name}` has rows of {cols} elements, no whole number of groups of {group}"
    )]
    Columns {
        /// The tensor.
        name: String,
        /// Its row length.
        cols: usize,
        /// Length of a group.
        group: usize,
    },
    /// A weight is NaN or infinite.
    #[error(
        "row {row} of the tensor `{name}` holds {value}; the file is damaged or its training diverged"
    )]
    NonFinite {
        /// The tensor.
        name: String,
        /// The row.
        row: usize,
        /// The value.
        value: f32,
    },
    /// The scale of a group does not fit in an f16.
    #[error(
        "row {row} of the tensor `{name}` has a group whose scale {scale} does not fit in an f16; the weights are too large to quantize"
    )]
    TooLarge {
        /// The tensor.
        name: String,
        /// The row.
        row: usize,
        /// The scale.
        scale: f32,
    },
    /// The scheme needs a calibration text.
    #[error(
        "the scheme rounds by `gptq`, which needs a calibration text; give one with --calibration"
    )]
    NoCalibration,
    /// The calibration text is too short.
    #[error(
        "the calibration text has {found} tokens, the scheme needs {needed} (calibration.ctx times calibration.chunks)"
    )]
    ShortCalibration {
        /// Tokens in the text.
        found: usize,
        /// Tokens that the scheme asks for.
        needed: usize,
    },
    /// A token of the calibration text is outside the vocabulary.
    #[error(
        "token {index} of the calibration text has id {id}, but the vocabulary has {vocab_size}"
    )]
    Token {
        /// Its place.
        index: usize,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The calibration text drives the model to NaN or infinity.
    #[error(
        "layer {layer} gives values that are not finite on the calibration text; the weights are damaged"
    )]
    Diverged {
        /// The layer.
        layer: usize,
    },
    /// The Hessian cannot be factored.
    #[error(
        "the Hessian of `{name}` is singular in spite of the damping; raise gptq.damping above {damping}"
    )]
    Singular {
        /// The tensor.
        name: String,
        /// The damping that was not enough.
        damping: f64,
    },
    /// Trained transforms and ranges that are damaged, or of something else.
    #[error("{path} cannot be used: {reason}")]
    Trained {
        /// The directory or file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Work of another run lies in the way.
    #[error(
        "{path} holds the unfinished work of another {what}; remove it, or write to another file"
    )]
    OtherWork {
        /// The directory.
        path: PathBuf,
        /// What differs: model, scheme, calibration text or trained ranges.
        what: &'static str,
    },
    /// The caller asked to stop.
    #[error("stopped; the same command goes on from {path}")]
    Stopped {
        /// The directory with what is done.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A part of the work cannot be read back.
    #[error("{path} is damaged ({reason}); remove it, and the same command makes it again")]
    Part {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The tensors do not make up a model.
    #[error("the quantized tensors do not fit together")]
    Weights(#[from] WeightsError),
    /// The model cannot be put together.
    #[error("the quantized model does not fit together")]
    Model(#[from] LoadError),
    /// The adapter does not fit the model.
    #[error("the adapter does not fit the model")]
    Adapter(#[from] AdapterError),
    /// The GGUF file cannot be written.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}

impl QuantizeError {
    /// Whether the same run may get further another time: it was stopped, or a file was at fault and not what it was asked to do.
    pub(crate) fn may_go_on(&self) -> bool {
        matches!(
            self,
            Self::Stopped { .. }
                | Self::Io { .. }
                | Self::Part { .. }
                | Self::OtherWork { .. }
                | Self::Gguf(_)
        )
    }

    /// Wraps a system error with its file.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}
