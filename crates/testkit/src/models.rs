//! Random models on disk: tiny ones with a tokenizer for tests, and one of a real shape for measurements.
//!
//! Weights are those of [`formula`](crate::formula): norms `1 + u/4`, biases `u/4`, matrices `u * sqrt(3/in)`, so that
//! activations and logits stay of order one at any size.

use std::borrow::Cow;
use std::path::Path;

use edgethink_model::{
    Config, Dtype, Family, GenerationConfig, Linear, RopeScaling, SaveOptions, Stored, save,
};
use half::bf16;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::{CHAT_TEMPLATE, FIRST_SPECIAL, TOKENS, formula_into, tokenizer_json};

/// What is written beside config and weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extras {
    /// Nothing.
    None,
    /// The tiny tokenizer, its chat template, and a generation config with its end token.
    Tokenizer,
}

/// A small config of a family: 2 layers, hidden 64, 4/2 heads, vocabulary of the tiny tokenizer. Each has what is
/// peculiar to its family: biases and a tied head (Qwen2), q/k norms and heads wider than hidden/H (Qwen3), the rope
/// scaling of Llama 3.1 (Llama), a sliding window of 8 (Mistral).
pub fn tiny_config(family: Family) -> Config {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 64,
    };
    Config {
        family,
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: if family == Family::Qwen3 { 32 } else { 16 },
        vocab_size: 320,
        max_position_embeddings: 2048,
        rms_norm_eps: 1e-6,
        rope_theta: if family == Family::Llama {
            500_000.0
        } else {
            10_000.0
        },
        rope_scaling: (family == Family::Llama).then_some(llama3),
        tie_word_embeddings: matches!(family, Family::Qwen2 | Family::Qwen3),
        attention_bias: family == Family::Qwen2,
        output_bias: false,
        mlp_bias: false,
        qk_norm: family == Family::Qwen3,
        sliding_window: (family == Family::Mistral).then_some(8),
    }
}

/// The shape of Qwen2.5-0.5B: 494,032,768 parameters, 988 MB in bf16.
pub fn qwen25_half_billion() -> Config {
    Config {
        hidden_size: 896,
        intermediate_size: 4864,
        num_hidden_layers: 24,
        num_attention_heads: 14,
        num_key_value_heads: 2,
        head_dim: 64,
        vocab_size: 151_936,
        max_position_embeddings: 32_768,
        rope_theta: 1_000_000.0,
        ..tiny_config(Family::Qwen2)
    }
}

/// A directory with a tiny random model, f32, with tokenizer and chat template.
///
/// # Panics
/// If it cannot be written.
pub fn tiny_model(family: Family, seed: u64) -> TempDir {
    tiny_model_of(&tiny_config(family), seed)
}

/// As [`tiny_model`], of any config whose vocabulary holds the tiny tokenizer ([`TOKENS`] tokens); with a smaller one
/// no tokenizer is written.
///
/// # Panics
/// If it cannot be written.
pub fn tiny_model_of(config: &Config, seed: u64) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let extras = if config.vocab_size < TOKENS {
        Extras::None
    } else {
        Extras::Tokenizer
    };
    write_random_model(dir.path(), config, seed, Dtype::F32, extras);
    dir
}

/// Writes a random model of any shape. One tensor is in memory at a time, so models larger than memory can be written.
///
/// # Panics
/// If it cannot be written, or `dtype` is neither F32 nor BF16.
pub fn write_random_model(dir: &Path, config: &Config, seed: u64, dtype: Dtype, extras: Extras) {
    let tensors = shapes(config).into_iter().map(|(name, shape)| {
        let tensor = RandomTensor {
            seed,
            name: name.clone(),
            shape,
            dtype,
        };
        (name, tensor)
    });
    let tokenizer = tokenizer_json();
    let special: Map<String, Value> = [("eos_token", "<|im_end|>"), ("pad_token", "<|endoftext|>")]
        .map(|(key, token)| (key.to_owned(), token.into()))
        .into_iter()
        .collect();
    let generation = GenerationConfig {
        eos_token_ids: vec![FIRST_SPECIAL as u32 + 2, FIRST_SPECIAL as u32],
        ..GenerationConfig::default()
    };
    let options = match extras {
        Extras::None => SaveOptions::default(),
        Extras::Tokenizer => SaveOptions {
            tokenizer_json: Some(&tokenizer),
            chat_template: Some(CHAT_TEMPLATE),
            special_tokens: special,
            generation: Some(&generation),
        },
    };
    save(dir, config, tensors, &options).expect("a random model is written");
}

