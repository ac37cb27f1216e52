//! Rotary positions and causal attention inside documents, with gradients, in blocks of query rows.
//!
//! The tokens of a micro-batch are documents one after the other; a query sees the keys of its own document up to
//! itself (and not further back than the sliding window). Positions start at zero in each document. Of a block
//! only its scores are held, and only `log sum exp` of each row is kept, so memory does not grow with the
//! square of the length. The backward pass makes the probabilities again:
//! `P = e^{S - lse}`, `dV += P^T dO`, `dP = dO V^T`, `dS = P (dP - sum(dO O)) / sqrt(D)`, `dQ = dS K`, `dK += dS^T Q`.
//!
//! Documents are independent, so they run in parallel, each writing its own rows: the result does not depend on
//! the number of threads.

use std::sync::Arc;

use burn_autodiff::{
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::{Shape, ops::FloatTensorOps, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor, Layout};
use rayon::prelude::*;

use super::{Taped, dense, simd, tensor, values};

/// Most query rows of one block of scores.
const BLOCK_ROWS: usize = 96;

/// Shapes, document bounds and rotary angles of one micro-batch.
#[derive(Debug)]
pub(crate) struct AttentionPlan {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// First row of each document, and the number of rows at the end.
    pub bounds: Vec<usize>,
    /// Keys a query sees at most, itself included.
    pub window: Option<usize>,
    /// Cosines and sines `[positions, D / 2]` for at least the longest document.
    pub cos: Arc<[f32]>,
    pub sin: Arc<[f32]>,
}

/// The attention output and what the backward pass needs.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    pub out: FlexTensor, // [T, H D]
    q: FlexTensor,       // [T, H D], rotated
    k: FlexTensor,       // [T, K D], rotated
    v: FlexTensor,       // [T, K D]
    lse: Arc<[f32]>,     // [T, H]
}

impl AttentionPlan {
    pub(super) fn tokens(&self) -> usize {
        self.bounds.last().copied().unwrap_or(0)
    }

    fn documents(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// Splits `data [T, cols]` at the document bounds.
    fn split<'a>(&self, mut data: &'a mut [f32], cols: usize) -> Vec<&'a mut [f32]> {
        let mut parts = Vec::with_capacity(self.documents());
        for pair in self.bounds.windows(2) {
            let (head, tail) = data.split_at_mut((pair[1] - pair[0]) * cols);
            parts.push(head);
            data = tail;
        }
        parts
    }

    /// Ranges of at most `rows` query rows of a document of `len` rows, as even as can be.
    pub(super) fn blocks(len: usize, rows: usize) -> impl Iterator<Item = (usize, usize)> {
        let count = len.div_ceil(rows).max(1);
        let size = len.div_ceil(count).max(1);
        (0..len)
            .step_by(size)
            .map(move |from| (from, (from + size).min(len)))
    }

    /// First key that row `row` of a document sees.
    pub(super) fn first_key(&self, row: usize) -> usize {
        self.window.map_or(0, |w| (row + 1).saturating_sub(w))
    }

    /// Rotates each head of `x [T, n D]` by its row's angle (`sign` 1), or back (`sign` -1). Half-split layout.
    fn rotate(&self, x: FlexTensor, heads: usize, sign: f32) -> FlexTensor {
        let mut x = dense(x);
        let (d, half) = (self.head_dim, self.head_dim / 2);
        let cols = heads * d;
        let parts = self.split(x.storage_mut::<f32>(), cols);
        parts.into_par_iter().for_each(|doc| {
            simd::vectorized(|| {
                for (position, row) in doc.chunks_exact_mut(cols).enumerate() {
                    let cos = &self.cos[position * half..(position + 1) * half];
                    let sin = &self.sin[position * half..(position + 1) * half];
                    for head in row.chunks_exact_mut(d) {
                        let (low, high) = head.split_at_mut(half);
                        for i in 0..half {
                            let (a, b, s) = (low[i], high[i], sin[i] * sign);
                            low[i] = a * cos[i] - b * s;
                            high[i] = b * cos[i] + a * s;
                        }
                    }
                }
            });
        });
        x
    }

    /// One head's columns of rows `from..to` of `x [T, cols]`, without a copy.
    fn head(&self, x: &FlexTensor, cols: usize, head: usize, from: usize, to: usize) -> FlexTensor {
        let d = self.head_dim;
        let layout = Layout::new(
            Shape::from(vec![to - from, d]),
            vec![cols as isize, 1],
            x.layout().start_offset() + from * cols + head * d,
        );
        x.clone().with_layout(layout)
    }
}

