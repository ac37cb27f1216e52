//! How a GPU holds a frozen matrix as its file has it: floats as they are, blocks without a minimum as the library's packed integers of 4 or
//! 8 bits, with a scale in f32 for each 32 values of a row. The values are those of the file.

use burn_backend::{
    Bytes, DType, Shape, TensorData,
    quantization::{QuantScheme, QuantValue, ScaleDtype},
};
use edgethink_model::{Dtype, Tensor, quant::GROUP};

/// The packed integers of a type of blocks, and which code is zero.
fn packing(dtype: Dtype) -> Option<(QuantValue, u8)> {
    match dtype {
        Dtype::Q4_0 => Some((QuantValue::Q4F, 8)),
        Dtype::Q5_0 => Some((QuantValue::Q8F, 16)),
        Dtype::Q8_0 => Some((QuantValue::Q8F, 128)),
        _ => None,
    }
}

/// A matrix in blocks as the library's packed integers: words of 32 bits with the first value lowest, then the scales.
fn packed(matrix: &Tensor) -> Option<TensorData> {
    let (value, zero) = packing(matrix.dtype)?;
    let (len, groups) = (matrix.len(), matrix.len() / GROUP);
    let (mut codes, mut scales, mut offsets) = (vec![0; len], vec![0.0; groups], vec![0.0; groups]);
    matrix.codes(0..matrix.rows(), &mut codes, &mut scales, &mut offsets);
    let bits = value.size_bits();
    let mask = (1 << bits) - 1;
    let word = |codes: &[u8]| {
        let last_first = codes.iter().rev();
        last_first.fold(0, |word: u32, code| {
            word << bits | u32::from(code.wrapping_sub(zero)) & mask
        })
    };
    let mut words: Vec<u32> = codes.chunks_exact(32 / bits).map(word).collect();
    words.extend(scales.iter().map(|scale| scale.to_bits()));
    let scheme = QuantScheme::default()
        .with_value(value)
        .per_block([GROUP as u8], ScaleDtype::F32);
    let shape = Shape::from(matrix.shape.clone());
    let (bytes, dtype) = (Bytes::from_elems(words), DType::QFloat(scheme));
    Some(TensorData::from_bytes(bytes, shape, dtype))
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn_backend::{
        Backend, DTypeUsage, FloatDType, TensorMetadata,
        ops::{FloatTensorOps, QTensorOps},
        tensor::{Device, FloatTensor},
    };
    use burn_cubecl::CubeBackend;

    use super::*;
    use crate::ops::{composed::Holds, frozen::floats};

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
}

#[cfg(test)]
mod tests {
    use burn_backend::{FloatDType, ops::QTensorOps};
    use burn_flex::{Flex, FlexDevice};
    use edgethink_model::{Bytes as Stored, quant::quantize};

    use super::*;
    use crate::ops::into_vec;

    /// By the library's own reading on the CPU.
    #[test]
    fn packed_integers_are_the_values_of_the_file() {
        let values: Vec<f32> = (0..6 * 96)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0)
            .collect();
        for (dtype, bits) in [(Dtype::Q8_0, 8 + 1), (Dtype::Q4_0, 4 + 1)] {
            let bytes = quantize(dtype, &values).expect("a format that is written");
            let matrix = Tensor::new(dtype, vec![6, 96], Stored::copy_of(&bytes));
            let matrix = matrix.expect("as long as its shape");
            let packed = packed(&matrix).expect("it has no minimum");
            assert_eq!(packed.as_bytes().len(), values.len() * bits / 8);
            let held = Flex::q_from_data(packed, &FlexDevice);
            let wide = Flex::dequantize(held, FloatDType::F32);
            assert_eq!(into_vec(wide), matrix.to_f32(), "{dtype}");
        }
    }
}
