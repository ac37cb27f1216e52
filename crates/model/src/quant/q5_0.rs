//! Q5_0: 32 values in 22 bytes. `d: f16`, 32 fifth bits, 16 bytes of nibbles as in Q4_0; value = d * (q - 16).
//!
//! llama.cpp falls back to it where a row is no multiple of 256, so many small models have it in their Q4_K files.

use super::{Codes, GROUP, f16_at, q4_0::split_nibbles, zip_blocks};

/// Bytes of a block.
pub const BYTES: usize = 22;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in zip_blocks::<_, BYTES, GROUP>(bytes, out) {
        let d = f16_at(block, 0);
        for (value, q) in values.iter_mut().zip(five_bits(&block[2..])) {
            *value = d * (f32::from(q) - 16.0);
        }
    }
}

/// Codes q - 16 + 128, scale d, offset -128 d.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    assert_eq!(bytes.len() / BYTES, out.scales.len(), "one block per group");
    let blocks = bytes.as_chunks::<BYTES>().0.iter();
    for (block, (codes, scale, offset)) in blocks.zip(out.groups()) {
        *codes = five_bits(&block[2..]).map(|q| q + 112);
        *scale = f16_at(block, 0);
        *offset = -128.0 * *scale;
    }
}

/// Codes 0..32 from four bytes of fifth bits (bit i is that of value i) and 16 bytes of nibbles.
pub(super) fn five_bits(packed: &[u8]) -> [u8; GROUP] {
    let mut codes = [0; GROUP];
    split_nibbles(&packed[4..], &mut codes);
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= (packed[i / 8] >> (i % 8) & 1) << 4;
    }
    codes
}
