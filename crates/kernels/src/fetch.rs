//! What is fetched from memory while panels are multiplied.
//!
//! A core waits for few lines at once, so that what is fetched too early or too late costs time. The machine's own prefetcher helps where
//! memory is read in order, but starts anew in every page.

#![expect(unsafe_code, reason = "a prefetch takes an address")]

use std::arch::asm;

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
    /// Of one of P panels that are multiplied side by side: what comes in it, and then what comes in the one that takes its place, P panels
    /// further on.
    pub(crate) fn beside<const P: usize, const BLOCK_BYTES: usize>(
        panel: &[[u8; BLOCK_BYTES]],
    ) -> Self {
        // Measured: 1,024 and 4,096 are slower.
        const AHEAD: usize = 2048;
        let bytes = size_of_val(panel);
        let ahead = AHEAD.min(bytes);
        Self {
            from: panel.as_ptr().cast::<u8>().wrapping_add(ahead),
            turn: (bytes - ahead).div_ceil(group_bytes(BLOCK_BYTES)),
            far: (P - 1) * bytes,
            second: false,
        }
    }

    /// Of a panel alone: what comes in it, and then in the next.
    pub(crate) fn alone<const BLOCK_BYTES: usize>(panel: &[[u8; BLOCK_BYTES]]) -> Self {
        // Measured.
        const AHEAD: usize = 8192;
        Self {
            from: panel.as_ptr().cast::<u8>().wrapping_add(AHEAD),
            turn: usize::MAX,
            far: 0,
            second: true,
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
