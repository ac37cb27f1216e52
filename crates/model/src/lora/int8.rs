//! Adapters and heads in 8 bits (METHOD 6): each row of a matrix, which is an output channel, has one scale, x = scale * q with q in -127..=127.
//!
//! In the file a matrix X is two tensors: `X.int8`, I8 of the same shape, and `X.int8_scale`, F32 with one number per row; a vector is one
//! row. The reader of safetensors files puts them together again as one I8 tensor ([`crate::hf::safetensors`]); the names keep a program
//! that does not know them from taking the codes for values.

use std::path::Path;

use safetensors::tensor::TensorView;

use crate::hf::safetensors as files;
use crate::{Bytes, LoadError, SafetensorsError, Tensor};

/// Names of the two tensors that stand for `name`.
pub(crate) const CODES: &str = ".int8";
pub(crate) const SCALES: &str = ".int8_scale";

/// Codes and scales of a matrix `[rows, cols]`: the largest magnitude of a row becomes 127, ties go to the even code.
fn quantize(values: &[f32], cols: usize) -> (Vec<i8>, Vec<f32>) {
    let mut codes = Vec::with_capacity(values.len());
    let mut scales = Vec::new();
    for row in values.chunks_exact(cols.max(1)) {
        let largest = row.iter().fold(0f32, |m, x| m.max(x.abs()));
        let scale = largest / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        codes.extend(
            row.iter()
                .map(|x| (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8),
        );
        scales.push(scale);
    }
    (codes, scales)
}

/// The bytes of a safetensors file with matrices and vectors of the one at `path` in 8 bits: those whose name `round` takes. The
/// others are F32.
///
/// # Errors
/// [`LoadError`] for a file that cannot be read or written again.
pub(crate) fn encode(path: &Path, round: impl Fn(&str) -> bool) -> Result<Vec<u8>, LoadError> {
    let (mut stored, mut plain) = (Vec::new(), Vec::new());
    for (name, tensor) in files::open(path)? {
        let values = tensor.to_f32();
        if round(&name) && matches!(tensor.shape.len(), 1 | 2) {
            let (codes, scales) = quantize(&values, tensor.cols());
            stored.push((name, tensor.shape, codes, scales));
        } else {
            plain.push((name, tensor.shape, values));
        }
    }
    let failed = |error: safetensors::SafeTensorError| LoadError::Safetensors {
        path: path.to_path_buf(),
        source: SafetensorsError::Header(Box::new(error)),
    };
    let mut views = Vec::new();
    for (name, shape, codes, scales) in &stored {
        let codes = TensorView::new(
            safetensors::Dtype::I8,
            shape.clone(),
            bytemuck::cast_slice(codes),
        );
        let bytes = bytemuck::cast_slice(scales);
        let scales = TensorView::new(safetensors::Dtype::F32, vec![scales.len()], bytes);
        views.push((format!("{name}{CODES}"), codes.map_err(failed)?));
        views.push((format!("{name}{SCALES}"), scales.map_err(failed)?));
    }
    for (name, shape, values) in &plain {
        let bytes = bytemuck::cast_slice(values);
        let tensor = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        views.push((name.clone(), tensor.map_err(failed)?));
    }
    safetensors::serialize(views, None).map_err(failed)
}

/// The matrix as a reader of this format gets it.
pub(crate) fn rounded(tensor: &Tensor) -> Tensor {
    let (codes, scales) = quantize(&tensor.to_f32(), tensor.cols());
    let codes = Bytes::copy_of(bytemuck::cast_slice(&codes));
    Tensor::int8(tensor.shape.clone(), codes, &scales).expect("as many codes as values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_within_half_a_step() {
        let values = [
            0.5, -1.27, 0.004, 1.27, 0.0, 0.0, 0.0, 0.0, 1e-30, -3e-30, 2e-30, 0.0,
        ];
        let (codes, scales) = quantize(&values, 4);
        assert_eq!(codes[..8], [50, -127, 0, 127, 0, 0, 0, 0]);
        let back = rounded(&Tensor::from_f32(vec![3, 4], &values).unwrap()).to_f32();
        for (i, (got, want)) in back.iter().zip(values).enumerate() {
            let half = scales[i / 4] * 0.5001;
            assert!((got - want).abs() <= half, "{i}: {got} for {want}");
        }
    }
}
