//! A frozen linear layer with a low-rank adapter on some rows.
//!
//! `y = x W^T + bias`, and `y += scale (dropout(x) A^T) B^T` on the rows where the adapter is on (all of them for a
//! plain LoRA; from the invocation sequence on for a masked one). `W` gets no gradient. Rows where the adapter
//! is off depend on no trainable value, in this layer or in any below, so their `dx` is left at zero.

use std::ops::Range;
use std::sync::Arc;

use burn_autodiff::{
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::{Backend, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor};

use super::{
    Taped, dense,
    linear::{self, matmul_nn, matmul_nt, matmul_tn},
    rows_cols, simd, tensor, values,
};

/// The rows of a micro-batch on which the adapter is on, as ascending ranges.
#[derive(Debug)]
pub(crate) struct AdapterRows {
    /// Disjoint ranges in order.
    pub ranges: Vec<Range<usize>>,
    /// Rows of the micro-batch.
    pub total: usize,
}

impl AdapterRows {
    /// Number of rows with the adapter on.
    pub(crate) fn len(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    fn all(&self) -> bool {
        self.len() == self.total
    }

    /// The rows of `x` with the adapter on, one after the other.
    fn gather(&self, x: &FlexTensor) -> FlexTensor {
        if self.all() {
            return x.clone();
        }
        let (_, cols) = rows_cols(x);
        let xs = values(x);
        let mut out = Vec::with_capacity(self.len() * cols);
        for r in &self.ranges {
            out.extend_from_slice(&xs[r.start * cols..r.end * cols]);
        }
        tensor(out, &[self.len(), cols])
    }

    /// Calls `f` with the slice of `dst [total, cols]` and of `src [len, cols]` of each range.
    fn each(
        &self,
        dst: &mut [f32],
        src: &[f32],
        cols: usize,
        mut f: impl FnMut(&mut [f32], &[f32]),
    ) {
        let mut at = 0;
        for r in &self.ranges {
            let n = r.len() * cols;
            f(&mut dst[r.start * cols..r.end * cols], &src[at..at + n]);
            at += n;
        }
    }
}

/// The frozen part of the layer.
#[derive(Debug)]
pub(crate) struct Frozen<'a, B: Backend> {
    pub weight: &'a FloatTensor<B>,
    pub bias: Option<&'a FloatTensor<B>>,
}

/// How the adapter acts in one layer and one micro-batch.
#[derive(Debug, Clone)]
pub(crate) struct LoraPlan {
    /// `alpha / r`, or `alpha / sqrt(r)` with rslora.
    pub scale: f32,
    pub rows: Arc<AdapterRows>,
    /// Share of the adapter's inputs set to zero, and the seed of the choice.
    pub dropout: Option<(f32, u64)>,
}

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    x: FlexTensor,      // [Ta, in], rows with the adapter on, after dropout
    low: FlexTensor,    // [Ta, R] = x A^T
    weight: FlexTensor, // [out, in]
    a: FlexTensor,      // [R, in]
    b: FlexTensor,      // [out, R]
}

/// Keeps each value with probability `1 - share`, scaled by `1 / (1 - share)`; the choice is a function of the
/// seed and the index (SplitMix64), so the backward pass makes it again.
fn drop_out(t: &mut FlexTensor, share: f32, seed: u64) {
    let limit = (f64::from(share) * 2f64.powi(32)) as u64;
    let factor = 1.0 / (1.0 - share);
    for (i, v) in t.storage_mut::<f32>().iter_mut().enumerate() {
        let mut z = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        *v = if (z >> 32) < limit { 0.0 } else { *v * factor };
    }
}

/// The layer's output `[T, out]` and what its gradient needs.
pub(crate) fn forward(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    a: &FlexTensor,
    b: &FlexTensor,
    plan: &LoraPlan,
) -> (FlexTensor, Saved) {
    let mut y = linear::forward(x, weight, bias);
    let mut active = plan.rows.gather(x);
    if let Some((share, seed)) = plan.dropout {
        active = tensor(
            values(&active).to_vec(),
            &[rows_cols(&active).0, rows_cols(&active).1],
        );
        drop_out(&mut active, share, seed);
    }
    let low = matmul_nt(&active, a);
    if plan.rows.len() > 0 {
        let delta = matmul_nt(&low, b);
        let (_, cols) = rows_cols(&y);
        let scale = plan.scale;
        plan.rows
            .each(y.storage_mut::<f32>(), values(&delta), cols, |y, d| {
                simd::vectorized(|| simd::add_scaled(y, scale, d));
            });
    }
    let saved = Saved {
        x: active,
        low,
        weight: weight.clone(),
        a: a.clone(),
        b: b.clone(),
    };
    (y, saved)
}

#[derive(Debug)]
struct LoraLinear;

impl Backward<Flex, 3> for LoraLinear {
    type State = (Saved, LoraPlan);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = dense(grads.consume::<Flex>(&ops.node));
        let (saved, plan) = ops.state;
        let [x_node, a_node, b_node] = ops.parents;
        let mut dy = plan.rows.gather(&dy); // [Ta, out]
        let mut d_low = matmul_nn(&dy, &saved.b); // [Ta, R], without the scale
        let scale = plan.scale;
        d_low
            .storage_mut::<f32>()
            .iter_mut()
            .for_each(|v| *v *= scale);
        if let Some(node) = a_node {
            grads.register::<Flex>(node.id, matmul_tn(&d_low, &saved.x));
        }
        if let Some(node) = b_node {
            let mut db = matmul_tn(&dy, &saved.low); // [out, R]
            db.storage_mut::<f32>().iter_mut().for_each(|v| *v *= scale);
            grads.register::<Flex>(node.id, db);
        }
        if let Some(node) = x_node {
            let mut through = matmul_nn(&d_low, &saved.a); // [Ta, in]
            if let Some((share, seed)) = plan.dropout {
                drop_out(&mut through, share, seed);
            }
            dy = matmul_nn(&dy, &saved.weight);
            simd::vectorized(|| {
                simd::add_assign(dy.storage_mut::<f32>(), values(&through));
            });
            if !plan.rows.all() {
                let (_, cols) = rows_cols(&dy);
                let mut dx = vec![0.0; plan.rows.total * cols];
                plan.rows
                    .each(&mut dx, values(&dy), cols, <[f32]>::copy_from_slice);
                dy = tensor(dx, &[plan.rows.total, cols]);
            }
            grads.register::<Flex>(node.id, dy);
        }
    }
}

/// The operation on the tape.
pub(crate) fn taped(
    x: FloatTensor<Taped>,
    frozen: &Frozen<'_, Taped>,
    a: FloatTensor<Taped>,
    b: FloatTensor<Taped>,
    plan: LoraPlan,
) -> FloatTensor<Taped> {
    let nodes = [x.node(), a.node(), b.node()];
    let x = dense(x.into_primitive());
    let (a, b) = (a.into_primitive(), b.into_primitive());
    let bias = frozen.bias.map(|bias| bias.primitive());
    let (out, saved) = forward(&x, frozen.weight.primitive(), bias, &a, &b, &plan);
    match LoraLinear
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((saved, plan), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
