//! `config.json`: the shape of a model and the constants of its arithmetic.
//!
//! Field names are those of Hugging Face. [`Config::from_json`] is strict about what changes results: an architecture,
//! activation, rope type or quantization that we do not compute is an error, never ignored.

mod parse;
mod rope;

use thiserror::Error;

pub use rope::{Rope, RopeScaling};

/// The architectures we compute. They differ in biases and in the norms of q and k only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMS norm of each head of q and k.
    Qwen3,
    /// Llama 2 and 3, SmolLM2 and everything that says `LlamaForCausalLM`.
    Llama,
    /// Mistral: Llama with a sliding window, in its first version.
    Mistral,
}

impl Family {
    /// All families.
    pub const ALL: [Family; 4] = [Family::Qwen2, Family::Qwen3, Family::Llama, Family::Mistral];

    /// `model_type` of config.json.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Llama => "llama",
            Family::Mistral => "mistral",
        }
    }

    /// The entry of `architectures` in config.json.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::Qwen2 => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
            Family::Llama => "LlamaForCausalLM",
            Family::Mistral => "MistralForCausalLM",
        }
    }
}

/// The seven linear layers of a block, in the order in which [`crate::LayerWeights`] holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Linear {
    /// Query projection `[H*D, E]`.
    Q,
    /// Key projection `[K*D, E]`.
    K,
    /// Value projection `[K*D, E]`.
    V,
    /// Attention output projection `[E, H*D]`.
    O,
    /// Gate of the SwiGLU `[F, E]`.
    Gate,
    /// Its other input `[F, E]`.
    Up,
    /// Its output projection `[E, F]`.
    Down,
}

impl Linear {
    /// All seven, so that `ALL[l as usize] == l`.
    pub const ALL: [Linear; 7] = [
        Linear::Q,
        Linear::K,
        Linear::V,
        Linear::O,
        Linear::Gate,
        Linear::Up,
        Linear::Down,
    ];

    /// Name inside a layer, such as `self_attn.q_proj`.
    pub fn hf_name(self) -> &'static str {
        match self {
            Linear::Q => "self_attn.q_proj",
            Linear::K => "self_attn.k_proj",
            Linear::V => "self_attn.v_proj",
            Linear::O => "self_attn.o_proj",
            Linear::Gate => "mlp.gate_proj",
            Linear::Up => "mlp.up_proj",
            Linear::Down => "mlp.down_proj",
        }
    }

    /// The last part of the name, such as `q_proj`, as PEFT's `target_modules` has it.
    pub fn short_name(self) -> &'static str {
        let name = self.hf_name();
        name.rsplit_once('.').map_or(name, |(_, last)| last)
    }
}

/// The shape of a model. Lengths in elements; all counts are at least 1 once [`Config::validate`] passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Architecture.
    pub family: Family,
    /// E, width of the residual stream.
    pub hidden_size: usize,
    /// F, width of the feed-forward layer.
    pub intermediate_size: usize,
    /// L.
    pub num_hidden_layers: usize,
    /// H, query heads.
    pub num_attention_heads: usize,
    /// K, key and value heads; divides H.
    pub num_key_value_heads: usize,
    /// D, even. H*D need not be E.
    pub head_dim: usize,
    /// V, rows of the embedding.
    pub vocab_size: usize,
    /// The context the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How those frequencies are changed for longer contexts.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether lm_head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether q, k and v have biases.
    pub attention_bias: bool,
    /// Whether the attention output has a bias too (Llama and Qwen3 with `attention_bias`, never Qwen2).
    pub output_bias: bool,
    /// Whether gate, up and down have biases (Llama's `mlp_bias`).
    pub mlp_bias: bool,
    /// Whether each head of q and k is RMS-normed before the rotation.
    pub qk_norm: bool,
    /// A token sees itself and the `sliding_window - 1` tokens before it, in every layer. `None`: all before it.
    pub sliding_window: Option<usize>,
}

