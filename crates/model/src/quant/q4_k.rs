//! Q4_K: 256 values in 144 bytes. `d: f16`, `dmin: f16`, 12 bytes of 6-bit scales, 128 bytes of nibbles;
//! value = d * scale * q - dmin * min, with one scale and min per 32 values.
//!
//! Each run of 32 bytes holds 64 values: first the low nibbles, then the high ones.

use super::{Codes, GROUP, k_blocks};

/// Bytes of a block.
pub const BYTES: usize = 144;
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
    let run = &block[16 + group / 2 * GROUP..][..GROUP];
    std::array::from_fn(|j| {
        if group.is_multiple_of(2) {
            run[j] & 0x0f
        } else {
            run[j] >> 4
        }
    })
}
