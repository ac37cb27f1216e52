//! Attention with online softmax over KV blocks, in block order.
//!
//! For one kv head, R query rows (heads of the group × tokens) visit the blocks of their sequence one after the other. Each row keeps
//! m = the largest score so far, l = Σ e^(s − m) and acc = Σ e^(s − m) · v; a block with larger scores rescales both.
//!
//! Query rows are the SIMD lanes: sixteen rows lie side by side, `[D][16]`, and each cached key or value element is broadcast to all
//! of them. So every row's operations are the same, in the same order, whichever rows share the call and however wide the machine's
//! vectors are: chunked prefill equals whole prefill and a batch equals its members bit for bit, provided that the caller gives the
//! same blocks in the same order. Tokens that a row does not see enter with weight exactly 0.
//!
//! The state is one f32 buffer owned by the caller: scratch for 32 tokens, then per tile of 16 rows
//! `[query D·16 | acc D·16 | m 16 | l 16]`.

use crate::error::KernelError;
use crate::isa::{Isa, dispatch};

/// Rows of a tile of the state.
pub(crate) const ROWS: usize = 16;
/// Tokens that are processed together; blocks of the cache are multiples of it.
pub(crate) const STEP: usize = 32;
/// The largest head dim: bounds the scratch on the stack.
const MAX_D: usize = 256;

/// Keys and values of one kv head of one block, `[tokens, D]` each.
#[derive(Clone, Copy, Debug)]
pub enum KvRef<'a> {
    /// int8 with one scale per token.
    Int8 {
        /// Keys.
        k: &'a [i8],
        /// Values.
        v: &'a [i8],
        /// Scales of the keys, `[tokens]`.
        k_scale: &'a [f32],
        /// Scales of the values, `[tokens]`.
        v_scale: &'a [f32],
    },
    /// IEEE half, as bits.
    F16 {
        /// Keys.
        k: &'a [u16],
        /// Values.
        v: &'a [u16],
    },
    /// f32, without rounding.
    F32 {
        /// Keys.
        k: &'a [f32],
        /// Values.
        v: &'a [f32],
    },
}

/// One block of the cache for one kv head.
#[derive(Clone, Copy, Debug)]
pub struct KvBlock<'a> {
    /// Keys and values; may be longer than `tokens`.
    pub kv: KvRef<'a>,
    /// Tokens that are filled.
    pub tokens: usize,
    /// Position of the first token in its sequence.
    pub first: usize,
}

/// What each row may see: its own position and those before it, as far back as the window.
#[derive(Clone, Copy, Debug)]
pub struct Causal<'a> {
    /// Position of each query row in its sequence, `[R]`.
    pub positions: &'a [u32],
    /// Sliding window: a row at position p sees positions above p − window. `None` sees all.
    pub window: Option<u32>,
}

impl Causal<'_> {
    /// The tokens of a block that the row at `position` sees, counted in the block.
    pub(crate) fn visible(&self, position: u32, first: usize, tokens: usize) -> (u32, u32) {
        let position = position as usize;
        let end = (position + 1).saturating_sub(first).min(tokens);
        let start = self
            .window
            .map_or(0, |w| (position + 1).saturating_sub(w as usize + first));
        (start.min(end) as u32, end as u32)
    }

    /// Whether the row at `position` sees a token of the block.
    fn sees_any(&self, position: u32, first: usize, tokens: usize) -> bool {
        let (start, end) = self.visible(position, first, tokens);
        start < end
    }

    /// Whether every row between the positions sees every token of the block.
    fn all_see_all(&self, lowest: usize, highest: usize, first: usize, tokens: usize) -> bool {
        first + tokens <= lowest + 1 && self.window.is_none_or(|w| highest < first + w as usize)
    }
}

/// Length in f32 of the state of `rows` query rows of head dim `d`.
#[must_use]
pub fn attention_state_len(rows: usize, d: usize) -> usize {
    scratch_len(d) + rows.div_ceil(ROWS) * tile_len(d)
}

/// Keys and values of a step.
fn scratch_len(d: usize) -> usize {
    2 * STEP * d
}

