//! Attention with online softmax over KV blocks, in block order.
//!
//! For one kv head, R query rows (heads of the group × tokens) visit the blocks of their sequence one after the other. Each row keeps
//! m = the largest score so far, l = Σ e^(s − m) and acc = Σ e^(s − m) · v; a block with larger scores rescales both. Two such states over
//! different tokens are merged in the same way ([`attend_merge`]), so a long sequence can be cut into parts.
//!
//! Every row is computed on its own, by the same operations in the same order, whichever rows share the call: the lanes are the tokens
//! of a step for the scores, then the dims for the values, and rows share only what is loaded. So chunked prefill equals whole prefill
//! and a batch equals its members bit for bit, provided that the caller gives the same blocks in the same order. Tokens that a row does
//! not see enter with weight exactly 0.
//!
//! The state is one f32 buffer owned by the caller: scratch for the keys and values of 32 tokens, then
//! `[query R·D | acc R·D' | sum R·16 | m R]`, D' = D up to the next multiple of 32. The sum l is kept in lanes until the end.

use crate::error::KernelError;
use crate::isa::{Isa, dispatch};

/// Tokens that are processed together; blocks of the cache are multiples of it.
pub(crate) const STEP: usize = 32;
/// Lanes of a row's sum, as many as the widest vector has.
pub(crate) const LANES: usize = 16;
/// The largest head dim.
const MAX_D: usize = 256;

/// Query rows up to which int8 keys and values are widened in registers, wherever rows share them, and not once for all rows in memory.
const FEW_ROWS: usize = 8;

/// Keys and values of one kv head of one block: values `[tokens, D]`; keys `[tokens / 32][D][32]`, in which the tokens that are not filled
/// are anything. Scores are taken of 32 tokens side by side, so keys that lay like the values would be turned at every step.
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
    /// The block that the rows visit next: int8 keys and values are fetched while few rows compute. Only speed depends on it.
    pub next: Option<KvRef<'a>>,
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
    fn visible(&self, position: u32, first: usize, tokens: usize) -> (u32, u32) {
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
}

/// Length in f32 of the state of `rows` query rows of head dim `d`.
#[must_use]
pub fn attention_state_len(rows: usize, d: usize) -> usize {
    STEP * (d + padded(d)) + rows * (d + padded(d) + LANES + 1)
}

/// Length of a row of values and of acc: whole vectors.
fn padded(d: usize) -> usize {
    d.next_multiple_of(STEP)
}

/// The state of R query rows that share a kv head, in a buffer of the caller.
#[derive(Debug)]
pub struct AttentionState<'a> {
    /// `[D]` of 32 tokens.
    keys: &'a mut [[f32; STEP]],
    /// `[32, D']`
    values: &'a mut [f32],
    rows: Rows<'a>,
    d: usize,
}

/// The rows of the state.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    /// Queries times the softmax scale, `[R, D]`.
    pub(crate) query: &'a mut [f32],
    /// `[R, D']`
    pub(crate) acc: &'a mut [f32],
    /// The lanes of l, `[R]`.
    pub(crate) sum: &'a mut [[f32; LANES]],
    /// `[R]`
    pub(crate) max: &'a mut [f32],
}

