//! T_k: before the rotary embedding, the pair (i, i + D/2) of a key head is turned by an angle and scaled by a, the same pair of each
//! query head that reads it turned by the same angle and scaled by 1/a. Turning a plane commutes with the rotary embedding, which turns the
//! same plane, and the product of q and k keeps its value.
//!
//! The angle gives both elements of the key's pair the same size, tan 2p = (|k_i|^2 - |k_j|^2) / (2 k_i k_j); a = sqrt(|q| / |k|), pair by
//! pair, over its geometric mean in the head. Rows of weights have scales of their own; what gains is the KV cache, which has one scale
//! per token and head.

use edgethink_model::{Config, Linear};

use super::{balance, norm2};
use crate::layer::Layer;

/// Folds angles and scales into q and k.
pub(super) fn fold(layer: &mut Layer, config: &Config) {
    let (d, half, group) = (config.head_dim, config.head_dim / 2, config.group_size());
    for kv in 0..config.num_key_value_heads {
        let queries = kv * group..(kv + 1) * group;
        for i in 0..half {
            let pair = |head: usize| (head * d + i, head * d + i + half);
            let turn = equal_sizes(layer, pair(kv));
            layer.rotate_rows(Linear::K, pair(kv), turn);
            for head in queries.clone() {
                layer.rotate_rows(Linear::Q, pair(head), turn);
            }
        }
        let sizes = |linear, heads: std::ops::Range<usize>| -> Vec<f32> {
            let size = |i: usize| {
                let rows = heads
                    .clone()
                    .flat_map(|head| [head * d + i, head * d + i + half]);
                norm2(
                    &rows
                        .map(|row| row_size(layer, linear, row))
                        .collect::<Vec<_>>(),
                )
            };
            (0..half).map(size).collect()
        };
        let factors = balance(
            &sizes(Linear::Q, queries.clone()),
            &sizes(Linear::K, kv..kv + 1),
        );
        for (i, &a) in factors.iter().enumerate() {
            for row in [i, i + half] {
                layer.scale_row(Linear::K, kv * d + row, a);
                for head in queries.clone() {
                    layer.scale_row(Linear::Q, head * d + row, 1.0 / a);
                }
            }
        }
    }
}

/// Size of an output for inputs of unit variance: the row with its bias.
fn row_size(layer: &Layer, linear: Linear, row: usize) -> f32 {
    let bias = layer.biases[linear as usize]
        .as_ref()
        .map_or(0.0, |b| b[row]);
    norm2(&[norm2(layer.linear(linear).row(row)), bias])
}

/// The angle, as (cos, sin), after which both rows of a key pair have the same size.
fn equal_sizes(layer: &Layer, (i, j): (usize, usize)) -> (f32, f32) {
    let k = layer.linear(Linear::K);
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let (a, b) = (
        f64::from(row_size(layer, Linear::K, i)),
        f64::from(row_size(layer, Linear::K, j)),
    );
    let bias = layer.biases[Linear::K as usize].as_ref();
    let cross = dot(k.row(i), k.row(j)) + bias.map_or(0.0, |b| f64::from(b[i]) * f64::from(b[j]));
    let angle = (a * a - b * b).atan2(2.0 * cross) / 2.0;
    (angle.cos() as f32, angle.sin() as f32)
}
