//! What Q4_K and Q5_K share: blocks of 256 values with eight 6-bit scales and minima in 12 bytes, value = d * scale * q - dmin * min.
//! They differ in where the codes q of a group lie.
//!
//! Scales 0..4 are the low six bits of bytes 0..4, minima 0..4 those of bytes 4..8. Scales 4..8 take their low four bits from the
//! low nibbles of bytes 8..12 and their high two from the top bits of bytes 0..4; minima 4..8 likewise from the high nibbles and
//! bytes 4..8.

use super::{Codes, GROUP, f16_at, zip_blocks};

/// Values of a block.
pub(super) const VALUES: usize = 256;

/// Blocks as f32; `group_codes` gives the codes of a block's group.
pub(super) fn dequantize<const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    group_codes: impl Fn(&[u8; BYTES], usize) -> [u8; GROUP],
) {
    for (block, values) in zip_blocks::<_, BYTES, VALUES>(bytes, out) {
        for (i, (group, (scale, min))) in values
            .chunks_exact_mut(GROUP)
            .zip(unpack(block))
            .enumerate()
        {
            for (value, q) in group.iter_mut().zip(group_codes(block, i)) {
                *value = scale * f32::from(q) - min;
            }
        }
    }
}

/// Codes q, scale d * scale, offset -dmin * min; `group_codes` as in [`dequantize`].
pub(super) fn codes<const BYTES: usize>(
    bytes: &[u8],
    out: Codes<'_>,
    group_codes: impl Fn(&[u8; BYTES], usize) -> [u8; GROUP],
) {
    assert_eq!(
        bytes.len() / BYTES * (VALUES / GROUP),
        out.scales.len(),
        "eight groups per block"
    );
    let blocks = bytes.as_chunks::<BYTES>().0.iter();
    let groups = blocks.flat_map(|block| {
        unpack(block)
            .into_iter()
            .enumerate()
            .map(move |g| (block, g))
    });
    for ((block, (i, (d, min))), (codes, scale, offset)) in groups.zip(out.groups()) {
        codes.copy_from_slice(&group_codes(block, i));
        (*scale, *offset) = (d, -min);
    }
}

/// Scale and minimum (subtracted) of the eight groups of a super-block that starts with `d: f16, dmin: f16, scales: [u8; 12]`.
fn unpack(block: &[u8]) -> [(f32, f32); 8] {
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
