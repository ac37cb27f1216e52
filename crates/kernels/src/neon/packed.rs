//! Packed weights times quantized rows: the panel kernel, written once over how a group's dot products are taken, and that with
//! `sdot` by element: one instruction is 4 rows by 4 columns.
//!
//! NEON's products are signed by signed: codes are moved to signed numbers (−8..=7, −32..=31 or −128..=127) as they are decoded, so only
//! 8-bit codes with offsets, which count from 0, need the activation sums to move them back.

#![expect(
    unsafe_code,
    reason = "vector loads take pointers; the dot product needs `asm!`"
)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::lanes;
use crate::packed::{Bits, GROUP6, HALVES, split};

/// Rows of a register tile: 4 x 4 sums, 8 registers of activations and the codes have 32 registers.
pub(super) const ROWS: usize = 4;

/// Dot products of one group: `[row][four weight rows]`.
pub(super) type Dots<const R: usize> = [[int32x4_t; 4]; R];

/// Defines `panel`, compiled with the target features `$features`, on the group products of `$dots`, and of `$dots6` for 6 bits.
macro_rules! panel_kernels {
    ($features:literal, $dots:path, $dots6:path) => {
        use std::arch::aarch64::*;

        use $crate::columns::ColumnsMut;
        use $crate::gemm::{SIDE, TILE, Tile};
        use $crate::neon::lanes;
        use $crate::neon::packed::{ROWS, halves, load};
        use $crate::packed::{BLOCK6, Bits, GROUP6, HALVES, PANEL, split};
        use $crate::quantize::QuantRows;
        use {$dots as group_dots, $dots6 as group_dots6};

        /// One panel times the tile's rows.
        #[target_feature(enable = $features)]
        pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
            let shape = tile.w.shape();
            match (shape.bits, shape.has_offset) {
                (Bits::B4, false) => panel_of::<4, 256, 288, false>(tile, out),
                (Bits::B4, true) => panel_of::<4, 256, 320, true>(tile, out),
                (Bits::B6, _) => panel_of::<6, 384, BLOCK6, false>(tile, out),
                (Bits::B8, false) => panel_of::<8, 512, 544, false>(tile, out),
                (Bits::B8, true) => panel_of::<8, 512, 576, true>(tile, out),
            }
        }

        /// Four panels that follow each other times the same rows.
        #[target_feature(enable = $features)]
        pub(crate) fn side_by_side(tiles: &[Tile<'_>; SIDE], out: &mut ColumnsMut<'_>) {
            for tile in tiles {
                panel(tile, out);
            }
        }

        #[target_feature(enable = $features)]
        fn panel_of<
            const BITS: usize,
            const CODES: usize,
            const BLOCK_BYTES: usize,
            const OFFSET: bool,
        >(
            tile: &Tile<'_>,
            out: &mut ColumnsMut<'_>,
        ) {
            let w = tile.w.panel(tile.panel).as_chunks::<BLOCK_BYTES>().0;
            let mut sums = [[0.0; PANEL]; TILE];
            let parts = tile
                .rows
                .clone()
                .step_by(ROWS)
                .zip(sums.as_chunks_mut::<ROWS>().0);
            for (t, sums) in parts {
                let count = ROWS.min(tile.rows.end - t);
                let x = tile.x.slice(t..t + count);
                match count {
                    1 => rows::<1, BITS, CODES, BLOCK_BYTES, OFFSET>(w, x, sums),
                    2 => rows::<2, BITS, CODES, BLOCK_BYTES, OFFSET>(w, x, sums),
                    3 => rows::<3, BITS, CODES, BLOCK_BYTES, OFFSET>(w, x, sums),
                    _ => rows::<4, BITS, CODES, BLOCK_BYTES, OFFSET>(w, x, sums),
                }
            }
            tile.store(&sums, out);
        }

        /// The tile of R rows.
        #[target_feature(enable = $features)]
        fn rows<
            const R: usize,
            const BITS: usize,
            const CODES: usize,
            const BLOCK_BYTES: usize,
            const OFFSET: bool,
        >(
            w: &[[u8; BLOCK_BYTES]],
            x: QuantRows<'_>,
            out: &mut [[f32; PANEL]; ROWS],
        ) {
            let bits = Bits::of_code_bytes(CODES);
            let groups = bits.block_groups();
            let rows = x.first::<R>().map(|row| &row[..w.len() * groups]);
            let mut total = [[lanes::splat(0.0); 4]; R];
            for g in 0..w.len() * groups {
                let block = &w[g / groups];
                let (w_scales, w_offsets) = split::<HALVES>(&block[bits.scales_at()..]);
                let mut codes = [[vdupq_n_s8(0); 2]; R];
                for r in 0..R {
                    let [low, high] = rows[r][g].q.as_chunks::<16>().0 else {
                        unreachable!("a group is 32 codes");
                    };
                    codes[r] = [load(low), load(high)];
                }
                let dots = if BITS == 6 {
                    group_dots6::<R>(&block.as_chunks::<GROUP6>().0[g % groups], &codes)
                } else {
                    let (w_codes, _) = split::<CODES>(block);
                    group_dots::<R, BITS, OFFSET>(w_codes.as_chunks::<16>().0, &codes)
                };
                for part in 0..4 {
                    let scale = halves(w_scales, part);
                    for r in 0..R {
                        let mut dot = dots[r][part];
                        if OFFSET && BITS == 8 {
                            dot = vaddq_s32(dot, vdupq_n_s32(rows[r][g].sum << 7));
                        }
                        let scale = lanes::mul(scale, lanes::splat(rows[r][g].scale));
                        total[r][part] = lanes::fma(scale, vcvtq_f32_s32(dot), total[r][part]);
                    }
                    if OFFSET {
                        let offset = halves(split::<HALVES>(w_offsets).0, part);
                        for (r, total) in total.iter_mut().enumerate() {
                            let x = &rows[r][g];
                            let sum = lanes::splat(x.scale * x.sum as f32);
                            total[part] = lanes::fma(offset, sum, total[part]);
                        }
                    }
                }
            }
            for r in 0..R {
                for (total, out) in total[r].iter().zip(out[r].as_chunks_mut::<4>().0) {
                    lanes::store(*total, out);
                }
            }
        }
    };
}
pub(super) use panel_kernels;

