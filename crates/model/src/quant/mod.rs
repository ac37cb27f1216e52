//! Block formats of GGUF: from stored blocks to f32 and to integer codes with scales.

use crate::Dtype;

/// Whole blocks as f32; `out` has the number of elements that `bytes` hold.
pub(crate) fn dequantize_blocks(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::Q8_0 => q8_0(bytes, |i, scale, code| out[i] = scale * f32::from(code)),
        _ => unreachable!("{dtype} blocks"),
    }
}

/// Whole blocks as codes, scales and offsets: value = scale * code + offset, one scale and offset per 32 elements.
pub(crate) fn block_codes(
    dtype: Dtype,
    bytes: &[u8],
    codes: &mut [u8],
    scales: &mut [f32],
    offsets: &mut [f32],
) {
    match dtype {
        Dtype::Q8_0 => q8_0(bytes, |i, scale, code| {
            codes[i] = code.wrapping_add(-128) as u8;
            scales[i / 32] = scale;
            offsets[i / 32] = -128.0 * scale;
        }),
        _ => unreachable!("{dtype} blocks"),
    }
}

fn q8_0(bytes: &[u8], mut element: impl FnMut(usize, f32, i8)) {
    for (block, bytes) in bytes.as_chunks::<34>().0.iter().enumerate() {
        let scale = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        for (i, &code) in bytes[2..].iter().enumerate() {
            element(block * 32 + i, scale, code as i8);
        }
    }
}
