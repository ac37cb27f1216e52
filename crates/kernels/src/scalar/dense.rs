//! Dense dot products, eight lanes at a time so that the order is near that of the SIMD kernels.

use std::ops::Range;

use half::{bf16, f16};

use crate::columns::ColumnsMut;
use crate::dense::DenseRef;

const LANES: usize = 8;

pub(crate) fn gemm(
    w: DenseRef<'_>,
    cols: usize,
    rows: Range<usize>,
    x: &[f32],
    out: &mut ColumnsMut<'_>,
    accumulate: Option<f32>,
) {
    for (n, row) in rows.enumerate() {
        let range = row * cols..(row + 1) * cols;
        for t in 0..out.rows() {
            let x = &x[t * cols..][..cols];
            let dot = match w {
                DenseRef::F32(w) => dot(&w[range.clone()], x, |w| w),
                DenseRef::F16(w) => dot(&w[range.clone()], x, |w| f16::from_bits(w).to_f32()),
                DenseRef::BF16(w) => dot(&w[range.clone()], x, |w| bf16::from_bits(w).to_f32()),
                DenseRef::I8 { q, scales } => scales[row] * dot(&q[range.clone()], x, f32::from),
            };
            let out = &mut out.row_mut(t)[n];
            match accumulate {
                Some(s) => *out += s * dot,
                None => *out = dot,
            }
        }
    }
}

fn dot<W: Copy>(w: &[W], x: &[f32], to_f32: impl Fn(W) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (w, w_tail) = w.as_chunks::<LANES>();
    let (x, x_tail) = x.as_chunks::<LANES>();
    for (w, x) in w.iter().zip(x) {
        for i in 0..LANES {
            lanes[i] += to_f32(w[i]) * x[i];
        }
    }
    for (i, (&w, &x)) in w_tail.iter().zip(x_tail).enumerate() {
        lanes[i] += to_f32(w) * x;
    }
    lanes.iter().sum()
}
