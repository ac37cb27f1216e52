//! What can go wrong while a model is loaded or saved: one variant per mistake, each naming the file and the remedy.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::ConfigError;
use crate::json::JsonError;
use crate::tensor::TensorError;
use crate::weights::WeightsError;

/// Loading or saving a model failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The system refused to read or write.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A model directory lacks a file that it must have.
    #[error("{} has no {file}; a model directory holds config.json, tokenizer.json and model.safetensors", dir.display())]
    MissingFile {
        /// The directory.
        dir: PathBuf,
        /// The missing file.
        file: String,
    },
    /// The argument is neither a directory, a GGUF file, a bundle nor a hub id.
    #[error(
        "`{name}` is no model: give a model directory, a .gguf or .edgethink file, or a hub id such as Qwen/Qwen2.5-0.5B-Instruct"
    )]
    NotAModel {
        /// The argument.
        name: String,
    },
    /// A JSON file cannot be parsed or has a duplicate key.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: JsonError,
    },
    /// A JSON file has a field of the wrong kind.
    #[error("{}: the field `{field}` must be {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What it should be.
        expected: &'static str,
    },
    /// config.json is wrong or describes a model that we do not compute.
    #[error("{}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Which field, and the remedy.
        source: ConfigError,
    },
    /// A safetensors file is damaged.
    #[error("{}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is damaged.
        source: SafetensorsError,
    },
    /// A GGUF file is damaged, or holds what we do not compute.
    #[error("{}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Which key or tensor.
        source: Box<crate::gguf::GgufError>,
    },
    /// The tensors do not make up the model.
    #[error("{}", path.display())]
    Weights {
        /// The model directory or file.
        path: PathBuf,
        /// Which tensor.
        source: WeightsError,
    },
    /// tokenizer.json cannot be used.
    #[error("{}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        source: crate::tokenizer::TokenizerError,
    },
    /// The tokenizer knows tokens that the model has no embedding for.
    #[error(
        "the tokenizer has token {token:?} with id {id}, but the model has only {vocab_size} embeddings; \
             the tokenizer belongs to another model, or tokens were added without resizing the embedding"
    )]
    VocabMismatch {
        /// The token with the largest id.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The chat template does not compile.
    #[error("the chat template of {}", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: crate::template::TemplateError,
    },
    /// A bundle cannot be read.
    #[error("the bundle {}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Which part.
        source: Box<crate::bundle::BundleError>,
    },
    /// A model could not be fetched from the hub.
    #[error("`{name}` is no file or directory here, and taken as a hub id it was not found")]
    Hub {
        /// The argument.
        name: String,
        /// Why.
        source: crate::hub::HubError,
    },
}

/// A safetensors file is damaged, or holds what we cannot use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// The header is damaged: truncated, oversized, overlapping tensors, or not JSON.
    #[error("the file is damaged or was not downloaded completely")]
    Header(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The header has one name twice.
    #[error("the header is damaged")]
    Json(#[source] JsonError),
    /// A tensor whose dtype is none of F32, F16 and BF16.
    #[error("the tensor `{name}` is stored as {dtype}; supported are F32, F16 and BF16")]
    Dtype {
        /// Name of the tensor.
        name: String,
        /// Its dtype.
        dtype: String,
    },
    /// A tensor whose size is not that of its shape.
    #[error("the tensor `{name}`")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// The sizes.
        source: TensorError,
    },
    /// Codes in 8 bits without their scales.
    #[error(
        "the tensor `{name}` is stored as I8 codes, but no matrix with one F32 scale per row (`{name}.int8_scale`)"
    )]
    Scales {
        /// Name of the tensor.
        name: String,
    },
    /// A shape that no matrix in 4 bits has.
    #[error(
        "the tensor `{name}` is stored in groups of 4-bit codes, but its shape {shape:?} is not rows of such groups, which have 3 to 18 bytes"
    )]
    Int4 {
        /// Name of the tensor.
        name: String,
        /// Its shape in the file.
        shape: Vec<usize>,
    },
    /// 4-bit codes come in pairs.
    #[error("the tensor `{name}` has {cols} columns; 4 bits need an even number, use 8 bits")]
    OddColumns {
        /// Name of the tensor.
        name: String,
        /// Its columns.
        cols: usize,
    },
    /// The index names a file outside the directory.
    #[error("the index places `{name}` in the file `{file}`, which is no plain file name")]
    ShardName {
        /// Name of the tensor.
        name: String,
        /// The file.
        file: String,
    },
    /// The index places a tensor in a shard that does not have it.
    #[error(
        "the index places `{name}` in {file}, which does not have it; download the shards again"
    )]
    NotInShard {
        /// Name of the tensor.
        name: String,
        /// The shard.
        file: String,
    },
    /// Two shards have the same tensor.
    #[error(
        "the tensor `{name}` is in two shards; remove the files that do not belong to this model"
    )]
    Twice {
        /// Name of the tensor.
        name: String,
    },
}

impl LoadError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> LoadError {
        let path = path.to_path_buf();
        move |source| LoadError::Io { path, source }
    }
}
