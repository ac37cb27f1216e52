//! Scale between a norm's weight and the columns of the matrices behind it [D]: an outlier channel of a trained model has a small norm
//! weight and large columns, and the columns' range is what rounding has to span. It leaves embedding and lm_head alone, so it fits tied
//! models, which `residual` does not.
//!
//! c_j = sqrt(max|W_j| / |norm_j|) over its geometric mean: half of the imbalance goes to each side, since activations are rounded too.

use edgethink_model::Linear;

use super::balance;
use crate::layer::Layer;

/// Balances both norms of a layer with what reads them.
pub(super) fn fold(layer: &mut Layer) {
    let readers = [Linear::Q, Linear::K, Linear::V];
    let factors = factors(layer, &layer.input_layernorm, &readers);
    scale(&mut layer.input_layernorm, &factors);
    divide(layer, &readers, &factors);
    let readers = [Linear::Gate, Linear::Up];
    let factors = self::factors(layer, &layer.post_attention_layernorm, &readers);
    scale(&mut layer.post_attention_layernorm, &factors);
    divide(layer, &readers, &factors);
}

fn factors(layer: &Layer, norm: &[f32], readers: &[Linear]) -> Vec<f32> {
    let mut most = vec![0.0; norm.len()];
    for &linear in readers {
        layer.linear(linear).column_most(&mut most);
    }
    let size: Vec<f32> = norm.iter().map(|n| n.abs()).collect();
    balance(&most, &size)
}

fn scale(norm: &mut [f32], factors: &[f32]) {
    norm.iter_mut().zip(factors).for_each(|(n, f)| *n *= f);
}

fn divide(layer: &mut Layer, readers: &[Linear], factors: &[f32]) {
    let inverse: Vec<f32> = factors.iter().map(|f| 1.0 / f).collect();
    for &linear in readers {
        layer.scale_cols(linear, &inverse);
    }
}
