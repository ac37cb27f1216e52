//! Attention of a batch: every query row over the KV blocks of its sequence.
//!
//! Work is split over (kv head, tile of rows). Queries and outputs are laid out `[K, T, G·D]`, so that each task has a slice of its own.

use std::sync::Mutex;

use edgethink_kernels::{
    Causal, Isa, KvBlock, attend_begin, attend_block, attend_finish, attention_state_len,
};
use edgethink_pool::Pool;

use crate::batch::{Batch, Tile};
use crate::kv::KvStore;

/// The constants of a model's attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    /// K, kv heads.
    pub(crate) kv_heads: usize,
    /// G, query heads per kv head.
    pub(crate) group: usize,
    /// D.
    pub(crate) head_dim: usize,
    /// Sliding window in tokens, the token itself included.
    pub(crate) window: Option<u32>,
}

impl AttentionShape {
    /// Bytes of KV that a layer's attention reads, blocks that rows share once, and its multiply-adds.
    pub(crate) fn work(&self, batch: &Batch, kv: &KvStore) -> (usize, usize) {
        let visited = |tile: &Tile| tile.steps.iter().map(|step| step.tokens).sum::<usize>();
        let tokens: usize = batch.tiles.iter().map(visited).sum();
        let seen: usize = batch.rows.iter().map(|row| row.position + 1).sum();
        (
            tokens * kv.bytes_per_token() / kv.layers(),
            2 * seen * self.kv_heads * self.group * self.head_dim,
        )
    }
}

/// What the tasks share.
struct Shared<'a> {
    isa: Isa,
    kv: &'a KvStore,
    layer: usize,
    shape: AttentionShape,
}

struct Task<'a> {
    head: usize,
    tile: &'a Tile,
    /// `[rows, G·D]`
    q: &'a [f32],
    /// `[rows, G·D]`
    out: &'a mut [f32],
    state: &'a mut [f32],
}

/// Computes `out` `[K, T, G·D]` from `q` of the same layout. Rows whose result is not finite get zeros and are added to `failed`.
#[expect(
    clippy::too_many_arguments,
    reason = "one call site; a struct would only repeat the names"
)]
pub(crate) fn attend(
    pool: &Pool,
    isa: Isa,
    kv: &KvStore,
    layer: usize,
    shape: AttentionShape,
    batch: &Batch,
    q: &[f32],
    out: &mut [f32],
    states: &mut Vec<f32>,
    failed: &Mutex<Vec<usize>>,
) {
    let width = shape.group * shape.head_dim;
    let state_len =
        |tile: &Tile| attention_state_len(tile.rows.len() * shape.group, shape.head_dim);
    let total: usize = batch.tiles.iter().map(state_len).sum::<usize>() * shape.kv_heads;
    if states.len() < total {
        states.resize(total, 0.0);
    }
    let shared = Shared {
        isa,
        kv,
        layer,
        shape,
    };
    let (mut out, mut states) = (out, states.as_mut_slice());
    let mut tasks = Vec::with_capacity(shape.kv_heads * batch.tiles.len());
    for head in 0..shape.kv_heads {
        for tile in &batch.tiles {
            let (mine, rest) = std::mem::take(&mut out).split_at_mut(tile.rows.len() * width);
            let (state, other) = std::mem::take(&mut states).split_at_mut(state_len(tile));
            (out, states) = (rest, other);
            let first = (head * batch.rows.len() + tile.rows.start) * width;
            tasks.push(Task {
                head,
                tile,
                q: &q[first..first + mine.len()],
                out: mine,
                state,
            });
        }
    }
    pool.for_each_mut(&mut tasks, |_, task| {
        let all = 0..task.tile.rows.len();
        if !shared.run(task, all.clone()) {
            // Somewhere a value overflowed. Row by row, only the rows it belongs to are lost.
            for row in all {
                if !shared.run(task, row..row + 1) {
                    task.out[row * width..(row + 1) * width].fill(0.0);
                    failed
                        .lock()
                        .expect("no task panicked")
                        .push(task.tile.rows.start + row);
                }
            }
        }
    });
}

impl Shared<'_> {
    /// Computes some rows of a task (counted in its tile); whether all are finite.
    fn run(&self, task: &mut Task<'_>, rows: std::ops::Range<usize>) -> bool {
        let AttentionShape {
            group,
            head_dim: d,
            window,
            ..
        } = self.shape;
        let width = group * d;
        let values = rows.start * width..rows.end * width;
        let queries = rows.start * group..rows.end * group;
        let state = &mut task.state[..attention_state_len(queries.len(), d)];
        let mut state = attend_begin(&task.q[values.clone()], d, 1.0 / (d as f32).sqrt(), state);
        for step in &task.tile.steps {
            let kv = self
                .kv
                .block(self.layer, task.head, step.block, step.tokens);
            let block = KvBlock {
                kv,
                tokens: step.tokens,
                first: step.first,
            };
            let positions = &task.tile.positions(step)[queries.clone()];
            attend_block(self.isa, block, Causal { positions, window }, &mut state);
        }
        attend_finish(state, &mut task.out[values]).is_ok()
    }
}
