//! Q5_K: 256 values in 176 bytes. `d: f16`, `dmin: f16`, 12 bytes of 6-bit scales, 32 bytes of fifth bits, 128 bytes of nibbles;
//! value = d * scale * q - dmin * min, with one scale and min per 32 values.
//!
//! Nibbles lie as in Q4_K; bit g of fifth-bit byte j belongs to value j of group g. The codes are 0..32, so in 8 bits they are exact.

use super::{Codes, GROUP, k_blocks};

/// Bytes of a block.
pub const BYTES: usize = 176;
/// Values of a block.
pub const VALUES: usize = k_blocks::VALUES;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    k_blocks::dequantize(bytes, out, group_codes);
}

/// Codes q, scale d * scale, offset -dmin * min.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    k_blocks::codes(bytes, out, group_codes);
}

fn group_codes(block: &[u8; BYTES], group: usize) -> [u8; GROUP] {
    let fifth = &block[16..48];
    let run = &block[48 + group / 2 * GROUP..][..GROUP];
    std::array::from_fn(|j| {
        let nibble = if group.is_multiple_of(2) {
            run[j] & 0x0f
        } else {
            run[j] >> 4
        };
        nibble | (fifth[j] >> group & 1) << 4
    })
}
