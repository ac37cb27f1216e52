//! How a GPU holds a frozen matrix as its file has it: floats as they are, blocks without a minimum as the library's packed integers of 4 or
//! 8 bits, with a scale in f32 for each 32 values of a row. The values are those of the file.

use burn_backend::{
    Backend, DType, DTypeUsage, FloatDType, Shape, TensorData, TensorMetadata,
    ops::{FloatTensorOps, QTensorOps},
    quantization::{QuantScheme, QuantValue, ScaleDtype},
    tensor::{Device, FloatTensor},
};
use burn_cubecl::CubeBackend;
use edgethink_model::{Dtype, Tensor, quant::GROUP};

use super::frozen::Holds;
use crate::ops::frozen::floats;

/// The packed integers of a type of blocks, and which code is zero.
fn packing(dtype: Dtype) -> Option<(QuantValue, u8)> {
    match dtype {
        Dtype::Q4_0 => Some((QuantValue::Q4F, 8)),
        Dtype::Q5_0 => Some((QuantValue::Q8F, 16)),
        Dtype::Q8_0 => Some((QuantValue::Q8F, 128)),
        _ => None,
    }
}

/// A matrix in blocks as the library's packed integers.
fn packed(matrix: &Tensor) -> Option<TensorData> {
    let (value, zero) = packing(matrix.dtype)?;
    let (len, groups) = (matrix.len(), matrix.len() / GROUP);
    let (mut codes, mut scales, mut offsets) = (vec![0; len], vec![0.0; groups], vec![0.0; groups]);
    matrix.codes(0..matrix.rows(), &mut codes, &mut scales, &mut offsets);
    let codes: Vec<i8> = codes
        .iter()
        .map(|code| code.wrapping_sub(zero).cast_signed())
        .collect();
    let scheme = QuantScheme::default()
        .with_value(value)
        .per_block([GROUP as u8], ScaleDtype::F32);
    let shape = Shape::from(matrix.shape.clone());
    Some(TensorData::quantized(codes, shape, scheme, &scales, None))
}

impl Holds for CubeBackend {
    fn holds(dtype: Dtype, device: &Device<Self>) -> bool {
        let stores = |dtype| Self::dtype_usage(device, dtype).contains(DTypeUsage::Storage);
        match dtype {
            Dtype::F32 => true,
            Dtype::F16 => stores(DType::F16),
            Dtype::BF16 => stores(DType::BF16),
            _ => packing(dtype).is_some(),
        }
    }

    fn held(matrix: &Tensor, device: &Device<Self>) -> FloatTensor<Self> {
        match (floats(matrix), packed(matrix)) {
            (Some(floats), _) => Self::float_from_data(floats, device),
            (None, Some(packed)) => Self::q_from_data(packed, device),
            (None, None) => unreachable!("{} is not held", matrix.dtype),
        }
    }

    fn widened(held: FloatTensor<Self>) -> FloatTensor<Self> {
        match held.dtype() {
            DType::F32 => held,
            DType::QFloat(_) => Self::dequantize(held, FloatDType::F32),
            _ => Self::float_cast(held, FloatDType::F32),
        }
    }
}