impl AttentionState<'_> {
    /// Number of query rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.max.len()
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
    let (keys, rest) = buffer.split_at_mut(STEP * d);
    let (values, rest) = rest.split_at_mut(STEP * padded(d));
    let (query, rest) = rest.split_at_mut(rows * d);
    let (acc, rest) = rest.split_at_mut(rows * padded(d));
    let (sum, max) = rest.split_at_mut(rows * LANES);
    for (query, q) in query.iter_mut().zip(q) {
        *query = q * softmax_scale;
    }
    acc.fill(0.0);
    sum.fill(0.0);
    max.fill(f32::NEG_INFINITY);
    AttentionState {
        keys: keys.as_chunks_mut().0,
        values,
        rows: Rows {
            query,
            acc,
            sum: sum.as_chunks_mut().0,
            max,
        },
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
    assert_eq!(causal.positions.len(), state.rows(), "positions and rows");
    let d = state.d;
    let KvBlock {
        kv,
        tokens,
        first,
        next,
    } = block;
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
        k >= tokens.next_multiple_of(STEP) * d && v >= tokens * d,
        "{tokens} tokens of {d} in {k} and {v} elements"
    );

    for start in (0..tokens).step_by(STEP) {
        let count = STEP.min(tokens - start);
        let first = first + start;
        let sees = |&p: &u32| causal.sees_any(p, first, count);
        let Some(from) = causal.positions.iter().position(sees) else {
            continue;
        };
        let to = causal
            .positions
            .iter()
            .rposition(sees)
            .map_or(from, |r| r + 1);
        let range = start..start + count;
        let key_range = start * d..(start + STEP) * d;
        let seen = Seen {
            rows: from..to,
            causal,
            first,
            count,
        };
        let scales = scales(kv, range.clone());
        if let KvRef::Int8 { k, v, .. } = kv
            && to - from <= FEW_ROWS
            && padded(d) == d
        {
            let next = if start + STEP < tokens {
                (&k[key_range.end..], &v[(start + STEP) * d..])
            } else if let Some(KvRef::Int8 { k, v, .. }) = next {
                (k, v)
            } else {
                (k, v) // of this block: nothing else is needed
            };
            let step = Step {
                keys: k[key_range].as_chunks().0,
                values: &v[start * d..],
                next: (next.0.as_ptr().cast(), next.1.as_ptr().cast()),
                scales,
                seen,
            };
            dispatch!(isa, attention_i8::step(&step, &mut state.rows));
            continue;
        }
        widen(isa, kv, range, state);
        let step = Step {
            keys: &*state.keys,
            values: &*state.values,
            next: (std::ptr::null(), std::ptr::null()),
            scales,
            seen,
        };
        dispatch!(isa, attention::step(&step, &mut state.rows));
    }
}

/// Up to 32 tokens.
pub(crate) struct Step<'a, T> {
    /// `[D]` of 32 tokens; those that are not there are anything.
    pub(crate) keys: &'a [[T; STEP]],
    /// `[tokens, D']`, zeros behind D.
    pub(crate) values: &'a [T],
    /// Keys and values that are fetched meanwhile, those of the next step; null where they have been widened.
    pub(crate) next: (*const u8, *const u8),
    pub(crate) scales: Scales,
    pub(crate) seen: Seen<'a>,
}

/// Of each token of a step.
pub(crate) struct Scales {
    /// What the scores are multiplied with.
    pub(crate) keys: [f32; STEP],
    /// What the weights are multiplied with.
    pub(crate) values: [f32; STEP],
}

/// Which tokens of a step each row sees.
pub(crate) struct Seen<'a> {
    /// All others see nothing of it.
    pub(crate) rows: std::ops::Range<usize>,
    causal: Causal<'a>,
    first: usize,
    count: usize,
}

impl Seen<'_> {
    /// The tokens of the step that row `r` sees.
    #[inline]
    pub(crate) fn by(&self, r: usize) -> (usize, usize) {
        let position = self.causal.positions[r];
        let (from, to) = self.causal.visible(position, self.first, self.count);
        (from as usize, to as usize)
    }
}

/// The scales of some tokens.
fn scales(kv: KvRef<'_>, tokens: std::ops::Range<usize>) -> Scales {
    let mut scales = Scales {
        keys: [1.0; STEP],
        values: [1.0; STEP],
    };
    if let KvRef::Int8 {
        k_scale, v_scale, ..
    } = kv
    {
        scales.keys[..tokens.len()].copy_from_slice(&k_scale[tokens.clone()]);
        scales.values[..tokens.len()].copy_from_slice(&v_scale[tokens]);
    }
    scales
}

