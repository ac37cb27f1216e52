//! The low-rank adapter's part of a linear layer: `y += scale (dropout(x) A^T) B^T` on the rows where it is on.
//!
//! The tape also runs back through the frozen layer on rows where the adapter is off. Nothing trainable lies below those rows, so what it
//! finds there reaches no gradient.

use burn_backend::{
    Backend, TensorMetadata,
    tensor::{FloatTensor, IndexingUpdateOp},
};

use super::{floats, indices, matmul_nt};
use crate::ops::lora::{self, LoraPlan};

/// Adds the adapter's part to `y [T, out]`, the frozen layer's output of `x [T, in]`; A `[R, in]`, B `[out, R]`.
pub(super) fn add<B: Backend>(
    y: FloatTensor<B>,
    x: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    plan: &LoraPlan,
) -> FloatTensor<B> {
    if plan.rows.len() == 0 {
        return y;
    }
    let device = x.device();
    let cols = x.shape()[1];
    let rows = (!plan.rows.all()).then(|| {
        let rows = plan.rows.ranges.iter().flat_map(Clone::clone);
        indices::<B>(rows, &device)
    });
    let mut active = match &rows {
        Some(rows) => B::float_select(x, 0, rows.clone()),
        None => x,
    };
    if let Some((share, seed)) = plan.dropout {
        // The same choice as on the CPU.
        let mask = lora::dropout_mask(share, seed, &plan.rows.keys, cols);
        active = B::float_mul(active, floats::<B>(mask, &[plan.rows.len(), cols], &device));
    }
    let delta = matmul_nt::<B>(matmul_nt::<B>(active, a), b);
    let delta = B::float_mul_scalar(delta, plan.scale.into());
    match rows {
        Some(rows) => B::float_select_assign(y, 0, rows, delta, IndexingUpdateOp::Add),
        None => B::float_add(y, delta),
    }
}
