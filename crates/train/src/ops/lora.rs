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
    Taped, dense, frozen,
    linear::{self, matmul_nn, matmul_nt, matmul_tn},
    rows_cols, simd, tensor, values,
};
use crate::recipe::FloatType;

/// The rows of a micro-batch on which the adapter is on, as ascending ranges.
#[derive(Debug)]
pub(crate) struct AdapterRows {
    /// Disjoint ranges in order.
    pub ranges: Vec<Range<usize>>,
    /// Rows of the micro-batch.
    pub total: usize,
    /// For each row with the adapter on, a number that is its own in the optimizer step, however that is split into micro-batches.
    pub keys: Vec<u64>,
}

impl AdapterRows {
    /// Number of rows with the adapter on.
    pub(crate) fn len(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    pub(super) fn all(&self) -> bool {
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
    /// Of the product with the weight.
    pub compute: FloatType,
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
    weight: FlexTensor, // [out, in], as it is held
    compute: FloatType,
    a: FlexTensor, // [R, in]
    b: FlexTensor, // [out, R]
}

/// Keeps each value of `t` `[rows, cols]` with probability `1 - share`, scaled by `1 / (1 - share)`. The choice is a function of the
/// seed, the row's key and the column, so the backward pass makes it again and micro-batches do not change it.
fn drop_out(t: &mut FlexTensor, share: f32, seed: u64, keys: &[u64]) {
    let (rows, cols) = rows_cols(t);
    debug_assert_eq!(rows, keys.len());
    let limit = (f64::from(share) * 2f64.powi(32)) as u64;
    let factor = 1.0 / (1.0 - share);
    let rows = t.storage_mut::<f32>().chunks_exact_mut(cols.max(1));
    for (row, key) in rows.zip(keys) {
        let mut state = mixed(seed ^ mixed(*key));
        for v in row {
            state = state.wrapping_add(GOLDEN);
            *v = if (mixed(state) >> 32) < limit {
                0.0
            } else {
                *v * factor
            };
        }
    }
}

/// What [`drop_out`] multiplies the values of `keys.len()` rows of `cols` columns by.
#[cfg(any(test, feature = "gpu"))]
pub(super) fn dropout_mask(share: f32, seed: u64, keys: &[u64], cols: usize) -> Vec<f32> {
    let mut ones = tensor(vec![1.0; keys.len() * cols], &[keys.len(), cols]);
    drop_out(&mut ones, share, seed, keys);
    values(&ones).to_vec()
}

/// The step of SplitMix64 (Steele, Lea, Flood 2014): 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of SplitMix64.
fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The layer's output `[T, out]` and what its gradient needs.
pub(crate) fn forward(
    x: &FlexTensor,
    frozen: &Frozen<'_, Flex>,
    a: &FlexTensor,
    b: &FlexTensor,
    plan: &LoraPlan,
) -> (FlexTensor, Saved) {
    let mut y = linear::forward(x, frozen.weight, frozen.bias, frozen.compute);
    let mut active = plan.rows.gather(x);
    if let Some((share, seed)) = plan.dropout {
        active = tensor(
            values(&active).to_vec(),
            &[rows_cols(&active).0, rows_cols(&active).1],
        );
        drop_out(&mut active, share, seed, &plan.rows.keys);
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
        weight: frozen.weight.clone(),
        compute: frozen.compute,
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
                drop_out(&mut through, share, seed, &plan.rows.keys);
            }
            dy = frozen::back(&dy, &saved.weight, saved.compute);
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
    let frozen = Frozen {
        weight: frozen.weight.primitive(),
        bias: frozen.bias.map(|bias| bias.primitive()),
        compute: frozen.compute,
    };
    let (out, saved) = forward(&x, &frozen, &a, &b, &plan);
    match LoraLinear
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((saved, plan), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_keeps_its_share_and_the_mean() {
        let keys: Vec<u64> = (0..200).collect();
        for share in [0.0f32, 0.1, 0.5, 0.9] {
            let values = dropout_mask(share, 7, &keys, 500);
            let n = values.len() as f64;
            let factor = 1.0 / (1.0 - share);
            assert!(values.iter().all(|&v| v == 0.0 || v == factor), "{share}");
            let zeros = values.iter().filter(|&&v| v == 0.0).count() as f64;
            // Five standard deviations of a binomial.
            let (p, slack) = (f64::from(share), 5.0 * (n * 0.25).sqrt());
            assert!((zeros - p * n).abs() <= slack, "{share}: {zeros} of {n}");
            // Neighbours in a row and in a column are dropped independently.
            for step in [1, 500] {
                let both = values
                    .windows(step + 1)
                    .filter(|w| w[0] == 0.0 && w[step] == 0.0);
                let both = both.count() as f64;
                assert!(
                    (both - p * p * n).abs() <= slack,
                    "{share}, {step}: {both} of {n}"
                );
            }
        }
    }

    #[test]
    fn dropout_is_a_function_of_seed_and_key() {
        let first = dropout_mask(0.5, 7, &[3, 4], 64);
        assert_eq!(first, dropout_mask(0.5, 7, &[3, 4], 64));
        assert_ne!(first, dropout_mask(0.5, 8, &[3, 4], 64));
        assert_ne!(first[..64], first[64..]);
        // Row 4 has its mask wherever it stands.
        assert_eq!(first[64..], dropout_mask(0.5, 7, &[4, 9], 64)[..64]);
    }
}
