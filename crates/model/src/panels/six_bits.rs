//! A block of Q6_K in a panel. 256 columns of 16 rows are eight groups of 32 columns, then the f16 scales of the 16 rows; a group is
//!
//! ```text
//! codes    half h (16 columns, that is words 0..4 of 4 codes): 3 words of each of the 16 rows; word k has code word k in the low 6 bits
//!          of its bytes and bits 2k and 2k + 1 of code word 3 in the high 2
//! scales   of the 16 rows, i8: that of the first half and that of the second
//! ```

use super::{PANEL, SCALE, WORD, is_finite};
use crate::quant::q6_k::{BYTES, SCALES, SHARED, VALUES, quants, set_quants};

const CODES: usize = 6 * WORD * PANEL;
const GROUP: usize = CODES + 2 * PANEL;
const COLUMNS: usize = 32;
/// Bytes of 16 blocks.
const OF_PANEL: usize = PANEL * BYTES;
/// The low two bits of each byte of a word.
const TWO: u32 = 0x0303_0303;

/// Row `r` of a block. Whether its scale is finite.
pub(super) fn put(r: usize, block: &[u8; BYTES], to: &mut [u8; OF_PANEL]) -> bool {
    let (groups, shared) = to.split_at_mut(VALUES / COLUMNS * GROUP);
    shared[SCALE * r..][..SCALE].copy_from_slice(&block[SHARED..]);
    let quants = quants(block);
    let columns = quants.as_chunks::<COLUMNS>().0.iter();
    let scales = block[SCALES..].as_chunks::<2>().0;
    for ((group, quants), pair) in groups
        .as_chunks_mut::<GROUP>()
        .0
        .iter_mut()
        .zip(columns)
        .zip(scales)
    {
        let (codes, scales) = group.split_at_mut(CODES);
        scales[2 * r..][..2].copy_from_slice(pair);
        let words = codes.as_chunks_mut::<WORD>().0;
        for (half, quants) in quants.as_chunks::<16>().0.iter().enumerate() {
            let [a, b, c, last] = words_of(quants);
            for (k, word) in [a, b, c].into_iter().enumerate() {
                let word = word | (last >> (2 * k) & TWO) << 6;
                words[(3 * half + k) * PANEL + r] = word.to_le_bytes();
            }
        }
    }
    is_finite(&block[SHARED..])
}

/// The other way than [`put`].
pub(super) fn take(r: usize, from: &[u8; OF_PANEL], block: &mut [u8; BYTES]) {
    let (groups, shared) = from.split_at(VALUES / COLUMNS * GROUP);
    let mut quants = [0; VALUES];
    let columns = quants.as_chunks_mut::<COLUMNS>().0.iter_mut();
    let scales = block[SCALES..].as_chunks_mut::<2>().0;
    for ((group, quants), pair) in groups
        .as_chunks::<GROUP>()
        .0
        .iter()
        .zip(columns)
        .zip(scales)
    {
        let (codes, scales) = group.split_at(CODES);
        pair.copy_from_slice(&scales[2 * r..][..2]);
        let words = codes.as_chunks::<WORD>().0;
        for (half, quants) in quants.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let word = |k: usize| u32::from_le_bytes(words[(3 * half + k) * PANEL + r]);
            let all = [word(0), word(1), word(2)];
            let last = (0..3).fold(0, |last, k| last | (all[k] >> 6 & TWO) << (2 * k));
            let [a, b, c] = all.map(|word| word & (63 * 0x0101_0101));
            let quads = quants.as_chunks_mut::<WORD>().0.iter_mut();
            for (quad, word) in quads.zip([a, b, c, last]) {
                *quad = word.to_le_bytes();
            }
        }
    }
    set_quants(block, &quants);
    block[SHARED..].copy_from_slice(&shared[SCALE * r..][..SCALE]);
}

/// Sixteen codes in words of four.
fn words_of(codes: &[u8; 16]) -> [u32; 4] {
    let words = codes.as_chunks::<WORD>().0;
    std::array::from_fn(|i| u32::from_le_bytes(words[i]))
}
