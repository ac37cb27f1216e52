//! What can be wrong with a GGUF file. Every variant names the key or tensor, and says what to do where there is something to do.

/// An error of the GGUF reader or writer, or of the mapping from GGUF to a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The first four bytes are not `GGUF`.
    #[error("not a gguf file: it starts with the bytes {found:02x?}")]
    Magic {
        /// The bytes found (fewer than four if the file is shorter).
        found: Vec<u8>,
    },
    /// A version this reader does not know, or a big-endian file.
    #[error("gguf version {found} is not supported; convert the file to little-endian version 3")]
    Version {
        /// The version field as a little-endian number.
        found: u32,
    },
    /// A field reaches beyond the end of the file.
    #[error(
        "{what} at byte {at} needs {need} bytes, but the file has only {left} left; the file is cut off or damaged"
    )]
    Truncated {
        /// The field that was being read.
        what: String,
        /// Byte position of the field.
        at: usize,
        /// Bytes the field needs (saturated when the product overflows).
        need: u64,
        /// Bytes left in the file.
        left: usize,
    },
    /// A text that is not valid UTF-8.
    #[error("{what} at byte {at} is not valid utf-8")]
    Utf8 {
        /// The text that was being read.
        what: String,
        /// Byte position of the text.
        at: usize,
    },
    /// A length or count above the reader's cap.
    #[error("{what} is {found}, above the limit of {max}")]
    TooLarge {
        /// The length or count.
        what: String,
        /// The value in the file.
        found: u64,
        /// The cap.
        max: u64,
    },
    /// A metadata value type that the format does not define.
    #[error("metadata key {key:?} has the unknown value type {found}")]
    ValueType {
        /// The key.
        key: String,
        /// The type number in the file.
        found: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("metadata key {key:?} holds the boolean {found}, which is neither 0 nor 1")]
    Bool {
        /// The key.
        key: String,
        /// The byte in the file.
        found: u8,
    },
    /// An array of arrays.
    #[error("metadata key {key:?} is an array of arrays, which is not supported")]
    NestedArray {
        /// The key.
        key: String,
    },
    /// The same key twice.
    #[error("metadata key {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The same tensor name twice.
    #[error("tensor {name:?} occurs twice")]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// `general.alignment` is not a power of two in range.
    #[error("general.alignment is {found}; it must be a power of two from 1 to {max}")]
    Alignment {
        /// The value in the file.
        found: u64,
        /// Largest alignment accepted.
        max: u64,
    },
    /// Number of dimensions not in 1..=4, or a dimension of zero.
    #[error(
        "tensor {name:?} has the dimensions {dims:?}; 1 to 4 dimensions, each at least 1, are allowed"
    )]
    Dims {
        /// The tensor.
        name: String,
        /// The dimensions in file order (fastest first).
        dims: Vec<u64>,
    },
    /// A known tensor type that this program does not read, or an unknown one.
    #[error(
        "tensor {name:?} has type {found}, which is not supported; requantize the file to one of {supported}"
    )]
    TensorType {
        /// The tensor.
        name: String,
        /// Name of the type, or its number when unknown.
        found: String,
        /// Names of the supported types.
        supported: &'static str,
    },
    /// Row length that is no multiple of the type's block.
    #[error(
        "tensor {name:?} of type {kind} has rows of {row} values, which is no multiple of its block of {block}"
    )]
    Block {
        /// The tensor.
        name: String,
        /// Its type.
        kind: crate::Dtype,
        /// Values per row.
        row: u64,
        /// Values per block.
        block: usize,
    },
    /// The element or byte count does not fit in 64 bits.
    #[error("tensor {name:?} with dimensions {dims:?} has a size that overflows")]
    Overflow {
        /// The tensor.
        name: String,
        /// The dimensions in file order.
        dims: Vec<u64>,
    },
    /// An offset that is not a multiple of the alignment.
    #[error(
        "tensor {name:?} starts at offset {offset}, which is no multiple of the alignment {alignment}"
    )]
    Misaligned {
        /// The tensor.
        name: String,
        /// Its offset in the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Tensor data beyond the end of the file.
    #[error(
        "tensor {name:?} takes bytes {start}..{end} of the data section, which has only {have}; the file is cut off or damaged"
    )]
    OutOfFile {
        /// The tensor.
        name: String,
        /// First byte in the data section.
        start: u64,
        /// One past the last byte (saturated).
        end: u64,
        /// Size of the data section.
        have: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors {first:?} and {second:?} overlap in the file")]
    Overlap {
        /// The tensor that starts first.
        first: String,
        /// The tensor that starts inside it.
        second: String,
    },
    /// A required key is missing.
    #[error("metadata key {key:?} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A value of another type than needed, or out of range.
    #[error("metadata key {key:?} is {found}; {expected} is needed")]
    WrongValue {
        /// The key.
        key: String,
        /// Short text of what is there.
        found: String,
        /// What is needed.
        expected: &'static str,
    },
    /// A model architecture that this program does not run.
    #[error(
        "architecture {found:?} is not supported; supported are qwen2, qwen3 and llama (which includes mistral)"
    )]
    Architecture {
        /// Value of `general.architecture`.
        found: String,
    },
    /// A file of another kind (an adapter where a model is needed, or the reverse).
    #[error("this gguf file holds {found}, not {expected}; {remedy}")]
    Kind {
        /// What the file is.
        found: String,
        /// What was asked for.
        expected: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The metadata describe a shape that cannot be.
    #[error("the model's shape is not possible")]
    Config {
        /// Which field (in the names of config.json).
        #[source]
        source: crate::ConfigError,
    },
    /// A feature of the model that this program does not implement.
    #[error("{what} is not supported")]
    Unsupported {
        /// The feature, with its key or tensor.
        what: String,
    },
    /// A tensor the model needs is missing.
    #[error("tensor {name:?} is missing")]
    MissingTensor {
        /// GGUF name of the tensor.
        name: String,
    },
    /// Tensors that no part of the model uses.
    #[error(
        "{count} tensors are not part of this architecture, the first is {first:?}; the file is for another model or version"
    )]
    UnusedTensors {
        /// How many.
        count: usize,
        /// First unused name in file order.
        first: String,
    },
    /// A tensor of the wrong shape.
    #[error("tensor {name:?} has the shape {found:?}, but the configuration asks for {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Shape in the file, slowest dimension first.
        found: Vec<usize>,
        /// Shape the configuration gives.
        expected: Vec<usize>,
    },
    /// The tokenizer inside cannot be rebuilt.
    #[error(
        "the tokenizer in the file is not supported: {reason}; put a tokenizer.json beside the file or convert the model again"
    )]
    Tokenizer {
        /// What is missing or unknown.
        reason: String,
    },
    /// Writing failed.
    #[error("writing {what} failed")]
    Write {
        /// What was being written.
        what: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The caller gave the writer something that the format cannot hold.
    #[error("cannot write {what}: {reason}")]
    Unwritable {
        /// Key or tensor.
        what: String,
        /// Why not.
        reason: String,
    },
    /// A weight that the wanted dtype cannot hold.
    #[error("tensor {name:?}, in the rows from {row} on; BF16 and F32 hold every finite weight")]
    Quantize {
        /// Name of the tensor in the file.
        name: String,
        /// First row of the run that failed.
        row: usize,
        /// Which value.
        source: crate::quant::QuantError,
    },
}
