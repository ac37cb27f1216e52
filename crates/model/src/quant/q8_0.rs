//! Q8_0: 32 values in 34 bytes. `d: f16`, `qs: [i8; 32]`; value = d * q.

use super::{Codes, GROUP, QuantError, f16_at, scale_bits, whole_blocks, zip_blocks};

/// Bytes of a block.
pub const BYTES: usize = 34;

/// Blocks as f32.
pub fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in zip_blocks::<_, BYTES, GROUP>(bytes, out) {
        let d = f16_at(block, 0);
        for (value, &q) in values.iter_mut().zip(&block[2..]) {
            *value = d * f32::from(q.cast_signed());
        }
    }
}

/// Codes q + 128, scale d, offset -128 d.
pub fn codes(bytes: &[u8], out: Codes<'_>) {
    assert_eq!(bytes.len() / BYTES, out.scales.len(), "one block per group");
    for (block, (codes, scale, offset)) in bytes.as_chunks::<BYTES>().0.iter().zip(out.groups()) {
        for (code, &q) in codes.iter_mut().zip(&block[2..]) {
            *code = q ^ 0x80; // two's complement to excess 128
        }
        *scale = f16_at(block, 0);
        *offset = -128.0 * *scale;
    }
}

/// ggml's reference: d = max|x| / 127, q = x / d rounded half away from zero, with d in f32; a block of zeros has d = 0.
///
/// # Errors
/// [`QuantError`] for values that are not finite or too large, or a partial block.
pub fn quantize(values: &[f32]) -> Result<Vec<u8>, QuantError> {
    let blocks = whole_blocks(values)?;
    let mut out = Vec::with_capacity(blocks.len() * BYTES);
    for (i, block) in blocks.iter().enumerate() {
        let magnitude = block.iter().fold(0f32, |m, x| m.max(x.abs()));
        let d = magnitude / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out.extend_from_slice(&scale_bits(d, magnitude, block, i * GROUP)?.to_le_bytes());
        // In -127..=127 by the choice of d; the cast saturates, and a subnormal d whose inverse is infinite gives 0 for 0.
        out.extend(
            block
                .iter()
                .map(|x| ((x * inverse).round() as i8).cast_unsigned()),
        );
    }
    Ok(out)
}
