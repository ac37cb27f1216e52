//! A weight matrix `[out, in]`, ready to multiply: integer panels of our own, or floats in place on the file's mapping.
//!
//! Work on a matrix is split into units of 16 output rows (a panel). Every unit of every token row is computed by the same kernel
//! in the same order, so neither the split nor the other rows of a batch change a result.

use std::ops::Range;
use std::sync::Arc;

use edgethink_kernels::{
    Bits, ColumnsMut, DenseRef, Isa, PANEL, PackedMut, PackedRef, PackedShape, QuantRows,
    dense_row, gemm_dense, gemm_packed, pack_rows, quantize_weights, unpack_row,
};
use edgethink_model::{Bytes, Tensor};
use edgethink_pool::Pool;

use crate::error::EngineError;

/// Rows that one task of loading converts; a multiple of the panel.
const LOAD_ROWS: usize = 256;

/// How a matrix is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// As it is stored.
    Stored,
    /// As packed integers of this width, rounded to nearest.
    Rounded(Bits),
}

/// A matrix in memory.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// Integer panels.
    Packed(Packed),
    /// A float tensor as it is in the file.
    Dense(Tensor),
}

/// Owned panels.
#[derive(Debug)]
pub(crate) struct Packed {
    shape: PackedShape,
    quants: Vec<u8>,
    scales: Vec<u16>,
    offsets: Option<Vec<u16>>,
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
    /// The first rows, of `cols` elements each.
    pub(crate) fn first_rows(self, rows: usize, cols: usize) -> Self {
        Input {
            floats: &self.floats[..rows * cols],
            quants: self.quants.map(|q| q.slice(0..rows)),
        }
    }
}

impl Matrix {
    /// Takes a tensor from the file. Integers are read through the file handle, so the mapping does not become resident.
    pub(crate) fn load(
        name: &str,
        tensor: &Tensor,
        hold: Hold,
        pool: &Pool,
    ) -> Result<Matrix, EngineError> {
        if hold == Hold::Stored && tensor.dtype.is_float() {
            return Ok(Matrix::Dense(tensor.clone()));
        }
        Packed::load(name, tensor, hold, pool).map(Matrix::Packed)
    }

    /// Output features.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Matrix::Packed(packed) => packed.shape.rows,
            Matrix::Dense(tensor) => tensor.rows(),
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
            Matrix::Packed(p) => {
                p.quants.len() + 2 * p.scales.len() + 2 * p.offsets.as_ref().map_or(0, Vec::len)
            }
            Matrix::Dense(tensor) => tensor.storage().len(),
        }
    }

    /// Multiplies: `out` `[T, rows of the units]` = input · Wᵀ.
    pub(crate) fn multiply(
        &self,
        isa: Isa,
        units: Range<usize>,
        input: Input<'_>,
        out: &mut ColumnsMut<'_>,
    ) {
        match self {
            Matrix::Packed(packed) => {
                let quants = input
                    .quants
                    .expect("rows are quantized for packed matrices");
                gemm_packed(isa, packed.view(), units, quants, out);
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
                    None,
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

/// A float tensor for the kernels.
pub(crate) fn dense_view(tensor: &Tensor) -> DenseRef<'_> {
    use edgethink_model::Dtype;
    let floats = tensor.as_f32().map(DenseRef::F32);
    let halves = || {
        let bits = tensor.as_u16()?;
        Some(if tensor.dtype == Dtype::F16 {
            DenseRef::F16(bits)
        } else {
            DenseRef::BF16(bits)
        })
    };
    floats
        .or_else(halves)
        .expect("only float tensors are used in place")
}

impl Packed {
    fn view(&self) -> PackedRef<'_> {
        PackedRef::new(
            self.shape,
            &self.quants,
            &self.scales,
            self.offsets.as_deref(),
        )
    }

    fn load(name: &str, tensor: &Tensor, hold: Hold, pool: &Pool) -> Result<Packed, EngineError> {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        if !cols.is_multiple_of(32) {
            return Err(EngineError::Columns {
                name: name.to_owned(),
                cols,
            });
        }
        let (bits, has_offset) = match hold {
            Hold::Rounded(bits) => (bits, false),
            Hold::Stored => {
                let bits = if tensor.dtype.code_bits() == Some(4) {
                    Bits::B4
                } else {
                    Bits::B8
                };
                (bits, !is_symmetric(tensor))
            }
        };
        let shape = PackedShape {
            rows,
            cols,
            bits,
            has_offset,
        };
        let mut packed = Packed {
            shape,
            quants: vec![0; shape.quant_bytes()],
            scales: vec![0; shape.scale_count()],
            offsets: has_offset.then(|| vec![0; shape.scale_count()]),
        };
        // One task per part: read, convert, pack.
        struct Part<'a> {
            first: usize,
            target: PackedMut<'a>,
            result: Result<(), EngineError>,
        }
        let offsets = packed.offsets.as_deref_mut();
        let mut rest = PackedMut::new(shape, &mut packed.quants, &mut packed.scales, offsets);
        let mut parts = Vec::new();
        for first in (0..rows).step_by(LOAD_ROWS) {
            let panels = (LOAD_ROWS / PANEL).min(rest.shape().panels());
            let (target, tail) = rest.split_at_panel(panels);
            rest = tail;
            parts.push(Part {
                first,
                target,
                result: Ok(()),
            });
        }
        pool.for_each_mut(&mut parts, |_, part| {
            let rows = part.first..part.first + part.target.shape().rows;
            part.result = convert(name, tensor, hold, rows, &mut part.target);
        });
        parts.into_iter().try_for_each(|part| part.result)?;
        Ok(packed)
    }
}

/// Whether the format's zero is the code 8 (4 bits) or 128 (8 bits), so that no offsets are needed.
fn is_symmetric(tensor: &Tensor) -> bool {
    use edgethink_model::Dtype;
    matches!(tensor.dtype, Dtype::Q4_0 | Dtype::Q8_0)
}

/// Reads rows of the tensor and packs them.
fn convert(
    name: &str,
    tensor: &Tensor,
    hold: Hold,
    rows: Range<usize>,
    target: &mut PackedMut<'_>,
) -> Result<(), EngineError> {
    let cols = tensor.cols();
    let mut bytes = Vec::new();
    let unreadable = |source| EngineError::Read {
        name: name.to_owned(),
        source: Arc::new(source),
    };
    tensor
        .read_rows_into(rows.clone(), &mut bytes)
        .map_err(unreadable)?;
    let part = Tensor::new(tensor.dtype, vec![rows.len(), cols], Bytes::copy_of(&bytes))
        .expect("whole rows of a valid tensor");
    let mut codes = vec![0; rows.len() * cols];
    let mut scales = vec![0.0; codes.len() / 32];
    let mut offsets = vec![0.0; codes.len() / 32];
    let damaged = |source| EngineError::Quantize {
        name: name.to_owned(),
        source,
    };
    match hold {
        Hold::Stored => part.codes(0..rows.len(), &mut codes, &mut scales, &mut offsets),
        Hold::Rounded(bits) => {
            quantize_weights(bits, cols, &part.to_f32(), &mut codes, &mut scales)
                .map_err(damaged)?;
        }
    }
    let offsets = target.shape().has_offset.then_some(offsets.as_slice());
    pack_rows(target, 0, &codes, &scales, offsets).map_err(damaged)
}
