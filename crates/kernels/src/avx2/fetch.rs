//! What is fetched from memory while a panel is multiplied.

#![expect(unsafe_code, reason = "a prefetch takes an address")]

use std::arch::asm;

use crate::packed::{BLOCK6, Bits};

/// What to fetch while a panel is multiplied: some bytes for each of its groups.
#[derive(Clone, Copy)]
pub(super) struct Fetch {
    from: *const u8,
    /// Bytes for a group: as many as it has itself, or half of them.
    step: usize,
}

impl Fetch {
    /// A single row takes little time for a group: the machine's own prefetcher fetches too, but starts anew in every page.
    pub(super) fn near<const BLOCK_BYTES: usize>(panel: &[[u8; BLOCK_BYTES]]) -> Self {
        // Measured. Codes of 6 bits take longer, so that more of what comes is asked for by then.
        let ahead = if BLOCK_BYTES == BLOCK6 { 4096 } else { 1024 };
        Self {
            from: panel.as_ptr().cast::<u8>().wrapping_add(ahead),
            step: group_bytes(BLOCK_BYTES),
        }
    }

    /// The next panel, in as many parts as this one is gone through: memory is then asked for at an even rate, and not for all in the
    /// first part. Behind the last panel lies no panel or another thread's; an address that is not mapped is no error.
    pub(super) fn next_panel<const BLOCK_BYTES: usize>(
        panel: &[[u8; BLOCK_BYTES]],
        part: usize,
        parts: usize,
    ) -> Self {
        let bytes = size_of_val(panel);
        Self {
            from: panel
                .as_ptr()
                .cast::<u8>()
                .wrapping_add(bytes + bytes / parts * part),
            step: group_bytes(BLOCK_BYTES) / parts,
        }
    }

    /// Fetches the share of one group. In assembly, because the compiler would compute the address of each line by itself.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn group<const BLOCK_BYTES: usize>(self, group: usize) {
        macro_rules! lines {
            ($($line:literal),*) => {
                // SAFETY: a prefetch is no access.
                unsafe {
                    asm!(
                        $(concat!("prefetcht0 byte ptr [{from} + 64 * ", $line, "]"),)*
                        from = in(reg) self.from.wrapping_add(group * self.step),
                        options(nostack, preserves_flags, readonly),
                    )
                }
            };
        }
        let whole = const { group_bytes(BLOCK_BYTES) };
        match (whole.div_ceil(64), self.step == whole) {
            (..=5, true) => lines!(0, 1, 2, 3, 4),
            (..=5, false) => lines!(0, 1, 2),
            (..=7, true) => lines!(0, 1, 2, 3, 4, 5, 6),
            (..=7, false) => lines!(0, 1, 2, 3),
            (_, true) => lines!(0, 1, 2, 3, 4, 5, 6, 7, 8),
            (_, false) => lines!(0, 1, 2, 3, 4),
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
