//! A stored tensor: dtype, shape and bytes, with the few ways to read it.
//!
//! Shapes are row-major and the last dimension is the row. A weight is `[out, in]`, as Hugging Face stores it; GGUF
//! lists dimensions the other way round and the loader turns them.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use thiserror::Error;

use crate::{Bytes, Dtype, panels, quant};

/// A tensor in a file or in memory. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// How the elements are stored.
    pub dtype: Dtype,
    /// Dimensions, the row length last.
    pub shape: Vec<usize>,
    bytes: Bytes,
    in_panels: bool,
    /// Of the rows of I8; empty for all others.
    row_scales: Arc<[f32]>,
}

/// Dtype, shape and bytes do not fit together.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorError {
    /// The row is no whole number of blocks, or the size overflows.
    #[error("shape {shape:?} is not possible for {dtype}: rows must be multiples of {block} and the size must fit in memory",
            block = dtype.block_len())]
    Shape {
        /// Element type.
        dtype: Dtype,
        /// The shape that was given.
        shape: Vec<usize>,
    },
    /// There are more or fewer bytes than the shape asks for.
    #[error("{dtype} of shape {shape:?} needs {expected} bytes, found {found}")]
    Length {
        /// Element type.
        dtype: Dtype,
        /// The shape that was given.
        shape: Vec<usize>,
        /// Bytes that shape needs.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// There are more or fewer scales than rows.
    #[error("I8 of shape {shape:?} needs one scale per row, found {found}")]
    Scales {
        /// The shape that was given.
        shape: Vec<usize>,
        /// Scales that were given.
        found: usize,
    },
    /// Said to lie in panels, which it cannot.
    #[error("{dtype} of shape {shape:?} cannot lie in panels of 16 rows")]
    Panels {
        /// Element type.
        dtype: Dtype,
        /// The shape that was given.
        shape: Vec<usize>,
    },
}

