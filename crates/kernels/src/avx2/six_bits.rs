//! A group of 6-bit codes with a scale of its own for each half: two products are summed in i16, and the instruction that widens the sum
//! multiplies it with the scale.

#![expect(
    unsafe_code,
    reason = "vector loads take pointers; the order of the products needs `asm!`"
)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::offset_of;

use super::packed::{load, with_activations};
use crate::packed::{Bits, GROUP, GROUP6, PANEL, split};
use crate::quantize::QuantGroup;

/// Dot products of a group of 6-bit codes, these less their zero and times the scales of its halves, `[row][half of the panel]`.
///
/// One half of the panel after the other: both at once would need more than 16 registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dots6<const R: usize>(group: &[u8; GROUP6], x: [&QuantGroup; R]) -> [[__m256; 2]; R] {
    let (codes, scales) = split::<{ Bits::B6.code_bytes() }>(group);
    let blocks = codes.as_chunks::<32>().0;
    let a = dots6_of::<0, R>(blocks, scale_pairs(scales, 0), x);
    let b = dots6_of::<1, R>(blocks, scale_pairs(scales, 1), x);
    let mut dots = [[_mm256_setzero_ps(); 2]; R];
    for r in 0..R {
        dots[r] = [_mm256_cvtepi32_ps(a[r]), _mm256_cvtepi32_ps(b[r])];
    }
    dots
}

/// The same of half a panel.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots6_of<const SIDE: usize, const R: usize>(
    blocks: &[[u8; 32]],
    pairs: __m256i,
    x: [&QuantGroup; R],
) -> [__m256i; R] {
    let mut sums = subtract_zero(pairs, x);
    macro_rules! halves {
        ($($half:literal)*) => {$(
            let scales = twice::<$half>(pairs);
            let [a, b, c] = [0, 1, 2].map(|k| &blocks[2 * (3 * $half + k) + SIDE]);
            let codes = [low_bits(a), low_bits(b)];
            for r in 0..R {
                multiply_add_scaled::<{ 16 * $half }>(&mut sums[r], codes, scales, &x[r].q);
            }
            let codes = [low_bits(c), high_bits([a, b, c])];
            for r in 0..R {
                multiply_add_scaled::<{ 16 * $half + 8 }>(&mut sums[r], codes, scales, &x[r].q);
            }
        )*};
    }
    halves!(0 1);
    sums
}

/// sum += scales · the products of two registers of codes with eight activations, those from `AT` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_add_scaled<const AT: usize>(
    sum: &mut __m256i,
    codes: [__m256i; 2],
    scales: __m256i,
    x: &[i8; GROUP],
) {
    with_activations!(
        x, AT,
        [
            "vpbroadcastd {y}, dword ptr [{row} + {at} + 4]",
            "vpmaddubsw {x}, {a}, {x}",
            "vpmaddubsw {y}, {b}, {y}",
            "vpaddw {x}, {x}, {y}",
            "vpmaddwd {x}, {x}, {scales}",
            "vpaddd {sum}, {sum}, {x}"
        ],
        a = in(ymm_reg) codes[0],
        b = in(ymm_reg) codes[1],
        scales = in(ymm_reg) scales,
        sum = inout(ymm_reg) *sum,
        y = out(ymm_reg) _,
    );
}

/// Of each row of activations − 32 · the sums of its halves · their scales: what the codes' zero takes away. In assembly, because the
/// compiler would negate the sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn subtract_zero<const R: usize>(pairs: __m256i, x: [&QuantGroup; R]) -> [__m256i; R] {
    let zero = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16::<5>(pairs));
    let mut shares = [zero; R];
    for r in 0..R {
        // SAFETY: the function requires AVX2; the only memory that is read is `x`.
        unsafe {
            asm!(
                "vpbroadcastd {share}, dword ptr [{x} + {halves}]",
                "vpmaddwd {share}, {share}, {zero}",
                x = in(reg) x[r],
                halves = const offset_of!(QuantGroup, halves),
                zero = in(ymm_reg) zero,
                share = out(ymm_reg) shares[r],
                options(pure, nostack, preserves_flags, readonly),
            );
        }
    }
    shares
}

/// Of eight rows the scales of the first and the second half of a group, as i16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scale_pairs(scales: &[u8], half: usize) -> __m256i {
    let scales = &scales.as_chunks::<PANEL>().0[half];
    // SAFETY: 16 readable bytes.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(scales.as_ptr().cast()) })
}

/// One of each pair of scales, twice.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn twice<const HALF: usize>(pairs: __m256i) -> __m256i {
    if HALF == 0 {
        _mm256_or_si256(
            _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff)),
            _mm256_slli_epi32::<16>(pairs),
        )
    } else {
        _mm256_or_si256(
            _mm256_andnot_si256(_mm256_set1_epi32(0xffff), pairs),
            _mm256_srli_epi32::<16>(pairs),
        )
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn low_bits(block: &[u8; 32]) -> __m256i {
    _mm256_and_si256(load(block), _mm256_set1_epi8(63))
}

/// The code that the high two bits of three others make.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn high_bits(blocks: [&[u8; 32]; 3]) -> __m256i {
    let mask = _mm256_set1_epi8(-64);
    let [a, b, c] = blocks.map(|block| _mm256_and_si256(load(block), mask));
    let ab = _mm256_or_si256(_mm256_srli_epi16::<2>(a), b);
    _mm256_srli_epi16::<2>(_mm256_or_si256(_mm256_srli_epi16::<2>(ab), c))
}
