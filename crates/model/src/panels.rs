//! Blocks in the order in which an engine multiplies with them: 16 rows side by side instead of one after the other.
//!
//! Sixteen rows of a Q4_0 or Q8_0 matrix and their panel are the same bytes in another order, so a panel lies where its rows would:
//!
//! ```text
//! rows     [16 rows][group]  a block: scale, f16; codes in words of 4 bytes, 4 of them (Q4_0) or 8 (Q8_0)
//! panel    [group]           word 0 of the 16 rows, word 1, ...; the scales of the 16 rows
//! ```
//! Codes of Q8_0 are unsigned in a panel: 128 more. `edgethink_kernels` multiplies with this layout, so a file whose matrices are panels
//! ([`crate::bundle`]) is used on its mapping, without a copy. Nothing is lost by it: [`to_rows`] gives the rows back.

use thiserror::Error;

use crate::Dtype;

/// Rows of a panel.
pub const PANEL: usize = 16;
const SCALE: usize = 2;
const WORD: usize = 4;

/// A scale that no engine can compute with.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the scale of row {row}, block {group} is not finite")]
pub struct NotFinite {
    /// Row, counted from the first that was given.
    pub row: usize,
    /// Block of the row.
    pub group: usize,
}

/// Whether a tensor of this dtype and shape can lie in panels: a matrix of Q4_0 or Q8_0 with a multiple of 16 rows.
#[must_use]
pub fn possible(dtype: Dtype, shape: &[usize]) -> bool {
    let [rows, cols] = shape else { return false };
    matches!(dtype, Dtype::Q4_0 | Dtype::Q8_0)
        && rows.is_multiple_of(PANEL)
        && cols.is_multiple_of(dtype.block_len())
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
    match dtype {
        Dtype::Q4_0 => blocks_to_panels::<18, 288>(cols, rows, out, 0),
        Dtype::Q8_0 => blocks_to_panels::<34, 544>(cols, rows, out, 0x80),
        _ => panic!("{dtype} has no panels"),
    }
}

/// `BLOCK` bytes of a block, `GROUP` of the blocks of 16 rows. `flip` makes signed codes unsigned.
fn blocks_to_panels<const BLOCK: usize, const GROUP: usize>(
    cols: usize,
    rows: &[u8],
    out: &mut [u8],
    flip: u8,
) -> Result<(), NotFinite> {
    let groups = cols / 32;
    let (blocks, rest) = rows.as_chunks::<BLOCK>();
    assert!(
        rest.is_empty() && blocks.len().is_multiple_of(groups.max(1)),
        "{} bytes are no rows of {groups} blocks",
        rows.len()
    );
    if groups == 0 {
        return Ok(());
    }
    let panels = blocks.len().div_ceil(PANEL * groups);
    assert_eq!(
        out.len(),
        panels * groups * GROUP,
        "bytes of {panels} panels"
    );
    let out = out.as_chunks_mut::<GROUP>().0.chunks_exact_mut(groups);
    for (p, (blocks, panel)) in blocks.chunks(PANEL * groups).zip(out).enumerate() {
        if blocks.len() < PANEL * groups {
            panel.as_flattened_mut().fill(0);
        }
        for (r, row) in blocks.chunks_exact(groups).enumerate() {
            for (group, (block, to)) in row.iter().zip(panel.iter_mut()).enumerate() {
                let (scale, codes) = block.split_at(SCALE);
                if u16::from_le_bytes([scale[0], scale[1]]) & 0x7c00 == 0x7c00 {
                    let row = p * PANEL + r;
                    return Err(NotFinite { row, group });
                }
                let (words, scales) = to.split_at_mut(PANEL * (BLOCK - SCALE));
                scales[SCALE * r..][..SCALE].copy_from_slice(scale);
                let words = words.as_chunks_mut::<WORD>().0;
                for (j, word) in codes.as_chunks::<WORD>().0.iter().enumerate() {
                    words[j * PANEL + r] = word.map(|code| code ^ flip);
                }
            }
        }
    }
    Ok(())
}

