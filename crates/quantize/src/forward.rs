//! The calibration text through the layers, one at a time, with what is already rounded: the Hessian of each matrix is that of the inputs
//! which it will see.
//!
//! `x += o(attend(rope(q), rope(k), v))`, `x += down(silu(gate) up)`, as [`edgethink_model::reference`] has it, in f32 by the kernels.

use std::ops::Range;

use edgethink_kernels::{ColumnsMut, DenseRef, Isa, gemm_dense};
use edgethink_model::{Config, Linear};

use crate::error::QuantizeError;
use crate::layer::{Layer, Matrix};
use crate::parallel;

/// Hidden states of the calibration text.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Tokens of a chunk.
    pub(crate) ctx: usize,
    /// `[chunks, ctx, E]`
    pub(crate) x: Vec<f32>,
    pub(crate) threads: usize,
}

impl Stream {
    /// Runs a layer. `round` is called with the matrices that share an input and that input `[T, in]`, before they are used, and may
    /// change them.
    pub(crate) fn layer(
        &mut self,
        config: &Config,
        layer: &mut Layer,
        mut round: impl FnMut(&mut Layer, &[Linear], &[f32]) -> Result<(), QuantizeError>,
    ) -> Result<(), QuantizeError> {
        let eps = config.rms_norm_eps;
        let input = rms_norm(&self.x, &layer.input_layernorm, eps);
        round(layer, &[Linear::Q, Linear::K, Linear::V], &input)?;
        let [mut q, mut k, v] =
            [Linear::Q, Linear::K, Linear::V].map(|linear| self.linear(layer, linear, &input));
        if let Some((q_norm, k_norm)) = &layer.qk_norm {
            q = rms_norm(&q, q_norm, eps); // over each head
            k = rms_norm(&k, k_norm, eps);
        }
        let rows = config.q_size();
        let mixed = parallel::ranges(
            self.threads,
            self.x.len() / config.hidden_size / self.ctx,
            |chunks| {
                chunks
                    .flat_map(|chunk| attend(config, self.ctx, chunk, &q, &k, &v))
                    .collect::<Vec<f32>>()
            },
        )
        .concat(); // [T, H, D]
        debug_assert_eq!(mixed.len() / rows, self.x.len() / config.hidden_size);
        round(layer, &[Linear::O], &mixed)?;
        let delta = self.linear(layer, Linear::O, &mixed);
        add(&mut self.x, &delta);

        let input = rms_norm(&self.x, &layer.post_attention_layernorm, eps);
        round(layer, &[Linear::Gate, Linear::Up], &input)?;
        let mut gated = self.linear(layer, Linear::Gate, &input);
        let up = self.linear(layer, Linear::Up, &input);
        for (g, u) in gated.iter_mut().zip(&up) {
            *g = *g / (1.0 + (-*g).exp()) * u;
        }
        round(layer, &[Linear::Down], &gated)?;
        let delta = self.linear(layer, Linear::Down, &gated);
        add(&mut self.x, &delta);
        Ok(())
    }

    fn linear(&self, layer: &Layer, linear: Linear, x: &[f32]) -> Vec<f32> {
        let mut y = multiply(layer.linear(linear), x, self.threads);
        if let Some(bias) = &layer.biases[linear as usize] {
            y.chunks_exact_mut(bias.len())
                .for_each(|row| add(row, bias));
        }
        y
    }
}

/// x W^T, `[T, in]` -> `[T, out]`.
fn multiply(matrix: &Matrix, x: &[f32], threads: usize) -> Vec<f32> {
    let isa = Isa::detect();
    let Matrix { rows, cols, values } = matrix;
    parallel::ranges(threads, x.len() / cols, |tokens: Range<usize>| {
        let mut out = vec![0.0; tokens.len() * rows];
        let x = &x[tokens.start * cols..tokens.end * cols];
        gemm_dense(
            isa,
            DenseRef::F32(values),
            *cols,
            0..*rows,
            x,
            &mut ColumnsMut::new(&mut out, *rows),
            None,
        );
        out
    })
    .concat()
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// x / sqrt(mean(x^2) + eps) * weight, over runs of the weight's length.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut y = x.to_vec();
    for row in y.chunks_exact_mut(weight.len()) {
        let scale = 1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt();
        row.iter_mut()
            .zip(weight)
            .for_each(|(x, w)| *x *= scale * w);
    }
    y
}