/// With `sdot`.
mod by_element {
    super::panel_kernels!("neon,dotprod", super::dots, super::dots6);
}
pub(crate) use by_element::{panel, side_by_side};

/// The dot products of one group's `blocks` of 16 codes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dots<const R: usize, const BITS: usize, const OFFSET: bool>(
    blocks: &[[u8; 16]],
    codes: &[[int8x16_t; 2]; R],
) -> Dots<R> {
    let mut dots = [[vdupq_n_s32(0); 4]; R];
    for part in 0..4 {
        if BITS == 4 {
            quad4::<0, R, OFFSET>(&blocks[part], codes, part, &mut dots);
            quad4::<1, R, OFFSET>(&blocks[4 + part], codes, part, &mut dots);
            quad4::<2, R, OFFSET>(&blocks[8 + part], codes, part, &mut dots);
            quad4::<3, R, OFFSET>(&blocks[12 + part], codes, part, &mut dots);
        } else {
            for high in 0..2 {
                quad8::<0, R>(&blocks[16 * high + part], codes, high, part, &mut dots);
                quad8::<1, R>(&blocks[16 * high + 4 + part], codes, high, part, &mut dots);
                quad8::<2, R>(&blocks[16 * high + 8 + part], codes, high, part, &mut dots);
                quad8::<3, R>(&blocks[16 * high + 12 + part], codes, high, part, &mut dots);
            }
        }
    }
    dots
}

/// The dot products of one group of 6-bit codes, times the scales of its halves.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dots6<const R: usize>(group: &[u8; GROUP6], codes: &[[int8x16_t; 2]; R]) -> Dots<R> {
    let mut dots = [[vdupq_n_s32(0); 4]; R];
    for part in 0..4 {
        let quads = quads6(group, part);
        let scales = scales6(group, part);
        for r in 0..R {
            for half in 0..2 {
                let x = codes[r][half];
                let mut dot = sdot::<0>(vdupq_n_s32(0), quads[4 * half], x);
                dot = sdot::<1>(dot, quads[4 * half + 1], x);
                dot = sdot::<2>(dot, quads[4 * half + 2], x);
                dot = sdot::<3>(dot, quads[4 * half + 3], x);
                dots[r][part] = vmlaq_s32(dots[r][part], dot, scales[half]);
            }
        }
    }
    dots
}

