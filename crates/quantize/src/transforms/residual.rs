//! T_r: the residual stream in another basis. With R orthogonal, x becomes R x everywhere:
//!
//! ```text
//! embedding rows e -> R e         q k v gate up:  W diag(norm) R^T, norm -> 1
//! o, down:  R W, R b              lm_head:        W diag(norm) R^T, norm -> 1
//! ```
//!
//! An RMS norm divides by the length of x, which R keeps; its weight does not commute with R, so it moves into the matrices first.

use edgethink_model::Linear;

use super::Orthogonal;
use crate::layer::Layer;
use crate::parallel;

/// Folds R into a layer.
pub(super) fn fold(layer: &mut Layer, r: &Orthogonal, threads: usize) {
    let ones = |norm: &mut Vec<f32>| {
        let n = norm.len();
        std::mem::replace(norm, vec![1.0; n])
    };
    let input = ones(&mut layer.input_layernorm);
    let post = ones(&mut layer.post_attention_layernorm);
    let readers = [
        (Linear::Q, &input),
        (Linear::K, &input),
        (Linear::V, &input),
        (Linear::Gate, &post),
        (Linear::Up, &post),
    ];
    for (linear, norm) in readers {
        layer.scale_cols(linear, norm);
        layer.rotate_inputs(linear, r, threads);
    }
    for linear in [Linear::O, Linear::Down] {
        layer.rotate_outputs(linear, r);
    }
}

/// Folds R, after a norm's weight, into rows of the embedding or lm_head.
pub(super) fn fold_rows(rows: &mut [f32], norm: Option<&[f32]>, r: &Orthogonal, threads: usize) {
    parallel::rows_mut(threads, rows, r.size(), |row| {
        if let Some(norm) = norm {
            row.iter_mut().zip(norm).for_each(|(w, n)| *w *= n);
        }
        r.apply(row);
    });
}