/// Attention of one chunk, `[ctx, H, D]`.
fn attend(config: &Config, ctx: usize, chunk: usize, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let (heads, kv_heads, d) = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    );
    let part =
        |all: &[f32], heads: usize| all[chunk * ctx * heads * d..][..ctx * heads * d].to_vec();
    let (mut q, mut k, v) = (part(q, heads), part(k, kv_heads), part(v, kv_heads));
    rotate(config, heads, &mut q);
    rotate(config, kv_heads, &mut k);
    let scale = 1.0 / (d as f32).sqrt();
    let mut out = vec![0.0; ctx * heads * d];
    let mut scores = vec![0.0; ctx];
    for t in 0..ctx {
        // Token t sees `window` tokens, itself included.
        let first = config
            .sliding_window
            .map_or(0, |window| (t + 1).saturating_sub(window));
        for h in 0..heads {
            let at = |s: usize| (s * kv_heads + h / config.group_size()) * d;
            let query = &q[(t * heads + h) * d..][..d];
            let scores = &mut scores[first..=t];
            let mut most = f32::NEG_INFINITY;
            for (s, score) in (first..=t).zip(&mut *scores) {
                *score = dot(query, &k[at(s)..][..d]) * scale;
                most = most.max(*score);
            }
            let mut total = 0.0;
            for score in &mut *scores {
                *score = (*score - most).exp();
                total += *score;
            }
            let out = &mut out[(t * heads + h) * d..][..d];
            for (s, score) in (first..=t).zip(&*scores) {
                let weight = score / total;
                out.iter_mut()
                    .zip(&v[at(s)..][..d])
                    .for_each(|(o, v)| *o += weight * v);
            }
        }
    }
    out
}

/// Rotates the pairs (x[i], x[i + D/2]) of every head of `x` `[ctx, heads, D]`.
fn rotate(config: &Config, heads: usize, x: &mut [f32]) {
    let d = config.head_dim;
    let rope = config.rope();
    let (mut cos, mut sin) = (vec![0.0; d / 2], vec![0.0; d / 2]);
    for (position, token) in x.chunks_exact_mut(heads * d).enumerate() {
        rope.cos_sin(position, &mut cos, &mut sin);
        for head in token.chunks_exact_mut(d) {
            let (a, b) = head.split_at_mut(d / 2);
            for (((a, b), c), s) in a.iter_mut().zip(b).zip(&cos).zip(&sin) {
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgethink_model::{Family, Model, reference};
    use edgethink_testkit::{Tol, assert_close, tiny_model};

    #[test]
    fn it_computes_what_the_reference_does() {
        for family in Family::ALL {
            let dir = tiny_model(family, 3);
            let model = Model::load(dir.path().to_str().unwrap()).unwrap();
            let config = &model.config;
            let chunks = [
                [5u32, 9, 200, 31, 7, 7, 100, 4, 250, 3, 66, 12],
                [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            ];
            let embed_tokens = &model.weights.embed_tokens;
            let mut x = vec![0.0; 2 * 12 * config.hidden_size];
            let rows = x.chunks_exact_mut(config.hidden_size);
            for (&t, row) in chunks.as_flattened().iter().zip(rows) {
                embed_tokens.dequantize_rows(t as usize..t as usize + 1, row);
            }
            let mut stream = Stream {
                ctx: 12,
                x,
                threads: 2,
            };
            for weights in &model.weights.layers {
                let mut layer = Layer::read(config, weights).unwrap();
                stream.layer(config, &mut layer, |_, _, _| Ok(())).unwrap();
            }
            let got = rms_norm(&stream.x, &model.weights.norm.to_f32(), config.rms_norm_eps);
            let want: Vec<f32> = chunks
                .iter()
                .flat_map(|c| reference::forward(&model, c, None).unwrap().hidden)
                .collect();
            assert_close(&got, &want, Tol::RelToMax(2e-5));
        }
    }
}
