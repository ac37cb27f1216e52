//! Eight f32 lanes: what the float kernels of `generic` are written in.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::*;

/// A vector.
pub(crate) type V = __m256;
/// Its lanes.
pub(crate) const W: usize = 8;
/// Weight rows and token columns of the register tile of a dense product: 2 x 4 sums, 4 activations and a weight of 16 registers. More
/// tokens than rows, because turning a half to f32 costs as much as two products.
pub(crate) const TILE: (usize, usize) = (2, 4);

macro_rules! lanes {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty $body:block)*) => {$(
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(crate) fn $name($($arg: $type),*) -> $out $body
    )*};
}

lanes! {
    /// Fetches a line of the cache, whether it is there or not.
    fn prefetch(at: *const u8) -> () { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    fn splat(x: f32) -> V { _mm256_set1_ps(x) }
    // SAFETY: 32 readable bytes.
    fn load(x: &[f32; W]) -> V { unsafe { _mm256_loadu_ps(x.as_ptr()) } }
    // SAFETY: 32 writable bytes.
    fn store(v: V, x: &mut [f32; W]) -> () { unsafe { _mm256_storeu_ps(x.as_mut_ptr(), v) } }
    fn add(a: V, b: V) -> V { _mm256_add_ps(a, b) }
    fn sub(a: V, b: V) -> V { _mm256_sub_ps(a, b) }
    fn mul(a: V, b: V) -> V { _mm256_mul_ps(a, b) }
    fn div(a: V, b: V) -> V { _mm256_div_ps(a, b) }
    /// a · b + c, rounded once.
    fn fma(a: V, b: V, c: V) -> V { _mm256_fmadd_ps(a, b, c) }
    /// c − a · b, rounded once.
    fn fnma(a: V, b: V, c: V) -> V { _mm256_fnmadd_ps(a, b, c) }
    fn max(a: V, b: V) -> V { _mm256_max_ps(a, b) }
    fn abs(a: V) -> V { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    /// 2ⁿ for n in −126..=127, the last bits of [`WHOLE`](crate::quantize::WHOLE) + n.
    fn pow2(bits: V) -> V {
        let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(bits));
        _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(127 << 23)))
    }
    /// `v`, but 0 where x < limit.
    fn zero_below(v: V, x: V, limit: V) -> V {
        _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_NLT_UQ>(x, limit))
    }
    /// `a` where x >= 0, else `b`.
    fn select_positive(x: V, a: V, b: V) -> V {
        _mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_GE_OQ>(x, _mm256_setzero_ps()))
    }
    /// `v` where from <= t < to, else −∞.
    fn only_between(v: V, t: V, from: V, to: V) -> V {
        let seen = _mm256_and_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(from, t), _mm256_cmp_ps::<_CMP_LT_OQ>(t, to));
        _mm256_blendv_ps(_mm256_set1_ps(f32::NEG_INFINITY), v, seen)
    }
    // SAFETY: 16 readable bytes.
    fn load_f16(x: &[u16; W]) -> V { _mm256_cvtph_ps(unsafe { _mm_loadu_si128(x.as_ptr().cast()) }) }
    fn load_bf16(x: &[u16; W]) -> V {
        // SAFETY: 16 readable bytes.
        let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(x.as_ptr().cast()) });
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
    fn load_i8(x: &[i8; W]) -> V {
        // SAFETY: 8 readable bytes.
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(x.as_ptr().cast()) }))
    }
    /// Values of −127 to 127, to the nearest, ties to even.
    fn store_i8(v: V, x: &mut [i8; W]) -> () {
        let wide = _mm256_cvtps_epi32(v);
        let words = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
        // SAFETY: 8 writable bytes.
        unsafe { _mm_storel_epi64(x.as_mut_ptr().cast(), _mm_packs_epi16(words, words)) }
    }
    /// 32 values of −127 to 127 to int8, to the nearest, ties to even, and the sum of each half.
    fn store_group(v: [V; 32 / W], q: &mut [i8; 32]) -> [i16; 2] {
        let [a, b, c, d] = v.map(|v| _mm256_cvtps_epi32(v));
        let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        let sums = _mm256_sad_epu8(_mm256_xor_si256(bytes, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
        let sums = _mm256_add_epi64(sums, _mm256_unpackhi_epi64(sums, sums));
        // SAFETY: 32 writable bytes.
        unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), bytes) };
        [_mm256_extract_epi16::<0>(sums), _mm256_extract_epi16::<8>(sums)].map(|sum| sum as i16 - 16 * 128)
    }
    /// The larger of each, of values without a sign. A NaN is the largest.
    fn max_bits(a: V, b: V) -> V {
        _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)))
    }
    /// The largest lane, of values without a sign. A NaN is the largest.
    fn largest_bits(v: V) -> f32 {
        let v = _mm256_castps_si256(v);
        let half = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let two = _mm_max_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
        let one = _mm_max_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
        f32::from_bits(_mm_cvtsi128_si32(one).cast_unsigned())
    }
    /// The largest lane. A NaN may be lost.
    fn largest_lane(v: V) -> f32 {
        let half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_max_ps(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
    /// The four sums across lanes, by one fixed tree.
    fn sum4(v: [V; 4]) -> [f32; 4] {
        let mut half = [_mm_setzero_ps(); 4];
        for (half, v) in half.iter_mut().zip(v) {
            *half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        }
        let [a, b, c, d] = half;
        let sums = _mm_hadd_ps(_mm_hadd_ps(a, b), _mm_hadd_ps(c, d));
        let mut out = [0.0; 4];
        // SAFETY: 16 writable bytes.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) };
        out
    }
    /// [`sum4`] of each.
    fn sum4x4(v: [[V; 4]; 4]) -> [[f32; 4]; 4] {
        [sum4(v[0]), sum4(v[1]), sum4(v[2]), sum4(v[3])]
    }
}
