//! Attention of a batch: every query row over the KV blocks of its sequence.
//!
//! A sequence is cut into parts of 256 tokens, each with sums of its own, which are added in order. Where they are cut depends on
//! positions alone, so that nothing depends on who computes a part. Work is split over (kv head, tile of rows), and over the parts where
//! that is too little for all threads: one stream of a model with two kv heads has two tasks else. Queries and outputs are laid out
//! `[K, T, G·D]`, so that each task has a slice of its own.

use std::cmp::Reverse;
use std::ops::Range;

use edgethink_kernels::{
    AttentionState, Causal, KvBlock, attend_begin, attend_block, attend_finish, attend_merge,
    attention_state_len,
};

use crate::batch::{Batch, Step, Tile};
use crate::kv::KvStore;
use crate::rows::Work;
use crate::spare::Spare;

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

/// States, reused between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Of the parts of all tiles.
    parts: Vec<f32>,
    /// Of a tile and its next part: a thread's stay in its cache from tile to tile.
    tiles: Spare<Vec<f32>>,
}

/// What the tasks share.
struct Shared<'a> {
    work: &'a Work<'a>,
    kv: &'a KvStore,
    layer: usize,
    shape: AttentionShape,
}

/// The rows of a tile and a kv head.
#[derive(Clone, Copy)]
struct Rows<'a> {
    head: usize,
    tile: &'a Tile,
    /// `[rows, G·D]`
    q: &'a [f32],
}

/// Their sums over a part.
struct Visit<'a> {
    rows: Rows<'a>,
    part: Range<usize>,
    buffer: &'a mut [f32],
    state: Option<AttentionState<'a>>,
}

/// Their results.
struct Finish<'a> {
    rows: Rows<'a>,
    /// Over each part.
    states: Vec<AttentionState<'a>>,
    /// `[rows, G·D]`
    out: &'a mut [f32],
}

/// Computes `out` `[K, T, G·D]` from `q` of the same layout. Rows whose result is not finite get zeros and are noted.
#[expect(
    clippy::too_many_arguments,
    reason = "one call site; a struct would only repeat the names"
)]
pub(crate) fn attend(
    work: &Work<'_>,
    kv: &KvStore,
    layer: usize,
    shape: AttentionShape,
    batch: &Batch,
    q: &[f32],
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let shared = Shared {
        work,
        kv,
        layer,
        shape,
    };
    let width = shape.group * shape.head_dim;
    let mut tiles = Vec::with_capacity(shape.kv_heads * batch.tiles.len());
    let mut outs = out;
    for head in 0..shape.kv_heads {
        for tile in &batch.tiles {
            let (out, rest) = std::mem::take(&mut outs).split_at_mut(tile.rows.len() * width);
            outs = rest;
            let first = (head * batch.rows.len() + tile.rows.start) * width;
            let q = &q[first..first + out.len()];
            tiles.push((Rows { head, tile, q }, out));
        }
    }
    if tiles.len() < work.tasks() {
        shared.by_parts(tiles, &mut scratch.parts);
    } else {
        shared.by_tiles(tiles, &scratch.tiles);
    }
}

