//! What is fetched from memory while panels are multiplied.
//!
//! A core waits for few lines at once, so that what is fetched too early or too late costs time. The machine's own prefetcher helps where
//! memory is read in order, but starts anew in every page.

#![expect(unsafe_code, reason = "a prefetch takes an address")]

use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use crate::columns::ColumnsMut;
use crate::gemm::Tile;
use crate::packed::{BLOCK6, Bits};

/// What to fetch while a panel is multiplied: for each of its groups as many bytes as that has. An address that is not mapped is no error.
#[derive(Clone, Copy)]
pub(crate) struct Fetch {
    /// What the first group fetches.
    from: *const u8,
    /// Groups from this one on fetch `far` bytes further on.
    turn: usize,
    far: usize,
    /// To the second-level cache alone.
    second: bool,
}

impl Fetch {
    /// Of a panel alone (P = 1) what comes in it, and then in the next. Of one of P panels that are multiplied side by side what comes in it,
    /// and then in the one that takes its place, P panels further on.
    pub(crate) fn panel<const P: usize, const BLOCK_BYTES: usize>(
        panel: &[[u8; BLOCK_BYTES]],
    ) -> Self {
        let bytes = size_of_val(panel);
        // Measured. For panels side by side 1,024 and 4,096 are slower.
        let ahead = if P == 1 { 8192 } else { bytes.min(2048) };
        Self {
            from: panel.as_ptr().cast::<u8>().wrapping_add(ahead),
            turn: bytes
                .saturating_sub(ahead)
                .div_ceil(group_bytes(BLOCK_BYTES)),
            far: (P - 1) * bytes,
            second: P == 1,
        }
    }

    /// The outputs of a tile. Stores are done in order: where the outputs are not in the cache, as those of a head, the next panel's would
    /// wait for them.
    #[inline(always)]
    pub(crate) fn outputs(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
        for t in tile.rows.clone() {
            let at = out.row_mut(t)[tile.columns.clone()].as_ptr();
            // SAFETY: a prefetch is no access.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
        }
    }

    /// Fetches the share of one group. In assembly, because the compiler would compute the address of each line by itself.
    #[inline(always)]
    pub(crate) fn group<const BLOCK_BYTES: usize>(self, group: usize) {
        let bytes = const { group_bytes(BLOCK_BYTES) };
        let far = if group < self.turn { 0 } else { self.far };
        let from = self.from.wrapping_add(group * bytes + far);
        macro_rules! lines {
            ($prefetch:literal $($line:literal)*) => {
                // SAFETY: a prefetch is no access.
                unsafe {
                    asm!(
                        $(concat!($prefetch, " byte ptr [{from} + 64 * ", $line, "]"),)*
                        from = in(reg) from,
                        options(nostack, preserves_flags, readonly),
                    )
                }
            };
        }
        match (bytes.div_ceil(64), self.second) {
            (..=5, false) => lines!("prefetcht0" 0 1 2 3 4),
            (6..=7, false) => lines!("prefetcht0" 0 1 2 3 4 5 6),
            (_, false) => lines!("prefetcht0" 0 1 2 3 4 5 6 7 8),
            (..=5, true) => lines!("prefetcht1" 0 1 2 3 4),
            (6..=7, true) => lines!("prefetcht1" 0 1 2 3 4 5 6),
            (_, true) => lines!("prefetcht1" 0 1 2 3 4 5 6 7 8),
        }
    }
}

/// Bytes of a group, with its share of what its block has.
const fn group_bytes(block_bytes: usize) -> usize {
    match block_bytes {
        BLOCK6 => BLOCK6 / Bits::B6.block_groups(),
        bytes => bytes,
    }
}
