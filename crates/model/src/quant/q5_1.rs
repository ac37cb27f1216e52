//! Q5_1: 32 values in 24 bytes. `d: f16`, `m: f16`, 32 fifth bits, 16 bytes of nibbles as in Q5_0; value = d * q + m.

use super::{Codes, GROUP, f16_at, q5_0::five_bits, zip_blocks};

/// Bytes of a block.
pub const BYTES: usize = 24;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in zip_blocks::<_, BYTES, GROUP>(bytes, out) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        for (value, q) in values.iter_mut().zip(five_bits(&block[4..])) {
            *value = d * f32::from(q) + m;
        }
    }
}

/// Codes q, scale d, offset m.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    assert_eq!(bytes.len() / BYTES, out.scales.len(), "one block per group");
    let blocks = bytes.as_chunks::<BYTES>().0.iter();
    for (block, (codes, scale, offset)) in blocks.zip(out.groups()) {
        *codes = five_bits(&block[4..]);
        *scale = f16_at(block, 0);
        *offset = f16_at(block, 2);
    }
}
