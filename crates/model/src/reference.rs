//! The truth that the engine and the trainer are compared with: one forward pass in plain loops.
//!
//! It is written to be read, not to be fast: no kernels, no cache, no blocks. Activations are f32 as in transformers,
//! sums are f64. Every token sees the tokens before it (within the sliding window, if there is one).
//!
//! An adapter may act from a token on (METHOD 2, "activated LoRA"): tokens before it go through the base alone, in every
//! layer, so their keys and values are the base's.

use thiserror::Error;

use std::ops::Range;

use crate::{Adapter, Config, Linear, LoraPair, Model, Tensor};

/// What a forward pass gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// After the final norm, `[T, E]`.
    pub hidden: Vec<f32>,
    /// `[T, V]`.
    pub logits: Vec<f32>,
}

/// A forward pass cannot be done.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardError {
    /// A token id that the embedding has no row for.
    #[error("token {index} has id {id}, but the vocabulary has {vocab_size}")]
    Token {
        /// Position in the sequence.
        index: usize,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The adapter has another number of layers than the model.
    #[error("the adapter has {found} layers, the model {expected}; it was made for another base")]
    AdapterLayers {
        /// Layers of the adapter.
        found: usize,
        /// Layers of the model.
        expected: usize,
    },
    /// A logit is NaN or infinite.
    #[error("the logits of token {index} are not finite; the weights are damaged, or overflow f32")]
    NonFinite {
        /// Position in the sequence.
        index: usize,
    },
}

/// Runs `tokens` through the model. With `adapter = Some((a, from))`, tokens before `from` go through the base and the
/// others through base and adapter.
///
/// # Errors
/// [`ForwardError`] for an id outside the vocabulary, an adapter of another depth, or logits that are not finite.
pub fn forward(
    model: &Model,
    tokens: &[u32],
    adapter: Option<(&Adapter, usize)>,
) -> Result<Forward, ForwardError> {
    let range = adapter.map_or(0..0, |(_, from)| from..usize::MAX);
    forward_with(model, tokens, adapter.map(|(adapter, _)| (adapter, &range)))
}

/// Runs `tokens` through the model. With `adapter = Some((a, range))`, tokens at the positions of `range` go through base and
/// adapter, the others through the base.
///
/// # Errors
/// As [`forward`].
pub fn forward_with(
    model: &Model,
    tokens: &[u32],
    adapter: Option<(&Adapter, &Range<usize>)>,
) -> Result<Forward, ForwardError> {
    let Config {
        hidden_size: e,
        vocab_size,
        num_hidden_layers,
        ..
    } = model.config;
    if let Some((index, &id)) = tokens
        .iter()
        .enumerate()
        .find(|&(_, &id)| id as usize >= vocab_size)
    {
        return Err(ForwardError::Token {
            index,
            id,
            vocab_size,
        });
    }
    if let Some((adapter, _)) = adapter
        && adapter.layers.len() != num_hidden_layers
    {
        return Err(ForwardError::AdapterLayers {
            found: adapter.layers.len(),
            expected: num_hidden_layers,
        });
    }
    let mut x = vec![0.0; tokens.len() * e]; // [T, E], the residual stream
    for (row, &id) in x.chunks_exact_mut(e).zip(tokens) {
        model
            .weights
            .embed_tokens
            .dequantize_rows(id as usize..id as usize + 1, row);
    }
    for i in 0..num_hidden_layers {
        layer(model, i, adapter, &mut x);
    }
    let hidden = rms_norm(&x, &model.weights.norm, model.config.rms_norm_eps); // [T, E]
    let logits = matmul(model.weights.output(), &hidden); // [T, V]
    let finite = |row: &[f32]| row.iter().all(|x| x.is_finite());
    match logits.chunks_exact(vocab_size).position(|row| !finite(row)) {
        Some(index) => Err(ForwardError::NonFinite { index }),
        None => Ok(Forward { hidden, logits }),
    }
}

/// The `count` tokens that follow `prompt` when the most likely one is taken each time. Quadratic: the whole sequence is
/// computed again for each token. The adapter acts from its `from` on, also on the new tokens.
///
/// # Errors
/// As [`forward`].
pub fn greedy(
    model: &Model,
    prompt: &[u32],
    adapter: Option<(&Adapter, usize)>,
    count: usize,
) -> Result<Vec<u32>, ForwardError> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        let logits = forward(model, &tokens, adapter)?.logits;
        let last = &logits[logits.len() - model.config.vocab_size..];
        // The first of equal maxima, as torch.argmax on the CPU.
        let mut best = 0;
        for (i, &x) in last.iter().enumerate() {
            if x > last[best] {
                best = i;
            }
        }
        tokens.push(best as u32);
    }
    Ok(tokens.split_off(prompt.len()))
}

