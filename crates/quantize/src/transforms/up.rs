//! T_u: down(silu(gate) up) with rows of up times u and columns of down by 1/u.
//!
//! u_f = sqrt(max|down_f| / |up_f|) over its geometric mean: the columns of down come to one size as far as the activations they multiply
//! allow. Rows of up have scales of their own and lose nothing.

use edgethink_model::Linear;

use super::{balance, norm2};
use crate::layer::Layer;

/// Balances up and down.
pub(super) fn fold(layer: &mut Layer) {
    let down = layer.linear(Linear::Down);
    let mut most = vec![0.0; down.cols];
    down.column_most(&mut most);
    let up = layer.linear(Linear::Up);
    let size: Vec<f32> = (0..up.rows).map(|f| norm2(up.row(f))).collect();
    let factors = balance(&most, &size);
    for (row, &factor) in factors.iter().enumerate() {
        layer.scale_row(Linear::Up, row, factor);
    }
    let inverse: Vec<f32> = factors.iter().map(|f| 1.0 / f).collect();
    layer.scale_cols(Linear::Down, &inverse);
}
