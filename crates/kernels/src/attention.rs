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
//! With int8 keys and values, what is multiplied is whole numbers: a query has codes of 16 bits by its largest element, and the weights of
//! 32 tokens have such codes by the largest of them times the largest scale of the values that the row sees. That is 256 times finer than
//! the keys and values are.
//!
//! The state is one f32 buffer owned by the caller: scratch for the keys and values of 32 tokens, then
//! `[query R·D | codes of the query R·D'/2 | their scales R | acc R·D' | sum R·16 | m R]`, D' = D up to the next multiple of 32. The sum l
//! is kept in lanes until the end.

use crate::error::KernelError;
use crate::isa::{Isa, dispatch};

/// Tokens that are processed together; blocks of the cache are multiples of it.
pub(crate) const STEP: usize = 32;
/// Lanes of a row's sum, as many as the widest vector has.
pub(crate) const LANES: usize = 16;
/// The largest head dim.
const MAX_D: usize = 256;

/// The largest code of 16 bits: both its bytes have a sign, with 127 and 127 at most.
pub(crate) const MOST: f32 = 32_639.0;

/// Keys and values of one kv head of one block: values `[tokens, D]`; keys `[tokens / 32][D][32]`, in which the tokens that are not filled
/// are anything. Scores are taken of 32 tokens side by side, so keys that lay like the values would be turned at every step.
///
/// Where they are int8, two rows of either lie in pairs: values `[tokens / 2][D][2]` ([`int8_value_at`]) and keys
/// `[tokens / 32][D / 2][32][2]` ([`int8_key_at`]), of [`int8_key_rows`] rows. Those are of whole steps of 32 tokens, too.
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

/// Rows of int8 keys: D up to the next multiple of 4, the rest anything.
#[must_use]
pub const fn int8_key_rows(d: usize) -> usize {
    d.next_multiple_of(4)
}

/// Where element `i` of the key of `token` lies among int8 keys.
#[must_use]
pub const fn int8_key_at(d: usize, token: usize, i: usize) -> usize {
    (token / STEP * int8_key_rows(d) + i / 2 * 2) * STEP + token % STEP * 2 + i % 2
}

/// Where element `i` of the value of `token` lies among int8 values.
#[must_use]
pub const fn int8_value_at(d: usize, token: usize, i: usize) -> usize {
    token / 2 * 2 * d + 2 * i + token % 2
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
    /// The block that the rows visit next: int8 keys and values are fetched while they compute. Only speed depends on it.
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
    STEP * (d + padded(d)) + rows * (d + padded(d) / 2 + 1 + padded(d) + LANES + 1)
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
    isa: Isa,
    /// The queries `[R, D]` and the softmax scale, until the first block says what is made of them.
    queries: Option<(&'a [f32], f32)>,
    /// Whether the blocks are int8, once there was one.
    int8: bool,
}

/// The rows of the state.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    /// Queries times the softmax scale, `[R, D]`, for floats.
    pub(crate) query: &'a mut [f32],
    /// Codes of the queries, two in a word, as the instruction set multiplies them, `[R, D' / 2]`, for int8.
    pub(crate) codes: &'a mut [f32],
    /// Scales of the codes times the softmax scale, `[R]`.
    pub(crate) scale: &'a mut [f32],
    /// `[R, D']`
    pub(crate) acc: &'a mut [f32],
    /// The lanes of l, `[R]`.
    pub(crate) sum: &'a mut [[f32; LANES]],
    /// `[R]`
    pub(crate) max: &'a mut [f32],
}

impl Rows<'_> {
    /// Nothing is seen.
    fn forget(&mut self) {
        self.acc.fill(0.0);
        self.sum.fill([0.0; LANES]);
        self.max.fill(f32::NEG_INFINITY);
    }

    /// Raises the largest score of row `r` to that of `part` where it is larger. Returns how far what the row had and what `part` has are
    /// below it, both at most 0; `None` where the row saw nothing of `part`, which leaves it as it is, to the sign of a zero.
    pub(crate) fn raise(&mut self, part: &Rows<'_>, r: usize) -> Option<[f32; 2]> {
        if part.sum[r] == [0.0; LANES] {
            return None;
        }
        let (old, other) = (self.max[r], part.max[r]);
        let max = old.max(other);
        self.max[r] = max;
        // The largest score of a row that has seen nothing is −∞. Differences must be −∞ then, not NaN.
        let base = max.max(f32::MIN);
        Some([old - base, other - base])
    }

    /// The sums of row `r`, acc and l, each beside that of `part`.
    pub(crate) fn beside<'s>(
        &'s mut self,
        part: &'s Rows<'_>,
        r: usize,
    ) -> [(&'s mut [f32], &'s [f32]); 2] {
        let width = self.acc.len() / self.max.len();
        let acc = r * width..(r + 1) * width;
        [
            (&mut self.acc[acc.clone()], &part.acc[acc]),
            (&mut self.sum[r], &part.sum[r]),
        ]
    }
}

