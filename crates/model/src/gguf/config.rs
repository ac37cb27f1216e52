//! GGUF metadata to [`Config`].
//!
//! Keys are those of llama.cpp (`{arch}.block_count` and so on). What they do not say follows from the tensors: the vocabulary from the
//! embedding's rows, a tied head from a missing `output.weight`, biases and the norms of q and k from their presence.

use super::error::GgufError;
use super::reader::Gguf;
use super::value::{Metadata, Value};
use crate::{Config, Family, RopeScaling};

/// Tensor with the divisors of the rotary frequencies (Llama 3 scaling), `[D/2]`.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

/// Keys after the architecture that change the result and that we do not compute; refused unless 0.
const REFUSED: &[&str] = &[
    "attention.scale",
    "attention.max_alibi_bias",
    "attention.clamp_kqv",
    "expert_count",
    "logit_scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "embedding_scale",
    "residual_scale",
    "rope.scaling.yarn_log_multiplier",
];

/// The family of `general.architecture`, for models and adapters.
pub(crate) fn family(meta: &Metadata<'_>) -> Result<Family, GgufError> {
    match Metadata::need("general.architecture", meta.text("general.architecture")?)? {
        "qwen2" => Ok(Family::Qwen2),
        "qwen3" => Ok(Family::Qwen3),
        "llama" => Ok(Family::Llama),
        found => Err(GgufError::Architecture {
            found: found.to_owned(),
        }),
    }
}

/// `general.architecture` of a family: Mistral is written as llama.
pub(crate) fn architecture(family: Family) -> &'static str {
    match family {
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
        Family::Llama | Family::Mistral => "llama",
    }
}

/// True when files of this family have the rows of q and k in llama.cpp's order (see `permute`).
pub(crate) fn permutes_heads(family: Family) -> bool {
    architecture(family) == "llama"
}

/// Keys of one architecture.
struct Keys<'a, 'f> {
    meta: &'a Metadata<'f>,
    arch: &'static str,
}

impl Keys<'_, '_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.arch)
    }

    fn count(&self, name: &str) -> Result<Option<usize>, GgufError> {
        self.meta.count(&self.key(name))
    }

    fn need(&self, name: &str) -> Result<usize, GgufError> {
        Metadata::need(&self.key(name), self.count(name)?)
    }

    fn number(&self, name: &str) -> Result<Option<f64>, GgufError> {
        self.meta.number(&self.key(name))
    }

    fn wrong(&self, name: &str, expected: &'static str) -> GgufError {
        let key = self.key(name);
        let found = self
            .meta
            .get(&key)
            .map_or_else(|| "absent".to_owned(), Value::describe);
        GgufError::WrongValue {
            key,
            found,
            expected,
        }
    }
}

