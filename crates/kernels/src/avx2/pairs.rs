//! int8 keys or values times codes of 16 bits, two rows at once: `vpmaddwd` multiplies 16 and adds neighbours.

#![expect(unsafe_code, reason = "vector loads take pointers")]

use std::arch::x86_64::*;

use super::lanes::{V, W};
use crate::attention::vectors;

/// Whole numbers.
pub(crate) type Sum = __m256i;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn zero() -> Sum {
    _mm256_setzero_si256()
}

/// N vectors of two rows that lie in pairs.
pub(crate) type Part<'a, const N: usize> = &'a [[i8; 2 * W]; N];

/// Those from vector `first` on.
#[inline]
pub(crate) fn part<const N: usize>(pairs: &[i8], _: usize, first: usize) -> Part<'_, N> {
    vectors(pairs, first)
}

/// Vector `v`, widened.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn load<const N: usize>(part: Part<'_, N>, v: usize) -> __m256i {
    // SAFETY: 16 readable bytes.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(part[v].as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn splat(words: &[f32; 1]) -> __m256i {
    _mm256_castps_si256(_mm256_set1_ps(words[0]))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn multiply_add(sum: Sum, x: __m256i, by: __m256i) -> Sum {
    _mm256_add_epi32(sum, _mm256_madd_epi16(x, by))
}

/// The sums as numbers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn value(sum: Sum) -> V {
    _mm256_cvtepi32_ps(sum)
}

/// Two vectors to codes, to the nearest, ties to even: the bits of one.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn words(a: V, b: V) -> V {
    let codes = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
    _mm256_castsi256_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(codes))
}
