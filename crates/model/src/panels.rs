//! Blocks in the order in which an engine multiplies with them: 16 rows side by side instead of one after the other.
//!
//! Sixteen rows of a Q4_0, Q8_0 or Q6_K matrix and their panel are the same bytes in another order, so a panel lies where its rows would:
//!
//! ```text
//! rows     [16 rows][block]  Q4_0, Q8_0: scale, f16; codes in words of 4 bytes, 4 of them or 8
//! panel    [block]           word 0 of the 16 rows, word 1, ...; the scales of the 16 rows
//! ```
//! Codes of Q8_0 are unsigned in a panel: 128 more. How the bits of Q6_K lie is said in `six_bits.rs`. `edgethink_kernels` multiplies with
//! this layout, so a file whose matrices are panels ([`crate::bundle`]) is used on its mapping, without a copy. Nothing is lost by it:
//! [`to_rows`] gives the rows back.

mod six_bits;

use thiserror::Error;

use crate::Dtype;

/// Rows of a panel.
pub const PANEL: usize = 16;
/// What can lie in panels.
pub const DTYPES: [Dtype; 3] = [Dtype::Q4_0, Dtype::Q8_0, Dtype::Q6K];
const SCALE: usize = 2;
const WORD: usize = 4;

/// A scale that no engine can compute with.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the scale of row {row}, block {block} is not finite")]
pub struct NotFinite {
    /// Row, counted from the first that was given.
    pub row: usize,
    /// Block of the row.
    pub block: usize,
}

/// Whether a tensor of this dtype and shape can lie in panels: a matrix of one of [`DTYPES`] with a multiple of 16 rows.
#[must_use]
pub fn possible(dtype: Dtype, shape: &[usize]) -> bool {
    let [rows, cols] = shape else { return false };
    DTYPES.contains(&dtype) && rows.is_multiple_of(PANEL) && cols.is_multiple_of(dtype.block_len())
}

/// Rows of `cols` elements as panels, into `out`: only places change, so a model of 4 GB is turned at the speed of memory. Behind the last
/// row its panel is zeros.
///
/// # Errors
/// [`NotFinite`] for an infinite scale or one that is NaN. `out` is then partly written.
///
/// # Panics
/// If the dtype has no panels, `rows` are not whole rows, or `out` has another length than their panels.
pub fn to_panels(dtype: Dtype, cols: usize, rows: &[u8], out: &mut [u8]) -> Result<(), NotFinite> {
    let blocks = cols / dtype.block_len();
    match dtype {
        Dtype::Q4_0 => gather::<18, 288>(blocks, rows, out, put_words::<18, 288, 0>),
        Dtype::Q8_0 => gather::<34, 544>(blocks, rows, out, put_words::<34, 544, 0x80>),
        Dtype::Q6K => gather(blocks, rows, out, six_bits::put),
        _ => panic!("{dtype} has no panels"),
    }
}

/// The rows of whole `panels`, into `out` (cleared first).
///
/// # Panics
/// If the dtype has no panels or `panels` are not whole ones.
pub fn to_rows(dtype: Dtype, cols: usize, panels: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.resize(panels.len(), 0);
    let blocks = cols / dtype.block_len();
    match dtype {
        Dtype::Q4_0 => scatter::<18, 288>(blocks, panels, out, take_words::<18, 288, 0>),
        Dtype::Q8_0 => scatter::<34, 544>(blocks, panels, out, take_words::<34, 544, 0x80>),
        Dtype::Q6K => scatter(blocks, panels, out, six_bits::take),
        _ => panic!("{dtype} has no panels"),
    }
}

/// Puts each block of each row, `BLOCK` bytes, into that of its panel. `put` says whether the block's scale is finite.
fn gather<const BLOCK: usize, const OF_PANEL: usize>(
    blocks: usize,
    rows: &[u8],
    out: &mut [u8],
    put: impl Fn(usize, &[u8; BLOCK], &mut [u8; OF_PANEL]) -> bool,
) -> Result<(), NotFinite> {
    let (all, rest) = rows.as_chunks::<BLOCK>();
    assert!(
        rest.is_empty() && all.len().is_multiple_of(blocks.max(1)),
        "{} bytes are no rows of {blocks} blocks",
        rows.len()
    );
    if blocks == 0 {
        return Ok(());
    }
    let panels = all.len().div_ceil(PANEL * blocks);
    assert_eq!(
        out.len(),
        panels * blocks * OF_PANEL,
        "bytes of {panels} panels"
    );
    let out = out.as_chunks_mut::<OF_PANEL>().0.chunks_exact_mut(blocks);
    for (p, (rows, panel)) in all.chunks(PANEL * blocks).zip(out).enumerate() {
        if rows.len() < PANEL * blocks {
            panel.as_flattened_mut().fill(0);
        }
        for (r, row) in rows.chunks_exact(blocks).enumerate() {
            for (block, (from, to)) in row.iter().zip(panel.iter_mut()).enumerate() {
                if !put(r, from, to) {
                    let row = p * PANEL + r;
                    return Err(NotFinite { row, block });
                }
            }
        }
    }
    Ok(())
}

