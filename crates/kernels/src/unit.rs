//! How an instruction set wants a packed product to be cut, and what its kernels need beyond their arguments.

use crate::gemm::TILE;
use crate::isa::Isa;
use crate::packed::Bits;

/// The most runs of weights that are multiplied side by side.
pub(crate) const MOST_RUNS: usize = 4;

/// The most token rows of a tile of AMX.
pub(crate) const AMX_MOST: usize = 16;
/// The fewest for which it is faster than `vpdpbusd`.
pub(crate) const AMX_LEAST: usize = 3;

/// The unit that multiplies: of AMX it has tile registers, which are given back when it is dropped.
pub(crate) struct Unit {
    isa: Isa,
    #[cfg(target_arch = "x86_64")]
    tiles: Option<crate::avx512::amx::Tiles>,
}

impl Unit {
    /// That of an instruction set which the machine has.
    pub(crate) fn new(isa: Isa) -> Self {
        isa.require();
        Self {
            isa,
            #[cfg(target_arch = "x86_64")]
            tiles: (isa == Isa::AmxInt8).then(crate::avx512::amx::Tiles::new),
        }
    }

    /// Token rows that one call of a kernel takes.
    pub(crate) fn most_rows(&self) -> usize {
        match self.isa {
            Isa::AmxInt8 => AMX_MOST,
            _ => TILE,
        }
    }

    /// Runs of weights that so many rows are multiplied with side by side. Measured: one run does not keep the machine's prefetchers busy.
    pub(crate) fn runs(&self, rows: usize, bits: Bits) -> usize {
        match (self.isa, rows) {
            (Isa::Avx512Vnni | Isa::AmxInt8, 1) => MOST_RUNS,
            (_, 1) => 2,
            (Isa::AmxInt8, AMX_LEAST..=8) if bits != Bits::B6 => 2,
            _ => 1,
        }
    }

    /// To be called before the kernels are called with another number of rows.
    #[cfg_attr(
        target_arch = "x86_64",
        expect(unsafe_code, reason = "the machine must have the tile registers")
    )]
    pub(crate) fn shape(&mut self, rows: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = &mut self.tiles {
            // SAFETY: `new` has required the instruction set.
            unsafe { tiles.shape(rows) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = rows;
    }
}
