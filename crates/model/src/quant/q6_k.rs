//! Q6_K: 256 values in 210 bytes. 128 bytes of low nibbles, 64 bytes of high bit pairs, `scales: [i8; 16]`, `d: f16`;
//! value = d * scale * (q - 32), with one scale per **16** values.
//!
//! In each half of 128 values, 64 nibble bytes hold values 0..64 in their low and 64..128 in their high nibbles, and bit pair k of
//! high byte j belongs to value 32 k + j.
//!
//! The engine's groups are 32 wide, so [`codes`] joins two scales: it requantizes to signed 8 bits with the step max|v| / 127 of the
//! group. The error is at most half a step, 0.4 % of the group's largest magnitude.

use super::{Codes, GROUP, f16_at, zip_blocks};

/// Bytes of a block.
pub const BYTES: usize = 210;
/// Values of a block.
pub const VALUES: usize = 256;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in zip_blocks::<_, BYTES, VALUES>(bytes, out) {
        let d = f16_at(block, 208);
        for (half, run) in values.chunks_exact_mut(128).enumerate() {
            let low = &block[half * 64..][..64];
            let high = &block[128 + half * 32..][..32];
            let scales = &block[192 + half * 8..][..8];
            for (i, value) in run.iter_mut().enumerate() {
                let nibble = if i < 64 {
                    low[i] & 0x0f
                } else {
                    low[i - 64] >> 4
                };
                let q = nibble | (high[i % 32] >> (i / 32 * 2) & 3) << 4;
                *value = d * f32::from(scales[i / 16].cast_signed()) * (f32::from(q) - 32.0);
            }
        }
    }
}

/// Codes requantized to 8 bits: scale max|v| / 127, code round(v / scale) + 128, offset -128 scale.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    assert_eq!(
        bytes.len() / BYTES * (VALUES / GROUP),
        out.scales.len(),
        "eight groups per block"
    );
    let mut values = [0f32; VALUES];
    let mut groups = out.groups();
    for block in bytes.as_chunks::<BYTES>().0 {
        dequantize(block, &mut values);
        for (group, (codes, scale, offset)) in
            values.as_chunks::<GROUP>().0.iter().zip(groups.by_ref())
        {
            *scale = group.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
            *offset = -128.0 * *scale;
            let inverse = if *scale == 0.0 { 0.0 } else { 1.0 / *scale };
            for (code, v) in codes.iter_mut().zip(group) {
                *code = ((v * inverse).round() as i8).cast_unsigned() ^ 0x80;
            }
        }
    }
}
