//! Q4_0: 32 values in 18 bytes. `d: f16`, 16 bytes of nibbles; value = d * (q - 8).
//!
//! Byte i holds value i in its low and value i + 16 in its high nibble.

use super::{Codes, GROUP, QuantError, f16_at, scale_bits, whole_blocks, zip_blocks};

/// Bytes of a block.
pub const BYTES: usize = 18;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in zip_blocks::<_, BYTES, GROUP>(bytes, out) {
        let d = f16_at(block, 0);
        let mut codes = [0; GROUP];
        split_nibbles(&block[2..], &mut codes);
        for (value, q) in values.iter_mut().zip(codes) {
            *value = d * (f32::from(q) - 8.0);
        }
    }
}

/// Codes q, scale d, offset -8 d.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    assert_eq!(bytes.len() / BYTES, out.scales.len(), "one block per group");
    for (block, (codes, scale, offset)) in bytes.as_chunks::<BYTES>().0.iter().zip(out.groups()) {
        split_nibbles(&block[2..], codes);
        *scale = f16_at(block, 0);
        *offset = -8.0 * *scale;
    }
}

/// ggml's reference: d = m / -8 where m is the value of largest magnitude (the first of equals) with its sign, so that m gets
/// code 0; q = min(15, trunc(x / d + 8.5)). A block of zeros has d = 0 and codes 8.
///
/// # Errors
/// [`QuantError`] for values that are not finite or too large, or a partial block.
pub fn quantize(values: &[f32]) -> Result<Vec<u8>, QuantError> {
    let blocks = whole_blocks(values)?;
    let mut out = Vec::with_capacity(blocks.len() * BYTES);
    for (i, block) in blocks.iter().enumerate() {
        let extreme = block
            .iter()
            .fold(0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
        let d = extreme / -8.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out.extend_from_slice(&scale_bits(d, extreme.abs(), block, i * GROUP)?.to_le_bytes());
        let code = |x: f32| ((x * inverse + 8.5) as i8).clamp(0, 15).cast_unsigned();
        out.extend((0..16).map(|j| code(block[j]) | code(block[j + 16]) << 4));
    }
    Ok(out)
}

/// Nibbles of 16 bytes as 32 codes: the low ones first.
pub(super) fn split_nibbles(packed: &[u8], codes: &mut [u8; GROUP]) {
    for (i, &byte) in packed.iter().enumerate() {
        codes[i] = byte & 0x0f;
        codes[i + 16] = byte >> 4;
    }
}
