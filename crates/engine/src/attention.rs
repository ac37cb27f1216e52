//! Attention of a batch: every query row over the KV blocks of its sequence.
//!
//! A sequence is cut into parts of 256 tokens, each with sums of its own, which are added as a binary tree. Where they are cut and which are
//! added depends on positions alone: a longer sequence has the tree of a shorter one in it. So nothing depends on who computes a part.
//! Work is split over (kv head, tile of rows), and over runs of parts where that is too little for all threads: one stream of a model with
//! two kv heads has two tasks else. A run is a subtree, whose states but one stay in the thread's cache. Queries and outputs are laid out
//! `[K, T, G·D]`, so that each task has a slice of its own.

use std::cmp::Reverse;
use std::ops::Range;

use edgethink_kernels::{
    AttentionState, Causal, KvBlock, attend_again, attend_begin, attend_block, attend_finish,
    attend_merge, attention_state_len,
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
    /// Of the runs of all tiles.
    runs: Vec<f32>,
    /// Of a tree: a thread's stay in its cache from task to task.
    trees: Spare<Vec<f32>>,
}

/// What the tasks share.
struct Shared<'a> {
    work: &'a Work<'a>,
    kv: &'a KvStore,
    layer: usize,
    shape: AttentionShape,
    trees: &'a Spare<Vec<f32>>,
}

/// The rows of a tile and a kv head.
#[derive(Clone, Copy)]
struct Rows<'a> {
    head: usize,
    tile: &'a Tile,
    /// `[rows, G·D]`
    q: &'a [f32],
}

/// Their sums over a run of parts.
struct Visit<'a> {
    rows: Rows<'a>,
    parts: &'a [Range<usize>],
    buffer: &'a mut [f32],
    state: Option<AttentionState<'a>>,
}

/// Their results.
struct Finish<'a> {
    rows: Rows<'a>,
    /// Over each run.
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
        trees: &scratch.trees,
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
        shared.by_runs(tiles, &mut scratch.runs);
    } else {
        shared.by_tiles(tiles);
    }
}

