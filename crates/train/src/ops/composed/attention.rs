//! Rotary positions and causal attention inside documents, with gradients: the algorithm of the CPU's operation (`ops/attention.rs`), all
//! heads of a block at a time.
//!
//! The G query heads that share a kv head are stacked, so that a block is one product per kv head without copies of keys:
//! queries `[K, G n, D]` times keys `[K, m, D]` gives scores `[K, G n, m]`. Only `log sum exp` of each row is kept, and the backward pass
//! makes the probabilities again.

use std::sync::Arc;

use burn_autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::{
    Backend, FloatDType, Shape, Slice, TensorMetadata,
    tensor::{Device, FloatTensor},
};

use super::{floats, matmul_nt, matmul_tn, reshape};
use crate::ops::{AttentionPlan, blocks};

/// Scores held at a time at most. In tests so few that there are several blocks.
const BLOCK_SCORES: usize = if cfg!(test) { 1 } else { blocks::SCORES };
/// Query rows of the shortest block.
const SHORTEST: usize = if cfg!(test) {
    16
} else {
    blocks::SHORTEST_SCORES
};
/// Taken off the score of a key for each position that lies out of sight: `e` to this is zero.
const OUT_OF_SIGHT: f32 = 1e9;

/// The attention output and what the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct Saved<B: Backend> {
    pub(super) out: FloatTensor<B>, // [T, H D]
    q: FloatTensor<B>,              // [T, H D], rotated
    k: FloatTensor<B>,              // [T, K D], rotated
    v: FloatTensor<B>,              // [T, K D]
    lse: Vec<FloatTensor<B>>,       // [K, G n, 1] of each block
}

/// Query rows `from..to` of the document that begins at row `start`, which see no key before `first`.
#[derive(Debug, Clone, Copy)]
struct Block {
    start: usize,
    from: usize,
    to: usize,
    first: usize,
}

impl Block {
    /// The blocks of a document of `len` rows that begins at `start`.
    fn all(plan: &AttentionPlan, start: usize, len: usize) -> impl Iterator<Item = Self> {
        let rows = (BLOCK_SCORES / (plan.heads * len).max(1)).max(SHORTEST);
        AttentionPlan::blocks(len, rows).map(move |(from, to)| Self {
            start,
            from,
            to,
            first: plan.first_key(from),
        })
    }

    /// The queries' rows of `x [T, H D]` as `[K, G n, D]`.
    fn queries<B: Backend>(self, plan: &AttentionPlan, x: &FloatTensor<B>) -> FloatTensor<B> {
        let (n, kv, d) = (self.to - self.from, plan.kv_heads, plan.head_dim);
        let group = plan.heads / kv;
        let x = rows::<B>(x, self.start + self.from, self.start + self.to);
        let x = B::float_permute(reshape::<B>(x, &[n, kv, group, d]), &[1, 2, 0, 3]);
        reshape::<B>(x, &[kv, group * n, d])
    }

    /// The keys' rows of `x [T, K D]` as `[K, m, D]`.
    fn keys<B: Backend>(self, plan: &AttentionPlan, x: &FloatTensor<B>) -> FloatTensor<B> {
        let x = rows::<B>(x, self.start + self.first, self.start + self.to);
        let shape = [self.to - self.first, plan.kv_heads, plan.head_dim];
        B::float_permute(reshape::<B>(x, &shape), &[1, 0, 2])
    }

    /// Scores `[K, G n, m]`, scaled, and far below all others where a query does not see the key.
    fn scores<B: Backend>(
        self,
        plan: &AttentionPlan,
        q: FloatTensor<B>,
        k: FloatTensor<B>,
    ) -> FloatTensor<B> {
        let (n, m) = (self.to - self.from, self.to - self.first);
        let device = q.device();
        let raw = B::float_mul_scalar(matmul_nt::<B>(q, k), scale(plan).into());
        let raw = reshape::<B>(raw, &[plan.kv_heads, plan.heads / plan.kv_heads, n, m]);
        let seen = B::float_add(raw, self.sight::<B>(plan, &device));
        reshape::<B>(seen, &[plan.kv_heads, plan.heads / plan.kv_heads * n, m])
    }

