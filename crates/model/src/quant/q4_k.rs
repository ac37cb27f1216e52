//! Q4_K: 256 values in 144 bytes. `d: f16`, `dmin: f16`, 12 bytes of 6-bit scales, 128 bytes of nibbles;
//! value = d * scale * q - dmin * min, with one scale and min per 32 values.
//!
//! Each run of 32 bytes holds 64 values: first the low nibbles, then the high ones.

use super::{Codes, GROUP, k_scales, zip_blocks};

/// Bytes of a block.
pub const BYTES: usize = 144;
/// Values of a block.
pub const VALUES: usize = 256;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in zip_blocks::<_, BYTES, VALUES>(bytes, out) {
        for (i, (group, (scale, min))) in values
            .chunks_exact_mut(GROUP)
            .zip(k_scales::unpack(block))
            .enumerate()
        {
            for (value, q) in group.iter_mut().zip(group_codes(block, i)) {
                *value = scale * f32::from(q) - min;
            }
        }
    }
}

/// Codes q, scale d * scale, offset -dmin * min.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    assert_eq!(
        bytes.len() / BYTES * (VALUES / GROUP),
        out.scales.len(),
        "eight groups per block"
    );
    let blocks = bytes.as_chunks::<BYTES>().0.iter();
    let groups = blocks.flat_map(|block| {
        k_scales::unpack(block)
            .into_iter()
            .enumerate()
            .map(move |g| (block, g))
    });
    for ((block, (i, (d, min))), (codes, scale, offset)) in groups.zip(out.groups()) {
        codes.copy_from_slice(&group_codes(block, i));
        (*scale, *offset) = (d, -min);
    }
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
