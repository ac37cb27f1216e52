//! Adapters in 4 bits: groups of up to 32 columns of a row share a scale, x = scale * q with q in -8..=7.
//!
//! In the file a matrix X `[rows, cols]` is two tensors: `X.int4`, U8 `[rows, cols / 2]`, the even column in the low half of a byte, each
//! code plus 8; and `X.int4_scale`, F16 `[rows, groups]`. As with [`super::int8`] the reader of safetensors files gives them back as F32.
//! The paper stores adapters in 8 bits (METHOD 6); EXPERIMENTS.md has what 4 cost.

use std::path::Path;

use half::f16;
use safetensors::tensor::TensorView;

use crate::hf::safetensors as files;
use crate::{LoadError, SafetensorsError};

/// Names of the two tensors that stand for `name`.
pub(crate) const CODES: &str = ".int4";
pub(crate) const SCALES: &str = ".int4_scale";

/// Columns that share a scale.
const GROUP: usize = 32;

/// Shares of the plain scale (the largest magnitude becomes 7) that are tried.
const TRIED: std::ops::RangeInclusive<u8> = 60..=105;

/// Groups in a row of `cols` columns.
pub(crate) fn groups(cols: usize) -> usize {
    cols.div_ceil(GROUP)
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

/// Packed codes and scales of a matrix with an even number of columns.
fn quantize(values: &[f32], cols: usize) -> (Vec<u8>, Vec<f16>) {
    let mut packed = Vec::with_capacity(values.len() / 2);
    let mut scales = Vec::new();
    for group in values.chunks_exact(cols).flat_map(|row| row.chunks(GROUP)) {
        let scale = scale_of(group);
        let half = |x: f32| match scale.to_f32() {
            0.0 => 8,
            scale => (code(x, scale) + 8.0) as u8,
        };
        // A group is even: a row and 32 are.
        let pairs = group.as_chunks::<2>().0;
        packed.extend(pairs.iter().map(|&[low, high]| half(low) | half(high) << 4));
        scales.push(scale);
    }
    (packed, scales)
}

/// The values that packed codes and scales stand for; `cols` is even.
pub(crate) fn dequantize(packed: &[u8], scales: &[f16], cols: usize) -> Vec<f32> {
    let rows = packed.chunks_exact((cols / 2).max(1));
    let groups = rows.flat_map(|row| row.chunks(GROUP / 2));
    groups
        .zip(scales)
        .flat_map(|(group, scale)| {
            let scale = scale.to_f32();
            let value = move |half: u8| scale * (f32::from(half) - 8.0);
            group
                .iter()
                .flat_map(move |byte| [value(byte & 15), value(byte >> 4)])
        })
        .collect()
}

/// The values of a matrix after rounding.
pub(crate) fn rounded(values: &[f32], cols: usize) -> Vec<f32> {
    let (packed, scales) = quantize(values, cols);
    dequantize(&packed, &scales, cols)
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
        let (packed, scales) = quantize(&tensor.to_f32(), cols);
        stored.push((name, tensor.rows(), cols, packed, scales));
    }
    let mut views = Vec::new();
    for (name, rows, cols, packed, scales) in &stored {
        let shape = vec![*rows, cols / 2];
        let codes = TensorView::new(safetensors::Dtype::U8, shape, packed);
        let bytes = bytemuck::cast_slice(scales);
        let shape = vec![*rows, groups(*cols)];
        let scales = TensorView::new(safetensors::Dtype::F16, shape, bytes);
        views.push((format!("{name}{CODES}"), codes.map_err(failed)?));
        views.push((format!("{name}{SCALES}"), scales.map_err(failed)?));
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
        let (packed, scales) = quantize(&values, 34);
        assert_eq!((packed.len(), scales.len()), (34, 4));
        let back = dequantize(&packed, &scales, 34);
        assert_eq!(back.len(), values.len());
        for (i, (got, want)) in back.iter().zip(&values).enumerate() {
            let scale = scales[2 * (i / 34) + usize::from(i % 34 >= 32)].to_f32();
            let held = want.clamp(-8.0 * scale, 7.0 * scale);
            assert!((got - held).abs() <= 0.501 * scale, "{i}: {got} for {want}");
        }
        // No single scale does better on the first group.
        let error = |scale: f32| -> f32 {
            let off = |&x: &f32| (x - scale * code(x, scale)).powi(2);
            values[..32].iter().map(off).sum()
        };
        let found = error(scales[0].to_f32());
        assert!((1..200).all(|i| found <= 1.02 * error(i as f32 / 1000.0)));
        assert!(rounded(&[0.0; 4], 4).iter().all(|&x| x == 0.0));
    }
}