    /// `[1, 1, n, m]`: zero where a query sees the key.
    fn sight<B: Backend>(self, plan: &AttentionPlan, device: &Device<B>) -> FloatTensor<B> {
        let (n, m) = (self.to - self.from, self.to - self.first);
        let column = |of: &dyn Fn(usize) -> usize| {
            let values = (self.from..self.to).map(|row| of(row) as f32).collect();
            floats::<B>(values, &[1, 1, n, 1], device)
        };
        let keys: Vec<f32> = (self.first..self.to).map(|key| key as f32).collect();
        let keys = floats::<B>(keys, &[1, 1, 1, m], device);
        // Negative by the number of positions that a key lies beyond an end.
        let beyond = |gap| B::float_clamp_max(gap, 0.0f32.into());
        let mut sum = beyond(B::float_sub(column(&|row| row), keys.clone()));
        if plan.window.is_some() {
            let first = column(&|row| plan.first_key(row));
            sum = B::float_add(sum, beyond(B::float_sub(keys, first)));
        }
        B::float_mul_scalar(sum, OUT_OF_SIGHT.into())
    }

    /// Queries `[K, G n, D]` as rows `[n, H D]`.
    fn query_rows<B: Backend>(self, plan: &AttentionPlan, x: FloatTensor<B>) -> FloatTensor<B> {
        let (n, kv, d) = (self.to - self.from, plan.kv_heads, plan.head_dim);
        let x = reshape::<B>(x, &[kv, plan.heads / kv, n, d]);
        reshape::<B>(B::float_permute(x, &[2, 0, 1, 3]), &[n, plan.heads * d])
    }
}

fn scale(plan: &AttentionPlan) -> f32 {
    1.0 / (plan.head_dim as f32).sqrt()
}

/// Rows `from..to` of `x [T, cols]`.
fn rows<B: Backend>(x: &FloatTensor<B>, from: usize, to: usize) -> FloatTensor<B> {
    B::float_slice(x.clone(), &[Slice::from(from..to), Slice::from(..)])
}

/// Cosines `[T, 1, 1, D/2]` and sines `[T, 1, 2, D/2]` of each row's angle, the sine negative for the first half of a head.
struct Angles<B: Backend> {
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
}

impl<B: Backend> Angles<B> {
    fn new(plan: &AttentionPlan, device: &Device<B>) -> Self {
        let half = plan.head_dim / 2;
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for document in plan.bounds.windows(2) {
            for position in 0..document[1] - document[0] {
                let at = position * half..(position + 1) * half;
                cos.extend_from_slice(&plan.cos[at.clone()]);
                sin.extend(plan.sin[at.clone()].iter().map(|s| -s));
                sin.extend_from_slice(&plan.sin[at]);
            }
        }
        let tokens = plan.tokens();
        Self {
            cos: floats::<B>(cos, &[tokens, 1, 1, half], device),
            sin: floats::<B>(sin, &[tokens, 1, 2, half], device),
        }
    }

    /// The angles that turn back.
    fn back(self) -> Self {
        Self {
            cos: self.cos,
            sin: B::float_neg(self.sin),
        }
    }

    /// Rotates each of the `heads` heads of `x [T, heads D]`. Half-split layout.
    fn rotate(&self, x: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
        let shape = x.shape();
        let half = self.cos.shape()[3];
        let x = reshape::<B>(x, &[shape[0], heads, 2, half]);
        let swapped = B::float_flip(x.clone(), &[2]);
        let turned = B::float_add(
            B::float_mul(x, self.cos.clone()),
            B::float_mul(swapped, self.sin.clone()),
        );
        B::float_reshape(turned, shape)
    }
}

/// Attention of all documents. q `[T, H D]`, k and v `[T, K D]`, not yet rotated.
pub(super) fn forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    plan: &AttentionPlan,
) -> Saved<B> {
    let angles = Angles::<B>::new(plan, &q.device());
    let q = angles.rotate(q, plan.heads);
    let k = angles.rotate(k, plan.kv_heads);
    let (mut out, mut lse) = (Vec::new(), Vec::new());
    for document in plan.bounds.windows(2) {
        for block in Block::all(plan, document[0], document[1] - document[0]) {
            let keys = block.keys::<B>(plan, &k);
            let scores = block.scores::<B>(plan, block.queries::<B>(plan, &q), keys);
            let max = B::float_max_dim(scores.clone(), 2);
            let weights = B::float_exp(B::float_sub(scores, max.clone()));
            let sum = B::float_sum_dim(weights.clone(), 2);
            let values = block.keys::<B>(plan, &v);
            let seen = B::float_div(B::float_matmul(weights, values), sum.clone());
            out.push(block.query_rows::<B>(plan, seen));
            lse.push(B::float_add(max, B::float_log(sum)));
        }
    }
    Saved {
        out: B::float_cat(out, 0),
        q,
        k,
        v,
        lse,
    }
}

