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

/// Added to a number below 2^22 in magnitude, it leaves the nearest whole number in the low bits, and all compilers find vectors for it.
const TO_WHOLE: f32 = 1.5 * (1 << 23) as f32;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in zip_blocks::<_, BYTES, VALUES>(bytes, out) {
        for (g, values) in values.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
            group(block, g, values);
        }
    }
}

/// The 32 values of group `g` of a block: run g % 4 of half g / 4.
fn group(block: &[u8; BYTES], g: usize, values: &mut [f32; GROUP]) {
    let (half, run) = (g / 4, g % 4);
    let low: &[u8; GROUP] = block[half * 64 + run % 2 * 32..]
        .first_chunk()
        .expect("in the block");
    let high: &[u8; GROUP] = block[128 + half * 32..]
        .first_chunk()
        .expect("in the block");
    let d = f16_at(block, 208);
    let scales = [192 + 2 * g, 193 + 2 * g].map(|at| d * f32::from(block[at].cast_signed()));
    for (i, value) in values.iter_mut().enumerate() {
        let q = low[i] >> (run / 2 * 4) & 0x0f | (high[i] >> (2 * run) & 3) << 4;
        *value = scales[i / 16] * f32::from(q.cast_signed() - 32);
    }
}

/// Codes requantized to 8 bits: scale max|v| / 127, code v / scale + 128 to the nearest (even on a tie), offset -128 scale.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    assert_eq!(
        bytes.len() / BYTES * (VALUES / GROUP),
        out.scales.len(),
        "eight groups per block"
    );
    let mut values = [0f32; GROUP];
    let mut groups = out.groups();
    for block in bytes.as_chunks::<BYTES>().0 {
        for (g, (codes, scale, offset)) in groups.by_ref().take(VALUES / GROUP).enumerate() {
            group(block, g, &mut values);
            // Magnitudes are ordered as their bits are.
            let largest = values.iter().fold(0, |m, v| m.max(v.abs().to_bits()));
            *scale = f32::from_bits(largest) / 127.0;
            *offset = -128.0 * *scale;
            let inverse = if *scale == 0.0 { 0.0 } else { 1.0 / *scale };
            for (code, v) in codes.iter_mut().zip(&values) {
                *code = (v * inverse + TO_WHOLE).to_bits() as u8 ^ 0x80;
            }
        }
    }
}