/// The other way than [`gather`], of whole panels.
fn scatter<const BLOCK: usize, const OF_PANEL: usize>(
    blocks: usize,
    panels: &[u8],
    out: &mut [u8],
    take: impl Fn(usize, &[u8; OF_PANEL], &mut [u8; BLOCK]),
) {
    assert!(
        panels.len().is_multiple_of((blocks * OF_PANEL).max(1)),
        "{} bytes are no panels of {blocks} blocks",
        panels.len()
    );
    if blocks == 0 {
        return;
    }
    let panels = panels.as_chunks::<OF_PANEL>().0.chunks_exact(blocks);
    let rows = out
        .as_chunks_mut::<BLOCK>()
        .0
        .chunks_exact_mut(PANEL * blocks);
    for (panel, rows) in panels.zip(rows) {
        for (r, row) in rows.chunks_exact_mut(blocks).enumerate() {
            for (from, to) in panel.iter().zip(row) {
                take(r, from, to);
            }
        }
    }
}

/// Row `r` of a block of Q4_0 or Q8_0. `FLIP` makes signed codes unsigned.
fn put_words<const BLOCK: usize, const OF_PANEL: usize, const FLIP: u8>(
    r: usize,
    block: &[u8; BLOCK],
    to: &mut [u8; OF_PANEL],
) -> bool {
    let (scale, codes) = block.split_at(SCALE);
    let (words, scales) = to.split_at_mut(PANEL * (BLOCK - SCALE));
    scales[SCALE * r..][..SCALE].copy_from_slice(scale);
    let words = words.as_chunks_mut::<WORD>().0;
    for (j, word) in codes.as_chunks::<WORD>().0.iter().enumerate() {
        words[j * PANEL + r] = word.map(|code| code ^ FLIP);
    }
    is_finite(scale)
}

/// The other way than [`put_words`].
fn take_words<const BLOCK: usize, const OF_PANEL: usize, const FLIP: u8>(
    r: usize,
    from: &[u8; OF_PANEL],
    block: &mut [u8; BLOCK],
) {
    let (scale, codes) = block.split_at_mut(SCALE);
    let (words, scales) = from.split_at(PANEL * (BLOCK - SCALE));
    scale.copy_from_slice(&scales[SCALE * r..][..SCALE]);
    let words = words.as_chunks::<WORD>().0;
    for (j, word) in codes.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
        *word = words[j * PANEL + r].map(|code| code ^ FLIP);
    }
}

/// Whether an f16 is.
fn is_finite(half: &[u8]) -> bool {
    u16::from_le_bytes([half[0], half[1]]) & 0x7c00 != 0x7c00
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        for dtype in DTYPES {
            let (rows, cols) = (48, 3 * dtype.block_len());
            assert!(possible(dtype, &[rows, cols]));
            let bytes = dtype.tensor_bytes(&[rows, cols]).expect("a small tensor");
            let mut stored: Vec<u8> = (0..bytes).map(|i| (i * 37 + i / 251) as u8).collect();
            let scale = if dtype == Dtype::Q6K { 208 } else { 0 };
            for block in stored.chunks_exact_mut(dtype.block_bytes()) {
                block[scale + 1] &= 0xbf;
            }
            let (mut panels, mut back) = (vec![7; bytes], Vec::new());
            to_panels(dtype, cols, &stored, &mut panels).expect("finite");
            assert_ne!(panels, stored);
            to_rows(dtype, cols, &panels, &mut back);
            assert_eq!(back, stored);

            let (row, block) = (35, 2);
            let at =
                row * dtype.row_bytes(cols).expect("whole blocks") + block * dtype.block_bytes();
            stored[at + scale + 1] = 0xfc;
            let error = to_panels(dtype, cols, &stored, &mut panels);
            assert_eq!(error, Err(NotFinite { row, block }));
        }
    }

    #[test]
    fn a_scale_that_is_not_finite_is_named_in_a_partial_panel() {
        let mut rows = vec![0; 20 * 2 * 18];
        rows[(18 * 2 + 1) * 18..][..2].copy_from_slice(&half::f16::NEG_INFINITY.to_le_bytes());
        let error = to_panels(Dtype::Q4_0, 64, &rows, &mut vec![0; 32 * 2 * 18]);
        assert_eq!(error, Err(NotFinite { row: 18, block: 1 }));
    }

    #[test]
    fn other_tensors_stay_in_rows() {
        assert!(!possible(Dtype::Q4_0, &[24, 32]));
        assert!(!possible(Dtype::Q4_0, &[32]));
        assert!(!possible(Dtype::Q4_1, &[16, 32]));
        assert!(!possible(Dtype::BF16, &[16, 32]));
    }
}
