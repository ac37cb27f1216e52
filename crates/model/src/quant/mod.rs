//! The block formats of GGUF, one per file: layout, dequantization, and the codes that the engine packs.
//!
//! A format file has the functions `dequantize(blocks, out)` and, but for Q6_K, `codes(blocks, ..)`; Q8_0 and Q4_0 also
//! `quantize(values, out)`.
//! The layouts are those of ggml (<https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>); every number is little-endian.
//! All functions take whole blocks and panic when the lengths do not fit: [`Tensor`](crate::Tensor) has checked them.
//!
//! Codes are given per group of 32 values: value = scale * code + offset, with codes 0..16 (Q4_0, Q4_1, Q4_K) or 0..256. In the
//! formats without stored offset ([`has_offsets`] is false) offset = -8 * scale or -128 * scale.

mod k_blocks;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;

use half::f16;

use crate::Dtype;

/// Values that share one scale in [`block_codes`].
pub const GROUP: usize = 32;

/// A value that a block format cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// NaN or infinite.
    #[error("value {index} is {value}, which cannot be quantized")]
    NonFinite {
        /// Position in the slice.
        index: usize,
        /// The value.
        value: f32,
    },
    /// Finite, but the block's scale does not fit in an f16.
    #[error(
        "the block that starts at value {index} has the largest magnitude {magnitude}, whose scale overflows an f16"
    )]
    TooLarge {
        /// Position of the block's first value in the slice.
        index: usize,
        /// Largest magnitude of the block.
        magnitude: f32,
    },
    /// Finite, but beyond the largest f16.
    #[error("value {index} is {value}, which overflows an f16")]
    Half {
        /// Position in the slice.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The format can be read but is not written here.
    #[error("quantizing to {dtype} is not supported; use Q8_0 or Q4_0")]
    Format {
        /// The format asked for.
        dtype: Dtype,
    },
    /// The number of values is not a whole number of blocks.
    #[error("{len} values are no whole number of blocks of {block}")]
    Length {
        /// Number of values.
        len: usize,
        /// Values per block.
        block: usize,
    },
}

/// Blocks as f32; `out.len()` is the number of values in `bytes`.
///
/// # Panics
/// If `dtype` is a plain float or I8, or the lengths do not fit.
pub fn dequantize_blocks(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::Q8_0 => q8_0::dequantize(bytes, out),
        Dtype::Q4_0 => q4_0::dequantize(bytes, out),
        Dtype::Q4_1 => q4_1::dequantize(bytes, out),
        Dtype::Q5_0 => q5_0::dequantize(bytes, out),
        Dtype::Q5_1 => q5_1::dequantize(bytes, out),
        Dtype::Q4K => q4_k::dequantize(bytes, out),
        Dtype::Q5K => q5_k::dequantize(bytes, out),
        Dtype::Q6K => q6_k::dequantize(bytes, out),
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::I8 => panic!("{dtype} has no blocks"),
    }
}

/// Blocks as codes, scales and offsets per [`GROUP`]; exact up to the f32 rounding of the scale.
///
/// # Panics
/// If `dtype` is a plain float, I8, or Q6_K, which has two scales in a group, or the lengths do not fit.
pub fn block_codes(
    dtype: Dtype,
    bytes: &[u8],
    codes: &mut [u8],
    scales: &mut [f32],
    offsets: &mut [f32],
) {
    let out = Codes {
        codes,
        scales,
        offsets,
    };
    match dtype {
        Dtype::Q8_0 => q8_0::codes(bytes, out),
        Dtype::Q4_0 => q4_0::codes(bytes, out),
        Dtype::Q4_1 => q4_1::codes(bytes, out),
        Dtype::Q5_0 => q5_0::codes(bytes, out),
        Dtype::Q5_1 => q5_1::codes(bytes, out),
        Dtype::Q4K => q4_k::codes(bytes, out),
        Dtype::Q5K => q5_k::codes(bytes, out),
        Dtype::Q6K | Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::I8 => {
            panic!("{dtype} has no codes with a scale per {GROUP}")
        }
    }
}

/// True when the offsets of [`block_codes`] carry information beyond the scale (Q4_1, Q5_1, Q4_K, Q5_K).
pub fn has_offsets(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::Q4_1 | Dtype::Q5_1 | Dtype::Q4K | Dtype::Q5K)
}

/// Quantizes to Q8_0 or Q4_0 exactly as ggml's reference does.
///
/// # Errors
/// [`QuantError`] for NaN, infinite or too large values, a partial block, or a format that is not written here.
pub fn quantize(dtype: Dtype, values: &[f32]) -> Result<Vec<u8>, QuantError> {
    match dtype {
        Dtype::Q8_0 => q8_0::quantize(values),
        Dtype::Q4_0 => q4_0::quantize(values),
        _ => Err(QuantError::Format { dtype }),
    }
}

/// Where [`block_codes`] writes: one code per value, one scale and offset per [`GROUP`].
#[derive(Debug)]
pub struct Codes<'a> {
    /// Codes, one per value.
    pub codes: &'a mut [u8],
    /// Scales, one per group.
    pub scales: &'a mut [f32],
    /// Offsets, one per group.
    pub offsets: &'a mut [f32],
}

impl<'a> Codes<'a> {
    /// The groups in order: codes, scale and offset of each.
    fn groups(self) -> impl Iterator<Item = (&'a mut [u8; GROUP], &'a mut f32, &'a mut f32)> {
        assert_eq!(
            (self.scales.len() * GROUP, self.offsets.len() * GROUP),
            (self.codes.len(), self.codes.len())
        );
        self.codes
            .as_chunks_mut::<GROUP>()
            .0
            .iter_mut()
            .zip(self.scales)
            .zip(self.offsets)
            .map(|((c, s), o)| (c, s, o))
    }
}

/// Splits `bytes` into blocks and `out` into their values; panics when the counts differ.
fn zip_blocks<'a, T, const BYTES: usize, const VALUES: usize>(
    bytes: &'a [u8],
    out: &'a mut [T],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [T; VALUES])> {
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    let (values, rest_out) = out.as_chunks_mut::<VALUES>();
    assert!(
        rest.is_empty() && rest_out.is_empty() && blocks.len() == values.len(),
        "blocks and values do not fit"
    );
    blocks.iter().zip(values)
}

/// The f16 at byte `at` of a block.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The scale of a block as an f16, or the error for what cannot be quantized. `magnitude` is the largest of the block.
fn scale_bits(scale: f32, magnitude: f32, block: &[f32], first: usize) -> Result<f16, QuantError> {
    if let Some((i, &value)) = block.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        return Err(QuantError::NonFinite {
            index: first + i,
            value,
        });
    }
    let half = f16::from_f32(scale);
    if half.is_finite() {
        Ok(half)
    } else {
        Err(QuantError::TooLarge {
            index: first,
            magnitude,
        })
    }
}

/// Splits values into blocks of 32 or says that they do not split.
fn whole_blocks(values: &[f32]) -> Result<&[[f32; GROUP]], QuantError> {
    let (blocks, rest) = values.as_chunks::<GROUP>();
    if rest.is_empty() {
        Ok(blocks)
    } else {
        Err(QuantError::Length {
            len: values.len(),
            block: GROUP,
        })
    }
}

#[cfg(test)]
mod tests;