impl AttentionState<'_> {
    /// Number of query rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.max.len()
    }
}

/// Starts with the queries `q` `[R, D]`, which are multiplied with `softmax_scale` (usually 1 / √D), and a `buffer`, which has
/// [`attention_state_len`] elements and needs no preparation.
///
/// # Panics
/// On wrong lengths, D of 0 or above 256.
pub fn attend_begin<'a>(
    isa: Isa,
    q: &'a [f32],
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
    let (codes, rest) = rest.split_at_mut(rows * padded(d) / 2);
    let (scale, rest) = rest.split_at_mut(rows);
    let (acc, rest) = rest.split_at_mut(rows * padded(d));
    let (sum, max) = rest.split_at_mut(rows * LANES);
    let mut rows = Rows {
        query,
        codes,
        scale,
        acc,
        sum: sum.as_chunks_mut().0,
        max,
    };
    rows.forget();
    AttentionState {
        keys: keys.as_chunks_mut().0,
        values,
        rows,
        d,
        isa,
        queries: Some((q, softmax_scale)),
        int8: false,
    }
}

/// Forgets what the rows have seen. What was made of the queries stays.
pub fn attend_again(state: &mut AttentionState<'_>) {
    if state.queries.is_none() {
        state.rows.forget();
    }
}

/// Lets every row visit one block. The blocks of a state are all int8 or all floats.
///
/// # Panics
/// On wrong lengths, on int8 behind floats or floats behind int8, or if the machine lacks the state's instruction set.
pub fn attend_block(block: KvBlock<'_>, causal: Causal<'_>, state: &mut AttentionState<'_>) {
    assert_eq!(causal.positions.len(), state.rows(), "positions and rows");
    let (d, isa) = (state.d, state.isa);
    let KvBlock {
        kv,
        tokens,
        first,
        next,
    } = block;
    if state.rows() == 0 {
        return;
    }
    let int8 = matches!(kv, KvRef::Int8 { .. });
    if let Some((q, softmax_scale)) = state.queries.take() {
        state.int8 = int8;
        let Rows {
            query,
            codes,
            scale,
            ..
        } = &mut state.rows;
        if int8 {
            dispatch!(isa, attention_i8::quantize(q, d, codes, scale));
            scale.iter_mut().for_each(|scale| *scale *= softmax_scale);
        } else {
            for (query, q) in query.iter_mut().zip(q) {
                *query = q * softmax_scale;
            }
        }
    }
    assert_eq!(int8, state.int8, "int8 and float blocks of one state");
    let whole = tokens.next_multiple_of(STEP);
    let (lens, needed) = match kv {
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
            ((k.len(), v.len()), (whole * int8_key_rows(d), whole * d))
        }
        KvRef::F16 { k, v } => ((k.len(), v.len()), (whole * d, tokens * d)),
        KvRef::F32 { k, v } => ((k.len(), v.len()), (whole * d, tokens * d)),
    };
    assert!(
        lens.0 >= needed.0 && lens.1 >= needed.1,
        "{tokens} tokens of {d} in {lens:?} elements, not {needed:?}"
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
        let seen = Seen {
            rows: from..to,
            causal,
            first,
            count,
        };
        match kv {
            KvRef::Int8 {
                k,
                v,
                k_scale,
                v_scale,
            } => {
                let (key_len, value_len) = (STEP * int8_key_rows(d), STEP * d);
                let (k, v) = (&k[start / STEP * key_len..], &v[start * d..]);
                let next = match next {
                    _ if start + STEP < tokens => Ahead::at(
                        &k[key_len..],
                        &v[value_len..],
                        &k_scale[start + STEP..],
                        &v_scale[start + STEP..],
                    ),
                    Some(KvRef::Int8 {
                        k,
                        v,
                        k_scale,
                        v_scale,
                    }) => Ahead::at(k, v, k_scale, v_scale),
                    _ => Ahead::NOTHING,
                };
                let (mut key_scales, mut value_scales) = ([0.0; STEP], [0.0; STEP]);
                let step = Step {
                    keys: &k[..key_len],
                    values: &v[..value_len],
                    next,
                    scales: Scales {
                        keys: filled(&k_scale[start..], count, &mut key_scales),
                        values: filled(&v_scale[start..], count, &mut value_scales),
                    },
                    seen,
                };
                if padded(d) == d {
                    dispatch!(isa, attention_i8::step(&step, &mut state.rows));
                } else {
                    step_of_padded(isa, d, step, &mut state.rows);
                }
                continue;
            }
            KvRef::F16 { k, v } => {
                let (keys, values) = (state.keys.as_flattened_mut(), &mut *state.values);
                dispatch!(
                    isa,
                    quantize::widen_f16(&k[start * d..(start + STEP) * d], keys)
                );
                dispatch!(
                    isa,
                    quantize::widen_f16(&v[start * d..(start + count) * d], values)
                );
            }
            KvRef::F32 { k, v } => {
                let keys = state.keys.as_flattened_mut();
                keys.copy_from_slice(&k[start * d..(start + STEP) * d]);
                state.values[..count * d].copy_from_slice(&v[start * d..(start + count) * d]);
            }
        }
        pad_rows(state.values, d, count);
        let step = Step {
            keys: state.keys.as_flattened(),
            values: &*state.values,
            next: Ahead::NOTHING,
            scales: Scales::NONE,
            seen,
        };
        dispatch!(isa, attention::step(&step, &mut state.rows));
    }
}

