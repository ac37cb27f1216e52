//! The settings of an engine.

use edgethink_kernels::Isa;
use edgethink_model::Config;

use crate::block_pool::BLOCK_TOKENS;
use crate::error::EngineError;

/// How the matrices of the linear layers and the lm_head are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// As in the file: floats in place on the mapping, GGUF integers with the same codes (those of 5 bits as 8).
    Stored,
    /// Rounded to 8 bits, symmetric, a scale per 32.
    Q8,
    /// Rounded to 4 bits, symmetric, a scale per 32. An lm_head that is also the embedding gets 8 bits.
    Q4,
}

/// How the matrices of adapters are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterFormat {
    /// As in the file, in place on the mapping: floats, or 8-bit codes with a scale per row, which are multiplied as floats.
    Stored,
    /// Rounded to 8 bits, symmetric, a scale per 32, and multiplied with the activations in 8 bits that the base has anyway. On linear
    /// layers whose base matrix is integers; the others keep their floats.
    Q8,
}

/// How keys and values are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvFormat {
    /// int8 with one f32 scale per token and head.
    Int8,
    /// Half precision.
    F16,
    /// Not rounded at all: for comparisons, at four times the memory of int8.
    F32,
}

/// Settings that hold for the life of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// Threads that compute, the caller of `step` included. Never changes a result.
    pub threads: usize,
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// How weights are held.
    pub weights: WeightFormat,
    /// How adapters are held.
    pub adapters: AdapterFormat,
    /// How keys and values are held.
    pub kv: KvFormat,
    /// Tokens whose KV fits in memory, rounded up to whole blocks. Memory is taken as it is first used.
    pub kv_tokens: usize,
    /// Token rows of one step: the size of a prefill chunk.
    pub max_batch_tokens: usize,
    /// Streams that run at the same time; others wait.
    pub max_sequences: usize,
    /// Whether KV is kept for later requests.
    pub prefix_cache: bool,
}

impl EngineOptions {
    /// Settings for a model on this machine: all cores, the best instruction set, weights and adapters as stored, int8 KV for one
    /// full context but at most 32,768 tokens.
    pub fn for_model(config: &Config) -> Self {
        EngineOptions {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            isa: Isa::detect(),
            weights: WeightFormat::Stored,
            adapters: AdapterFormat::Stored,
            kv: KvFormat::Int8,
            kv_tokens: config.max_position_embeddings.min(32_768),
            max_batch_tokens: 192,
            max_sequences: 64,
            prefix_cache: true,
        }
    }

    /// KV blocks for `kv_tokens`.
    pub(crate) fn blocks(&self) -> usize {
        self.kv_tokens.div_ceil(BLOCK_TOKENS)
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`EngineError::Option`] for the first option out of range, [`EngineError::Isa`] for an instruction set that is missing.
    pub(crate) fn validate(&self) -> Result<(), EngineError> {
        let check = |name, found, ok, expected| {
            if ok {
                Ok(())
            } else {
                Err(EngineError::Option {
                    name,
                    found,
                    expected,
                })
            }
        };
        check(
            "threads",
            self.threads,
            (1..=1024).contains(&self.threads),
            "from 1 to 1024",
        )?;
        check(
            "kv_tokens",
            self.kv_tokens,
            (1..=1 << 28).contains(&self.kv_tokens),
            "from 1 to 2^28",
        )?;
        let batch = self.max_batch_tokens;
        check(
            "max_batch_tokens",
            batch,
            (1..=1 << 16).contains(&batch),
            "from 1 to 65536",
        )?;
        let sequences = self.max_sequences;
        check(
            "max_sequences",
            sequences,
            (1..=batch).contains(&sequences),
            "from 1 to max_batch_tokens",
        )?;
        if !self.isa.is_available() {
            return Err(EngineError::Isa(self.isa));
        }
        Ok(())
    }
}
