//! The pocket model before training: random weights, and attention heads that start out looking a fixed number of tokens back.
//!
//! Qwen2 adds biases to queries and keys, and rotary embeddings turn both by position. With constant biases a head's score depends on
//! distance alone: sum over f of a_f cos(w_f (i - j - offset)), highest at `offset`. A few such heads in the first layers give a tiny model
//! "the word before" from the first step. Without them nothing could be looked up after 2.3 million tokens, with them after 1.8 million
//! tokens nearly everything. All of it is trained afterwards like any other weight.

use std::io::Write;
use std::path::Path;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::PocketError;
use crate::seed::item_rng;

/// How much each rotary frequency, the fastest first, adds to a position head's score.
const SHARE_OF_FREQUENCY: [f32; 8] = [1.0, 0.8, 0.6, 0.45, 0.35, 0.25, 0.2, 0.15];
/// Random query and key weights of a position head are this much smaller, so that position decides at first.
const CONTENT_SHARE: f32 = 0.3;
const ROPE_THETA: f32 = 10_000.0;

/// A head that starts by looking a fixed number of tokens back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionHead {
    /// Layer, from 0.
    pub layer: usize,
    /// Head, from 0.
    pub head: usize,
    /// Tokens back; 1 is the token before.
    pub offset: usize,
    /// Sum of the scores' amplitudes is about four times this: 6 looks at one token, 2 at about three.
    pub sharpness: f32,
}

/// The shape of the model (Qwen2, tied embeddings, as many key heads as query heads) and how it starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Width E of the residual stream: `heads` times an even head size.
    pub hidden_size: usize,
    /// Width F of the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers L.
    pub layers: usize,
    /// Attention heads H.
    pub heads: usize,
    /// Longest context in tokens.
    pub max_positions: usize,
    /// Standard deviation of the random weights.
    pub init_std: f32,
    /// Heads that start with a fixed offset.
    pub position_heads: Vec<PositionHead>,
}

impl ModelSpec {
    fn head_dim(&self) -> usize {
        self.hidden_size / self.heads.max(1)
    }

    /// What is wrong with these settings, one line each.
    pub(crate) fn problems(&self, found: &mut Vec<String>) {
        let sizes = [
            self.hidden_size,
            self.intermediate_size,
            self.layers,
            self.heads,
            self.max_positions,
        ];
        if sizes.iter().any(|&n| n == 0 || n > 65_536) {
            found.push("model: every size must be from 1 to 65536".to_owned());
        } else if !self.hidden_size.is_multiple_of(self.heads)
            || !self.head_dim().is_multiple_of(2)
            || self.head_dim() < 16
        {
            found.push(
                "model.hidden_size must be heads times an even head size of at least 16".to_owned(),
            );
        }
        if !(self.init_std.is_finite() && self.init_std > 0.0) {
            found.push(format!(
                "model.init_std is {}, not a number above 0",
                self.init_std
            ));
        }
        for p in &self.position_heads {
            if p.layer >= self.layers
                || p.head >= self.heads
                || !p.sharpness.is_finite()
                || p.sharpness <= 0.0
            {
                found.push(format!("model.position_heads: layer {} head {} is not of this model, or its sharpness not above 0", p.layer, p.head));
            }
        }
    }

    /// The query and key biases of a position head: [D] each, halves as Hugging Face rotates them.
    fn position_biases(&self, head: &PositionHead) -> (Vec<f32>, Vec<f32>) {
        let dim = self.head_dim();
        let half = dim / 2;
        let (mut q, mut k) = (vec![0.0; dim], vec![0.0; dim]);
        for (f, share) in SHARE_OF_FREQUENCY.iter().enumerate().take(half) {
            // The product of both is the amplitude; attention divides scores by sqrt(D).
            let size = (share * head.sharpness * (dim as f32).sqrt()).sqrt();
            let angle = ROPE_THETA.powf(-2.0 * f as f32 / dim as f32) * head.offset as f32;
            k[f] = size;
            q[f] = size * angle.cos();
            q[half + f] = -size * angle.sin();
        }
        (q, k)
    }
}

/// Writes config.json and model.safetensors of the untrained model to `dir`.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn write_initial_model(
    dir: &Path,
    seed: u64,
    vocab_size: usize,
    spec: &ModelSpec,
) -> Result<(), PocketError> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(
        dir.join("config.json"),
        serde_json::to_string_pretty(&config(vocab_size, spec))? + "\n",
    )?;
    let mut rng = item_rng(seed, "initial", 0);
    let tensors = tensors(&mut rng, vocab_size, spec);
    let mut header = serde_json::Map::new();
    header.insert(
        "__metadata__".to_owned(),
        serde_json::json!({"format": "pt"}),
    );
    let mut at = 0;
    for (name, shape, values) in &tensors {
        let end = at + 4 * values.len();
        header.insert(
            name.clone(),
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]}),
        );
        at = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // The data starts at a multiple of 8, as the format asks.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = std::io::BufWriter::new(std::fs::File::create(dir.join("model.safetensors"))?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (_, _, values) in &tensors {
        for value in values {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    out.flush()?;
    Ok(())
}

type Named = (String, Vec<usize>, Vec<f32>);