/// Reads the configuration of a model file.
///
/// # Errors
/// [`GgufError`] for a missing key, a value out of range, or a feature that is not computed.
pub(super) fn read(gguf: &Gguf<'_>, rope_freqs: Option<Vec<f32>>) -> Result<Config, GgufError> {
    let meta = &gguf.metadata;
    let family = family(meta)?;
    let keys = Keys {
        meta,
        arch: architecture(family),
    };
    for name in REFUSED {
        if keys.number(name)?.is_some_and(|v| v != 0.0) {
            return Err(GgufError::Unsupported {
                what: format!("a model with the key {:?}", keys.key(name)),
            });
        }
    }
    let hidden_size = keys.need("embedding_length")?;
    let num_attention_heads = keys.need("attention.head_count")?;
    let default_head = hidden_size.checked_div(num_attention_heads);
    let head_dim = keys.count("attention.key_length")?.or(default_head);
    let head_dim = head_dim.ok_or_else(|| keys.wrong("attention.head_count", "at least 1"))?;
    for name in ["attention.value_length", "rope.dimension_count"] {
        if keys.count(name)?.is_some_and(|n| n != head_dim) {
            return Err(keys.wrong(name, "the length of a head (attention.key_length)"));
        }
    }
    let has = |name: &str| gguf.tensor(name).is_some();
    let embedding = gguf.tensor("token_embd.weight");
    let embedding = embedding.ok_or_else(|| GgufError::MissingTensor {
        name: "token_embd.weight".to_owned(),
    })?;
    let config = Config {
        family,
        hidden_size,
        intermediate_size: keys.need("feed_forward_length")?,
        num_hidden_layers: keys.need("block_count")?,
        num_attention_heads,
        num_key_value_heads: keys
            .count("attention.head_count_kv")?
            .unwrap_or(num_attention_heads),
        head_dim,
        vocab_size: embedding.shape[0],
        max_position_embeddings: keys.need("context_length")?,
        rms_norm_eps: {
            let name = "attention.layer_norm_rms_epsilon";
            Metadata::need(&keys.key(name), keys.number(name)?)? as f32
        },
        rope_theta: keys.number("rope.freq_base")?.unwrap_or(10_000.0),
        rope_scaling: rope_scaling(&keys, rope_freqs)?,
        tie_word_embeddings: !has("output.weight"),
        attention_bias: has("blk.0.attn_q.bias"),
        output_bias: has("blk.0.attn_output.bias"),
        mlp_bias: has("blk.0.ffn_gate.bias"),
        qk_norm: has("blk.0.attn_q_norm.weight"),
        sliding_window: keys.count("attention.sliding_window")?.filter(|&n| n > 0),
    };
    config
        .validate()
        .map_err(|source| GgufError::Config { source })?;
    Ok(config)
}

fn rope_scaling(
    keys: &Keys<'_, '_>,
    rope_freqs: Option<Vec<f32>>,
) -> Result<Option<RopeScaling>, GgufError> {
    // `rope.scale_linear` is the older name of a linear factor.
    let factor = match keys.number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.number("rope.scale_linear")?,
    };
    let kind = keys.meta.text(&keys.key("rope.scaling.type"))?;
    let scaling = match kind {
        Some("none") => None,
        None | Some("linear") => factor
            .filter(|&f| f != 1.0 && f != 0.0)
            .map(|factor| RopeScaling::Linear { factor }),
        Some("yarn") => Some(yarn(keys, factor)?),
        Some(_) => return Err(keys.wrong("rope.scaling.type", "none, linear or yarn")),
    };
    match (scaling, rope_freqs) {
        (scaling, None) => Ok(scaling),
        (None, Some(divisors)) => Ok(Some(RopeScaling::Divisors(divisors))),
        (Some(_), Some(_)) => Err(GgufError::Unsupported {
            what: format!("a model with both {ROPE_FREQS:?} and a rope scaling"),
        }),
    }
}

/// YaRN as llama.cpp computes it: the factor on cos and sin is (1 + 0.1 ln factor), times `attn_factor` if there is one.
fn yarn(keys: &Keys<'_, '_>, factor: Option<f64>) -> Result<RopeScaling, GgufError> {
    let factor = Metadata::need(&keys.key("rope.scaling.factor"), factor)?;
    if factor < 1.0 {
        return Err(keys.wrong("rope.scaling.factor", "at least 1"));
    }
    let either = |a: &str, b: &str| -> Result<Option<f64>, GgufError> {
        Ok(keys.number(a)?.or(keys.number(b)?))
    };
    let attention =
        either("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor")?.unwrap_or(1.0);
    if keys
        .number("rope.scaling.yarn_ext_factor")?
        .is_some_and(|v| v != 1.0)
    {
        return Err(keys.wrong("rope.scaling.yarn_ext_factor", "1"));
    }
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: keys.need("rope.scaling.original_context_length")?,
        beta_fast: keys.number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
        beta_slow: keys.number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
        attention_factor: attention * (1.0 + 0.1 * factor.ln()),
        truncate: true,
    })
}
