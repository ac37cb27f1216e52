//! Symmetric int8 by max|x|, and back.

use half::f16;

use crate::columns::ColumnsMut;
use crate::packed::GROUP;
use crate::quantize::{QuantGroup, WHOLE};

/// Below this max|x| a group counts as zeros: 127 / x would come near the largest f32.
pub(crate) const TINY: f32 = f32::from_bits(7 << 23); // 2^-120

/// Quantizes groups; the index of the first group that holds a non-finite value, if any.
pub(crate) fn groups(x: &[[f32; GROUP]], out: &mut [QuantGroup]) -> Option<usize> {
    for (index, (x, out)) in x.iter().zip(out).enumerate() {
        match vector(x, &mut out.q) {
            Some(scale) => out.scale = scale,
            None => return Some(index),
        }
        let halves = out.q.as_chunks::<{ GROUP / 2 }>().0.iter();
        for (sum, q) in out.halves.iter_mut().zip(halves) {
            *sum = q.iter().map(|&q| i16::from(q)).sum();
        }
        out.sum = out.halves.map(i32::from).iter().sum();
        out.start = WHOLE - (8 * out.sum) as f32;
    }
    None
}

/// The same to some columns of a matrix; the first row that holds a non-finite value, if any.
pub(crate) fn columns(x: &[[f32; GROUP]], out: &mut ColumnsMut<'_, QuantGroup>) -> Option<usize> {
    let mut rows = x.chunks_exact(out.width().max(1)).enumerate();
    rows.find_map(|(row, x)| groups(x, out.row_mut(row)).map(|_| row))
}

/// Quantizes one vector with one scale; `None` if it holds a non-finite value.
pub(crate) fn vector(x: &[f32], q: &mut [i8]) -> Option<f32> {
    let mut max = 0.0f32;
    for &x in x {
        if !x.is_finite() {
            return None;
        }
        max = max.max(x.abs());
    }
    let (scale, inverse) = scale_of(max);
    for (q, &x) in q.iter_mut().zip(x) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "|x * inverse| rounds to at most 127"
        )]
        let code = whole(x * inverse) as i8;
        *q = code;
    }
    Some(scale)
}

/// To the nearest, ties to even, of less than 2²²: adding 1.5 · 2²³ leaves no bits for a fraction, without a library call.
pub(crate) fn whole(x: f32) -> f32 {
    (x + WHOLE) - WHOLE
}

/// Scale and its inverse from max|x|.
pub(crate) fn scale_of(max: f32) -> (f32, f32) {
    if max < TINY {
        (0.0, 0.0)
    } else {
        (max / 127.0, 127.0 / max)
    }
}

/// Half to f32.
pub(crate) fn widen_f16(halves: &[u16], out: &mut [f32]) {
    for (out, &half) in out.iter_mut().zip(halves) {
        *out = f16::from_bits(half).to_f32();
    }
}
