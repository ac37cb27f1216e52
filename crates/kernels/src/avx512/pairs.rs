//! int8 keys or values times codes of 16 bits, two rows at once: `vpdpwssd` multiplies 32 and adds them to 16 sums.

#![expect(unsafe_code, reason = "vector loads take pointers")]

use std::arch::x86_64::*;

use super::lanes::{V, W};
use crate::attention::vectors;

/// Whole numbers.
pub(crate) type Sum = __m512i;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn zero() -> Sum {
    _mm512_setzero_si512()
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn load<const N: usize>(part: Part<'_, N>, v: usize) -> __m512i {
    // SAFETY: 32 readable bytes.
    _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(part[v].as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn splat(words: &[f32; 1]) -> __m512i {
    _mm512_castps_si512(_mm512_set1_ps(words[0]))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn multiply_add(sum: Sum, x: __m512i, by: __m512i) -> Sum {
    _mm512_dpwssd_epi32(sum, x, by)
}

/// The sums as numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn value(sum: Sum) -> V {
    _mm512_cvtepi32_ps(sum)
}

/// Two vectors to codes, to the nearest, ties to even: the bits of one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn words(a: V, b: V) -> V {
    let codes = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
    let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    _mm512_castsi512_ps(_mm512_permutexvar_epi64(order, codes))
}
