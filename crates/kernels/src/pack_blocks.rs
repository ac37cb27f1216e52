//! Blocks as files hold them straight into the packed layout: no arithmetic, only places change.
//!
//! A block is 32 columns of one row behind an f16 scale: for 8 bits 32 signed codes; for 4 bits 16 bytes, of which byte i holds column
//! i in its low and column 16 + i in its high nibble (GGUF's Q8_0 and Q4_0). Four bytes at 4j are therefore the row's place in quad j,
//! and in quad j + 4 for the high nibbles: packing is a transposition of 32-bit words. A model of 4 GB is packed at the speed of memory.

use crate::error::KernelError;
use crate::packed::{Bits, PANEL, PackedMut};

/// Bytes of a quad of the 16 rows.
const QUAD: usize = 4 * PANEL;
/// Bytes of a scale.
const SCALE: usize = 2;

/// Packs all rows of `dst` from `blocks`, `[rows, cols / 32]` blocks.
///
/// # Errors
/// [`KernelError::ScaleRange`] for a scale that is not finite. The destination is then partly written.
///
/// # Panics
/// On a wrong length, and if `dst` has offsets.
pub fn pack_blocks(dst: &mut PackedMut<'_>, blocks: &[u8]) -> Result<(), KernelError> {
    let shape = dst.shape;
    assert!(!shape.has_offset, "blocks have no offsets");
    match shape.bits {
        Bits::B4 => pack::<18, 4, 288>(dst, blocks, 0),
        Bits::B8 => pack::<34, 8, 544>(dst, blocks, 0x8080_8080),
    }
}

/// `BLOCK` bytes of a block, `QUADS` words of codes in it, `GROUP` bytes of a group of a panel. `flip` makes signed codes unsigned.
fn pack<const BLOCK: usize, const QUADS: usize, const GROUP: usize>(
    dst: &mut PackedMut<'_>,
    blocks: &[u8],
    flip: u32,
) -> Result<(), KernelError> {
    let (rows, groups) = (dst.shape.rows, dst.shape.groups());
    let blocks = blocks.as_chunks::<BLOCK>();
    assert!(
        blocks.1.is_empty() && blocks.0.len() == rows * groups,
        "{} blocks of {rows} rows of {groups}",
        blocks.0.len()
    );
    if groups == 0 {
        return Ok(());
    }
    for (p, blocks) in blocks.0.chunks(PANEL * groups).enumerate() {
        if blocks.len() < PANEL * groups {
            dst.clear(p..p + 1);
        }
        let panel = dst.panel(p).as_chunks_mut::<GROUP>().0;
        for (r, row) in blocks.chunks_exact(groups).enumerate() {
            for (g, (block, to)) in row.iter().zip(panel.iter_mut()).enumerate() {
                let (scale, quads) = block.split_at(SCALE);
                let scale = [scale[0], scale[1]];
                if u16::from_le_bytes(scale) & 0x7c00 == 0x7c00 {
                    return Err(KernelError::ScaleRange {
                        row: p * PANEL + r,
                        group: g,
                    });
                }
                let (words, scales) = to.split_at_mut(QUADS * QUAD);
                scales.as_chunks_mut::<SCALE>().0[r] = scale;
                let words = words.as_chunks_mut::<4>().0;
                for (j, quad) in quads.as_chunks::<4>().0.iter().enumerate().take(QUADS) {
                    words[j * PANEL + r] = (u32::from_le_bytes(*quad) ^ flip).to_le_bytes();
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PackedShape, pack_rows};
    use half::f16;

    /// Blocks of `rows` rows of 96 columns, and the same as codes and scales.
    fn example(rows: usize, bits: Bits) -> (Vec<u8>, Vec<u8>, Vec<f32>) {
        let (mut blocks, mut codes, mut scales) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..rows * 3 {
            let scale = f16::from_f32(index as f32 / 64.0 - 1.0);
            blocks.extend_from_slice(&scale.to_le_bytes());
            scales.push(scale.to_f32());
            let code = |c: usize| (index * 37 + c * 11 + index * c) as u8;
            match bits {
                Bits::B8 => {
                    blocks.extend((0..32).map(code));
                    codes.extend((0..32).map(|c| code(c) ^ 0x80));
                }
                Bits::B4 => {
                    blocks.extend((0..16).map(code));
                    codes.extend((0..16).map(|c| code(c) & 15));
                    codes.extend((0..16).map(|c| code(c) >> 4));
                }
            }
        }
        (blocks, codes, scales)
    }

    #[test]
    fn blocks_give_what_their_codes_give() {
        for bits in [Bits::B4, Bits::B8] {
            for rows in [1, 16, 35] {
                let shape = PackedShape {
                    rows,
                    cols: 96,
                    bits,
                    has_offset: false,
                };
                let (blocks, codes, scales) = example(rows, bits);
                let packed = |fill: u8, by: &dyn Fn(&mut PackedMut<'_>)| {
                    let mut bytes = vec![fill; shape.bytes()];
                    by(&mut PackedMut::new(shape, &mut bytes));
                    bytes
                };
                let want = packed(1, &|dst| {
                    pack_rows(dst, 0, &codes, &scales, None).expect("finite");
                });
                let got = packed(7, &|dst| pack_blocks(dst, &blocks).expect("finite"));
                assert_eq!(got, want, "{bits:?}, {rows} rows");
            }
        }
    }

    #[test]
    fn a_scale_that_is_not_finite_is_named() {
        let shape = PackedShape {
            rows: 20,
            cols: 64,
            bits: Bits::B4,
            has_offset: false,
        };
        let mut blocks = vec![0; 20 * 2 * 18];
        blocks[(18 * 2 + 1) * 18..][..2].copy_from_slice(&f16::NEG_INFINITY.to_le_bytes());
        let mut bytes = vec![0; shape.bytes()];
        let error = pack_blocks(&mut PackedMut::new(shape, &mut bytes), &blocks);
        assert!(
            matches!(error, Err(KernelError::ScaleRange { row: 18, group: 1 })),
            "{error:?}"
        );
    }
}
