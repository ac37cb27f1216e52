//! The 6-bit scales and minima of Q4_K and Q5_K: eight of each in 12 bytes.
//!
//! Scales 0..4 are the low six bits of bytes 0..4, minima 0..4 those of bytes 4..8. Scales 4..8 take their low four bits from the
//! low nibbles of bytes 8..12 and their high two from the top bits of bytes 0..4; minima 4..8 likewise from the high nibbles and
//! bytes 4..8.

use super::f16_at;

/// Scale and minimum (subtracted) of the eight groups of a super-block that starts with `d: f16, dmin: f16, scales: [u8; 12]`.
pub(super) fn unpack(block: &[u8]) -> [(f32, f32); 8] {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let s = &block[4..16];
    std::array::from_fn(|i| {
        let (scale, min) = if i < 4 {
            (s[i] & 0x3f, s[i + 4] & 0x3f)
        } else {
            let low = s[i + 4];
            (
                (low & 0x0f) | (s[i - 4] >> 6) << 4,
                (low >> 4) | (s[i] >> 6) << 4,
            )
        };
        (d * f32::from(scale), dmin * f32::from(min))
    })
}