/// Attention of all documents. q `[T, H D]`, k and v `[T, K D]`, not yet rotated.
pub(crate) fn forward(q: FlexTensor, k: FlexTensor, v: FlexTensor, plan: &AttentionPlan) -> Saved {
    let (heads, d) = (plan.heads, plan.head_dim);
    let (q_cols, kv_cols) = (heads * d, plan.kv_heads * d);
    let q = plan.rotate(q, heads, 1.0);
    let k = plan.rotate(k, plan.kv_heads, 1.0);
    let v = dense(v);
    let tokens = plan.tokens();
    let scale = 1.0 / (d as f32).sqrt();
    let mut out = vec![0.0; tokens * q_cols];
    let mut lse = vec![0.0; tokens * heads];
    plan.split(&mut out, q_cols)
        .into_par_iter()
        .zip(plan.split(&mut lse, heads))
        .enumerate()
        .for_each(|(doc, (out, lse))| {
            let start = plan.bounds[doc];
            for (from, to) in AttentionPlan::blocks(plan.bounds[doc + 1] - start, BLOCK_ROWS) {
                let first = plan.first_key(from);
                for head in 0..heads {
                    let kv = head * plan.kv_heads / heads;
                    let qb = plan.head(&q, q_cols, head, start + from, start + to);
                    let kb = plan.head(&k, kv_cols, kv, start + first, start + to);
                    let vb = plan.head(&v, kv_cols, kv, start + first, start + to);
                    let mut scores = Flex::float_matmul(qb, Flex::float_transpose(kb));
                    let s = scores.storage_mut::<f32>();
                    simd::vectorized(|| {
                        for (i, row) in s.chunks_exact_mut(to - first).enumerate() {
                            let seen = plan.first_key(from + i) - first..from + i + 1 - first;
                            lse[(from + i) * heads + head] = softmax_row(row, seen, scale);
                        }
                    });
                    let o = Flex::float_matmul(scores, vb);
                    for (i, o) in values(&o).chunks_exact(d).enumerate() {
                        let at = (from + i) * q_cols + head * d;
                        out[at..at + d].copy_from_slice(o);
                    }
                }
            }
        });
    Saved {
        out: tensor(out, &[tokens, q_cols]),
        q,
        k,
        v,
        lse: lse.into(),
    }
}

/// Softmax of `scale * row` over the keys `seen`, zero elsewhere; returns the log of the sum of exponentials.
#[inline(always)]
fn softmax_row(row: &mut [f32], seen: std::ops::Range<usize>, scale: f32) -> f32 {
    let (start, end) = (seen.start, seen.end);
    row[..start].fill(0.0);
    row[end..].fill(0.0);
    let row = &mut row[start..end];
    let max = simd::max(row) * scale;
    for v in row.iter_mut() {
        *v = simd::exp(*v * scale - max);
    }
    let sum = simd::sum(row);
    let factor = 1.0 / sum;
    for v in row.iter_mut() {
        *v *= factor;
    }
    max + sum.ln()
}

