//! How a GPU holds a frozen matrix as its file has it: floats as they are, blocks without a minimum as the library's packed integers of 4 or
//! 8 bits, with a scale in f32 for each 32 values of a row. The values are those of the file.

use burn_backend::{
    Bytes, DType, Shape, TensorData,
    quantization::{QuantScheme, QuantValue, ScaleDtype},
};
use edgethink_model::{Tensor, quant::GROUP};

use crate::ops::frozen::packing;

/// A matrix in blocks as the library's packed integers: words of 32 bits with the first value lowest, then the scales.
fn packed(matrix: &Tensor) -> Option<TensorData> {
    let (bits, zero) = packing(matrix.dtype)?;
    let (len, groups) = (matrix.len(), matrix.len() / GROUP);
    let (mut codes, mut scales, mut offsets) = (vec![0; len], vec![0.0; groups], vec![0.0; groups]);
    matrix.codes(0..matrix.rows(), &mut codes, &mut scales, &mut offsets);
    let value = match bits {
        4 => QuantValue::Q4F,
        _ => QuantValue::Q8F,
    };
    let scheme = QuantScheme::default()
        .with_value(value)
        .per_block([GROUP as u8], ScaleDtype::F32);
    let mask = (1 << bits) - 1;
    let word = |codes: &[u8]| {
        let last_first = codes.iter().rev();
        last_first.fold(0, |word: u32, code| {
            word << bits | u32::from(code.wrapping_sub(zero)) & mask
        })
    };
    let mut words: Vec<u32> = codes.chunks_exact(scheme.num_quants()).map(word).collect();
    words.extend(scales.iter().map(|scale| scale.to_bits()));
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
    use edgethink_model::Dtype;

    use super::*;
    use crate::ops::{
        composed::frozen::{Holds, cast},
        frozen::floats,
    };

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
            match floats(matrix) {
                Some(floats) => Self::float_from_data(floats, device),
                None => Self::q_from_data(packed(matrix).expect("a type that it holds"), device),
            }
        }

        fn widened(held: FloatTensor<Self>) -> FloatTensor<Self> {
            match held.dtype() {
                DType::QFloat(_) => Self::dequantize(held, FloatDType::F32),
                _ => cast::<Self>(held),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn_backend::{FloatDType, ops::QTensorOps};
    use burn_flex::{Flex, FlexDevice};
    use edgethink_model::Dtype;

    use super::*;
    use crate::ops::{frozen::in_format, into_vec};

    /// By the library's own reading on the CPU.
    #[test]
    fn packed_integers_are_the_values_of_the_file() {
        let values: Vec<f32> = (0..6 * 96)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0)
            .collect();
        for (dtype, bits) in [(Dtype::Q8_0, 8 + 1), (Dtype::Q4_0, 4 + 1)] {
            let matrix = in_format(dtype, &[6, 96], &values);
            let packed = packed(&matrix).expect("it has no minimum");
            assert_eq!(packed.as_bytes().len(), values.len() * bits / 8);
            let held = Flex::q_from_data(packed, &FlexDevice);
            let wide = Flex::dequantize(held, FloatDType::F32);
            assert_eq!(into_vec(wide), matrix.to_f32(), "{dtype}");
        }
    }
}
