//! Q4_1: 32 values in 20 bytes. `d: f16`, `m: f16`, 16 bytes of nibbles as in Q4_0; value = d * q + m.

use super::{Codes, GROUP, f16_at, q4_0::split_nibbles, zip_blocks};

/// Bytes of a block.
pub const BYTES: usize = 20;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in zip_blocks::<_, BYTES, GROUP>(bytes, out) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        let mut codes = [0; GROUP];
        split_nibbles(&block[4..], &mut codes);
        for (value, q) in values.iter_mut().zip(codes) {
            *value = d * f32::from(q) + m;
        }
    }
}

/// Codes q, scale d, offset m.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    assert_eq!(bytes.len() / BYTES, out.scales.len(), "one block per group");
    for (block, (codes, scale, offset)) in bytes.as_chunks::<BYTES>().0.iter().zip(out.groups()) {
        split_nibbles(&block[4..], codes);
        *scale = f16_at(block, 0);
        *offset = f16_at(block, 2);
    }
}
