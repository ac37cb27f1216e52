//! NEON with the int8 matrix instructions (Armv8.6 on, optional from Armv8.2). Several rows use `smmla`, one instruction of 2 weight rows
//! by 2 token rows by 8 columns: twice the products of `sdot`. The sums are whole numbers, so the results are those of
//! [`Isa::NeonDot`](crate::Isa) bit for bit.

#![expect(unsafe_code, reason = "the matrix product needs `asm!`")]

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::packed::{self as one, Dots, bytes, nibbles, quads6, scales6};
pub(crate) use super::{attention, attention_i8, dense, elementwise, quantize};
use crate::packed::GROUP6;

pub(crate) mod packed {
    crate::neon::packed::panel_kernels!("neon,dotprod,i8mm", super::dots, super::dots6);
}

/// The dot products of one group's `blocks` of 16 codes.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn dots<const R: usize, const BITS: usize, const OFFSET: bool>(
    blocks: &[[u8; 16]],
    codes: &[[int8x16_t; 2]; R],
) -> Dots<R> {
    if R == 1 {
        return one::dots::<R, BITS, OFFSET>(blocks, codes);
    }
    let pairs = pairs(codes);
    let mut dots = [[vdupq_n_s32(0); 4]; R];
    for part in 0..4 {
        // Of four weight rows the quads 0..8, each 4 rows by 4 columns.
        let mut quads = [vdupq_n_s8(0); 8];
        for j in 0..4 {
            if BITS == 4 {
                let [low, high] = nibbles::<OFFSET>(&blocks[4 * j + part]);
                (quads[j], quads[4 + j]) = (low, high);
            } else {
                quads[j] = bytes(&blocks[4 * j + part]);
                quads[4 + j] = bytes(&blocks[16 + 4 * j + part]);
            }
        }
        for (dots, dot) in dots.iter_mut().zip(products(&quads, &pairs, 0..4)) {
            dots[part] = dot;
        }
    }
    dots
}

/// The dot products of one group of 6-bit codes, times the scales of its halves.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn dots6<const R: usize>(group: &[u8; GROUP6], codes: &[[int8x16_t; 2]; R]) -> Dots<R> {
    if R == 1 {
        return one::dots6(group, codes);
    }
    let pairs = pairs(codes);
    let mut dots = [[vdupq_n_s32(0); 4]; R];
    for part in 0..4 {
        let quads = quads6(group, part);
        let halves = [
            products(&quads, &pairs, 0..2),
            products(&quads, &pairs, 2..4),
        ];
        for (half, scale) in halves.iter().zip(scales6(group, part)) {
            for (dots, dot) in dots.iter_mut().zip(half) {
                dots[part] = vmlaq_s32(dots[part], *dot, scale);
            }
        }
    }
    dots
}

/// Token rows in pairs, of each the columns 8k..8k + 8 side by side; an odd last row stands beside itself.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn pairs<const R: usize>(codes: &[[int8x16_t; 2]; R]) -> [[int8x16_t; 4]; R] {
    let mut pairs = [[vdupq_n_s8(0); 4]; R];
    for (pair, first) in (0..R).step_by(2).enumerate() {
        let [a, b] = [codes[first], codes[(first + 1).min(R - 1)]];
        pairs[pair] = [
            halves::<false>(a[0], b[0]),
            halves::<true>(a[0], b[0]),
            halves::<false>(a[1], b[1]),
            halves::<true>(a[1], b[1]),
        ];
    }
    pairs
}

/// Of four weight rows the products of the columns 8k..8k + 8 with each token row, summed over `columns`, which are some of k.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn products<const R: usize>(
    quads: &[int8x16_t; 8],
    pairs: &[[int8x16_t; 4]; R],
    columns: Range<usize>,
) -> [int32x4_t; R] {
    let mut sums = [[vdupq_n_s32(0); 2]; R];
    for k in columns {
        let [a, b] = [quads[2 * k], quads[2 * k + 1]].map(|quad| vreinterpretq_s32_s8(quad));
        let upper = vreinterpretq_s8_s32(vzip1q_s32(a, b));
        let lower = vreinterpretq_s8_s32(vzip2q_s32(a, b));
        for pair in 0..R.div_ceil(2) {
            sums[pair][0] = smmla(sums[pair][0], upper, pairs[pair][k]);
            sums[pair][1] = smmla(sums[pair][1], lower, pairs[pair][k]);
        }
    }
    let mut dots = [vdupq_n_s32(0); R];
    for (pair, first) in (0..R).step_by(2).enumerate() {
        let [upper, lower] = sums[pair];
        dots[first] = vuzp1q_s32(upper, lower);
        if first + 1 < R {
            dots[first + 1] = vuzp2q_s32(upper, lower);
        }
    }
    dots
}

pub(crate) mod roofline {
    //! The loops of `roofline.rs`, the products with `smmla`.

    use std::arch::aarch64::*;

    pub(crate) use super::super::roofline::read_all;
    use crate::roofline::CHAINS;

    /// `smmla`, 32 multiply-adds each.
    #[target_feature(enable = "neon,dotprod,i8mm")]
    pub(crate) fn multiply_adds(steps: usize) -> i32 {
        let (w, x) = (vdupq_n_s8(5), vdupq_n_s8(3));
        let mut sums = [vdupq_n_s32(0); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = super::smmla(*sum, w, x);
            }
        }
        sums.into_iter()
            .map(|sum| vaddvq_s32(sum))
            .fold(0, i32::wrapping_add)
    }
}

/// The low or the high 8 columns of two token rows.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn halves<const HIGH: bool>(a: int8x16_t, b: int8x16_t) -> int8x16_t {
    let [a, b] = [vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)];
    vreinterpretq_s8_s64(if HIGH {
        vzip2q_s64(a, b)
    } else {
        vzip1q_s64(a, b)
    })
}

/// acc + `[weight row][token row]` products of 2 weight rows and 2 token rows of 8 columns.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn smmla(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the function requires `i8mm`; the instruction touches only these registers.
    unsafe {
        asm!(
            "smmla {acc:v}.4s, {w:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}