/// Gradients of q, k and v (before rotation).
fn backward<B: Backend>(
    saved: &Saved<B>,
    d_out: &FloatTensor<B>,
    plan: &AttentionPlan,
) -> [FloatTensor<B>; 3] {
    let (mut dq, mut dk, mut dv) = (Vec::new(), Vec::new(), Vec::new());
    let mut lse = saved.lse.iter();
    for document in plan.bounds.windows(2) {
        let len = document[1] - document[0];
        let mut sums = [(); 2].map(|()| KeySum::<B>::new(plan, len, &d_out.device()));
        for (block, lse) in Block::all(plan, document[0], len).zip(&mut lse) {
            let q = block.queries::<B>(plan, &saved.q);
            let k = block.keys::<B>(plan, &saved.k);
            let g = block.queries::<B>(plan, d_out);
            let out = block.queries::<B>(plan, &saved.out);
            let scores = block.scores::<B>(plan, q.clone(), k.clone());
            let p = B::float_exp(B::float_sub(scores, lse.clone()));
            let dp = matmul_nt::<B>(g.clone(), block.keys::<B>(plan, &saved.v));
            let delta = B::float_sum_dim(B::float_mul(g.clone(), out), 2); // [K, G n, 1]
            let ds = B::float_mul(p.clone(), B::float_sub(dp, delta));
            let ds = B::float_mul_scalar(ds, scale(plan).into());
            dq.push(block.query_rows::<B>(plan, B::float_matmul(ds.clone(), k)));
            sums[0].add(matmul_tn::<B>(ds, q), block);
            sums[1].add(matmul_tn::<B>(p, g), block);
        }
        let [k_sum, v_sum] = sums;
        dk.push(k_sum.into_rows());
        dv.push(v_sum.into_rows());
    }
    let back = Angles::<B>::new(plan, &d_out.device()).back();
    [
        back.rotate(B::float_cat(dq, 0), plan.heads),
        back.rotate(B::float_cat(dk, 0), plan.kv_heads),
        B::float_cat(dv, 0),
    ]
}

/// The gradient of a document's keys or values, summed over blocks of queries.
struct KeySum<B: Backend>(FloatTensor<B>); // [K, len, D]

impl<B: Backend> KeySum<B> {
    fn new(plan: &AttentionPlan, len: usize, device: &Device<B>) -> Self {
        let shape = Shape::from(vec![plan.kv_heads, len, plan.head_dim]);
        Self(B::float_zeros(shape, device, FloatDType::F32))
    }

    /// Adds `part [K, m, D]` of the keys that a block sees.
    fn add(&mut self, part: FloatTensor<B>, block: Block) {
        let keys = [
            Slice::from(..),
            Slice::from(block.first..block.to),
            Slice::from(..),
        ];
        let sum = B::float_add(B::float_slice(self.0.clone(), &keys), part);
        self.0 = B::float_slice_assign(self.0.clone(), &keys, sum);
    }

    /// `[len, K D]`
    fn into_rows(self) -> FloatTensor<B> {
        let shape = self.0.shape();
        let (kv, len, d) = (shape[0], shape[1], shape[2]);
        reshape::<B>(B::float_permute(self.0, &[1, 0, 2]), &[len, kv * d])
    }
}

#[derive(Debug)]
struct Attention;

impl<B: Backend> Backward<B, 3> for Attention {
    type State = (Saved<B>, Arc<AttentionPlan>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_out = grads.consume::<B>(&ops.node);
        let (saved, plan) = ops.state;
        let parts = backward::<B>(&saved, &d_out, &plan);
        for (node, grad) in ops.parents.into_iter().zip(parts) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

/// The operation on the tape.
pub(super) fn taped<B: Backend>(
    q: FloatTensor<Autodiff<B>>,
    k: FloatTensor<Autodiff<B>>,
    v: FloatTensor<Autodiff<B>>,
    plan: &Arc<AttentionPlan>,
) -> FloatTensor<Autodiff<B>> {
    let nodes = [q.node(), k.node(), v.node()];
    let saved = forward::<B>(
        q.into_primitive(),
        k.into_primitive(),
        v.into_primitive(),
        plan,
    );
    let out = saved.out.clone();
    match Backward::<B, 3>::prepare::<NoCheckpointing>(Attention, nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((saved, Arc::clone(plan)), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
