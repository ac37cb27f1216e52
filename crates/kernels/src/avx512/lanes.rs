//! Sixteen f32 lanes: what the float kernels of `generic` are written in.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::*;

/// A vector.
pub(crate) type V = __m512;
/// Its lanes.
pub(crate) const W: usize = 16;
/// Weight rows and token columns of the register tile of a dense product: 4 x 4 sums, 4 activations and a weight.
pub(crate) const TILE: (usize, usize) = (4, 4);

macro_rules! lanes {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty $body:block)*) => {$(
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
        pub(crate) fn $name($($arg: $type),*) -> $out $body
    )*};
}

lanes! {
    /// Fetches a line of the cache, whether it is there or not.
    fn prefetch(at: *const u8) -> () { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    fn splat(x: f32) -> V { _mm512_set1_ps(x) }
    // SAFETY: 64 readable bytes.
    fn load(x: &[f32; W]) -> V { unsafe { _mm512_loadu_ps(x.as_ptr()) } }
    // SAFETY: 64 writable bytes.
    fn store(v: V, x: &mut [f32; W]) -> () { unsafe { _mm512_storeu_ps(x.as_mut_ptr(), v) } }
    fn add(a: V, b: V) -> V { _mm512_add_ps(a, b) }
    fn sub(a: V, b: V) -> V { _mm512_sub_ps(a, b) }
    fn mul(a: V, b: V) -> V { _mm512_mul_ps(a, b) }
    fn div(a: V, b: V) -> V { _mm512_div_ps(a, b) }
    /// a · b + c, rounded once.
    fn fma(a: V, b: V, c: V) -> V { _mm512_fmadd_ps(a, b, c) }
    /// c − a · b, rounded once.
    fn fnma(a: V, b: V, c: V) -> V { _mm512_fnmadd_ps(a, b, c) }
    fn max(a: V, b: V) -> V { _mm512_max_ps(a, b) }
    fn abs(a: V) -> V { _mm512_abs_ps(a) }
    /// 2ⁿ for n in −126..=127, the last bits of [`WHOLE`](crate::quantize::WHOLE) + n.
    fn pow2(bits: V) -> V {
        let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(bits));
        _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(127 << 23)))
    }
    /// `v`, but 0 where x < limit.
    fn zero_below(v: V, x: V, limit: V) -> V {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit), v)
    }
    /// `a` where x >= 0, else `b`.
    fn select_positive(x: V, a: V, b: V) -> V {
        _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, _mm512_setzero_ps()), a)
    }
    /// `v` where from <= t < to, else −∞.
    fn only_between(v: V, t: V, from: V, to: V) -> V {
        let seen = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(from, t);
        let seen = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(seen, t, to);
        _mm512_mask_mov_ps(_mm512_set1_ps(f32::NEG_INFINITY), seen, v)
    }
    // SAFETY: 32 readable bytes.
    fn load_f16(x: &[u16; W]) -> V { _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }) }
    fn load_bf16(x: &[u16; W]) -> V {
        // SAFETY: 32 readable bytes.
        let bits = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(x.as_ptr().cast()) });
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
    }
    fn load_i8(x: &[i8; W]) -> V {
        // SAFETY: 16 readable bytes.
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(x.as_ptr().cast()) }))
    }
    /// Values of −127 to 127, to the nearest, ties to even.
    fn store_i8(v: V, x: &mut [i8; W]) -> () {
        // SAFETY: 16 writable bytes.
        unsafe { _mm_storeu_si128(x.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))) }
    }
    /// 32 values of −127 to 127 to int8, to the nearest, ties to even, and the sum of each half.
    fn store_group(v: [V; 32 / W], q: &mut [i8; 32]) -> [i16; 2] {
        let [a, b] = v.map(|v| _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
        let flip = _mm_set1_epi8(-128);
        let sums = [a, b].map(|q| _mm_sad_epu8(_mm_xor_si128(q, flip), _mm_setzero_si128()));
        let sums = _mm_add_epi64(_mm_unpacklo_epi64(sums[0], sums[1]), _mm_unpackhi_epi64(sums[0], sums[1]));
        // SAFETY: 32 writable bytes.
        unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), _mm256_set_m128i(b, a)) };
        [_mm_extract_epi16::<0>(sums), _mm_extract_epi16::<4>(sums)].map(|sum| sum as i16 - 16 * 128)
    }
    /// The larger of each, of values without a sign. A NaN is the largest.
    fn max_bits(a: V, b: V) -> V {
        _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)))
    }
    /// The largest lane, of values without a sign. A NaN is the largest.
    fn largest_bits(v: V) -> f32 { f32::from_bits(_mm512_reduce_max_epi32(_mm512_castps_si512(v)).cast_unsigned()) }
    /// The largest lane. A NaN may be lost.
    fn largest_lane(v: V) -> f32 { _mm512_reduce_max_ps(v) }
    /// The sums of lanes four apart, of each vector in 128 bits.
    fn quarters(v: [V; 4]) -> V {
        let [a, b, c, d] = v;
        let halves = |a, b| {
            _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b))
        };
        let (ab, cd) = (halves(a, b), halves(c, d));
        _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd))
    }
    /// The sums of neighbours: in each 128 bits two of `a`, then two of `b`.
    fn pairs(a: V, b: V) -> V {
        _mm512_add_ps(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b))
    }
    /// Four vectors of 128 bits, each lane's four side by side.
    fn turned(v: V) -> V {
        _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v)
    }
    /// The four sums across lanes, by one fixed tree.
    fn sum4(v: [V; 4]) -> [f32; 4] {
        let two = pairs(quarters(v), _mm512_setzero_ps());
        let sums = turned(pairs(two, two));
        let mut out = [0.0; 4];
        // SAFETY: 16 writable bytes.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), _mm512_castps512_ps128(sums)) };
        out
    }
    /// [`sum4`] of each, by the same trees side by side.
    fn sum4x4(v: [[V; 4]; 4]) -> [[f32; 4]; 4] {
        let [a, b, c, d] = v;
        let two = [pairs(quarters(a), quarters(b)), pairs(quarters(c), quarters(d))];
        let sums = turned(pairs(two[0], two[1]));
        let mut out = [[0.0; 4]; 4];
        // SAFETY: 64 writable bytes.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr().cast(), sums) };
        out
    }
}
