//! Q6_K: 256 values in 210 bytes. 128 bytes of low nibbles, 64 bytes of high bit pairs, `scales: [i8; 16]`, `d: f16`;
//! value = d * scale * (q - 32), with one scale per **16** values.
//!
//! In each half of 128 values, 64 nibble bytes hold values 0..64 in their low and 64..128 in their high nibbles, and bit pair k of
//! high byte j belongs to value 32 k + j.

use super::{f16_at, zip_blocks};

/// Bytes of a block.
pub const BYTES: usize = 210;
/// Values of a block.
pub const VALUES: usize = 256;
/// Where the 16 scales of 8 bits begin, and the one of 16.
pub(crate) const SCALES: usize = 192;
pub(crate) const SHARED: usize = 208;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in zip_blocks::<_, BYTES, VALUES>(bytes, out) {
        let d = f16_at(block, SHARED);
        let (quants, scales) = (quants(block), &block[SCALES..SHARED]);
        let quants = quants.as_chunks::<16>().0.iter().zip(scales);
        for (values, (quants, scale)) in values.as_chunks_mut::<16>().0.iter_mut().zip(quants) {
            let scale = d * f32::from(scale.cast_signed());
            for (value, &q) in values.iter_mut().zip(quants) {
                *value = scale * (i32::from(q) - 32) as f32;
            }
        }
    }
}

/// The quants of a block, 0..64, in the order of their values.
pub(crate) fn quants(block: &[u8; BYTES]) -> [u8; VALUES] {
    let mut quants = [0; VALUES];
    let (low, rest) = block.split_at(128);
    let halves = low.as_chunks::<64>().0.iter().zip(rest.as_chunks::<32>().0);
    for ((low, high), quants) in halves.zip(quants.as_chunks_mut::<128>().0) {
        let [a, b] = low.as_chunks::<32>().0 else {
            unreachable!("64 bytes are two runs");
        };
        let [q0, q1, q2, q3] = quants.as_chunks_mut::<32>().0 else {
            unreachable!("128 quants are four runs");
        };
        for i in 0..32 {
            q0[i] = a[i] & 15 | (high[i] & 3) << 4;
            q1[i] = b[i] & 15 | (high[i] >> 2 & 3) << 4;
            q2[i] = a[i] >> 4 | (high[i] >> 4 & 3) << 4;
            q3[i] = b[i] >> 4 | (high[i] >> 6) << 4;
        }
    }
    quants
}

/// The other way than [`quants`]: the 192 bytes that a block begins with.
pub(crate) fn set_quants(block: &mut [u8; BYTES], quants: &[u8; VALUES]) {
    let (low, rest) = block.split_at_mut(128);
    let halves = low.as_chunks_mut::<64>().0.iter_mut();
    let halves = halves.zip(rest.as_chunks_mut::<32>().0);
    for ((low, high), quants) in halves.zip(quants.as_chunks::<128>().0) {
        let [a, b] = low.as_chunks_mut::<32>().0 else {
            unreachable!("64 bytes are two runs");
        };
        let [q0, q1, q2, q3] = quants.as_chunks::<32>().0 else {
            unreachable!("128 quants are four runs");
        };
        for i in 0..32 {
            a[i] = q0[i] & 15 | q2[i] << 4;
            b[i] = q1[i] & 15 | q3[i] << 4;
            high[i] = q0[i] >> 4 | q1[i] >> 4 << 2 | q2[i] >> 4 << 4 | q3[i] >> 4 << 6;
        }
    }
}
