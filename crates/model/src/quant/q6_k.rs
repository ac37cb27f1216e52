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
        values_of(&quants(block), &scales(block), values);
    }
}

/// The quants of a block, 0..64.
fn quants(block: &[u8; BYTES]) -> [u8; VALUES] {
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

/// d * scale of each 16 values of a block.
fn scales(block: &[u8; BYTES]) -> [f32; 16] {
    let d = f16_at(block, 208);
    std::array::from_fn(|i| d * f32::from(block[192 + i].cast_signed()))
}

fn values_of(quants: &[u8; VALUES], scales: &[f32; 16], values: &mut [f32; VALUES]) {
    let quants = quants.as_chunks::<16>().0.iter();
    let values = values.as_chunks_mut::<16>().0;
    for ((values, quants), scale) in values.iter_mut().zip(quants).zip(scales) {
        for (value, &q) in values.iter_mut().zip(quants) {
            *value = scale * (i32::from(q) - 32) as f32;
        }
    }
}

/// The largest magnitude of each 16 values of a block.
fn largest_of(quants: &[u8; VALUES], scales: &[f32; 16]) -> [f32; 16] {
    let mut largest = [0.0; 16];
    let quants = quants.as_chunks::<16>().0.iter();
    for ((largest, quants), scale) in largest.iter_mut().zip(quants).zip(scales) {
        let most = quants.iter().fold(0, |most, &q| most.max(q.abs_diff(32)));
        *largest = scale.abs() * f32::from(most);
    }
    largest
}

/// Codes requantized to 8 bits: scale max|v| / 127, code v / scale + 128 to the nearest (even on a tie), offset -128 scale.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    assert_eq!(
        bytes.len() / BYTES * (VALUES / GROUP),
        out.scales.len(),
        "eight groups per block"
    );
    let mut values = [0f32; VALUES];
    let mut groups = out.groups();
    for block in bytes.as_chunks::<BYTES>().0 {
        let (quants, scales) = (quants(block), scales(block));
        values_of(&quants, &scales, &mut values);
        let largest = largest_of(&quants, &scales);
        let halves = largest.as_chunks::<2>().0;
        let values = values.as_chunks::<GROUP>().0.iter().zip(halves);
        for ((values, [a, b]), (codes, scale, offset)) in values.zip(&mut groups) {
            *scale = a.max(*b) / 127.0;
            *offset = -128.0 * *scale;
            let inverse = if *scale == 0.0 { 0.0 } else { 1.0 / *scale };
            for (code, v) in codes.iter_mut().zip(values) {
                *code = (v * inverse + TO_WHOLE).to_bits() as u8 ^ 0x80;
            }
        }
    }
}