/// The rows of whole `panels`, into `out` (cleared first).
///
/// # Panics
/// If the dtype has no panels or `panels` are not whole ones.
pub fn to_rows(dtype: Dtype, cols: usize, panels: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.resize(panels.len(), 0);
    match dtype {
        Dtype::Q4_0 => panels_to_blocks::<18, 288>(cols, panels, out, 0),
        Dtype::Q8_0 => panels_to_blocks::<34, 544>(cols, panels, out, 0x80),
        _ => panic!("{dtype} has no panels"),
    }
}

/// The other way than [`blocks_to_panels`], of whole panels.
fn panels_to_blocks<const BLOCK: usize, const GROUP: usize>(
    cols: usize,
    panels: &[u8],
    out: &mut [u8],
    flip: u8,
) {
    let groups = cols / 32;
    assert!(
        panels.len().is_multiple_of((groups * GROUP).max(1)),
        "{} bytes are no panels of {groups} groups",
        panels.len()
    );
    if groups == 0 {
        return;
    }
    let panels = panels.as_chunks::<GROUP>().0.chunks_exact(groups);
    let rows = out
        .as_chunks_mut::<BLOCK>()
        .0
        .chunks_exact_mut(PANEL * groups);
    for (panel, rows) in panels.zip(rows) {
        for (r, row) in rows.chunks_exact_mut(groups).enumerate() {
            for (from, block) in panel.iter().zip(row) {
                let (scale, codes) = block.split_at_mut(SCALE);
                let (words, scales) = from.split_at(PANEL * (BLOCK - SCALE));
                scale.copy_from_slice(&scales[SCALE * r..][..SCALE]);
                let words = words.as_chunks::<WORD>().0;
                for (j, word) in codes.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
                    *word = words[j * PANEL + r].map(|code| code ^ flip);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        for dtype in [Dtype::Q4_0, Dtype::Q8_0] {
            let (rows, cols) = (48, 96);
            assert!(possible(dtype, &[rows, cols]));
            let bytes = dtype.tensor_bytes(&[rows, cols]).expect("a small tensor");
            let mut stored: Vec<u8> = (0..bytes).map(|i| (i * 37 + i / 251) as u8).collect();
            for block in stored.chunks_exact_mut(dtype.block_bytes()) {
                block[1] &= 0xbf;
            }
            let (mut panels, mut back) = (vec![7; bytes], Vec::new());
            to_panels(dtype, cols, &stored, &mut panels).expect("finite");
            assert_ne!(panels, stored);
            to_rows(dtype, cols, &panels, &mut back);
            assert_eq!(back, stored);

            let (row, group) = (35, 2);
            let at =
                row * dtype.row_bytes(cols).expect("whole blocks") + group * dtype.block_bytes();
            stored[at + 1] = 0xfc;
            let error = to_panels(dtype, cols, &stored, &mut panels);
            assert_eq!(error, Err(NotFinite { row, group }));
        }
    }

    #[test]
    fn a_scale_that_is_not_finite_is_named_in_a_partial_panel() {
        let mut rows = vec![0; 20 * 2 * 18];
        rows[(18 * 2 + 1) * 18..][..2].copy_from_slice(&half::f16::NEG_INFINITY.to_le_bytes());
        let error = to_panels(Dtype::Q4_0, 64, &rows, &mut vec![0; 32 * 2 * 18]);
        assert_eq!(error, Err(NotFinite { row: 18, group: 1 }));
    }

    #[test]
    fn other_tensors_stay_in_rows() {
        assert!(!possible(Dtype::Q4_0, &[24, 32]));
        assert!(!possible(Dtype::Q4_0, &[32]));
        assert!(!possible(Dtype::Q4_1, &[16, 32]));
        assert!(!possible(Dtype::BF16, &[16, 32]));
    }
}
