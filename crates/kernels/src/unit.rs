//! How an instruction set wants a packed product to be cut, and what its kernels need beyond their arguments.

use crate::gemm::TILE;
use crate::isa::Isa;
use crate::packed::Bits;

/// The most token rows of a tile of AMX.
pub(crate) const AMX_MOST: usize = 16;
/// The fewest for which it is faster than `vpdpbusd`. With up to [`TILE`] rows memory is what takes the time, and four panels side by side
/// read it faster.
#[cfg(target_arch = "x86_64")]
pub(crate) const AMX_LEAST: usize = TILE + 1;

/// The most token rows of a tile of AVX-VNNI: twice those that there are registers for.
pub(crate) const VNNI_MOST: usize = 12;

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

    /// Token rows that one call of a kernel takes. Of 6-bit codes none takes more than [`TILE`].
    pub(crate) fn most_rows(&self, bits: Bits) -> usize {
        match (self.isa, bits) {
            (Isa::AmxInt8, Bits::B4 | Bits::B8) => AMX_MOST,
            (Isa::AvxVnni, Bits::B4 | Bits::B8) => VNNI_MOST,
            _ => TILE,
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
