//! A frozen matrix as its file has it, in 16 bits or quantized. It is made f32 for one product at a time, so a run holds no f32 copy of the
//! base (QLoRA, <https://arxiv.org/abs/2305.14314>, with the formats that the file may have).
//!
//! 16-bit floats are a tensor `[out, in]` of their type. Blocks of quantized values are bytes `[out, blocks of a row, bytes of a block]`: no
//! two formats have blocks of one size.

use burn_backend::{DType, Shape, TensorData, TensorMetadata};
use burn_flex::FlexTensor;
use edgethink_model::{Dtype, Tensor, tensor::dequantize};
use half::{bf16, f16};
use rayon::prelude::*;

use super::{
    dense,
    linear::{matmul_nn, matmul_nt},
    tensor,
};
use crate::recipe::FloatType;

/// What a file may hold in blocks.
const QUANTIZED: [Dtype; 8] = [
    Dtype::Q8_0,
    Dtype::Q4_0,
    Dtype::Q4_1,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Q4K,
    Dtype::Q5K,
    Dtype::Q6K,
];

/// How a GPU packs blocks without a minimum, exactly: the bits of a code, and the code that is zero. Other blocks it does not hold.
pub(crate) fn packing(dtype: Dtype) -> Option<(u8, u8)> {
    match dtype {
        Dtype::Q4_0 => Some((4, 8)),
        Dtype::Q5_0 => Some((8, 16)),
        Dtype::Q8_0 => Some((8, 128)),
        _ => None,
    }
}

/// Values that a thread makes f32 at a time, about.
const SHARE: usize = 1 << 16;

/// A matrix `[out, in]` in the bytes of its file.
pub(crate) fn held(matrix: &Tensor) -> FlexTensor {
    FlexTensor::from_data(floats(matrix).unwrap_or_else(|| {
        let block = matrix.dtype.block_bytes();
        let shape = vec![matrix.rows(), matrix.row_size() / block, block];
        TensorData::new(matrix.bytes().to_vec(), Shape::from(shape))
    }))
}

/// A matrix of floats in the bytes of its file; nothing for one in blocks.
pub(super) fn floats(matrix: &Tensor) -> Option<TensorData> {
    let shape = Shape::from(matrix.shape.clone());
    match matrix.dtype {
        Dtype::F32 => Some(TensorData::new(matrix.to_f32(), shape)),
        Dtype::BF16 => {
            let bits = matrix.as_u16()?.iter().copied();
            let values: Vec<bf16> = bits.map(bf16::from_bits).collect();
            Some(TensorData::new(values, shape))
        }
        Dtype::F16 => {
            let bits = matrix.as_u16()?.iter().copied();
            let values: Vec<f16> = bits.map(f16::from_bits).collect();
            Some(TensorData::new(values, shape))
        }
        _ => None,
    }
}

/// The matrix `[out, in]` in f32; without a copy if it is.
///
/// # Panics
/// If it is neither f32 nor made by [`held`].
pub(super) fn widened(matrix: &FlexTensor) -> FlexTensor {
    const MADE: &str = "made by `held`";
    let shape = matrix.shape();
    let (dtype, bytes): (Dtype, &[u8]) = match matrix.dtype() {
        DType::F32 => return matrix.clone(),
        DType::BF16 => {
            let values = matrix.as_slice::<bf16>().expect(MADE);
            (Dtype::BF16, bytemuck::cast_slice(values))
        }
        DType::F16 => {
            let values = matrix.as_slice::<f16>().expect(MADE);
            (Dtype::F16, bytemuck::cast_slice(values))
        }
        _ => {
            let dtype = QUANTIZED.into_iter().find(|d| d.block_bytes() == shape[2]);
            (dtype.expect(MADE), matrix.as_slice::<u8>().expect(MADE))
        }
    };
    let (rows, row_bytes) = (shape[0], bytes.len() / shape[0]);
    let cols = row_bytes / dtype.block_bytes() * dtype.block_len();
    let share = (SHARE / cols).max(1);
    let mut values = vec![0.0; rows * cols];
    values
        .par_chunks_mut(share * cols)
        .zip(bytes.par_chunks(share * row_bytes))
        .for_each(|(values, bytes)| dequantize(dtype, bytes, values));
    tensor(values, &[rows, cols])
}

/// `x [T, in] W^T`, `W [out, in]` as it is held or f32. In bf16 both are rounded, and the result is; the sums are f32.
pub(super) fn product(x: &FlexTensor, weight: &FlexTensor, compute: FloatType) -> FlexTensor {
    multiply(matmul_nt, x, weight, compute)
}

/// The way back of [`product`]: `dy [T, out] W`.
pub(super) fn back(dy: &FlexTensor, weight: &FlexTensor, compute: FloatType) -> FlexTensor {
    multiply(matmul_nn, dy, weight, compute)
}

fn multiply(
    matmul: fn(&FlexTensor, &FlexTensor) -> FlexTensor,
    x: &FlexTensor,
    weight: &FlexTensor,
    compute: FloatType,
) -> FlexTensor {
    let weight = widened(weight);
    match compute {
        FloatType::F32 => matmul(x, &weight),
        FloatType::Bf16 => rounded(matmul(&rounded(x.clone()), &rounded(weight))),
    }
}

fn rounded(x: FlexTensor) -> FlexTensor {
    let mut x = dense(x);
    let parts = x.storage_mut::<f32>().par_chunks_mut(SHARE);
    parts.for_each(round_to_bf16);
    x
}

/// Rounds values to bf16; they stay f32.
pub(crate) fn round_to_bf16(values: &mut [f32]) {
    for value in values {
        *value = bf16::from_f32(*value).to_f32();
    }
}

/// The types that [`in_format`] writes.
#[cfg(test)]
pub(crate) const WRITTEN: [Dtype; 5] = [
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::Q8_0,
    Dtype::Q4_0,
];

/// A matrix in the bytes that a file would have for it.
#[cfg(test)]
pub(crate) fn in_format(dtype: Dtype, shape: &[usize], values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = match dtype {
        Dtype::F32 => bytemuck::cast_slice(values).to_vec(),
        Dtype::F16 => values
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect(),
        Dtype::BF16 => values
            .iter()
            .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
            .collect(),
        _ => edgethink_model::quant::quantize(dtype, values).expect("a format that is written"),
    };
    let bytes = edgethink_model::Bytes::copy_of(&bytes);
    Tensor::new(dtype, shape.to_vec(), bytes).expect("as long as its shape")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::into_vec;

    #[test]
    fn what_is_held_is_what_the_file_says() {
        let values: Vec<f32> = (0..6 * 512)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0)
            .collect();
        let shape = [6, 512];
        for dtype in WRITTEN {
            let matrix = in_format(dtype, &shape, &values);
            let held = held(&matrix);
            let bytes: usize = held.shape().iter().product::<usize>() * held.dtype().size();
            assert_eq!(bytes, matrix.bytes().len(), "{dtype}");
            let wide = widened(&held);
            assert_eq!(wide.shape().to_vec(), shape, "{dtype}");
            assert_eq!(into_vec(wide), matrix.to_f32(), "{dtype}");
        }
    }

    #[test]
    fn blocks_of_no_two_formats_have_one_size() {
        let mut sizes = QUANTIZED.map(Dtype::block_bytes);
        sizes.sort_unstable();
        assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "{sizes:?}");
    }
}