/// The eight quads of four weight rows as signed numbers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn quads6(group: &[u8; GROUP6], part: usize) -> [int8x16_t; 8] {
    let blocks = group.as_chunks::<16>().0;
    let mut quads = [vdupq_n_s8(0); 8];
    for half in 0..2 {
        let mut last = vdupq_n_u8(0);
        for k in 0..3 {
            let block = load_unsigned(&blocks[12 * half + 4 * k + part]);
            quads[4 * half + k] = signed6(vandq_u8(block, vdupq_n_u8(63)));
            // The high bits of the first block end up lowest.
            last = vorrq_u8(vshrq_n_u8::<2>(last), vandq_u8(block, vdupq_n_u8(0xc0)));
        }
        quads[4 * half + 3] = signed6(vshrq_n_u8::<2>(last));
    }
    quads
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn signed6(codes: uint8x16_t) -> int8x16_t {
    vsubq_s8(vreinterpretq_s8_u8(codes), vdupq_n_s8(32))
}

/// The scales of four weight rows, of each half of a group.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn scales6(group: &[u8; GROUP6], part: usize) -> [int32x4_t; 2] {
    let (_, scales) = split::<{ Bits::B6.code_bytes() }>(group);
    let scales = scales.as_chunks::<8>().0[part].map(|scale| scale.cast_signed());
    // SAFETY: 8 readable bytes.
    let pairs = vreinterpretq_s32_s16(vmovl_s8(unsafe { vld1_s8(scales.as_ptr()) }));
    [
        vshrq_n_s32::<16>(vshlq_n_s32::<16>(pairs)),
        vshrq_n_s32::<16>(pairs),
    ]
}

/// 4-bit codes as signed numbers: those in the low nibbles and those in the high ones.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn nibbles<const OFFSET: bool>(block: &[u8; 16]) -> [int8x16_t; 2] {
    let block = load_unsigned(block);
    let zero = vdupq_n_s8(if OFFSET { 0 } else { 8 });
    [vandq_u8(block, vdupq_n_u8(15)), vshrq_n_u8::<4>(block)]
        .map(|codes| vsubq_s8(vreinterpretq_s8_u8(codes), zero))
}

/// 8-bit codes as signed numbers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn bytes(block: &[u8; 16]) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(load_unsigned(block), vdupq_n_u8(0x80)))
}

/// Quads J (low nibbles) and J + 4 (high nibbles) of four weight rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn quad4<const J: i32, const R: usize, const OFFSET: bool>(
    block: &[u8; 16],
    codes: &[[int8x16_t; 2]; R],
    part: usize,
    dots: &mut Dots<R>,
) {
    let [low, high] = nibbles::<OFFSET>(block);
    for r in 0..R {
        let dot = sdot::<J>(dots[r][part], low, codes[r][0]);
        dots[r][part] = sdot::<J>(dot, high, codes[r][1]);
    }
}

/// Quad J of a half of the group, of four weight rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn quad8<const J: i32, const R: usize>(
    block: &[u8; 16],
    codes: &[[int8x16_t; 2]; R],
    high: usize,
    part: usize,
    dots: &mut Dots<R>,
) {
    let block = bytes(block);
    for r in 0..R {
        dots[r][part] = sdot::<J>(dots[r][part], block, codes[r][high]);
    }
}

/// acc + four-column dot products of the rows of `w` with quad J of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot<const J: i32>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the function requires `dotprod`; the instruction touches only these registers.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x, lane = const J,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn load(codes: &[i8; 16]) -> int8x16_t {
    // SAFETY: 16 readable bytes.
    unsafe { vld1q_s8(codes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn load_unsigned(codes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: 16 readable bytes.
    unsafe { vld1q_u8(codes.as_ptr()) }
}

/// Four halves to f32.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn halves(bits: &[u8; HALVES], part: usize) -> float32x4_t {
    let bits = bits.as_chunks::<2>().0.as_chunks::<4>().0[part];
    lanes::load_f16(&bits.map(u16::from_le_bytes))
}
