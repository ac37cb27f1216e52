//! What can be wrong with an adapter.

use crate::gguf::GgufError;
use crate::json::JsonError;

/// An adapter that cannot be loaded or written. Parts that we do not compute are refused by name, never skipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The path holds no adapter.
    #[error(
        "{path} is no adapter: it needs adapter_config.json and adapter_model.safetensors, or is a .gguf adapter{hint}"
    )]
    NotAnAdapter {
        /// The path.
        path: String,
        /// More advice, starting with "; ", or empty.
        hint: &'static str,
    },
    /// adapter_config.json is not JSON.
    #[error("adapter_config.json: {0}")]
    Json(#[from] JsonError),
    /// A field of adapter_config.json with a value out of range or of another type.
    #[error("adapter_config.json: `{field}` is {found}; expected {expected}")]
    Field {
        /// Name of the field.
        field: String,
        /// The value, shortened.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A field that changes the result and that we do not compute.
    #[error("adapter_config.json: `{field}` = {found} is not supported; {remedy}")]
    Unsupported {
        /// Name of the field.
        field: String,
        /// The value, shortened.
        found: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A pattern that cannot be compiled.
    #[error("adapter_config.json: the pattern {pattern:?} in `{field}` cannot be used: {reason}")]
    Pattern {
        /// Name of the field.
        field: &'static str,
        /// The pattern.
        pattern: String,
        /// Why not.
        reason: String,
    },
    /// The tensor file is broken or cannot be read or written.
    #[error(transparent)]
    Load(Box<crate::LoadError>),
    /// The GGUF file is broken or of another kind.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The adapter was made for another architecture.
    #[error(
        "the adapter is for architecture {found:?}, the base is {expected:?}; load the base it was trained on"
    )]
    Architecture {
        /// Architecture in the file.
        found: String,
        /// Architecture of the base.
        expected: &'static str,
    },
    /// No tensor of the file is a LoRA pair of a linear layer.
    #[error("the adapter changes no layer of this base: it has no tensors for its linear layers")]
    NothingMatched,
    /// A tensor that is no part of a LoRA on the linear layers.
    #[error("tensor {name:?} of the adapter is not supported: {reason}")]
    UnsupportedTensor {
        /// Its name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A layer the base does not have.
    #[error(
        "tensor {name:?} is for layer {layer}, but the base has {layers} layers; load the base the adapter was trained on"
    )]
    Layer {
        /// Tensor name.
        name: String,
        /// Layer in the name.
        layer: usize,
        /// Layers of the base.
        layers: usize,
    },
    /// One matrix of a pair, or a whole pair that the config promises, is missing.
    #[error("{module} has no {missing}; the file is incomplete")]
    Incomplete {
        /// The linear layer.
        module: String,
        /// The matrix.
        missing: &'static str,
    },
    /// A pair for a module that the config does not target.
    #[error(
        "{module} has tensors, but adapter_config.json does not target it; config and tensors belong to different adapters"
    )]
    NotTargeted {
        /// The linear layer.
        module: String,
    },
    /// Wrong shape for this base or this rank.
    #[error(
        "{module}: {matrix} has the shape {found:?}, expected {expected:?}; the adapter is for another base or rank"
    )]
    Shape {
        /// The linear layer.
        module: String,
        /// `lora_A` or `lora_B`.
        matrix: &'static str,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that base and rank give.
        expected: Vec<usize>,
    },
    /// A dtype that adapters cannot have.
    #[error("{module}: {matrix} is stored as {found}; adapters must be F32, F16 or BF16")]
    Dtype {
        /// The linear layer.
        module: String,
        /// `lora_A` or `lora_B`.
        matrix: &'static str,
        /// The dtype's name.
        found: String,
    },
    /// NaN or an infinity.
    #[error(
        "{module}: {matrix} holds {value} at element {index}; its training diverged or the file is damaged"
    )]
    NonFinite {
        /// The linear layer.
        module: String,
        /// `lora_A`, `lora_B` or `scale`.
        matrix: &'static str,
        /// Position in the matrix.
        index: usize,
        /// The value.
        value: f32,
    },
    /// An invocation sequence that can never be found in a prompt.
    #[error("the invocation tokens {tokens:?} are not possible: {reason}")]
    Invocation {
        /// The sequence.
        tokens: Vec<u32>,
        /// Why not.
        reason: &'static str,
    },
    /// A merge would change the prompt as well.
    #[error(
        "the adapter {name} is activated: it leaves the prompt to the base, and merged weights could not; \
         export it as `lora` or `peft` instead"
    )]
    Activated {
        /// The adapter.
        name: String,
    },
    /// A dtype that merged weights are not written in.
    #[error("merged weights are written in F32 or BF16, not in {dtype}")]
    MergedDtype {
        /// The dtype that was asked for.
        dtype: crate::Dtype,
    },
}

impl From<crate::LoadError> for AdapterError {
    fn from(source: crate::LoadError) -> AdapterError {
        AdapterError::Load(Box::new(source))
    }
}