impl Shared<'_> {
    fn state_len(&self, rows: usize) -> usize {
        attention_state_len(rows * self.shape.group, self.shape.head_dim)
    }

    /// One task for each tile.
    fn by_tiles(&self, mut tiles: Vec<(Rows<'_>, &mut [f32])>) {
        // The longest first, so that no thread ends long after the others: the later rows of a prefill see more.
        tiles.sort_by_key(|(rows, _)| Reverse(rows.tile.steps.len()));
        self.work.pool.for_each_mut(&mut tiles, |_, (rows, out)| {
            self.trees.with(|buffer| {
                let all = 0..rows.tile.rows.len();
                let (first, rest) = self.buffers(all.len(), rows.tile.parts.len(), buffer);
                let state = self.visit(*rows, all, &rows.tile.parts, first, rest);
                self.write(*rows, state, out);
            });
        });
    }

    /// One task for each run of parts, and then one for each tile to add them.
    fn by_runs(&self, tiles: Vec<(Rows<'_>, &mut [f32])>, buffer: &mut Vec<f32>) {
        let parts: usize = tiles.iter().map(|(rows, _)| rows.tile.parts.len()).sum();
        let run = 1 << (parts / self.work.tasks()).max(1).ilog2();
        let len = |rows: &Rows<'_>| self.state_len(rows.tile.rows.len());
        let lens = tiles
            .iter()
            .map(|(rows, _)| rows.tile.parts.len().div_ceil(run) * len(rows));
        let total = lens.sum();
        buffer.resize(buffer.len().max(total), 0.0);
        let mut rest = buffer.as_mut_slice();
        let (mut visits, mut finishes) = (Vec::new(), Vec::new());
        for (rows, out) in tiles {
            for parts in rows.tile.parts.chunks(run) {
                let (buffer, tail) = std::mem::take(&mut rest).split_at_mut(len(&rows));
                rest = tail;
                visits.push(Visit {
                    rows,
                    parts,
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
            let (of, first) = (visit.rows, std::mem::take(&mut visit.buffer));
            self.trees.with(|buffer| {
                let all = 0..of.tile.rows.len();
                let (_, rest) = self.buffers(all.len(), visit.parts.len(), buffer);
                visit.state = Some(self.visit(of, all, visit.parts, first, rest));
            });
        });
        let mut visited = visits.into_iter().filter_map(|visit| visit.state);
        for finish in &mut finishes {
            let runs = finish.rows.tile.parts.len().div_ceil(run);
            finish.states.extend(visited.by_ref().take(runs));
        }
        let elements: usize = finishes.iter().map(|f| f.states.len() * f.out.len()).sum();
        self.work.for_rows(&mut finishes, elements, |finish| {
            add_tree(&mut finish.states);
            let whole = finish.states.swap_remove(0);
            self.write(finish.rows, whole, finish.out);
        });
    }

    /// Buffers for a state of so many rows, and for those of the levels below it in a tree of so many parts.
    fn buffers<'s>(
        &self,
        rows: usize,
        parts: usize,
        buffer: &'s mut Vec<f32>,
    ) -> (&'s mut [f32], &'s mut [f32]) {
        let levels = parts.next_power_of_two().ilog2() as usize;
        let len = self.state_len(rows);
        let total = (1 + levels) * len;
        buffer.resize(buffer.len().max(total), 0.0);
        buffer[..total].split_at_mut(len)
    }

    /// The state of some rows (counted in their tile) over a subtree of parts, in `first`; those of the levels below are in `rest`.
    fn visit<'s>(
        &self,
        of: Rows<'s>,
        rows: Range<usize>,
        parts: &[Range<usize>],
        first: &'s mut [f32],
        rest: &mut [f32],
    ) -> AttentionState<'s> {
        let AttentionShape {
            group, head_dim: d, ..
        } = self.shape;
        let q = &of.q[rows.start * group * d..rows.end * group * d];
        let scale = 1.0 / (d as f32).sqrt();
        let mut state = attend_begin(self.work.isa, q, d, scale, first);
        let buffers = rest.chunks_exact_mut(self.state_len(rows.len()));
        let mut others: Vec<_> = buffers
            .map(|buffer| attend_begin(self.work.isa, q, d, scale, buffer))
            .collect();
        self.visit_tree(of, &rows, parts, parts.len(), &mut state, &mut others);
        state
    }

    /// Lets some rows visit the first `count` of `parts`, a subtree. `others` are states of the levels below.
    fn visit_tree(
        &self,
        of: Rows<'_>,
        rows: &Range<usize>,
        parts: &[Range<usize>],
        count: usize,
        state: &mut AttentionState<'_>,
        others: &mut [AttentionState<'_>],
    ) {
        if count < 2 {
            attend_again(state);
            self.visit_part(of, rows, parts, state);
            return;
        }
        let half = left(count);
        self.visit_tree(of, rows, parts, half, state, others);
        let (other, others) = others.split_first_mut().expect("one for each level");
        self.visit_tree(of, rows, &parts[half..], count - half, other, others);
        attend_merge(state, other);
    }

    /// Lets some rows visit the first of some parts that follow each other; of the next one, the first block is fetched.
    fn visit_part(
        &self,
        of: Rows<'_>,
        rows: &Range<usize>,
        parts: &[Range<usize>],
        state: &mut AttentionState<'_>,
    ) {
        let AttentionShape { group, window, .. } = self.shape;
        let part = &parts[0];
        let end = parts.get(1).unwrap_or(part).end;
        let queries = rows.start * group..rows.end * group;
        let kv = |step: &Step| self.kv.block(self.layer, of.head, step.block, step.tokens);
        let steps = &of.tile.steps[part.start..end];
        for (at, step) in steps[..part.len()].iter().enumerate() {
            let block = KvBlock {
                kv: kv(step),
                tokens: step.tokens,
                first: step.first,
                next: steps.get(at + 1).map(kv),
            };
            let positions = &of.tile.positions(step)[queries.clone()];
            attend_block(block, Causal { positions, window }, state);
        }
    }

    /// Writes the results.
    fn write(&self, rows: Rows<'_>, state: AttentionState<'_>, out: &mut [f32]) {
        if attend_finish(state, out).is_ok() {
            return;
        }
        // Somewhere a value overflowed. Row by row, only the rows it belongs to are lost.
        let mut buffer = Vec::new();
        let parts = &rows.tile.parts;
        let width = self.shape.group * self.shape.head_dim;
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let (first, rest) = self.buffers(1, parts.len(), &mut buffer);
            let state = self.visit(rows, row..row + 1, parts, first, rest);
            if attend_finish(state, out).is_err() {
                out.fill(0.0);
                self.work.fail(rows.tile.rows.start + row);
            }
        }
    }
}

/// Parts of the left subtree of so many, two at least: a power of two.
fn left(parts: usize) -> usize {
    parts.next_power_of_two() / 2
}

/// Adds all states to the first one.
fn add_tree(states: &mut [AttentionState<'_>]) {
    if states.len() < 2 {
        return;
    }
    let (left, right) = states.split_at_mut(left(states.len()));
    add_tree(left);
    add_tree(right);
    attend_merge(&mut left[0], &right[0]);
}
