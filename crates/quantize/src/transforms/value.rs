//! T_v: each value head v becomes A v with A = Q diag(c), and the columns of o that read it get A^-1 = diag(1/c) Q^T.
//!
//! c balances the columns of o with the rows of v, as in `up`; Q then spreads what is left over the head. With grouped queries all query
//! heads of a group read the same value head.

use edgethink_model::{Config, Linear};

use super::{Orthogonal, balance, norm2};
use crate::layer::Layer;

/// Folds A into v and o.
pub(super) fn fold(layer: &mut Layer, config: &Config, q: &Orthogonal, threads: usize) {
    let (d, group) = (config.head_dim, config.group_size());
    // Which row of v a column of o reads.
    let source = |column: usize| (column / d / group) * d + column % d;
    let mut most = vec![0.0; config.q_size()];
    layer.linear(Linear::O).column_most(&mut most);
    let mut read = vec![0.0f32; config.kv_size()];
    for (column, &most) in most.iter().enumerate() {
        let read = &mut read[source(column)];
        *read = read.max(most);
    }
    let v = layer.linear(Linear::V);
    let size: Vec<f32> = (0..v.rows).map(|row| norm2(v.row(row))).collect();
    let factors = balance(&read, &size);
    for (row, &factor) in factors.iter().enumerate() {
        layer.scale_row(Linear::V, row, factor);
    }
    let inverse: Vec<f32> = (0..config.q_size())
        .map(|c| 1.0 / factors[source(c)])
        .collect();
    layer.scale_cols(Linear::O, &inverse);
    // Head by head: inputs and outputs are runs of D.
    layer.rotate_inputs(Linear::O, q, threads);
    layer.rotate_outputs(Linear::V, q);
}