/// Names and shapes of all tensors of a config.
fn shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    let e = config.hidden_size;
    let mut all = vec![(
        "model.embed_tokens.weight".to_owned(),
        vec![config.vocab_size, e],
    )];
    for i in 0..config.num_hidden_layers {
        let mut add = |part: &str, shape: &[usize]| {
            all.push((format!("model.layers.{i}.{part}"), shape.to_vec()))
        };
        add("input_layernorm.weight", &[e]);
        add("post_attention_layernorm.weight", &[e]);
        if config.qk_norm {
            add("self_attn.q_norm.weight", &[config.head_dim]);
            add("self_attn.k_norm.weight", &[config.head_dim]);
        }
        for linear in Linear::ALL {
            let (out, inner) = config.linear_shape(linear);
            add(&format!("{}.weight", linear.hf_name()), &[out, inner]);
            if config.has_bias(linear) {
                add(&format!("{}.bias", linear.hf_name()), &[out]);
            }
        }
    }
    all.push(("model.norm.weight".to_owned(), vec![e]));
    if !config.tie_word_embeddings {
        all.push(("lm_head.weight".to_owned(), vec![config.vocab_size, e]));
    }
    all
}

struct RandomTensor {
    seed: u64,
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
}

impl RandomTensor {
    /// Offset and factor on the uniform numbers.
    fn affine(&self) -> (f32, f32) {
        let inner = *self.shape.last().expect("no scalars in a model") as f64;
        match self.name.as_str() {
            name if name.ends_with("norm.weight") => (1.0, 0.25),
            name if name.ends_with(".bias") => (0.0, 0.25),
            _ => (0.0, (3.0 / inner).sqrt() as f32),
        }
    }
}

impl Stored for RandomTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        const CHUNK: usize = 1 << 16;
        let len: usize = self.shape.iter().product();
        let (offset, factor) = self.affine();
        let mut bytes = Vec::with_capacity(len * self.dtype.block_bytes());
        let mut chunk = vec![0.0; len.min(CHUNK)];
        for first in (0..len).step_by(CHUNK) {
            let chunk = &mut chunk[..(len - first).min(CHUNK)];
            formula_into(self.seed, &self.name, first, chunk);
            chunk.iter_mut().for_each(|x| *x = offset + factor * *x);
            match self.dtype {
                Dtype::F32 => bytes.extend_from_slice(bytemuck::cast_slice(chunk)),
                Dtype::BF16 => {
                    bytes.extend(chunk.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()))
                }
                other => panic!("random models are written in F32 or BF16, not {other}"),
            }
        }
        Cow::Owned(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgethink_model::{Message, Model, RenderOptions, reference};

    #[test]
    fn every_family_loads_and_runs() {
        for family in Family::ALL {
            let dir = tiny_model(family, 1);
            let model = Model::load(dir.path().to_str().unwrap()).unwrap();
            assert_eq!(model.config, tiny_config(family));
            let tokenizer = model.tokenizer.as_ref().unwrap();
            let template = model.template.as_ref().unwrap();
            let options = RenderOptions {
                add_generation_prompt: true,
                ..Default::default()
            };
            let prompt = template
                .render(&[Message::new("user", "hello there")], &options)
                .unwrap();
            let tokens = tokenizer.encode(&prompt, false).unwrap();
            assert_eq!(tokenizer.decode(&tokens, false).unwrap(), prompt);
            let forward = reference::forward(&model, &tokens, None).unwrap();
            let size =
                forward.logits.iter().map(|x| x * x).sum::<f32>() / forward.logits.len() as f32;
            assert!(
                (0.3..30.0).contains(&size),
                "{family:?}: mean square of the logits is {size}"
            );
        }
    }

    #[test]
    fn parameters_of_the_real_shape() {
        let config = qwen25_half_billion();
        config.validate().unwrap();
        assert_eq!(config.parameters(), 494_032_768);
        let counted: usize = shapes(&config)
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        assert_eq!(counted, 494_032_768);
    }
}