fn tile_len(d: usize) -> usize {
    (2 * d + 2) * ROWS
}

/// The state of R query rows that share a kv head, in a buffer of the caller.
#[derive(Debug)]
pub struct AttentionState<'a> {
    /// Keys, then values: `[STEP, D]` each.
    scratch: &'a mut [f32],
    tiles: &'a mut [f32],
    rows: usize,
    d: usize,
}

/// One tile of the state.
pub(crate) struct TileState<'a> {
    /// Queries times the softmax scale, `[D]` of 16 rows.
    pub(crate) query: &'a mut [[f32; ROWS]],
    /// `[D]` of 16 rows.
    pub(crate) acc: &'a mut [[f32; ROWS]],
    pub(crate) max: &'a mut [f32; ROWS],
    pub(crate) sum: &'a mut [f32; ROWS],
}

impl AttentionState<'_> {
    /// Number of query rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// One of the tiles.
fn tile(tiles: &mut [f32], d: usize, index: usize) -> TileState<'_> {
    let len = tile_len(d);
    let rows = tiles[index * len..][..len].as_chunks_mut::<ROWS>().0;
    let (query, rows) = rows.split_at_mut(d);
    let (acc, rows) = rows.split_at_mut(d);
    let [max, sum] = rows else {
        unreachable!("a tile is 2 D + 2 rows of 16")
    };
    TileState {
        query,
        acc,
        max,
        sum,
    }
}

/// Starts: takes the queries `q` `[R, D]` times `softmax_scale` (usually 1 / √D) into `buffer`, which has
/// [`attention_state_len`] elements and needs no preparation.
///
/// # Panics
/// On wrong lengths, D of 0 or above 256.
pub fn attend_begin<'a>(
    q: &[f32],
    d: usize,
    softmax_scale: f32,
    buffer: &'a mut [f32],
) -> AttentionState<'a> {
    assert!((1..=MAX_D).contains(&d), "head dim {d}, at most {MAX_D}");
    assert!(
        q.len().is_multiple_of(d),
        "{} query elements in rows of {d}",
        q.len()
    );
    let rows = q.len() / d;
    assert_eq!(
        buffer.len(),
        attention_state_len(rows, d),
        "state of {rows} rows of {d}"
    );
    let (scratch, tiles) = buffer.split_at_mut(scratch_len(d));
    for (index, q) in q.chunks(ROWS * d).enumerate() {
        let tile = tile(tiles, d, index);
        tile.query.as_flattened_mut().fill(0.0);
        tile.acc.as_flattened_mut().fill(0.0);
        tile.max.fill(f32::NEG_INFINITY);
        tile.sum.fill(0.0);
        for (row, q) in q.chunks_exact(d).enumerate() {
            for (query, q) in tile.query.iter_mut().zip(q) {
                query[row] = q * softmax_scale;
            }
        }
    }
    AttentionState {
        scratch,
        tiles,
        rows,
        d,
    }
}

