//! AMX with int8 (Sapphire Rapids on). More than eight rows use `tdpbssd`, one instruction of 16 weight rows by up to 16 token rows by 32 columns.
//! The sums are whole numbers and are scaled as in [`super::packed`], so the results are those of [`Isa::Avx512Vnni`](crate::Isa) bit
//! for bit. Fewer rows and 6-bit codes use that kernel.
//!
//! The codes of a group lie in a panel as the instruction reads its second factor; they are widened to bytes less their zero first.

#![expect(
    unsafe_code,
    reason = "the matrix unit needs `asm!`, and has to be asked for"
)]

use std::arch::asm;

use crate::unit::{AMX_LEAST as LEAST, AMX_MOST as ROWS};

pub(crate) use super::{attention, attention_i8, dense, elementwise, quantize};

/// Whether the processor has the tiles and the system lets this process use them, and whether they multiply int8.
pub(crate) fn features() -> [(&'static str, bool); 2] {
    use std::arch::x86_64::__cpuid_count;
    let has_leaf = std::arch::x86_64::__cpuid(0).eax >= 7;
    let bits = if has_leaf { __cpuid_count(7, 0).edx } else { 0 };
    let has = |bit: u32| bits >> bit & 1 == 1;
    [("amx-tile", has(24) && permitted()), ("amx-int8", has(25))]
}

/// Asks the system for the tile registers, for all threads of this process; it saves them only then.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call changes what this process may use, and no memory. Old systems refuse it.
    unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        ) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The tile registers of this thread, shaped for some number of token rows; given back when dropped.
pub(crate) struct Tiles {
    rows: usize,
}

/// The registers: sums, token rows, weights.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// None are shaped.
    pub(crate) fn new() -> Self {
        Self { rows: 0 }
    }

    /// Shapes them for as many token rows as [`packed::panel`] is called with next, if it uses them at all.
    ///
    /// # Safety
    /// The machine has [`Isa::AmxInt8`](crate::Isa).
    pub(crate) unsafe fn shape(&mut self, rows: usize) {
        if rows == self.rows || rows < LEAST {
            return;
        }
        assert!(rows <= ROWS, "{rows} rows in a tile of {ROWS}");
        let token_rows = u8::try_from(rows).expect("at most 16");
        // SAFETY: passed on.
        unsafe { self.load(&[(64, token_rows), (32, token_rows), (64, 8)]) };
        self.rows = rows;
    }

    /// Shapes six of them whole.
    ///
    /// # Safety
    /// As of [`Self::shape`].
    unsafe fn whole(&mut self) {
        // SAFETY: passed on.
        unsafe { self.load(&[(64, 16); 6]) };
        self.rows = ROWS;
    }

    /// Shapes the first ones, (bytes of a row, rows) each.
    unsafe fn load(&mut self, tiles: &[(u16, u8)]) {
        let mut shapes = Shapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for (tile, (bytes, rows)) in tiles.iter().enumerate() {
            shapes.row_bytes[tile] = *bytes;
            shapes.rows[tile] = *rows;
        }
        // SAFETY: 64 readable bytes of a valid configuration; the caller has the feature.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if self.rows > 0 {
            // SAFETY: they were shaped, so the machine has them.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

pub(crate) mod roofline {
    use std::arch::asm;

    pub(crate) use super::super::roofline::read_all;
    use super::Tiles;
    use crate::roofline::CHAINS;

    /// `tdpbssd` of whole tiles, 16 by 16 by 64 multiply-adds each, in four chains.
    ///
    /// # Safety
    /// The machine has the matrix unit.
    pub(crate) unsafe fn multiply_adds(steps: usize) -> i32 {
        const { assert!(CHAINS == 12, "the loop has as many") };
        let mut tiles = Tiles::new();
        // SAFETY: the registers are shaped before they are used, and all that is read and written is on the stack.
        unsafe {
            tiles.whole();
            let data = [[3i8; 64]; 16];
            let mut sums = [[0i32; 16]; 16];
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tileloadd tmm4, [{data} + {row}]",
                "tileloadd tmm5, [{data} + {row}]",
                "2:",
                "test {steps}, {steps}",
                "jz 3f",
                ".rept 3",
                "tdpbssd tmm0, tmm4, tmm5",
                "tdpbssd tmm1, tmm4, tmm5",
                "tdpbssd tmm2, tmm4, tmm5",
                "tdpbssd tmm3, tmm4, tmm5",
                ".endr",
                "dec {steps}",
                "jmp 2b",
                "3:",
                "tilestored [{sums} + {row}], tmm0",
                data = in(reg) data.as_ptr(),
                row = in(reg) 64usize,
                steps = inout(reg) steps => _,
                sums = in(reg) sums.as_mut_ptr(),
                options(nostack)
            );
            sums[0][0]
        }
    }
}

