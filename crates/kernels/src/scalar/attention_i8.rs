//! One step of attention over int8 keys and values, row by row.

use super::attention::{Weights, weigh};
use super::quantize::{TINY, whole};
use crate::attention::{MOST, Rows, STEP, Step};

/// Codes of queries `[R, d]`, two in a word, and their scales: not finite if an element is not.
pub(crate) fn quantize(queries: &[f32], d: usize, codes: &mut [f32], scales: &mut [f32]) {
    let larger = |max: f32, x: f32| if max.is_nan() || max > x { max } else { x };
    let words = codes.len() / scales.len();
    let rows = codes.chunks_exact_mut(words).zip(scales);
    for (query, (words, scale)) in queries.chunks_exact(d).zip(rows) {
        words.fill(0.0);
        let max = query.iter().map(|x| x.abs()).fold(0.0, larger);
        if max < TINY {
            *scale = 0.0;
            continue;
        }
        for (word, pair) in words.iter_mut().zip(query.chunks(2)) {
            let mut codes = [0; 2];
            for (code, x) in codes.iter_mut().zip(pair) {
                *code = self::code(x * (MOST / max));
            }
            let [[a, b], [c, d]] = codes.map(i16::to_le_bytes);
            *word = f32::from_le_bytes([a, b, c, d]);
        }
        *scale = max / MOST;
    }
}

/// To the nearest, ties to even.
#[expect(clippy::cast_possible_truncation, reason = "at most 32,639")]
fn code(x: f32) -> i16 {
    whole(x) as i16
}

/// Code `i` of a row of words.
fn code_at(words: &[f32], i: usize) -> i32 {
    let bytes = words[i / 2].to_le_bytes();
    i32::from(i16::from_le_bytes(bytes.as_chunks().0[i % 2]))
}

/// Lets every row see up to 32 tokens.
pub(crate) fn step(kv: &Step<'_, i8>, rows: &mut Rows<'_>) {
    let count = rows.max.len();
    let (padded, words) = (rows.acc.len() / count, rows.codes.len() / count);
    // Of two rows in pairs that are `width` long.
    let at = |row: usize, width: usize, column: usize| row / 2 * 2 * width + 2 * column + row % 2;
    for r in 0..count {
        let (from, to) = kv.seen.by(r);
        if from >= to {
            continue;
        }
        let query = rows.codes[r * words..][..words].to_vec();
        let scale = rows.scale[r];
        let score = |t: usize| {
            let terms = (0..kv.keys.len() / STEP)
                .map(|i| code_at(&query, i) * i32::from(kv.keys[at(i, STEP, t)]));
            terms.sum::<i32>() as f32 * kv.scales.keys[t] * scale
        };
        let Weights {
            tokens,
            rescale,
            share,
        } = weigh(rows, r, from..to, score);
        let scales = &kv.scales.values[from..to];
        let largest = scales.iter().copied().fold(0.0, f32::max);
        let mut codes = [0; STEP];
        if largest > 0.0 {
            for t in from..to {
                let share = kv.scales.values[t] / largest;
                codes[t] = i32::from(code(tokens[t] * (share * MOST)));
            }
        }
        let value = share * (largest / MOST);
        for (i, acc) in rows.acc[r * padded..][..padded].iter_mut().enumerate() {
            let terms = (from..to).map(|t| codes[t] * i32::from(kv.values[at(t, padded, i)]));
            *acc = *acc * rescale + terms.sum::<i32>() as f32 * value;
        }
    }
}