impl Tensor {
    /// A tensor over `bytes`. Floats that are not aligned in memory are copied, so that the slice views always work.
    ///
    /// # Errors
    /// [`TensorError`] if the number of bytes is not what dtype and shape need, or for I8, which needs scales ([`Tensor::int8`]).
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Bytes) -> Result<Self, TensorError> {
        if dtype == Dtype::I8 {
            return Err(TensorError::Scales { shape, found: 0 });
        }
        Self::of_bytes(dtype, shape, bytes)
    }

    fn of_bytes(dtype: Dtype, shape: Vec<usize>, bytes: Bytes) -> Result<Self, TensorError> {
        let Some(expected) = dtype.tensor_bytes(&shape) else {
            return Err(TensorError::Shape { dtype, shape });
        };
        if expected != bytes.len() {
            let found = bytes.len();
            return Err(TensorError::Length {
                dtype,
                shape,
                expected,
                found,
            });
        }
        let aligned = !dtype.is_float() || bytes.is_aligned(dtype.block_bytes());
        let bytes = if aligned {
            bytes
        } else {
            Bytes::copy_of(bytes.as_slice())
        };
        Ok(Self {
            dtype,
            shape,
            bytes,
            in_panels: false,
            row_scales: Arc::new([]),
        })
    }

    /// A tensor whose `bytes` lie in [`panels`]. It reads as any other; an engine uses it without a copy.
    ///
    /// # Errors
    /// [`TensorError`] if dtype and shape have no panels, and as [`Tensor::new`].
    pub fn in_panels(dtype: Dtype, shape: Vec<usize>, bytes: Bytes) -> Result<Self, TensorError> {
        if !panels::possible(dtype, &shape) {
            return Err(TensorError::Panels { dtype, shape });
        }
        let mut tensor = Self::new(dtype, shape, bytes)?;
        tensor.in_panels = true;
        Ok(tensor)
    }

    /// An I8 tensor: row r holds `scales[r]` times its codes.
    ///
    /// # Errors
    /// [`TensorError`] if the number of codes or of scales is not what the shape needs.
    pub fn int8(shape: Vec<usize>, codes: Bytes, scales: &[f32]) -> Result<Self, TensorError> {
        let mut tensor = Self::of_bytes(Dtype::I8, shape, codes)?;
        if scales.len() != tensor.rows() {
            return Err(TensorError::Scales {
                shape: tensor.shape,
                found: scales.len(),
            });
        }
        tensor.row_scales = scales.into();
        Ok(tensor)
    }

    /// An F32 tensor holding a copy of `values`.
    ///
    /// # Errors
    /// [`TensorError`] if `values` has another length than the shape.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Self, TensorError> {
        Self::new(
            Dtype::F32,
            shape,
            Bytes::copy_of(bytemuck::cast_slice(values)),
        )
    }

    /// A BF16 tensor holding `values` rounded to the nearest.
    ///
    /// # Errors
    /// [`TensorError`] if `values` has another length than the shape.
    pub fn bf16_from_f32(shape: Vec<usize>, values: &[f32]) -> Result<Self, TensorError> {
        let rounded: Vec<u16> = values
            .iter()
            .map(|&x| bf16::from_f32(x).to_bits())
            .collect();
        Self::new(
            Dtype::BF16,
            shape,
            Bytes::copy_of(bytemuck::cast_slice(&rounded)),
        )
    }

    /// The bytes of all rows, row after row: in place, but for a tensor in panels. Reading them makes a mapped tensor resident.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        self.in_rows(0..self.rows())
    }

    /// The bytes as they lie in the file.
    pub fn storage(&self) -> &Bytes {
        &self.bytes
    }

    /// The [`panels`] of a tensor that lies in them.
    pub fn panels(&self) -> Option<&Bytes> {
        self.in_panels.then_some(&self.bytes)
    }

    /// Row length: the last dimension, 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows() * self.cols()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of one row.
    pub fn row_size(&self) -> usize {
        self.cols() / self.dtype.block_len() * self.dtype.block_bytes()
    }

    /// Copies the bytes of rows `rows`, row after row, into `out` (cleared first) through the file handle: a mapped tensor does not
    /// become resident.
    ///
    /// # Errors
    /// The system's error for a failed read.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn read_rows_into(&self, rows: Range<usize>, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.in_panels {
            return self.bytes.read_into(self.byte_range(rows), out);
        }
        let mut panels = Vec::new();
        let whole = whole_panels(&rows);
        self.bytes.read_into(self.byte_range(whole), &mut panels)?;
        self.rows_of_panels(rows, &panels, out);
        Ok(())
    }

    /// The dtype in which the tensor is written and hashed: its own, but F32 for I8, whose codes alone say nothing.
    pub fn written_dtype(&self) -> Dtype {
        match self.dtype {
            Dtype::I8 => Dtype::F32,
            dtype => dtype,
        }
    }

    /// The bytes of all rows, a run of whole rows at a time, about 1 MiB each: a mapped tensor does not become resident. They are of
    /// [`Tensor::written_dtype`].
    ///
    /// # Errors
    /// The system's error for a failed read, and the first one that `take` gives.
    pub fn read_runs(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let run = ((1 << 20) / self.row_size().max(1)).max(1);
        let run = run.next_multiple_of(panels::PANEL);
        let (mut buffer, mut floats) = (Vec::new(), Vec::new());
        for first in (0..self.rows()).step_by(run) {
            let rows = first..self.rows().min(first + run);
            if self.dtype == Dtype::I8 {
                floats.resize(rows.len() * self.cols(), 0.0);
                self.read_rows_f32(rows, &mut floats)?;
                take(bytemuck::cast_slice(&floats))?;
            } else {
                self.read_rows_into(rows, &mut buffer)?;
                take(&buffer)?;
            }
        }
        Ok(())
    }

    /// The elements in place, for dtype F32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        (self.dtype == Dtype::F32).then(|| bytemuck::cast_slice(self.bytes.as_slice()))
    }

    /// The bit patterns in place, for dtypes F16 and BF16.
    pub fn as_u16(&self) -> Option<&[u16]> {
        matches!(self.dtype, Dtype::F16 | Dtype::BF16)
            .then(|| bytemuck::cast_slice(self.bytes.as_slice()))
    }

    /// The codes in place and the scales of the rows, for dtype I8.
    pub fn as_int8(&self) -> Option<(&[i8], &[f32])> {
        let codes = || bytemuck::cast_slice(self.bytes.as_slice());
        (self.dtype == Dtype::I8).then(|| (codes(), &*self.row_scales))
    }

    /// This tensor, or the F32 tensor that one of dtype I8 stands for.
    #[must_use]
    pub fn floats(&self) -> Cow<'_, Self> {
        if self.dtype != Dtype::I8 {
            return Cow::Borrowed(self);
        }
        let floats = Self::from_f32(self.shape.clone(), &self.to_f32());
        Cow::Owned(floats.expect("as many values as elements"))
    }

    /// All elements as f32, in a new vector.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.dequantize_rows(0..self.rows(), &mut out);
        out
    }

    /// Rows `rows` as f32 into `out` `[rows, cols]`.
    ///
    /// # Panics
    /// If there are no such rows or `out` has another length.
    pub fn dequantize_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        assert_eq!(
            out.len(),
            rows.len() * self.cols(),
            "rows {rows:?} of shape {:?}",
            self.shape
        );
        self.to_floats(rows.clone(), &self.in_rows(rows), out);
    }

    /// As [`Tensor::dequantize_rows`], through the file handle: a mapped tensor does not become resident.
    ///
    /// # Errors
    /// The system's error for a failed read.
    ///
    /// # Panics
    /// As [`Tensor::dequantize_rows`].
    pub fn read_rows_f32(&self, rows: Range<usize>, out: &mut [f32]) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.read_rows_into(rows.clone(), &mut bytes)?;
        self.to_floats(rows, &bytes, out);
        Ok(())
    }

    /// The stored bytes of some rows as f32.
    fn to_floats(&self, rows: Range<usize>, bytes: &[u8], out: &mut [f32]) {
        if self.dtype != Dtype::I8 {
            return dequantize(self.dtype, bytes, out);
        }
        let cols = self.cols().max(1);
        let codes = bytemuck::cast_slice::<u8, i8>(bytes).chunks_exact(cols);
        let stored = out.chunks_exact_mut(cols).zip(codes);
        for ((out, codes), scale) in stored.zip(&self.row_scales[rows]) {
            for (x, &q) in out.iter_mut().zip(codes) {
                *x = scale * f32::from(q);
            }
        }
    }

    /// The integer codes of a block format, by groups of 32: value = scale * code + offset.
    ///
    /// Fills `codes` `[rows, cols]` (0..16 or 0..256, see [`Dtype::code_bits`]), `scales` and `offsets` `[rows, cols/32]`.
    /// Exact up to the f32 product of the two scales that some formats have.
    ///
    /// # Panics
    /// If the dtype has no codes, there are no such rows, or a slice has another length.
    pub fn codes(
        &self,
        rows: Range<usize>,
        codes: &mut [u8],
        scales: &mut [f32],
        offsets: &mut [f32],
    ) {
        let len = rows.len() * self.cols();
        assert_eq!(
            codes.len(),
            len,
            "codes of rows {rows:?} of shape {:?}",
            self.shape
        );
        assert_eq!(
            (scales.len(), offsets.len()),
            (len / 32, len / 32),
            "one scale and offset per 32 elements"
        );
        quant::block_codes(self.dtype, &self.in_rows(rows), codes, scales, offsets);
    }

    /// The bytes of some rows, row after row; in place where they lie so.
    fn in_rows(&self, rows: Range<usize>) -> Cow<'_, [u8]> {
        let all = self.bytes.as_slice();
        if !self.in_panels {
            return Cow::Borrowed(&all[self.byte_range(rows)]);
        }
        let mut out = Vec::new();
        let whole = self.byte_range(whole_panels(&rows));
        self.rows_of_panels(rows, &all[whole], &mut out);
        Cow::Owned(out)
    }

    /// Rows out of the whole panels that hold them.
    fn rows_of_panels(&self, rows: Range<usize>, panels: &[u8], out: &mut Vec<u8>) {
        panels::to_rows(self.dtype, self.cols(), panels, out);
        let skip = rows.start % panels::PANEL * self.row_size();
        out.truncate(skip + rows.len() * self.row_size());
        out.drain(..skip);
    }

    fn byte_range(&self, rows: Range<usize>) -> Range<usize> {
        assert!(
            rows.start <= rows.end && rows.end <= self.rows(),
            "rows {rows:?} of shape {:?}",
            self.shape
        );
        rows.start * self.row_size()..rows.end * self.row_size()
    }
}