pub(crate) mod packed {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::mem::MaybeUninit;

    use super::super::packed::{self as without, halves};
    use super::{LEAST, ROWS};
    use crate::columns::ColumnsMut;
    use crate::fetch::Fetch;
    use crate::gemm::Tile;
    use crate::packed::{Bits, GROUP, HALVES, PANEL, split};
    use crate::quantize::QuantGroup;

    /// Groups between the one that is widened and the one that is multiplied, and from there to the one whose sums are scaled: what
    /// the matrix unit reads and writes is in the cache by then.
    const LAG: usize = 2;
    /// What lies between. More than they need would repeat addresses of the same low 12 bits, for which loads wait.
    const RING: usize = 4;

    #[repr(C, align(64))]
    struct Ring {
        /// The codes of a group, a byte each.
        codes: [[u8; GROUP * PANEL]; RING],
        /// Its dot products.
        dots: [[[i32; PANEL]; ROWS]; RING],
    }

    /// One panel times the tile's rows.
    ///
    /// # Safety
    /// [`super::Tiles`] are shaped for the number of rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,gfni")]
    pub(crate) unsafe fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
        if tile.rows.len() < LEAST {
            without::panel(tile, out);
            return;
        }
        let shape = tile.w.shape();
        // SAFETY: passed on.
        unsafe {
            match (shape.bits, shape.has_offset) {
                (Bits::B4, false) => panel_of::<256, 288>(tile, out),
                (Bits::B4, true) => panel_of::<256, 320>(tile, out),
                (Bits::B8, false) => panel_of::<512, 544>(tile, out),
                (Bits::B8, true) => panel_of::<512, 576>(tile, out),
                (Bits::B6, _) => unreachable!("6-bit codes come with fewer rows"),
            }
        }
    }

    pub(crate) use super::super::packed::side_by_side;

    /// Rows that are not there are computed from what lies in the buffer, and dropped.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,gfni")]
    unsafe fn panel_of<const CODES: usize, const BLOCK_BYTES: usize>(
        tile: &Tile<'_>,
        out: &mut ColumnsMut<'_>,
    ) {
        Fetch::outputs(tile, out);
        let has_offset = Bits::of_code_bytes(CODES).has_offset(BLOCK_BYTES);
        let w = tile.w.panel(tile.panel).as_chunks::<BLOCK_BYTES>().0;
        let fetch = Fetch::panel::<1, BLOCK_BYTES>(w);
        let groups = w.len();
        let (rows, count) = (tile.rows.clone(), tile.rows.len());
        let mut x: [&[QuantGroup]; ROWS] = [&[]; ROWS];
        for (r, x) in x.iter_mut().enumerate() {
            *x = &tile.x.row(rows.start + r.min(count - 1))[..groups];
        }
        let stride = size_of::<QuantGroup>() * groups;
        let mut ring = MaybeUninit::<Ring>::uninit();
        // SAFETY: the codes are written before they are read, and so are the dots of the rows that are there; those of the others are
        // written here.
        let Ring { codes, dots } = unsafe {
            let ring = ring.as_mut_ptr();
            for slot in 0..RING {
                for r in count..ROWS {
                    (&raw mut (*ring).dots[slot][r]).write([0; PANEL]);
                }
            }
            &mut *ring
        };
        let mut total = [_mm512_setzero_ps(); ROWS];
        for step in 0..groups + 2 * LAG {
            if let Some(block) = w.get(step) {
                fetch.group::<BLOCK_BYTES>(step);
                widen::<CODES>(split(block).0, &mut codes[step % RING], !has_offset);
            }
            if let Some(g) = step.checked_sub(LAG).filter(|g| *g < groups) {
                let (x, codes) = (x[0][g].q.as_ptr(), &codes[g % RING]);
                let dots = &mut dots[g % RING];
                // SAFETY: the tiles have `count` rows of 32 bytes, 8 of 64 and `count` of 64, which x, codes and dots have.
                unsafe {
                    if CODES == Bits::B8.code_bytes() && has_offset {
                        multiply_unsigned(x, stride, codes, dots);
                    } else {
                        multiply(x, stride, codes, dots);
                    }
                }
            }
            if let Some(g) = step.checked_sub(2 * LAG) {
                let (w_scales, w_offsets) = split::<HALVES>(&w[g][CODES..]);
                let scale = halves(w_scales);
                let offset = if has_offset {
                    halves(split::<HALVES>(w_offsets).0)
                } else {
                    _mm512_setzero_ps()
                };
                for r in 0..ROWS {
                    // SAFETY: 64 readable bytes; g is below the number of groups, which x[r] has.
                    let (dot, x) = unsafe {
                        let dot = _mm512_load_si512(dots[g % RING][r].as_ptr().cast());
                        (dot, x[r].get_unchecked(g))
                    };
                    let (scale, dot) = (
                        _mm512_mul_ps(scale, _mm512_set1_ps(x.scale)),
                        _mm512_cvtepi32_ps(dot),
                    );
                    total[r] = _mm512_fmadd_ps(scale, dot, total[r]);
                    if has_offset {
                        let sum = _mm512_set1_ps(x.scale * x.sum as f32);
                        total[r] = _mm512_fmadd_ps(offset, sum, total[r]);
                    }
                }
            }
        }
        let mut sums = [[0.0; PANEL]; ROWS];
        for r in 0..ROWS {
            // SAFETY: 64 writable bytes.
            unsafe { _mm512_storeu_ps(sums[r].as_mut_ptr(), total[r]) };
        }
        tile.store(&sums, out);
    }

    /// A group's codes to bytes, less their zero if there is one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,gfni")]
    fn widen<const CODES: usize>(
        bytes: &[u8; CODES],
        codes: &mut [u8; GROUP * PANEL],
        has_zero: bool,
    ) {
        let quads = codes.as_chunks_mut::<64>().0;
        for (j, block) in bytes.as_chunks::<64>().0.iter().enumerate() {
            // SAFETY: 64 readable bytes.
            let block = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            let mut store = |quad: usize, bytes: __m512i| {
                // SAFETY: 64 writable bytes, as aligned as the ring.
                unsafe { _mm512_store_si512(quads[quad].as_mut_ptr().cast(), bytes) };
            };
            if CODES == Bits::B4.code_bytes() {
                let [low, high] = if has_zero {
                    [LOW_LESS_8, HIGH_LESS_8].map(|bits| affine::<0xf8>(block, bits))
                } else {
                    [LOW, HIGH].map(|bits| affine::<0>(block, bits))
                };
                store(j, low);
                store(j + 4, high);
            } else if has_zero {
                store(j, _mm512_xor_si512(block, _mm512_set1_epi8(-128)));
            } else {
                store(j, block);
            }
        }
    }

    /// Bits of a code from those of a byte: byte 7 − i names the bits whose parity is bit i.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    fn affine<const FLIPPED: i32>(bytes: __m512i, bits: [u8; 8]) -> __m512i {
        let bits = _mm512_set1_epi64(i64::from_le_bytes(bits));
        _mm512_gf2p8affine_epi64_epi8::<FLIPPED>(bytes, bits)
    }
    /// The low nibble, and the high one.
    const LOW: [u8; 8] = [0, 0, 0, 0, 8, 4, 2, 1];
    const HIGH: [u8; 8] = [0, 0, 0, 0, 128, 64, 32, 16];
    /// The same less 8, once the bits from the fourth on are flipped: that of the 8 is the sign's contrary.
    const LOW_LESS_8: [u8; 8] = [8, 8, 8, 8, 8, 4, 2, 1];
    const HIGH_LESS_8: [u8; 8] = [128, 128, 128, 128, 128, 64, 32, 16];

    macro_rules! multiply {
        ($name:ident, $instruction:literal) => {
            /// `dots` = the codes of the token rows, `stride` bytes apart, times those of the weights.
            ///
            /// # Safety
            /// The tiles are shaped, and as many rows can be read and written.
            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,gfni")]
            unsafe fn $name(
                x: *const i8,
                stride: usize,
                codes: &[u8; GROUP * PANEL],
                dots: &mut [[i32; PANEL]; ROWS],
            ) {
                // SAFETY: as the caller says. Nothing else of this program uses the tile registers.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tileloadd tmm1, [{x} + {stride}]",
                        "tileloadd tmm2, [{codes} + {row}]",
                        concat!($instruction, " tmm0, tmm1, tmm2"),
                        "tilestored [{dots} + {row}], tmm0",
                        x = in(reg) x,
                        stride = in(reg) stride,
                        codes = in(reg) codes.as_ptr(),
                        row = in(reg) 64usize,
                        dots = in(reg) dots.as_mut_ptr(),
                        options(nostack, preserves_flags)
                    );
                }
            }
        };
    }
    multiply!(multiply, "tdpbssd");
    multiply!(multiply_unsigned, "tdpbsud");
}
