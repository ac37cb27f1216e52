//! The mistakes of callers and files that the engine reports. Broken internal invariants are panics.

use std::sync::Arc;

use edgethink_kernels::{Isa, KernelError};
use thiserror::Error;

use crate::request::{AdapterId, RequestId, TokenId};

/// The engine cannot be built, or cannot go on.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// An option is out of range.
    #[error("the option {name} is {found}; it must be {expected}")]
    Option {
        /// Field of `EngineOptions`.
        name: &'static str,
        /// Its value.
        found: usize,
        /// What would be right.
        expected: &'static str,
    },
    /// The machine lacks the instruction set.
    #[error("this machine has no {0}; choose another instruction set or let the program detect it")]
    Isa(Isa),
    /// The system gives no more threads.
    #[error("cannot start the worker threads: {0}; ask for fewer threads")]
    Threads(#[source] Arc<std::io::Error>),
    /// A weight could not be read.
    #[error("cannot read the tensor {name}: {source}")]
    Read {
        /// The tensor.
        name: String,
        /// The system's error.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A matrix cannot be held as asked.
    #[error(
        "the tensor {name} has rows of {cols} elements; 4 and 8 bit weights need a multiple of 32, so load the model as it is stored"
    )]
    Columns {
        /// The tensor.
        name: String,
        /// Its row length.
        cols: usize,
    },
    /// A weight is NaN, infinite or too large for its format.
    #[error("the tensor {name} cannot be quantized: {source}")]
    Quantize {
        /// The tensor.
        name: String,
        /// What the kernel found.
        #[source]
        source: KernelError,
    },
    /// The head dimension is beyond what the attention kernels take.
    #[error("the model's head_dim is {found}; at most 256 is supported")]
    HeadDim {
        /// D.
        found: usize,
    },
    /// There are no more blocks for work outside the queues.
    #[error(
        "{tokens} tokens need more KV blocks than are free; finish the running requests or raise kv_tokens"
    )]
    NoBlocks {
        /// Tokens to compute.
        tokens: usize,
    },
    /// A mistake in the request itself.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A request is refused, or failed while it ran.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is nothing to compute.
    #[error("the prompt is empty; give at least one token")]
    EmptyPrompt,
    /// A token that the model does not have.
    #[error(
        "token {index} has id {token}, but the vocabulary has {vocab_size}; the tokenizer belongs to another model"
    )]
    Token {
        /// Its index in the list.
        index: usize,
        /// The id.
        token: TokenId,
        /// V.
        vocab_size: usize,
    },
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt} tokens, the context {context}; shorten the prompt, or raise kv_tokens if the model allows more"
    )]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt: usize,
        /// The model's context or the KV cache, whichever is smaller.
        context: usize,
    },
    /// Too few or too many streams.
    #[error("n is {n}; ask for 1 to {most} streams")]
    Streams {
        /// What was asked for.
        n: usize,
        /// The most there can be.
        most: usize,
    },
    /// A sampling setting out of range.
    #[error("{name} is {value}; it must be {expected}")]
    Sampling {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f32,
        /// What would be right.
        expected: &'static str,
    },
    /// An adapter that is not loaded.
    #[error("adapter {} is not loaded", id.0)]
    UnknownAdapter {
        /// The id.
        id: AdapterId,
    },
    /// An adapter for another base.
    #[error("the adapter {name} does not fit the model: {reason}")]
    AdapterShape {
        /// Its name.
        name: String,
        /// What differs.
        reason: String,
    },
    /// An adapter that cannot be held in 8 bits.
    #[error("the adapter {name} cannot be held in 8 bits: {reason}")]
    AdapterWeights {
        /// Its name.
        name: String,
        /// Which tensor, and what it has.
        reason: String,
    },
    /// An adapter that requests still use.
    #[error("adapter {} is in use by request {}; wait for it or cancel it", id.0, request.0)]
    AdapterBusy {
        /// The adapter.
        id: AdapterId,
        /// One of its users.
        request: RequestId,
    },
    /// A request that is not known, or no more.
    #[error("request {} is not running", id.0)]
    UnknownRequest {
        /// The id.
        id: RequestId,
    },
    /// A stream that is not known, or no more.
    #[error("stream {stream} of request {} is not running", id.0)]
    UnknownStream {
        /// The request.
        id: RequestId,
        /// The stream.
        stream: usize,
    },
    /// NaN or infinity inside the model.
    #[error(
        "the model computed a non-finite value at position {position} ({place}); its weights or its adapter are damaged, or overflow"
    )]
    NonFinite {
        /// Position of the token.
        position: usize,
        /// The operation.
        place: Place,
    },
    /// Bias and penalties left no token.
    #[error("no token can be chosen at position {position}; logit_bias bans all of them")]
    NothingToChoose {
        /// Position of the token that was to be chosen.
        position: usize,
    },
}

/// Where in the forward pass something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a layer of the model.
    Layer {
        /// Its index.
        layer: usize,
        /// The operation.
        what: &'static str,
    },
    /// At the final norm.
    FinalNorm,
    /// In the logits.
    Logits,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Layer { layer, what } => write!(f, "{what} of layer {layer}"),
            Place::FinalNorm => f.write_str("final norm"),
            Place::Logits => f.write_str("logits"),
        }
    }
}
