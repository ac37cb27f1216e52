//! Into and out of the packed layout, and round-to-nearest codes for weights that come without any.

use half::f16;

use crate::error::KernelError;
use crate::packed::{Bits, GROUP, GROUP6, PANEL, PackedMut, PackedRef, half};

/// The code of row `r` of its panel and column `c` of its group.
fn code(bits: Bits, group: &[u8], r: usize, c: usize) -> u8 {
    let (quad, byte) = (c / 4, r * 4 + c % 4);
    let at = |block: usize| group[block * 64 + byte];
    match bits {
        Bits::B8 => at(quad),
        Bits::B4 if quad < 4 => at(quad) & 15,
        Bits::B4 => at(quad - 4) >> 4,
        Bits::B6 => {
            let first = quad / 4 * 3;
            match quad % 4 {
                3 => at(first) >> 6 | at(first + 1) >> 6 << 2 | at(first + 2) >> 6 << 4,
                k => at(first + k) & 63,
            }
        }
    }
}

/// Packs rows `first_row..first_row + n` given as one code per byte.
///
/// `codes` is `[n, cols]`, `scales` (and `offsets`, exactly where the shape has them) `[n, cols / 32]`; scales and offsets are
/// rounded to f16. `first_row` is a multiple of 16; the rows of a panel that are not given become zeros, so `n` is a multiple of 16
/// or reaches the last row.
///
/// # Errors
/// [`KernelError::ScaleRange`] for a scale or offset that is NaN or beyond f16. The destination is then partly written.
///
/// # Panics
/// On wrong lengths, on a code beyond the width, and for 6 bits, whose scales are of another kind.
pub fn pack_rows(
    dst: &mut PackedMut<'_>,
    first_row: usize,
    codes: &[u8],
    scales: &[f32],
    offsets: Option<&[f32]>,
) -> Result<(), KernelError> {
    let shape = dst.shape;
    let (groups, bits) = (shape.groups(), shape.bits);
    assert_ne!(bits, Bits::B6, "panels of 6 bits are made from blocks");
    if shape.cols == 0 {
        return Ok(());
    }
    let n = codes.len() / shape.cols;
    assert_eq!(
        codes.len(),
        n * shape.cols,
        "codes of whole rows of {}",
        shape.cols
    );
    assert_eq!(scales.len(), n * groups, "scales of {n} rows");
    assert_eq!(
        offsets.map(<[f32]>::len),
        shape.has_offset.then_some(n * groups),
        "offsets of {n} rows"
    );
    assert!(
        first_row.is_multiple_of(PANEL) && first_row + n <= shape.rows,
        "rows {first_row}+{n} of {}",
        shape.rows
    );
    assert!(
        n.is_multiple_of(PANEL) || first_row + n == shape.rows,
        "rows {first_row}+{n} end inside a panel"
    );
    assert!(
        codes.iter().all(|&c| c <= bits.max_code()),
        "a code beyond {}",
        bits.max_code()
    );

    let first = first_row / PANEL;
    dst.clear(first..first + n.div_ceil(PANEL));
    for row in 0..n {
        let (panel, r) = (dst.panel(first + row / PANEL), row % PANEL);
        for (group, to) in panel.chunks_exact_mut(shape.block_bytes()).enumerate() {
            let half = |value: f32| {
                let half = f16::from_f32(value);
                half.is_finite()
                    .then(|| half.to_le_bytes())
                    .ok_or(KernelError::ScaleRange { row, group })
            };
            let (quads, halves) = to.split_at_mut(bits.code_bytes());
            let (quads, halves) = (quads.as_chunks_mut::<4>().0, halves.as_chunks_mut::<2>().0);
            halves[r] = half(scales[row * groups + group])?;
            if let Some(offsets) = offsets {
                halves[PANEL + r] = half(offsets[row * groups + group])?;
            }
            let from = codes[row * shape.cols + group * GROUP..][..GROUP]
                .as_chunks::<4>()
                .0;
            if bits == Bits::B8 {
                for (j, from) in from.iter().enumerate() {
                    quads[j * PANEL + r] = *from;
                }
                continue;
            }
            let (low, high) = from.split_at(4);
            for (j, (low, high)) in low.iter().zip(high).enumerate() {
                let both = u32::from_le_bytes(*low) | u32::from_le_bytes(*high) << 4;
                quads[j * PANEL + r] = both.to_le_bytes();
            }
        }
    }
    Ok(())
}

