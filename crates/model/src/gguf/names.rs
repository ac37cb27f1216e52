//! Tensor names: llama.cpp's `blk.0.attn_q.weight` and Hugging Face's `model.layers.0.self_attn.q_proj.weight`.

use crate::Linear;

/// The name of a linear layer inside a block.
pub(crate) fn linear_name(linear: Linear) -> &'static str {
    match linear {
        Linear::Q => "attn_q",
        Linear::K => "attn_k",
        Linear::V => "attn_v",
        Linear::O => "attn_output",
        Linear::Gate => "ffn_gate",
        Linear::Up => "ffn_up",
        Linear::Down => "ffn_down",
    }
}

/// What a tensor of a model file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not inside a block.
    Global,
    /// Weight or bias of a linear layer.
    Linear(Linear),
    /// A norm inside a block.
    Norm,
}

/// The Hugging Face name of a tensor, and its place; `None` for a name that is no part of the supported architectures.
pub(super) fn to_hf(name: &str) -> Option<(String, Place)> {
    match name {
        "token_embd.weight" => {
            return Some(("model.embed_tokens.weight".to_owned(), Place::Global));
        }
        "output_norm.weight" => return Some(("model.norm.weight".to_owned(), Place::Global)),
        "output.weight" => return Some(("lm_head.weight".to_owned(), Place::Global)),
        _ => {}
    }
    let (layer, part) = split_block(name)?;
    let norm = match part {
        "attn_norm.weight" => Some("input_layernorm.weight"),
        "ffn_norm.weight" => Some("post_attention_layernorm.weight"),
        "attn_q_norm.weight" => Some("self_attn.q_norm.weight"),
        "attn_k_norm.weight" => Some("self_attn.k_norm.weight"),
        _ => None,
    };
    if let Some(norm) = norm {
        return Some((format!("model.layers.{layer}.{norm}"), Place::Norm));
    }
    let (module, kind) = part.rsplit_once('.')?;
    let linear = linear_of(module)?;
    matches!(kind, "weight" | "bias").then(|| {
        (
            format!("model.layers.{layer}.{}.{kind}", linear.hf_name()),
            Place::Linear(linear),
        )
    })
}

/// The name in a GGUF file of a tensor with this Hugging Face name; `None` as in [`to_hf`].
pub(super) fn to_gguf(name: &str) -> Option<(String, Place)> {
    match name {
        "model.embed_tokens.weight" => {
            return Some(("token_embd.weight".to_owned(), Place::Global));
        }
        "model.norm.weight" => return Some(("output_norm.weight".to_owned(), Place::Global)),
        "lm_head.weight" => return Some(("output.weight".to_owned(), Place::Global)),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let norm = match part {
        "input_layernorm.weight" => Some("attn_norm.weight"),
        "post_attention_layernorm.weight" => Some("ffn_norm.weight"),
        "self_attn.q_norm.weight" => Some("attn_q_norm.weight"),
        "self_attn.k_norm.weight" => Some("attn_k_norm.weight"),
        _ => None,
    };
    if let Some(norm) = norm {
        return Some((format!("blk.{layer}.{norm}"), Place::Norm));
    }
    let (module, kind) = part.rsplit_once('.')?;
    let linear = Linear::ALL.into_iter().find(|l| l.hf_name() == module)?;
    matches!(kind, "weight" | "bias").then(|| {
        let name = format!("blk.{layer}.{}.{kind}", linear_name(linear));
        (name, Place::Linear(linear))
    })
}

/// The linear layer of a module name such as `attn_q`.
pub(crate) fn linear_of(module: &str) -> Option<Linear> {
    Linear::ALL
        .into_iter()
        .find(|&linear| linear_name(linear) == module)
}

/// Splits `blk.12.attn_q.weight` into 12 and `attn_q.weight`. The number must be written as we would write it.
pub(crate) fn split_block(name: &str) -> Option<(usize, &str)> {
    let (number, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = number.parse().ok()?;
    (layer.to_string() == number).then_some((layer, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_to_hugging_face() {
        let cases = [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias"),
            (
                "blk.31.attn_output.weight",
                "model.layers.31.self_attn.o_proj.weight",
            ),
            (
                "blk.7.ffn_norm.weight",
                "model.layers.7.post_attention_layernorm.weight",
            ),
            (
                "blk.7.ffn_down.weight",
                "model.layers.7.mlp.down_proj.weight",
            ),
            (
                "blk.2.attn_k_norm.weight",
                "model.layers.2.self_attn.k_norm.weight",
            ),
        ];
        for (gguf, hf) in cases {
            assert_eq!(
                to_hf(gguf).map(|(name, _)| name).as_deref(),
                Some(hf),
                "{gguf}"
            );
            assert_eq!(to_gguf(hf).map(|(n, _)| n).as_deref(), Some(gguf), "{hf}");
        }
    }

    #[test]
    fn other_names_are_unknown() {
        for name in [
            "blk.01.attn_q.weight",
            "blk.+1.attn_q.weight",
            "blk..attn_q.weight",
            "blk.0.attn_qkv.weight",
            "blk.0.attn_q.scale",
            "",
        ] {
            assert!(to_hf(name).is_none(), "{name}");
        }
    }
}
