//! A weight matrix `[out, in]`, ready to multiply: integer panels of our own, or floats or the codes of an adapter in place on the file's
//! mapping.
//!
//! Work on a matrix is split into units of 16 output rows (a panel). Every unit of every token row is computed by the same kernel
//! in the same order, so neither the split nor the other rows of a batch change a result.

use std::ops::Range;

use edgethink_kernels::{
    Bits, ColumnsMut, DenseRef, Isa, PANEL, QuantRows, dense_row, gemm_dense, gemm_packed,
    unpack_row,
};
use edgethink_model::{Dtype, Tensor};

use crate::packed::Packed;

/// How a matrix is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// As it is stored.
    Stored,
    /// As packed integers of this width, rounded to nearest.
    Rounded(Bits),
    /// As packed 8-bit integers, times this power of two so that f16 scales are exact enough for small values, with columns of zeros up to
    /// whole groups: a matrix of an adapter.
    Scaled(i32),
}

/// A matrix in memory.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// Integer panels.
    Packed(Packed),
    /// A tensor of floats, or of 8-bit codes with a scale per row, as it is in the file.
    Dense(Tensor),
}

/// Token rows to multiply with: floats, and the same rows quantized where a packed matrix needs them.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// `[T, in]`
    pub(crate) floats: &'a [f32],
    /// `[T, in]`, present if any matrix of the group is packed.
    pub(crate) quants: Option<QuantRows<'a>>,
}

impl Input<'_> {
    /// Some of the rows, of `cols` elements each.
    pub(crate) fn slice(self, rows: Range<usize>, cols: usize) -> Self {
        Input {
            floats: &self.floats[rows.start * cols..rows.end * cols],
            quants: self.quants.map(|q| q.slice(rows)),
        }
    }
}

impl Matrix {
    /// Output features.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Matrix::Packed(packed) => packed.shape().rows,
            Matrix::Dense(tensor) => tensor.rows(),
        }
    }

    /// Input features.
    pub(crate) fn cols(&self) -> usize {
        match self {
            Matrix::Packed(packed) => packed.shape().cols,
            Matrix::Dense(tensor) => tensor.cols(),
        }
    }

    /// Units of work.
    pub(crate) fn units(&self) -> usize {
        self.rows().div_ceil(PANEL)
    }

    /// The output rows of some units.
    pub(crate) fn rows_of(&self, units: Range<usize>) -> Range<usize> {
        (units.start * PANEL).min(self.rows())..(units.end * PANEL).min(self.rows())
    }

    /// Whether it multiplies quantized rows.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self, Matrix::Packed(_))
    }

    /// Bytes that it takes in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Matrix::Packed(packed) => packed.shape().bytes(),
            Matrix::Dense(tensor) => tensor.storage().len(),
        }
    }

    /// Multiplies: `out` `[T, rows of the units]` = input · Wᵀ, or += s · input · Wᵀ with `accumulate = Some(s)`.
    pub(crate) fn multiply(
        &self,
        isa: Isa,
        units: Range<usize>,
        input: Input<'_>,
        out: &mut ColumnsMut<'_>,
        accumulate: Option<f32>,
    ) {
        match self {
            Matrix::Packed(packed) => {
                let quants = input
                    .quants
                    .expect("rows are quantized for packed matrices");
                gemm_packed(isa, packed.view(), units, quants, out, accumulate);
            }
            Matrix::Dense(tensor) => {
                let rows = self.rows_of(units);
                gemm_dense(
                    isa,
                    dense_view(tensor),
                    tensor.cols(),
                    rows,
                    input.floats,
                    out,
                    accumulate,
                );
            }
        }
    }

    /// One row as floats: the embedding lookup.
    pub(crate) fn row_into(&self, row: usize, out: &mut [f32]) {
        match self {
            Matrix::Packed(packed) => unpack_row(packed.view(), row, out),
            Matrix::Dense(tensor) => dense_row(dense_view(tensor), tensor.cols(), row, out),
        }
    }
}

/// A tensor that is used in place, for the kernels.
pub(crate) fn dense_view(tensor: &Tensor) -> DenseRef<'_> {
    let floats = tensor.as_f32().map(DenseRef::F32);
    let halves = || {
        let bits = tensor.as_u16()?;
        Some(if tensor.dtype == Dtype::F16 {
            DenseRef::F16(bits)
        } else {
            DenseRef::BF16(bits)
        })
    };
    let int8 = || {
        let (q, scales) = tensor.as_int8()?;
        Some(DenseRef::I8 { q, scales })
    };
    floats
        .or_else(halves)
        .or_else(int8)
        .expect("only floats and I8 are used in place")
}