/// Keys and values of some tokens to the scratch of the state.
fn widen(isa: Isa, kv: KvRef<'_>, tokens: std::ops::Range<usize>, state: &mut AttentionState<'_>) {
    let (d, count) = (state.d, tokens.len());
    let range = tokens.start * d..tokens.end * d;
    let whole = tokens.start * d..(tokens.start + STEP) * d;
    let (keys, values) = (state.keys.as_flattened_mut(), &mut *state.values);
    let rows = &mut values[..count * d];
    match kv {
        KvRef::Int8 { k, v, .. } => {
            dispatch!(isa, quantize::widen_i8(&k[whole], keys));
            dispatch!(isa, quantize::widen_i8(&v[range], rows));
        }
        KvRef::F16 { k, v } => {
            dispatch!(isa, quantize::widen_f16(&k[whole], keys));
            dispatch!(isa, quantize::widen_f16(&v[range], rows));
        }
        KvRef::F32 { k, v } => {
            keys.copy_from_slice(&k[whole]);
            rows.copy_from_slice(&v[range]);
        }
    }
    if padded(d) != d {
        // From the last row on, as each moves back.
        for t in (0..count).rev() {
            let row = t * padded(d);
            values.copy_within(t * d..(t + 1) * d, row);
            values[row + d..row + padded(d)].fill(0.0);
        }
    }
}

/// Adds what the rows of `part` have seen to what those of `whole` have: two states of the same queries over different tokens. Parts that
/// are added in the order of their tokens give the same result whoever has computed them, and a part in which a row saw nothing changes
/// nothing of it.
///
/// # Panics
/// If the states differ in size.
pub fn attend_merge(whole: &mut AttentionState<'_>, part: &AttentionState<'_>) {
    let d = whole.d;
    let (whole, part) = (&mut whole.rows, &part.rows);
    assert_eq!(
        (whole.max.len(), whole.acc.len()),
        (part.max.len(), part.acc.len()),
        "rows and elements of two states"
    );
    let width = padded(d);
    for r in 0..part.max.len() {
        let (acc, sum) = (&mut whole.acc[r * width..][..width], &mut whole.sum[r]);
        let (part_acc, part_sum) = (&part.acc[r * width..][..width], &part.sum[r]);
        let saw_nothing = |sum: &[f32; LANES]| sum.iter().all(|&lane| lane == 0.0);
        if saw_nothing(part_sum) {
            continue;
        }
        if saw_nothing(sum) {
            acc.copy_from_slice(part_acc);
            (*sum, whole.max[r]) = (*part_sum, part.max[r]);
            continue;
        }
        let max = whole.max[r].max(part.max[r]);
        // One of the two is exactly 1.
        let factor = |m: f32| if m == max { 1.0 } else { (m - max).exp() };
        let (own, other) = (factor(whole.max[r]), factor(part.max[r]));
        let add = |own_x: &mut f32, x: &f32| *own_x = *own_x * own + x * other;
        acc.iter_mut().zip(part_acc).for_each(|(a, b)| add(a, b));
        sum.iter_mut().zip(part_sum).for_each(|(a, b)| add(a, b));
        whole.max[r] = max;
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
    let AttentionState { rows, d, .. } = state;
    assert_eq!(
        out.len(),
        rows.max.len() * d,
        "output of {} rows of {d}",
        rows.max.len()
    );
    let acc = rows.acc.chunks_exact(padded(d));
    for (row, ((out, acc), sum)) in out.chunks_exact_mut(d).zip(acc).zip(rows.sum).enumerate() {
        let inverse = 1.0 / sum.iter().sum::<f32>();
        let mut finite = inverse.is_finite();
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = acc * inverse;
            finite &= out.is_finite();
        }
        if !finite {
            return Err(KernelError::NonFinite {
                what: "attention",
                row,
            });
        }
    }
    Ok(())
}
