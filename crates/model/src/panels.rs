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

/// Whole `rows` of `cols` elements as panels, into `out` (cleared first).
///
/// # Errors
/// [`NotFinite`] for an infinite scale or one that is NaN.
///
/// # Panics
/// If the dtype has no panels or `rows` are not whole panels.
pub fn to_panels(
    dtype: Dtype,
    cols: usize,
    rows: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), NotFinite> {
    out.clear();
    out.resize(rows.len(), 0);
    let (block, panel) = sizes(dtype, cols);
    let flip = flip(dtype);
    for (p, (rows, out)) in rows
        .chunks_exact(panel)
        .zip(out.chunks_exact_mut(panel))
        .enumerate()
    {
        for (r, row) in rows.chunks_exact(panel / PANEL).enumerate() {
            let groups = row
                .chunks_exact(block)
                .zip(out.chunks_exact_mut(PANEL * block));
            for (group, (block, out)) in groups.enumerate() {
                let (scale, codes) = block.split_at(SCALE);
                if u16::from_le_bytes([scale[0], scale[1]]) & 0x7c00 == 0x7c00 {
                    return Err(NotFinite {
                        row: p * PANEL + r,
                        group,
                    });
                }
                let (words, scales) = out.split_at_mut(PANEL * codes.len());
                scales[SCALE * r..][..SCALE].copy_from_slice(scale);
                let words = words.as_chunks_mut::<WORD>().0;
                for (word, to) in codes
                    .as_chunks::<WORD>()
                    .0
                    .iter()
                    .zip(words[r..].iter_mut().step_by(PANEL))
                {
                    *to = word.map(|code| code ^ flip);
                }
            }
        }
    }
    Ok(())
}

/// The rows that [`to_panels`] took, into `out` (cleared first).
///
/// # Panics
/// As [`to_panels`].
pub fn to_rows(dtype: Dtype, cols: usize, panels: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.resize(panels.len(), 0);
    let (block, panel) = sizes(dtype, cols);
    let flip = flip(dtype);
    for (panel, rows) in panels.chunks_exact(panel).zip(out.chunks_exact_mut(panel)) {
        for (r, row) in rows.chunks_exact_mut(panel.len() / PANEL).enumerate() {
            let groups = panel
                .chunks_exact(PANEL * block)
                .zip(row.chunks_exact_mut(block));
            for (group, block) in groups {
                let (scale, codes) = block.split_at_mut(SCALE);
                let (words, scales) = group.split_at(PANEL * codes.len());
                scale.copy_from_slice(&scales[SCALE * r..][..SCALE]);
                let words = words.as_chunks::<WORD>().0;
                for (to, word) in codes
                    .as_chunks_mut::<WORD>()
                    .0
                    .iter_mut()
                    .zip(words[r..].iter().step_by(PANEL))
                {
                    *to = word.map(|code| code ^ flip);
                }
            }
        }
    }
}

/// Bytes of a block and of a panel.
fn sizes(dtype: Dtype, cols: usize) -> (usize, usize) {
    let row = dtype.row_bytes(cols).expect("whole blocks");
    (dtype.block_bytes(), PANEL * row)
}

/// What makes a file's codes a panel's, and back.
fn flip(dtype: Dtype) -> u8 {
    match dtype {
        Dtype::Q4_0 => 0,
        Dtype::Q8_0 => 0x80,
        _ => panic!("{dtype} has no panels"),
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
            let (mut panels, mut back) = (Vec::new(), Vec::new());
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
    fn other_tensors_stay_in_rows() {
        assert!(!possible(Dtype::Q4_0, &[24, 32]));
        assert!(!possible(Dtype::Q4_0, &[32]));
        assert!(!possible(Dtype::Q4_1, &[16, 32]));
        assert!(!possible(Dtype::BF16, &[16, 32]));
    }
}
