//! Dense weights used where they lie (a mapped file, a LoRA matrix) times f32 rows.
//!
//! Every output element is one dot product with a fixed order of lanes and one fixed reduction tree, whatever the tile.

use std::ops::Range;

use half::{bf16, f16};

use crate::columns::ColumnsMut;
use crate::isa::{Isa, dispatch};

/// A row-major matrix `[rows, cols]`.
#[derive(Clone, Copy, Debug)]
pub enum DenseRef<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// IEEE half, as bits.
    F16(&'a [u16]),
    /// bfloat16, as bits.
    BF16(&'a [u16]),
    /// Symmetric int8 with one scale per row.
    I8 {
        /// Codes `[rows, cols]`.
        q: &'a [i8],
        /// Scales `[rows]`.
        scales: &'a [f32],
    },
}

impl DenseRef<'_> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::F16(w) | Self::BF16(w) => w.len(),
            Self::I8 { q, .. } => q.len(),
        }
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Multiplies: `out` `[T, rows.len()]` = `x` `[T, cols]` · `w[rows]`ᵀ, or `out += s · x · w[rows]`ᵀ with `accumulate = Some(s)`.
///
/// # Panics
/// If the sizes do not fit each other, or the machine lacks `isa`.
pub fn gemm_dense(
    isa: Isa,
    w: DenseRef<'_>,
    cols: usize,
    rows: Range<usize>,
    x: &[f32],
    out: &mut ColumnsMut<'_>,
    accumulate: Option<f32>,
) {
    assert!(
        rows.end * cols <= w.len(),
        "rows {rows:?} of {cols} columns in {} elements",
        w.len()
    );
    if let DenseRef::I8 { scales, .. } = w {
        assert!(
            rows.end <= scales.len(),
            "scales of rows {rows:?}: {}",
            scales.len()
        );
    }
    assert_eq!(out.width(), rows.len(), "columns of output and weight rows");
    assert_eq!(
        x.len(),
        out.rows() * cols,
        "activations of {} rows of {cols}",
        out.rows()
    );
    dispatch!(isa, dense::gemm(w, cols, rows, x, out, accumulate));
}

/// Values of one row of `w` `[rows, cols]`: the embedding lookup.
///
/// # Panics
/// If there is no such row or `out` is not `cols` long.
pub fn dense_row(w: DenseRef<'_>, cols: usize, row: usize, out: &mut [f32]) {
    assert_eq!(out.len(), cols, "columns");
    assert!(
        (row + 1) * cols <= w.len(),
        "row {row} of {cols} columns in {} elements",
        w.len()
    );
    let range = row * cols..(row + 1) * cols;
    match w {
        DenseRef::F32(w) => out.copy_from_slice(&w[range]),
        DenseRef::F16(w) => {
            out.iter_mut()
                .zip(&w[range])
                .for_each(|(o, &w)| *o = f16::from_bits(w).to_f32());
        }
        DenseRef::BF16(w) => {
            out.iter_mut()
                .zip(&w[range])
                .for_each(|(o, &w)| *o = bf16::from_bits(w).to_f32());
        }
        DenseRef::I8 { q, scales } => {
            out.iter_mut()
                .zip(&q[range])
                .for_each(|(o, &q)| *o = f32::from(q) * scales[row]);
        }
    }
}

/// What is done with the dot products of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// A factor per column of the output.
    pub(crate) scales: Option<&'a [f32]>,
    pub(crate) accumulate: Option<f32>,
}

impl Finish<'_> {
    /// Writes the dots of columns `n..n + N` of a row of the output.
    #[inline]
    pub(crate) fn write<const N: usize>(self, dots: &[f32; N], n: usize, row: &mut [f32]) {
        let mut values = *dots;
        if let Some(scales) = self.scales {
            for (value, scale) in values.iter_mut().zip(&scales[n..n + N]) {
                *value *= scale;
            }
        }
        let out = &mut row[n..n + N];
        match self.accumulate {
            Some(s) => {
                for (out, value) in out.iter_mut().zip(values) {
                    *out += s * value;
                }
            }
            None => out.copy_from_slice(&values),
        }
    }
}