/// Lets every row visit one block.
///
/// # Panics
/// On wrong lengths, or if the machine lacks `isa`.
pub fn attend_block(
    isa: Isa,
    block: KvBlock<'_>,
    causal: Causal<'_>,
    state: &mut AttentionState<'_>,
) {
    assert_eq!(causal.positions.len(), state.rows, "positions and rows");
    let d = state.d;
    let KvBlock { kv, tokens, first } = block;
    let (k, v) = match kv {
        KvRef::Int8 {
            k,
            v,
            k_scale,
            v_scale,
        } => {
            assert!(
                k_scale.len() >= tokens && v_scale.len() >= tokens,
                "scales of {tokens} tokens"
            );
            (k.len(), v.len())
        }
        KvRef::F16 { k, v } => (k.len(), v.len()),
        KvRef::F32 { k, v } => (k.len(), v.len()),
    };
    assert!(
        k >= tokens * d && v >= tokens * d,
        "{tokens} tokens of {d} in {k} and {v} elements"
    );

    let lowest = causal.positions.iter().copied().min().unwrap_or(0) as usize;
    let highest = causal.positions.iter().copied().max().unwrap_or(0) as usize;
    let (keys, values) = state.scratch.split_at_mut(STEP * d);
    for start in (0..tokens).step_by(STEP) {
        let count = STEP.min(tokens - start);
        let step = first + start;
        if !causal
            .positions
            .iter()
            .any(|&p| causal.sees_any(p, step, count))
        {
            continue;
        }
        let full = causal.all_see_all(lowest, highest, step, count);
        let range = start * d..(start + count) * d;
        let (keys, values) = match kv {
            // Whole rows of sixteen tokens in f32 are read where they are.
            KvRef::F32 { k, v } if count.is_multiple_of(16) => (&k[range.clone()], &v[range]),
            _ => {
                load(isa, kv, start..start + count, d, keys, values);
                keys[count * d..count.next_multiple_of(16) * d].fill(0.0);
                (&*keys, &values[..count * d])
            }
        };
        for (index, positions) in causal.positions.chunks(ROWS).enumerate() {
            let (mut from, mut to) = ([0; ROWS], [0; ROWS]);
            if full {
                to[..positions.len()].fill(count as u32);
            } else if positions.iter().any(|&p| causal.sees_any(p, step, count)) {
                for (row, &position) in positions.iter().enumerate() {
                    (from[row], to[row]) = causal.visible(position, step, count);
                }
            } else {
                continue;
            }
            let kv = Step {
                keys,
                values,
                from,
                to,
            };
            let mut tile = tile(state.tiles, d, index);
            dispatch!(isa, attention::step(&kv, &mut tile));
        }
    }
}

/// Up to 32 tokens in f32, and which of them each row sees.
pub(crate) struct Step<'a> {
    /// `[tokens, D]`; zeros up to the next multiple of 16 tokens, then anything.
    pub(crate) keys: &'a [f32],
    /// `[tokens, D]`
    pub(crate) values: &'a [f32],
    pub(crate) from: [u32; ROWS],
    pub(crate) to: [u32; ROWS],
}

/// Keys and values of some tokens to f32.
fn load(
    isa: Isa,
    kv: KvRef<'_>,
    tokens: std::ops::Range<usize>,
    d: usize,
    keys: &mut [f32],
    values: &mut [f32],
) {
    let range = tokens.start * d..tokens.end * d;
    match kv {
        KvRef::Int8 {
            k,
            v,
            k_scale,
            v_scale,
        } => {
            dispatch!(
                isa,
                quantize::widen_i8(&k[range.clone()], &k_scale[tokens.clone()], d, keys)
            );
            dispatch!(
                isa,
                quantize::widen_i8(&v[range], &v_scale[tokens], d, values)
            );
        }
        KvRef::F16 { k, v } => {
            dispatch!(isa, quantize::widen_f16(&k[range.clone()], keys));
            dispatch!(isa, quantize::widen_f16(&v[range], values));
        }
        KvRef::F32 { k, v } => {
            keys[..range.len()].copy_from_slice(&k[range.clone()]);
            values[..range.len()].copy_from_slice(&v[range]);
        }
    }
}

/// Ends: writes acc / l to `out` `[R, D]`.
///
/// # Errors
/// [`KernelError::NonFinite`] with the first row that saw a NaN or infinite query, key or value, or no token at all.
///
/// # Panics
/// If `out` has a wrong length.
pub fn attend_finish(state: AttentionState<'_>, out: &mut [f32]) -> Result<(), KernelError> {
    let AttentionState { tiles, rows, d, .. } = state;
    assert_eq!(out.len(), rows * d, "output of {rows} rows of {d}");
    for (index, out) in out.chunks_mut(ROWS * d).enumerate() {
        let tile = tile(tiles, d, index);
        for (r, out) in out.chunks_exact_mut(d).enumerate() {
            let inverse = 1.0 / tile.sum[r];
            let mut finite = inverse.is_finite();
            for (out, acc) in out.iter_mut().zip(tile.acc.iter()) {
                *out = acc[r] * inverse;
                finite &= out.is_finite();
            }
            if !finite {
                return Err(KernelError::NonFinite {
                    what: "attention",
                    row: index * ROWS + r,
                });
            }
        }
    }
    Ok(())
}
