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

/// Their sums over some parts.
struct Visit<'a> {
    rows: Rows<'a>,
    /// Of the tile.
    parts: &'a [Range<usize>],
    /// For the state, and a second one if there are several parts.
    buffer: &'a mut [f32],
    state: Option<AttentionState<'a>>,
}

/// Their results.
struct Finish<'a> {
    rows: Rows<'a>,
    visits: usize,
    /// Of each visit, in the order of the parts.
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
    states: &mut Vec<f32>,
) {
    let shared = Shared {
        work,
        kv,
        layer,
        shape,
    };
    let width = shape.group * shape.head_dim;
    let apart = shape.kv_heads * batch.tiles.len() < work.tasks();
    // Parts that one task visits need a state for all of them and one for the next.
    let held = |parts: usize| if apart { parts } else { parts.min(2) };
    let state_len = |tile: &Tile| shared.state_len(tile.rows.len());
    let tiles = batch.tiles.iter();
    let total: usize = tiles
        .map(|tile| held(tile.parts.len()) * state_len(tile))
        .sum();
    states.resize(states.len().max(total * shape.kv_heads), 0.0);

    let (mut outs, mut buffers) = (out, states.as_mut_slice());
    let (mut visits, mut finishes) = (Vec::new(), Vec::new());
    for head in 0..shape.kv_heads {
        for tile in &batch.tiles {
            let (out, rest) = std::mem::take(&mut outs).split_at_mut(tile.rows.len() * width);
            outs = rest;
            let first = (head * batch.rows.len() + tile.rows.start) * width;
            let q = &q[first..first + out.len()];
            let rows = Rows { head, tile, q };
            let together = if apart { 1 } else { tile.parts.len() };
            for parts in tile.parts.chunks(together) {
                let len = held(parts.len()) * state_len(tile);
                let (buffer, rest) = std::mem::take(&mut buffers).split_at_mut(len);
                buffers = rest;
                visits.push(Visit {
                    rows,
                    parts,
                    buffer,
                    state: None,
                });
            }
            finishes.push(Finish {
                rows,
                visits: tile.parts.len().div_ceil(together),
                states: Vec::new(),
                out,
            });
        }
    }
    // The longest first, so that no thread ends long after the others: the later rows of a prefill see more.
    let mut order: Vec<&mut Visit<'_>> = visits.iter_mut().collect();
    order.sort_by_key(|visit| Reverse(visit.steps()));
    work.pool.for_each_mut(&mut order, |_, visit| {
        let (of, buffer) = (visit.rows, std::mem::take(&mut visit.buffer));
        visit.state = Some(shared.visit(of, 0..of.tile.rows.len(), visit.parts, buffer));
    });
    let mut visited = visits.into_iter().filter_map(|visit| visit.state);
    for finish in &mut finishes {
        finish.states.extend(visited.by_ref().take(finish.visits));
    }
    let elements: usize = finishes.iter().map(|f| f.visits * f.out.len()).sum();
    work.for_rows(&mut finishes, elements, |finish| shared.finish(finish));
}

impl Visit<'_> {
    fn steps(&self) -> usize {
        self.parts.iter().map(Range::len).sum()
    }
}

impl Shared<'_> {
    fn state_len(&self, rows: usize) -> usize {
        attention_state_len(rows * self.shape.group, self.shape.head_dim)
    }

    /// The state of some rows (counted in their tile) over some parts.
    fn visit<'s>(
        &self,
        of: Rows<'_>,
        rows: Range<usize>,
        parts: &[Range<usize>],
        buffer: &'s mut [f32],
    ) -> AttentionState<'s> {
        let (first, second) = buffer.split_at_mut(self.state_len(rows.len()));
        let (part, rest) = parts.split_first().expect("a row sees itself");
        let mut whole = self.visit_part(of, rows.clone(), part.clone(), first);
        for part in rest.iter().cloned() {
            let second = &mut second[..self.state_len(rows.len())];
            attend_merge(&mut whole, &self.visit_part(of, rows.clone(), part, second));
        }
        whole
    }

    fn visit_part<'s>(
        &self,
        of: Rows<'_>,
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
        let mut state = attend_begin(q, d, 1.0 / (d as f32).sqrt(), buffer);
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
            attend_block(
                self.work.isa,
                block,
                Causal { positions, window },
                &mut state,
            );
        }
        state
    }

    /// Adds the parts and writes the results.
    fn finish(&self, finish: &mut Finish<'_>) {
        let Finish {
            rows, states, out, ..
        } = finish;
        let mut states = states.drain(..);
        let mut whole = states.next().expect("a row sees itself");
        for part in states {
            attend_merge(&mut whole, &part);
        }
        if attend_finish(whole, out).is_ok() {
            return;
        }
        // Somewhere a value overflowed. Row by row, only the rows it belongs to are lost.
        let mut buffer = vec![0.0; 2 * self.state_len(1)];
        let width = self.shape.group * self.shape.head_dim;
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let state = self.visit(*rows, row..row + 1, &rows.tile.parts, &mut buffer);
            if attend_finish(state, out).is_err() {
                out.fill(0.0);
                self.work.fail(rows.tile.rows.start + row);
            }
        }
    }
}
