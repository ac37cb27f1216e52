//! Adapters in 4 bits: groups of up to 32 columns of a row share a scale, x = scale * q with q in -8..=7.
//!
//! In the file a matrix X `[rows, cols]` is one tensor `X.int4`, U8 `[rows, width]`: group by group of a row the scale, F16 little-endian,
//! and the codes, the even column in the low half of a byte, each code plus 8. A tensor of scales beside it would be another 130 bytes of
//! header. As with [`super::int8`] the reader of safetensors files gives them back as F32.
//! The paper stores adapters in 8 bits (METHOD 6); EXPERIMENTS.md has what 4 cost.

use std::path::Path;

use half::f16;
use safetensors::tensor::TensorView;

use crate::hf::safetensors as files;
use crate::{LoadError, SafetensorsError};

/// Behind the name of a matrix that is stored so.
pub(crate) const SUFFIX: &str = ".int4";

/// Columns that share a scale.
const GROUP: usize = 32;
/// Bytes of a scale, and of a whole group.
const SCALE: usize = 2;
const BLOCK: usize = SCALE + GROUP / 2;

/// Shares of the plain scale (the largest magnitude becomes 7) that are tried.
const TRIED: std::ops::RangeInclusive<u8> = 60..=105;

/// Bytes of a row of `cols` columns, an even number.
fn width(cols: usize) -> usize {
    cols / 2 + SCALE * cols.div_ceil(GROUP)
}

/// Columns of a row of `width` bytes; `None` if no row has so many bytes.
pub(crate) fn cols(width: usize) -> Option<usize> {
    let last = match width % BLOCK {
        0 => 0,
        bytes => 2 * bytes.checked_sub(SCALE).filter(|&bytes| bytes > 0)?,
    };
    (width / BLOCK).checked_mul(GROUP)?.checked_add(last)
}

fn code(x: f32, scale: f32) -> f32 {
    (x / scale).round_ties_even().clamp(-8.0, 7.0)
}

/// The scale of a group by least squares, as F16 holds it.
fn scale_of(group: &[f32]) -> f16 {
    let largest = group.iter().fold(0f32, |m, x| m.max(x.abs()));
    let error = |scale: f32| -> f32 {
        let off = |&x: &f32| (x - scale * code(x, scale)).powi(2);
        group.iter().map(off).sum()
    };
    let mut best = (f32::INFINITY, f16::ZERO);
    for percent in TRIED {
        let scale = f16::from_f32(largest / 7.0 * f32::from(percent) / 100.0);
        if scale > f16::ZERO {
            let error = error(scale.to_f32());
            if error < best.0 {
                best = (error, scale);
            }
        }
    }
    best.1
}

/// A matrix with an even number of columns as it is stored.
fn quantize(values: &[f32], cols: usize) -> Vec<u8> {
    let mut stored = Vec::with_capacity(width(cols) * values.len() / cols.max(1));
    for group in values.chunks_exact(cols).flat_map(|row| row.chunks(GROUP)) {
        let scale = scale_of(group);
        let half = |x: f32| match scale.to_f32() {
            0.0 => 8,
            scale => (code(x, scale) + 8.0) as u8,
        };
        stored.extend(scale.to_le_bytes());
        // A group is even: a row and 32 are.
        let pairs = group.as_chunks::<2>().0;
        stored.extend(pairs.iter().map(|&[low, high]| half(low) | half(high) << 4));
    }
    stored
}

/// The values of what is stored; a row has `width` bytes.
pub(crate) fn dequantize(stored: &[u8], width: usize) -> Vec<f32> {
    let rows = stored.chunks_exact(width.max(1));
    let groups = rows.flat_map(|row| row.chunks(BLOCK));
    groups
        .filter_map(|group| group.split_first_chunk::<SCALE>())
        .flat_map(|(scale, codes)| {
            let scale = f16::from_le_bytes(*scale).to_f32();
            let value = move |half: u8| scale * (f32::from(half) - 8.0);
            codes
                .iter()
                .flat_map(move |byte| [value(byte & 15), value(byte >> 4)])
        })
        .collect()
}

/// The values of a matrix after rounding.
pub(crate) fn rounded(values: &[f32], cols: usize) -> Vec<f32> {
    dequantize(&quantize(values, cols), width(cols))
}

/// The bytes of a safetensors file with the matrices of the one at `path` in 4 bits.
///
/// # Errors
/// [`LoadError`] for a file that cannot be read or written again, or a matrix with an odd number of columns.
pub(crate) fn encode(path: &Path) -> Result<Vec<u8>, LoadError> {
    let fail = |source| LoadError::Safetensors {
        path: path.to_path_buf(),
        source,
    };
    let failed =
        |error: safetensors::SafeTensorError| fail(SafetensorsError::Header(Box::new(error)));
    let mut stored = Vec::new();
    for (name, tensor) in files::open(path)? {
        let cols = tensor.cols();
        if cols % 2 == 1 {
            return Err(fail(SafetensorsError::OddColumns { name, cols }));
        }
        let bytes = quantize(&tensor.to_f32(), cols);
        stored.push((
            format!("{name}{SUFFIX}"),
            [tensor.rows(), width(cols)],
            bytes,
        ));
    }
    let mut views = Vec::new();
    for (name, shape, bytes) in &stored {
        let view = TensorView::new(safetensors::Dtype::U8, shape.to_vec(), bytes);
        views.push((name, view.map_err(failed)?));
    }
    safetensors::serialize(views, None).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_nearest_and_scales_those_of_least_squares() {
        // Two rows of 34 columns: groups of 32 and 2.
        let values: Vec<f32> = (0..68)
            .map(|i| ((i * 37 % 23) as f32 - 11.0) / 10.0)
            .collect();
        let stored = quantize(&values, 34);
        assert_eq!((stored.len(), width(34)), (42, 21));
        let back = dequantize(&stored, 21);
        assert_eq!(back.len(), values.len());
        let scale = |at: usize| f16::from_le_bytes([stored[at], stored[at + 1]]).to_f32();
        for (i, (got, want)) in back.iter().zip(&values).enumerate() {
            let scale = scale(21 * (i / 34) + if i % 34 >= 32 { BLOCK } else { 0 });
            let held = want.clamp(-8.0 * scale, 7.0 * scale);
            assert!((got - held).abs() <= 0.501 * scale, "{i}: {got} for {want}");
        }
        // No single scale does better on the first group.
        let error = |scale: f32| -> f32 {
            let off = |&x: &f32| (x - scale * code(x, scale)).powi(2);
            values[..32].iter().map(off).sum()
        };
        let found = error(scale(0));
        assert!((1..200).all(|i| found <= 1.02 * error(i as f32 / 1000.0)));
        assert!(rounded(&[0.0; 4], 4).iter().all(|&x| x == 0.0));
    }

    #[test]
    fn the_bytes_of_a_row_say_how_many_columns_it_has() {
        for even in (0..200).map(|n| 2 * n) {
            assert_eq!(cols(width(even)), Some(even));
        }
        for wrong in [1, 2, BLOCK + 1, BLOCK + 2, usize::MAX] {
            assert_eq!(cols(wrong), None, "{wrong}");
        }
    }
}
