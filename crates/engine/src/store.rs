//! Between the projections and attention: q and k normed and rotated, k and v written to their blocks.

use edgethink_kernels::{rms_norm, rope};

use crate::attention::AttentionShape;
use crate::batch::Batch;
use crate::kv::HeadMut;
use crate::rows::Work;
use crate::weights::{Layer, MAX_HEAD_DIM};

/// What [`store`] reads.
pub(crate) struct Tokens<'a> {
    /// `[T, H·D]`
    pub(crate) q: &'a [f32],
    /// `[T, K·D]`
    pub(crate) k: &'a [f32],
    /// `[T, K·D]`
    pub(crate) v: &'a [f32],
    /// `[T, D/2]`
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    pub(crate) batch: &'a Batch,
    pub(crate) layer: &'a Layer,
    pub(crate) shape: AttentionShape,
    pub(crate) eps: f32,
}

/// Norms (where the model does) and rotates q and k, lays q out by head in `head_q` `[K, T, G·D]`, and writes k and v to their slots.
pub(crate) fn store(
    work: &Work<'_>,
    tokens: &Tokens<'_>,
    heads: Vec<HeadMut<'_>>,
    head_q: &mut [f32],
) {
    let AttentionShape {
        kv_heads,
        group,
        head_dim: d,
        ..
    } = tokens.shape;
    let (rows, width) = (tokens.batch.rows.len(), group * d);
    let mut tasks: Vec<(HeadMut<'_>, &mut [f32])> = heads
        .into_iter()
        .zip(head_q.chunks_exact_mut(rows * width))
        .collect();
    let one = |head: usize, (kv, out): &mut (HeadMut<'_>, &mut [f32])| {
        let mut key = [0.0f32; MAX_HEAD_DIM];
        let key = &mut key[..d];
        for (t, (row, out)) in tokens
            .batch
            .rows
            .iter()
            .zip(out.chunks_exact_mut(width))
            .enumerate()
        {
            let (cos, sin) = (
                &tokens.cos[t * d / 2..(t + 1) * d / 2],
                &tokens.sin[t * d / 2..(t + 1) * d / 2],
            );
            let q = &tokens.q[(t * kv_heads + head) * width..][..width];
            let at = (t * kv_heads + head) * d;
            let (k, v) = (&tokens.k[at..at + d], &tokens.v[at..at + d]);
            let mut finite = true;
            if let Some((q_norm, k_norm)) = &tokens.layer.qk_norm {
                finite &= rms_norm(work.isa, q, q_norm, tokens.eps, out).is_ok();
                finite &= rms_norm(work.isa, k, k_norm, tokens.eps, key).is_ok();
            } else {
                out.copy_from_slice(q);
                key.copy_from_slice(k);
            }
            rope(work.isa, out, cos, sin);
            rope(work.isa, key, cos, sin);
            finite &= kv.write(work.isa, row.slot, key, v);
            if !finite {
                out.fill(0.0);
                work.failed.lock().expect("no task panicked").push(t);
            }
        }
    };
    if rows * kv_heads < 16 {
        tasks
            .iter_mut()
            .enumerate()
            .for_each(|(head, task)| one(head, task));
    } else {
        work.pool.for_each_mut(&mut tasks, one);
    }
}