/// What is wrong with a config.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not JSON, or a key appears twice.
    #[error("not valid JSON: {0}")]
    Json(#[from] crate::json::JsonError),
    /// A field that must be there is not.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A field has a value of another type or out of range.
    #[error("the field `{field}` is {found}; expected {expected}")]
    Invalid {
        /// Name in config.json.
        field: &'static str,
        /// The value, shortened.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The architecture is not one of ours.
    #[error(
        "the architecture `{found}` is not supported; supported are Qwen2ForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM and MistralForCausalLM"
    )]
    Architecture {
        /// `architectures[0]` or `model_type`.
        found: String,
    },
    /// A feature that would change results and that we do not compute.
    #[error("`{field}` = {found} is not supported; {remedy}")]
    Unsupported {
        /// Name in config.json.
        field: &'static str,
        /// The value, shortened.
        found: String,
        /// What to do instead.
        remedy: &'static str,
    },
}

impl Config {
    /// Shape `(out, in)` of a linear layer.
    pub fn linear_shape(&self, linear: Linear) -> (usize, usize) {
        let e = self.hidden_size;
        match linear {
            Linear::Q => (self.q_size(), e),
            Linear::K | Linear::V => (self.kv_size(), e),
            Linear::O => (e, self.q_size()),
            Linear::Gate | Linear::Up => (self.intermediate_size, e),
            Linear::Down => (e, self.intermediate_size),
        }
    }

    /// Whether a linear layer has a bias.
    pub fn has_bias(&self, linear: Linear) -> bool {
        match linear {
            Linear::Q | Linear::K | Linear::V => self.attention_bias,
            Linear::O => self.output_bias,
            Linear::Gate | Linear::Up | Linear::Down => self.mlp_bias,
        }
    }

    /// H*D.
    pub fn q_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// K*D.
    pub fn kv_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Query heads per key head.
    pub fn group_size(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Parameters of the model, the tied embedding counted once.
    pub fn parameters(&self) -> usize {
        let (e, d) = (self.hidden_size, self.head_dim);
        let linears: usize = Linear::ALL
            .iter()
            .map(|&l| {
                let (out, inner) = self.linear_shape(l);
                out * inner + if self.has_bias(l) { out } else { 0 }
            })
            .sum();
        let norms = 2 * e + if self.qk_norm { 2 * d } else { 0 };
        let embeddings = self.vocab_size * e * if self.tie_word_embeddings { 1 } else { 2 };
        self.num_hidden_layers * (linears + norms) + e + embeddings
    }

    /// Checks ranges and divisibility, so that later arithmetic on the sizes cannot overflow or divide by zero.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for the first field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        // Far above every known model, and small enough that products of three stay below 2^63.
        let sizes: [(&'static str, usize, usize); 8] = [
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 12),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            ("vocab_size", self.vocab_size, 1 << 24),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 30,
            ),
        ];
        for (field, value, most) in sizes {
            if value == 0 || value > most {
                return Err(invalid(
                    field,
                    value,
                    "a positive number of a sensible size",
                ));
            }
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return Err(invalid(
                "num_key_value_heads",
                self.num_key_value_heads,
                "a divisor of num_attention_heads",
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(invalid("head_dim", self.head_dim, "an even number"));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return Err(invalid(
                "rms_norm_eps",
                self.rms_norm_eps,
                "a small positive number",
            ));
        }
        if !(self.rope_theta > 0.0 && self.rope_theta.is_finite()) {
            return Err(invalid("rope_theta", self.rope_theta, "a positive number"));
        }
        if self.sliding_window == Some(0) {
            return Err(invalid("sliding_window", 0, "at least 1, or null"));
        }
        if let Some(RopeScaling::Divisors(divisors)) = &self.rope_scaling
            && divisors.len() != self.head_dim / 2
        {
            return Err(invalid(
                "rope_scaling.divisors",
                divisors.len(),
                "one number per pair: head_dim / 2",
            ));
        }
        self.rope_scaling
            .as_ref()
            .map_or(Ok(()), RopeScaling::validate)
    }

    /// Rotary frequencies.
    pub fn rope(&self) -> Rope {
        Rope::new(self)
    }
}

pub(crate) fn invalid(
    field: &'static str,
    found: impl std::fmt::Display,
    expected: &'static str,
) -> ConfigError {
    ConfigError::Invalid {
        field,
        found: found.to_string(),
        expected,
    }
}

#[cfg(test)]
mod tests;