/// Values of one row, `[cols]`: the embedding lookup.
///
/// # Panics
/// If there is no such row or `out` is not `cols` long.
pub fn unpack_row(w: PackedRef<'_>, row: usize, out: &mut [f32]) {
    let shape = w.shape();
    assert!(row < shape.rows, "row {row} of {}", shape.rows);
    assert_eq!(out.len(), shape.cols, "columns");
    let (panel, r) = (row / PANEL, row % PANEL);
    let blocks = w.panel(panel).chunks_exact(shape.block_bytes());
    for (block, out) in blocks.zip(out.chunks_exact_mut(shape.bits.block_cols())) {
        let out = out.as_chunks_mut::<GROUP>().0;
        if shape.bits == Bits::B6 {
            unpack6(block, r, out);
            continue;
        }
        let halves = &block[shape.bits.code_bytes()..];
        let scale = half(halves, r);
        let offset = if shape.has_offset {
            half(halves, PANEL + r)
        } else {
            -scale * f32::from(shape.bits.zero())
        };
        for (c, out) in out.as_flattened_mut().iter_mut().enumerate() {
            // 11 by 8 bits: the product is exact, the sum rounds once.
            *out = scale * f32::from(code(shape.bits, block, r, c)) + offset;
        }
    }
}

/// Values of row `r` of a block of 6-bit codes; exact.
fn unpack6(block: &[u8], r: usize, out: &mut [[f32; GROUP]]) {
    let (groups, halves) = block.split_at(Bits::B6.scales_at());
    let shared = half(halves, r);
    for (group, out) in groups.as_chunks::<GROUP6>().0.iter().zip(out) {
        let scales = &group[Bits::B6.code_bytes() + 2 * r..][..2];
        for (c, out) in out.iter_mut().enumerate() {
            let scale = shared * f32::from(scales[2 * c / GROUP].cast_signed());
            *out = scale * f32::from(code(Bits::B6, group, r, c).cast_signed() - 32);
        }
    }
}

/// Symmetric round-to-nearest codes and scales per 32 of the weights `x` `[n, cols]`.
///
/// The scale is a f16 value: 4 bits put the element of largest magnitude (with its sign) at code 0 as Q4_0 does, 8 bits use
/// max|x| / 127. A group of zeros has scale 0. Ties round to even; codes are clamped to the width.
///
/// # Errors
/// [`KernelError::NonFinite`] for NaN or infinity, [`KernelError::ScaleRange`] for weights too large for a f16 scale.
///
/// # Panics
/// On wrong lengths: `x` and `codes` equal and a multiple of 32, `scales` one per 32; and for 6 bits.
pub fn quantize_weights(
    bits: Bits,
    cols: usize,
    x: &[f32],
    codes: &mut [u8],
    scales: &mut [f32],
) -> Result<(), KernelError> {
    assert!(
        cols > 0 && cols.is_multiple_of(GROUP) && x.len().is_multiple_of(cols),
        "{} weights in rows of {cols}",
        x.len()
    );
    assert_eq!(codes.len(), x.len(), "codes");
    assert_eq!(scales.len(), x.len() / GROUP, "scales");
    let groups = cols / GROUP;
    let blocks = x
        .as_chunks::<GROUP>()
        .0
        .iter()
        .zip(codes.as_chunks_mut::<GROUP>().0)
        .zip(scales)
        .enumerate();
    for (index, ((x, codes), scale)) in blocks {
        let (row, group) = (index / groups, index % groups);
        let Some(extreme) = extreme(x) else {
            return Err(KernelError::NonFinite {
                what: "weights",
                row,
            });
        };
        let half = f16::from_f32(match bits {
            Bits::B4 => extreme / -8.0,
            Bits::B6 => panic!("6-bit codes come from a file alone"),
            Bits::B8 => extreme.abs() / 127.0,
        });
        if !half.is_finite() {
            return Err(KernelError::ScaleRange { row, group });
        }
        *scale = half.to_f32();
        let inverse = if *scale == 0.0 { 0.0 } else { 1.0 / *scale };
        let zero = f32::from(bits.zero());
        let max = f32::from(bits.max_code());
        for (x, code) in x.iter().zip(codes) {
            // At 1.5 · 2^23 the last bit of an f32 counts 1: adding it rounds, ties to even, and leaves the integer in the low byte.
            let rounded = (x * inverse + zero).clamp(0.0, max) + 12_582_912.0;
            *code = rounded.to_bits().to_le_bytes()[0];
        }
    }
    Ok(())
}

/// The element of largest magnitude; `None` if one is not finite. In eight lanes, for the compiler to vectorise.
fn extreme(x: &[f32; GROUP]) -> Option<f32> {
    let (mut low, mut high, mut probe) = ([0.0f32; 8], [0.0f32; 8], [0.0f32; 8]);
    for x in x.as_chunks::<8>().0 {
        for i in 0..8 {
            low[i] = if x[i] < low[i] { x[i] } else { low[i] };
            high[i] = if x[i] > high[i] { x[i] } else { high[i] };
            // 0 · x is 0 for finite x and NaN else.
            probe[i] += x[i] * 0.0;
        }
    }
    let low = low.into_iter().fold(0.0, f32::min);
    let high = high.into_iter().fold(0.0, f32::max);
    let finite = probe.into_iter().sum::<f32>() == 0.0;
    finite.then_some(if high >= -low { high } else { low })
}
