//! int8 keys or values times codes of 16 bits, four rows at once: `sdot` multiplies 16 and adds four each, for the high and for the low
//! byte of the codes, which both have a sign.

#![expect(
    unsafe_code,
    reason = "vector loads take pointers; the dot product needs `asm!`"
)]

use std::arch::aarch64::*;
use std::arch::asm;

use super::lanes::{V, W};
use crate::attention::vectors;

/// Whole numbers: of the high bytes and of the low ones.
pub(crate) type Sum = [int32x4_t; 2];

#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn zero() -> Sum {
    [vdupq_n_s32(0); 2]
}

/// N vectors of four rows, of which two lie in pairs.
pub(crate) type Part<'a, const N: usize> = [&'a [[i8; 2 * W]; N]; 2];

/// Those of `[2][width][2]` from vector `first` on.
#[inline]
pub(crate) fn part<const N: usize>(quads: &[i8], width: usize, first: usize) -> Part<'_, N> {
    let (a, b) = quads.split_at(2 * width);
    [vectors(a, first), vectors(b, first)]
}

/// Vector `v`: of each lane the four rows side by side.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn load<const N: usize>(part: Part<'_, N>, v: usize) -> int8x16_t {
    let [a, b] = [part[0][v].as_ptr(), part[1][v].as_ptr()];
    // SAFETY: 8 readable bytes each.
    let [a, b] = unsafe { [vld1_s8(a), vld1_s8(b)] };
    let [a, b] = [vreinterpret_s16_s8(a), vreinterpret_s16_s8(b)];
    vreinterpretq_s8_s16(vcombine_s16(vzip1_s16(a, b), vzip2_s16(a, b)))
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn splat(words: &[f32; 2]) -> [int8x16_t; 2] {
    [
        vreinterpretq_s8_f32(vdupq_n_f32(words[0])),
        vreinterpretq_s8_f32(vdupq_n_f32(words[1])),
    ]
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn multiply_add(sum: Sum, x: int8x16_t, by: [int8x16_t; 2]) -> Sum {
    [sdot(sum[0], x, by[0]), sdot(sum[1], x, by[1])]
}

/// The sums as numbers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn value(sum: Sum) -> V {
    vcvtq_f32_s32(vaddq_s32(vshlq_n_s32::<8>(sum[0]), sum[1]))
}

/// Two vectors to codes, to the nearest, ties to even: of each the high bytes, then the low ones, as the bits of one.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn words(a: V, b: V) -> V {
    let [a, b] = [vmovn_s32(vcvtnq_s32_f32(a)), vmovn_s32(vcvtnq_s32_f32(b))];
    let codes = vcombine_s16(a, b);
    let low = vreinterpret_s32_s8(vmovn_s16(codes));
    let high = vreinterpret_s32_s8(vrshrn_n_s16::<8>(codes));
    vreinterpretq_f32_s32(vcombine_s32(vzip1_s32(high, low), vzip2_s32(high, low)))
}

/// sum + four-column dot products.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, x: int8x16_t, by: int8x16_t) -> int32x4_t {
    // SAFETY: the function requires `dotprod`; the instruction touches only these registers.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {x:v}.16b, {by:v}.16b",
            sum = inout(vreg) sum, x = in(vreg) x, by = in(vreg) by,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