/// Gradients of q, k and v (before rotation).
fn backward(saved: &Saved, d_out: &FlexTensor, plan: &AttentionPlan) -> [FlexTensor; 3] {
    let (heads, d) = (plan.heads, plan.head_dim);
    let (q_cols, kv_cols) = (heads * d, plan.kv_heads * d);
    let tokens = plan.tokens();
    let scale = 1.0 / (d as f32).sqrt();
    let mut dq = vec![0.0; tokens * q_cols];
    let mut dk = vec![0.0; tokens * kv_cols];
    let mut dv = vec![0.0; tokens * kv_cols];
    let (out, grad) = (values(&saved.out), values(d_out));
    plan.split(&mut dq, q_cols)
        .into_par_iter()
        .zip(plan.split(&mut dk, kv_cols))
        .zip(plan.split(&mut dv, kv_cols))
        .enumerate()
        .for_each(|(doc, ((dq, dk), dv))| {
            let start = plan.bounds[doc];
            for (from, to) in AttentionPlan::blocks(plan.bounds[doc + 1] - start, BLOCK_ROWS) {
                let first = plan.first_key(from);
                for head in 0..heads {
                    let kv = head * plan.kv_heads / heads;
                    let qb = plan.head(&saved.q, q_cols, head, start + from, start + to);
                    let kb = plan.head(&saved.k, kv_cols, kv, start + first, start + to);
                    let vb = plan.head(&saved.v, kv_cols, kv, start + first, start + to);
                    let gb = plan.head(d_out, q_cols, head, start + from, start + to);
                    let mut p = Flex::float_matmul(qb.clone(), Flex::float_transpose(kb.clone()));
                    let mut ds = Flex::float_matmul(gb.clone(), Flex::float_transpose(vb));
                    simd::vectorized(|| {
                        let rows = p
                            .storage_mut::<f32>()
                            .chunks_exact_mut(to - first)
                            .zip(ds.storage_mut::<f32>().chunks_exact_mut(to - first));
                        for (i, (p, ds)) in rows.enumerate() {
                            let row = start + from + i;
                            let at = row * q_cols + head * d;
                            let delta = simd::dot(&out[at..at + d], &grad[at..at + d]);
                            let lse = saved.lse[row * heads + head];
                            let seen = plan.first_key(from + i) - first..from + i + 1 - first;
                            score_gradient_row(p, ds, seen, scale, lse, delta);
                        }
                    });
                    let dv_block = Flex::float_matmul(Flex::float_transpose(p), gb);
                    let dk_block = Flex::float_matmul(Flex::float_transpose(ds.clone()), qb);
                    let dq_block = Flex::float_matmul(ds, kb);
                    add_block(dv, &dv_block, first, kv_cols, kv * d, d);
                    add_block(dk, &dk_block, first, kv_cols, kv * d, d);
                    add_block(dq, &dq_block, from, q_cols, head * d, d);
                }
            }
        });
    [
        plan.rotate(tensor(dq, &[tokens, q_cols]), heads, -1.0),
        plan.rotate(tensor(dk, &[tokens, kv_cols]), plan.kv_heads, -1.0),
        tensor(dv, &[tokens, kv_cols]),
    ]
}

/// Turns a row of raw scores into probabilities and a row of `dP` into `dS`.
#[inline(always)]
fn score_gradient_row(
    p: &mut [f32],
    ds: &mut [f32],
    seen: std::ops::Range<usize>,
    scale: f32,
    lse: f32,
    delta: f32,
) {
    for row in [&mut *p, &mut *ds] {
        row[..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
    }
    for (p, ds) in p[seen.clone()].iter_mut().zip(&mut ds[seen]) {
        *p = simd::exp(*p * scale - lse);
        *ds = *p * (*ds - delta) * scale;
    }
}

/// Adds `block [n, d]` to the columns `col..col + d` of the rows of `dst [_, cols]` from `row` on.
fn add_block(dst: &mut [f32], block: &FlexTensor, row: usize, cols: usize, col: usize, d: usize) {
    for (i, src) in values(block).chunks_exact(d).enumerate() {
        let at = (row + i) * cols + col;
        simd::add_assign(&mut dst[at..at + d], src);
    }
}

#[derive(Debug)]
struct Attention;

impl Backward<Flex, 3> for Attention {
    type State = (Saved, Arc<AttentionPlan>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let d_out = dense(grads.consume::<Flex>(&ops.node));
        let (saved, plan) = ops.state;
        let parts = backward(&saved, &d_out, &plan);
        for (node, grad) in ops.parents.into_iter().zip(parts) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, grad);
            }
        }
    }
}

/// The operation on the tape.
pub(crate) fn taped(
    q: FloatTensor<Taped>,
    k: FloatTensor<Taped>,
    v: FloatTensor<Taped>,
    plan: &Arc<AttentionPlan>,
) -> FloatTensor<Taped> {
    let nodes = [q.node(), k.node(), v.node()];
    let saved = forward(
        q.into_primitive(),
        k.into_primitive(),
        v.into_primitive(),
        plan,
    );
    let out = saved.out.clone();
    match Attention
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((saved, Arc::clone(plan)), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