impl Shared<'_> {
    fn state_len(&self, rows: usize) -> usize {
        attention_state_len(rows * self.shape.group, self.shape.head_dim)
    }

    /// One task for each tile, which keeps a state for all of its parts and one for the next.
    fn by_tiles(&self, mut tiles: Vec<(Rows<'_>, &mut [f32])>, spare: &Spare<Vec<f32>>) {
        // The longest first, so that no thread ends long after the others: the later rows of a prefill see more.
        tiles.sort_by_key(|(rows, _)| Reverse(rows.tile.steps.len()));
        self.work.pool.for_each_mut(&mut tiles, |_, (rows, out)| {
            let all = 0..rows.tile.rows.len();
            let needed = 2 * self.state_len(all.len());
            spare.with(|buffer| {
                buffer.resize(needed.max(buffer.len()), 0.0);
                let state = self.visit(*rows, all, &mut buffer[..needed]);
                self.write(*rows, state, out);
            });
        });
    }

    /// One task for each part of each tile, and then one to add them.
    fn by_parts(&self, tiles: Vec<(Rows<'_>, &mut [f32])>, buffer: &mut Vec<f32>) {
        let lens = tiles
            .iter()
            .map(|(rows, _)| rows.tile.parts.len() * self.state_len(rows.tile.rows.len()));
        let total = lens.sum();
        buffer.resize(buffer.len().max(total), 0.0);
        let mut rest = buffer.as_mut_slice();
        let (mut visits, mut finishes) = (Vec::new(), Vec::new());
        for (rows, out) in tiles {
            for part in &rows.tile.parts {
                let len = self.state_len(rows.tile.rows.len());
                let (buffer, tail) = std::mem::take(&mut rest).split_at_mut(len);
                rest = tail;
                visits.push(Visit {
                    rows,
                    part: part.clone(),
                    buffer,
                    state: None,
                });
            }
            finishes.push(Finish {
                rows,
                states: Vec::new(),
                out,
            });
        }
        self.work.pool.for_each_mut(&mut visits, |_, visit| {
            let (of, buffer) = (visit.rows, std::mem::take(&mut visit.buffer));
            let all = 0..of.tile.rows.len();
            visit.state = Some(self.visit_part(of, all, visit.part.clone(), buffer));
        });
        let mut visited = visits.into_iter().filter_map(|visit| visit.state);
        for finish in &mut finishes {
            let parts = finish.rows.tile.parts.len();
            finish.states.extend(visited.by_ref().take(parts));
        }
        let elements: usize = finishes.iter().map(|f| f.states.len() * f.out.len()).sum();
        self.work.for_rows(&mut finishes, elements, |finish| {
            let mut states = finish.states.drain(..);
            let mut whole = states.next().expect("a row sees itself");
            for part in states {
                attend_merge(&mut whole, &part);
            }
            self.write(finish.rows, whole, finish.out);
        });
    }

    /// The state of some rows (counted in their tile) over all parts, in a buffer for two.
    fn visit<'s>(
        &self,
        of: Rows<'s>,
        rows: Range<usize>,
        buffer: &'s mut [f32],
    ) -> AttentionState<'s> {
        let (first, second) = buffer.split_at_mut(self.state_len(rows.len()));
        let (part, rest) = of.tile.parts.split_first().expect("a row sees itself");
        let mut whole = self.visit_part(of, rows.clone(), part.clone(), first);
        for part in rest {
            let part = self.visit_part(of, rows.clone(), part.clone(), second);
            attend_merge(&mut whole, &part);
        }
        whole
    }

    fn visit_part<'s>(
        &self,
        of: Rows<'s>,
        rows: Range<usize>,
        part: Range<usize>,
        buffer: &'s mut [f32],
    ) -> AttentionState<'s> {
        let AttentionShape {
            group,
            head_dim: d,
            window,
            ..
        } = self.shape;
        let queries = rows.start * group..rows.end * group;
        let q = &of.q[queries.start * d..queries.end * d];
        let mut state = attend_begin(self.work.isa, q, d, 1.0 / (d as f32).sqrt(), buffer);
        let kv = |step: &Step| self.kv.block(self.layer, of.head, step.block, step.tokens);
        let mut steps = of.tile.steps[part].iter().peekable();
        while let Some(step) = steps.next() {
            let block = KvBlock {
                kv: kv(step),
                tokens: step.tokens,
                first: step.first,
                next: steps.peek().map(|step| kv(step)),
            };
            let positions = &of.tile.positions(step)[queries.clone()];
            attend_block(block, Causal { positions, window }, &mut state);
        }
        state
    }

    /// Writes the results.
    fn write(&self, rows: Rows<'_>, state: AttentionState<'_>, out: &mut [f32]) {
        if attend_finish(state, out).is_ok() {
            return;
        }
        // Somewhere a value overflowed. Row by row, only the rows it belongs to are lost.
        let mut buffer = vec![0.0; 2 * self.state_len(1)];
        let width = self.shape.group * self.shape.head_dim;
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let state = self.visit(rows, row..row + 1, &mut buffer);
            if attend_finish(state, out).is_err() {
                out.fill(0.0);
                self.work.fail(rows.tile.rows.start + row);
            }
        }
    }
}