fn tensors(rng: &mut ChaCha8Rng, vocab_size: usize, spec: &ModelSpec) -> Vec<Named> {
    let (e, f, dim) = (spec.hidden_size, spec.intermediate_size, spec.head_dim());
    let std = spec.init_std;
    // What is added to the residual stream by all layers together stays of the size of one.
    let out_std = std / (2.0 * spec.layers as f32).sqrt();
    let mut all: Vec<Named> = Vec::new();
    all.push((
        "model.embed_tokens.weight".to_owned(),
        vec![vocab_size, e],
        normal(rng, vocab_size * e, std),
    ));
    all.push(("model.norm.weight".to_owned(), vec![e], vec![1.0; e]));
    for layer in 0..spec.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let mut q = normal(rng, e * e, std);
        let mut k = normal(rng, e * e, std);
        let v = normal(rng, e * e, std);
        let mut o = normal(rng, e * e, out_std);
        let (mut q_bias, mut k_bias) = (vec![0.0; e], vec![0.0; e]);
        for head in spec.position_heads.iter().filter(|p| p.layer == layer) {
            let rows = head.head * dim..(head.head + 1) * dim;
            let (qb, kb) = spec.position_biases(head);
            q_bias[rows.clone()].copy_from_slice(&qb);
            k_bias[rows.clone()].copy_from_slice(&kb);
            for weight in q[rows.start * e..rows.end * e]
                .iter_mut()
                .chain(&mut k[rows.start * e..rows.end * e])
            {
                *weight *= CONTENT_SHARE;
            }
            // What these heads find is worth hearing from the first step: no scaling down.
            for row in o.chunks_exact_mut(e) {
                for weight in &mut row[rows.clone()] {
                    *weight *= std / out_std;
                }
            }
        }
        all.push((name("self_attn.q_proj.weight"), vec![e, e], q));
        all.push((name("self_attn.k_proj.weight"), vec![e, e], k));
        all.push((name("self_attn.v_proj.weight"), vec![e, e], v));
        all.push((name("self_attn.o_proj.weight"), vec![e, e], o));
        all.push((name("self_attn.q_proj.bias"), vec![e], q_bias));
        all.push((name("self_attn.k_proj.bias"), vec![e], k_bias));
        all.push((name("self_attn.v_proj.bias"), vec![e], vec![0.0; e]));
        all.push((
            name("mlp.gate_proj.weight"),
            vec![f, e],
            normal(rng, f * e, std),
        ));
        all.push((
            name("mlp.up_proj.weight"),
            vec![f, e],
            normal(rng, f * e, std),
        ));
        all.push((
            name("mlp.down_proj.weight"),
            vec![e, f],
            normal(rng, f * e, out_std),
        ));
        all.push((name("input_layernorm.weight"), vec![e], vec![1.0; e]));
        all.push((
            name("post_attention_layernorm.weight"),
            vec![e],
            vec![1.0; e],
        ));
    }
    all
}

/// Normal numbers by Box and Muller's formula (<https://en.wikipedia.org/wiki/Box%E2%80%93Muller_transform>).
fn normal(rng: &mut ChaCha8Rng, count: usize, std: f32) -> Vec<f32> {
    (0..count)
        .map(|_| {
            // 1 - u is in (0, 1], so the logarithm is finite.
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            let angle = std::f64::consts::TAU * rng.random::<f64>();
            (radius * angle.cos()) as f32 * std
        })
        .collect()
}

fn config(vocab_size: usize, spec: &ModelSpec) -> serde_json::Value {
    serde_json::json!({
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.heads,
        "vocab_size": vocab_size,
        "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": 1e-6,
        "rope_theta": ROPE_THETA,
        "hidden_act": "silu",
        "tie_word_embeddings": true,
        "attention_dropout": 0.0,
        "initializer_range": spec.init_std,
        "use_sliding_window": false,
        "bos_token_id": null,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_head_scores_its_offset_highest() {
        let spec = ModelSpec {
            hidden_size: 64,
            intermediate_size: 64,
            layers: 1,
            heads: 2,
            max_positions: 64,
            init_std: 0.08,
            position_heads: Vec::new(),
        };
        for offset in [1, 2, 5, 7] {
            let head = PositionHead {
                layer: 0,
                head: 0,
                offset,
                sharpness: 6.0,
            };
            let (q, k) = spec.position_biases(&head);
            let half = spec.head_dim() / 2;
            // Turned as rotary embeddings do: the query by its position i = 40, the key by j.
            let turn = |x: &[f32], position: f32| -> Vec<f32> {
                let angles: Vec<f32> = (0..half)
                    .map(|f| ROPE_THETA.powf(-(f as f32) / half as f32) * position)
                    .collect();
                let first =
                    (0..half).map(|f| x[f] * angles[f].cos() - x[half + f] * angles[f].sin());
                let second =
                    (0..half).map(|f| x[half + f] * angles[f].cos() + x[f] * angles[f].sin());
                first.chain(second).collect()
            };
            let query = turn(&q, 40.0);
            let score = |j: usize| -> f32 {
                turn(&k, j as f32)
                    .iter()
                    .zip(&query)
                    .map(|(a, b)| a * b)
                    .sum()
            };
            let best = (0..=40).max_by(|&a, &b| score(a).total_cmp(&score(b)));
            assert_eq!(best, Some(40 - offset), "offset {offset}");
        }
    }
}