/// Puts zeros behind each of some rows of D values.
fn pad_rows(values: &mut [f32], d: usize, rows: usize) {
    if padded(d) == d {
        return;
    }
    // From the last row on, as each moves back.
    for t in (0..rows).rev() {
        let row = t * padded(d);
        values.copy_within(t * d..(t + 1) * d, row);
        values[row + d..row + padded(d)].fill(0.0);
    }
}

/// A step whose values are no whole vectors: with zeros behind each two rows.
#[inline(never)]
fn step_of_padded(isa: Isa, d: usize, step: Step<'_, i8>, rows: &mut Rows<'_>) {
    let mut values = [0; STEP * MAX_D];
    let pairs = step.values.chunks_exact(2 * d);
    for (out, pairs) in values.chunks_exact_mut(2 * padded(d)).zip(pairs) {
        out[..2 * d].copy_from_slice(pairs);
    }
    let values = &values[..STEP * padded(d)];
    dispatch!(isa, attention_i8::step(&Step { values, ..step }, rows));
}

/// Up to 32 tokens.
pub(crate) struct Step<'a, T> {
    /// `[D]` of 32 tokens, two rows in pairs where they are int8; those that are not there are anything.
    pub(crate) keys: &'a [T],
    /// `[tokens, D']`, zeros behind D, two rows in pairs where they are int8.
    pub(crate) values: &'a [T],
    /// What is fetched meanwhile.
    pub(crate) next: Ahead,
    pub(crate) scales: Scales<'a>,
    pub(crate) seen: Seen<'a>,
}

/// Where the next step's keys, values and scales of both lie; or null.
pub(crate) struct Ahead {
    pub(crate) keys: *const u8,
    pub(crate) values: *const u8,
    pub(crate) scales: [*const u8; 2],
}

impl Ahead {
    const NOTHING: Self = Self {
        keys: std::ptr::null(),
        values: std::ptr::null(),
        scales: [std::ptr::null(); 2],
    };

    fn at(k: &[i8], v: &[i8], k_scale: &[f32], v_scale: &[f32]) -> Self {
        Self {
            keys: k.as_ptr().cast(),
            values: v.as_ptr().cast(),
            scales: [k_scale, v_scale].map(|scale| scale.as_ptr().cast()),
        }
    }
}

/// Of each token of a step that is filled, else 0.
pub(crate) struct Scales<'a> {
    /// What the scores are multiplied with.
    pub(crate) keys: &'a [f32; STEP],
    /// What the weights are multiplied with.
    pub(crate) values: &'a [f32; STEP],
}

impl Scales<'_> {
    /// Floats have none.
    const NONE: Self = Self {
        keys: &[0.0; STEP],
        values: &[0.0; STEP],
    };
}

/// The scales of a step of which `count` tokens are filled.
fn filled<'a>(scales: &'a [f32], count: usize, buffer: &'a mut [f32; STEP]) -> &'a [f32; STEP] {
    if let Some(whole) = scales.first_chunk()
        && count == STEP
    {
        return whole;
    }
    buffer[..count].copy_from_slice(&scales[..count]);
    buffer
}

/// N vectors of W elements from vector `first` on.
#[inline]
pub(crate) fn vectors<X, const W: usize, const N: usize>(run: &[X], first: usize) -> &[[X; W]; N] {
    let vectors = run[first * W..].as_chunks().0;
    vectors.first_chunk().expect("whole vectors")
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

/// Adds what the rows of `part` have seen to what those of `whole` have: two states of the same queries over different tokens. Parts that
/// are added in the order of their tokens give the same result whoever has computed them, and a part in which a row saw nothing changes
/// nothing of it.
///
/// # Panics
/// If the states differ in size.
pub fn attend_merge(whole: &mut AttentionState<'_>, part: &AttentionState<'_>) {
    let isa = whole.isa;
    let (whole, part) = (&mut whole.rows, &part.rows);
    assert_eq!(
        (whole.max.len(), whole.acc.len()),
        (part.max.len(), part.acc.len()),
        "rows and elements of two states"
    );
    dispatch!(isa, attention::merge(whole, part));
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