/// The rows of the panels that hold `rows`.
fn whole_panels(rows: &Range<usize>) -> Range<usize> {
    let start = rows.start / panels::PANEL * panels::PANEL;
    start..rows.end.next_multiple_of(panels::PANEL).max(start)
}

/// Stored bytes as f32. `bytes` holds whole blocks for exactly `out.len()` elements.
///
/// # Panics
/// If the lengths do not fit, or for I8, whose scales lie apart.
pub fn dequantize(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        dtype.tensor_bytes(&[out.len()]),
        Some(bytes.len()),
        "{dtype} bytes for {} elements",
        out.len()
    );
    match dtype {
        Dtype::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(bytes),
        Dtype::F16 => widen(bytes, out, |bits| f16::from_bits(bits).to_f32()),
        Dtype::BF16 => widen(bytes, out, |bits| bf16::from_bits(bits).to_f32()),
        _ => quant::dequantize_blocks(dtype, bytes, out),
    }
}

fn widen(bytes: &[u8], out: &mut [f32], to_f32: impl Fn(u16) -> f32) {
    for (x, pair) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *x = to_f32(u16::from_le_bytes(*pair));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_every_dtype_read_back() {
        let values = [1.0f32, -2.5, 0.0, 65504.0, -0.125, 3.0];
        let f32s = Tensor::from_f32(vec![2, 3], &values).unwrap();
        assert_eq!(f32s.to_f32(), values);
        assert_eq!(f32s.as_f32().unwrap(), values);
        let halves: Vec<u8> = values
            .iter()
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect();
        let f16s = Tensor::new(Dtype::F16, vec![2, 3], Bytes::copy_of(&halves)).unwrap();
        assert_eq!(f16s.to_f32(), values);
        assert!(f16s.as_f32().is_none());
        let bf16s = Tensor::bf16_from_f32(vec![2, 3], &values).unwrap();
        assert_eq!(bf16s.to_f32(), [1.0, -2.5, 0.0, 65536.0, -0.125, 3.0]);
        let mut row = [0.0; 3];
        bf16s.dequantize_rows(1..2, &mut row);
        assert_eq!(row, [65536.0, -0.125, 3.0]);
    }

    #[test]
    fn codes_with_a_scale_per_row_read_as_floats() {
        let codes = Bytes::copy_of(&[1, 255, 127, 129, 0, 2]);
        let tensor = Tensor::int8(vec![2, 3], codes.clone(), &[0.5, 4.0]).unwrap();
        let values = [0.5, -0.5, 63.5, -508.0, 0.0, 8.0];
        assert_eq!(tensor.to_f32(), values);
        let floats = tensor.floats();
        assert_eq!(
            (floats.dtype, floats.as_f32().unwrap()),
            (Dtype::F32, &values[..])
        );
        let mut row = [0.0; 3];
        tensor.read_rows_f32(1..2, &mut row).unwrap();
        assert_eq!(row, values[3..]);
        assert_eq!(
            tensor.as_int8().unwrap(),
            (&[1, -1, 127, -127, 0, 2][..], &[0.5, 4.0][..])
        );
        let short = Tensor::int8(vec![2, 3], codes.clone(), &[0.5]);
        assert!(matches!(short, Err(TensorError::Scales { found: 1, .. })));
        let without = Tensor::new(Dtype::I8, vec![2, 3], codes);
        assert!(matches!(without, Err(TensorError::Scales { found: 0, .. })));
        let mut bytes = Vec::new();
        let mut take = |run: &[u8]| {
            bytes.extend_from_slice(run);
            Ok(())
        };
        tensor.read_runs(&mut take).unwrap();
        assert_eq!(bytes, bytemuck::cast_slice::<f32, u8>(&values));
    }

    #[test]
    fn lengths_must_fit() {
        let short = Tensor::new(Dtype::F32, vec![2, 3], Bytes::copy_of(&[0; 20]));
        assert!(matches!(
            short,
            Err(TensorError::Length {
                expected: 24,
                found: 20,
                ..
            })
        ));
        let ragged = Tensor::new(Dtype::Q8_0, vec![2, 33], Bytes::copy_of(&[0; 68]));
        assert!(matches!(ragged, Err(TensorError::Shape { .. })));
        let absurd = Tensor::new(
            Dtype::F32,
            vec![usize::MAX, usize::MAX],
            Bytes::copy_of(&[]),
        );
        assert!(matches!(absurd, Err(TensorError::Shape { .. })));
    }

    #[test]
    fn panels_read_as_rows() {
        for dtype in [Dtype::Q4_0, Dtype::Q8_0] {
            let shape = vec![48, 64];
            let mut bytes = vec![0; dtype.tensor_bytes(&shape).unwrap()];
            bytes
                .iter_mut()
                .enumerate()
                .for_each(|(i, b)| *b = (i * 73 / 5) as u8 & 0xbf);
            let rows = Tensor::new(dtype, shape.clone(), Bytes::copy_of(&bytes)).unwrap();
            let mut other = vec![0; bytes.len()];
            panels::to_panels(dtype, 64, &bytes, &mut other).unwrap();
            let panels = Tensor::in_panels(dtype, shape, Bytes::copy_of(&other)).unwrap();
            assert!(rows.panels().is_none() && panels.panels().is_some());
            assert_eq!(panels.to_f32(), rows.to_f32());
            for range in [0..48, 0..1, 15..17, 16..32, 20..47, 47..48, 5..5] {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                rows.read_rows_into(range.clone(), &mut a).unwrap();
                panels.read_rows_into(range.clone(), &mut b).unwrap();
                assert_eq!(a, b, "{dtype}, rows {range:?}");
                let values = |tensor: &Tensor| {
                    let mut out = vec![0.0; range.len() * 64];
                    tensor.dequantize_rows(range.clone(), &mut out);
                    out
                };
                assert_eq!(values(&rows), values(&panels), "{dtype}, rows {range:?}");
                let mut read = vec![0.0; range.len() * 64];
                panels.read_rows_f32(range.clone(), &mut read).unwrap();
                assert_eq!(read, values(&rows), "{dtype}, rows {range:?}");
            }
            let mut all = Vec::new();
            panels
                .read_runs(&mut |run| {
                    all.extend_from_slice(run);
                    Ok(())
                })
                .unwrap();
            assert_eq!(all, bytes);
        }
        let odd = Tensor::in_panels(Dtype::Q4_0, vec![24, 32], Bytes::copy_of(&[0; 24 * 18]));
        assert!(matches!(odd, Err(TensorError::Panels { .. })));
    }

    #[test]
    fn unaligned_floats_are_copied() {
        let bytes = Bytes::copy_of(&[0, 0, 0, 128, 63]).slice(1..5).unwrap();
        let one = Tensor::new(Dtype::F32, vec![1], bytes).unwrap();
        assert_eq!(one.as_f32().unwrap(), [1.0]);
    }
}