/// One layer, in place on the residual stream `x` `[T, E]`.
fn layer(model: &Model, i: usize, adapter: Option<(&Adapter, &Range<usize>)>, x: &mut [f32]) {
    let config = &model.config;
    let weights = &model.weights.layers[i];
    // y = W x + b, + scale * B (A x) for the tokens of the adapter's range.
    let linear = |which: Linear, input: &[f32]| -> Vec<f32> {
        let mut y = matmul(weights.linear(which), input); // [T, out]
        let (out, inner) = config.linear_shape(which);
        if let Some(bias) = weights.bias(which) {
            let bias = bias.to_f32();
            for row in y.chunks_exact_mut(out) {
                add(row, &bias);
            }
        }
        if let Some((adapter, range)) = adapter
            && let Some(LoraPair { a, b, scale }) = &adapter.layers[i][which as usize]
        {
            let until = range.end.min(input.len() / inner);
            let from = range.start.min(until);
            let mut delta = matmul(b, &matmul(a, &input[from * inner..until * inner])); // [until - from, out]
            delta.iter_mut().for_each(|d| *d *= scale);
            add(&mut y[from * out..until * out], &delta);
        }
        y
    };

    let input = rms_norm(x, &weights.input_layernorm, config.rms_norm_eps); // [T, E]
    let mut q = linear(Linear::Q, &input); // [T, H, D]
    let mut k = linear(Linear::K, &input); // [T, K, D]
    let v = linear(Linear::V, &input); // [T, K, D]
    if let (Some(q_norm), Some(k_norm)) = (&weights.q_norm, &weights.k_norm) {
        q = rms_norm(&q, q_norm, config.rms_norm_eps); // over each head
        k = rms_norm(&k, k_norm, config.rms_norm_eps);
    }
    rotate(config, config.num_attention_heads, &mut q);
    rotate(config, config.num_key_value_heads, &mut k);
    let mixed = attend(config, &q, &k, &v); // [T, H, D]
    add(x, &linear(Linear::O, &mixed));

    let input = rms_norm(x, &weights.post_attention_layernorm, config.rms_norm_eps); // [T, E]
    let mut gate = linear(Linear::Gate, &input); // [T, F]
    let up = linear(Linear::Up, &input); // [T, F]
    for (g, u) in gate.iter_mut().zip(&up) {
        let silu = f64::from(*g) / (1.0 + (-f64::from(*g)).exp());
        *g = (silu * f64::from(*u)) as f32;
    }
    add(x, &linear(Linear::Down, &gate));
}

/// W (out, in) @ x (T, in) -> (T, out)
fn matmul(w: &Tensor, x: &[f32]) -> Vec<f32> {
    let (out, inner) = (w.rows(), w.cols());
    assert!(
        x.len().is_multiple_of(inner),
        "{} inputs for {inner} columns",
        x.len()
    );
    let mut y = vec![0.0; x.len() / inner * out];
    let mut row = vec![0.0; inner];
    for o in 0..out {
        w.dequantize_rows(o..o + 1, &mut row);
        for (t, x) in x.chunks_exact(inner).enumerate() {
            y[t * out + o] = dot(&row, x) as f32;
        }
    }
    y
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

fn add(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

/// x / sqrt(mean(x^2) + eps) * weight, over runs of the weight's length.
fn rms_norm(x: &[f32], weight: &Tensor, eps: f32) -> Vec<f32> {
    let weight = weight.to_f32();
    let mut y = x.to_vec();
    for row in y.chunks_exact_mut(weight.len()) {
        let mean = dot(row, row) / row.len() as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        for (x, w) in row.iter_mut().zip(&weight) {
            *x = (f64::from(*x) * scale * f64::from(*w)) as f32;
        }
    }
    y
}

/// Rotates the pairs (x[i], x[i + D/2]) of every head of `x` `[T, heads, D]` by position * inv_freq[i].
fn rotate(config: &Config, heads: usize, x: &mut [f32]) {
    let d = config.head_dim;
    let rope = config.rope();
    let (mut cos, mut sin) = (vec![0.0; d / 2], vec![0.0; d / 2]);
    for (position, token) in x.chunks_exact_mut(heads * d).enumerate() {
        rope.cos_sin(position, &mut cos, &mut sin);
        for head in token.chunks_exact_mut(d) {
            let (first, second) = head.split_at_mut(d / 2);
            for (((a, b), c), s) in first.iter_mut().zip(second).zip(&cos).zip(&sin) {
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        }
    }
}

/// softmax(q k / sqrt(D)) v for every query head; `q` `[T, H, D]`, `k` and `v` `[T, K, D]` -> `[T, H, D]`.
fn attend(config: &Config, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let Config {
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: d,
        ..
    } = *config;
    let scale = 1.0 / (d as f64).sqrt();
    let mut out = vec![0.0; q.len()];
    for t in 0..q.len() / (heads * d) {
        // Token t sees `window` tokens, itself included.
        let first = config
            .sliding_window
            .map_or(0, |window| (t + 1).saturating_sub(window));
        for h in 0..heads {
            let kv = h / config.group_size();
            let query = &q[(t * heads + h) * d..][..d];
            let at = |s: usize| (s * kv_heads + kv) * d;
            let scores: Vec<f64> = (first..=t)
                .map(|s| dot(query, &k[at(s)..][..d]) * scale)
                .collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..d {
                let sum: f64 = (first..=t)
                    .zip(&weights)
                    .map(|(s, w)| w * f64::from(v[at(s) + i]))
                    .sum();
                out[(t * heads + h) * d + i] = (sum / total) as f32;
            }
        }
    }
    out
}
