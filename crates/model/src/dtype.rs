//! Element types of stored tensors: plain floats and the block formats of GGUF.
//!
//! A block format stores `block_len` consecutive elements of one row in `block_bytes` bytes, so a row's length must be a
//! multiple of `block_len`. The layout of each block is described in `quant`.

use std::fmt;

/// How the elements of a [`Tensor`](crate::Tensor) are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an F32.
    BF16,
    /// A signed byte; the tensor has one f32 scale per row besides ([`Tensor::int8`](crate::Tensor::int8)).
    I8,
    /// 32 signed bytes with one f16 scale.
    Q8_0,
    /// 32 nibbles with one f16 scale, zero at code 8.
    Q4_0,
    /// 32 nibbles with an f16 scale and an f16 minimum.
    Q4_1,
    /// 32 five-bit codes with one f16 scale, zero at code 16.
    Q5_0,
    /// 32 five-bit codes with an f16 scale and an f16 minimum.
    Q5_1,
    /// 256 nibbles: eight 6-bit scales and minima over two f16.
    Q4K,
    /// 256 five-bit codes: eight 6-bit scales and minima over two f16.
    Q5K,
    /// 256 six-bit codes: sixteen 8-bit scales over one f16.
    Q6K,
}

impl Dtype {
    /// Elements in one block; 1 for plain floats and I8.
    pub fn block_len(self) -> usize {
        match self {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::I8 => 1,
            Dtype::Q8_0 | Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q5_0 | Dtype::Q5_1 => 32,
            Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::I8 => 1,
            Dtype::Q8_0 => 2 + 32,
            Dtype::Q4_0 => 2 + 16,
            Dtype::Q4_1 => 4 + 16,
            Dtype::Q5_0 => 2 + 4 + 16,
            Dtype::Q5_1 => 4 + 4 + 16,
            Dtype::Q4K => 4 + 12 + 128,
            Dtype::Q5K => 4 + 12 + 32 + 128,
            Dtype::Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Whether the elements are used in place, one by one: plain floats and I8.
    pub fn is_in_place(self) -> bool {
        self.block_len() == 1
    }

    /// Whether the elements are plain floats.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// Bits of the codes that [`Tensor::codes`](crate::Tensor::codes) gives (4 or 8), or `None` for plain floats, for I8, and for
    /// Q6_K, which has two scales in 32 values.
    pub fn code_bits(self) -> Option<u32> {
        match self {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::I8 | Dtype::Q6K => None,
            Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q4K => Some(4),
            Dtype::Q8_0 | Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q5K => Some(8),
        }
    }

    /// Bytes of a row of `cols` elements, or `None` if `cols` is no multiple of the block or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Bytes of a tensor of this shape (row-major, the last dimension is the row), or `None` as in [`Dtype::row_bytes`].
    pub fn tensor_bytes(self, shape: &[usize]) -> Option<usize> {
        let (&cols, outer) = shape.split_last().unwrap_or((&1, &[]));
        let rows = outer.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        rows.checked_mul(self.row_bytes(cols)?)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::I8 => "I8",
            Dtype::Q8_0 => "Q8_0",
            Dtype::Q4_0 => "Q4_0",
            Dtype::Q4_1 => "Q4_1",
            Dtype::Q5_0 => "Q5_0",
            Dtype::Q5_1 => "Q5_1",
            Dtype::Q4K => "Q4_K",
            Dtype::Q5K => "Q5_K",
            Dtype::Q6K => "Q6_K",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_tensors() {
        assert_eq!(Dtype::F32.tensor_bytes(&[3, 5]), Some(60));
        assert_eq!(Dtype::BF16.tensor_bytes(&[]), Some(2));
        assert_eq!(Dtype::Q8_0.tensor_bytes(&[2, 64]), Some(2 * 2 * 34));
        assert_eq!(Dtype::Q4K.tensor_bytes(&[1, 512]), Some(288));
        assert_eq!(Dtype::Q6K.row_bytes(256), Some(210));
        assert_eq!(Dtype::Q4_0.tensor_bytes(&[2, 33]), None);
        assert_eq!(Dtype::F32.tensor_bytes(&[usize::MAX, 2]), None);
        assert_eq!(Dtype::F32.tensor_bytes(&[usize::MAX]), None);
        assert_eq!(Dtype::F16.tensor_bytes(&[0, 7]), Some(0));
    }
}
