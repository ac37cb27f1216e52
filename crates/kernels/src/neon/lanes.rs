//! Four f32 lanes: what the float kernels of `generic` are written in.

#![expect(
    unsafe_code,
    reason = "vector loads and stores take pointers; half to float needs `asm!`"
)]

use std::arch::aarch64::*;
use std::arch::asm;

/// A vector.
pub(crate) type V = float32x4_t;
/// Its lanes.
pub(crate) const W: usize = 4;
/// Weight rows and token columns of the register tile of a dense product: 4 x 4 sums, 4 activations and a weight of 32 registers.
pub(crate) const TILE: (usize, usize) = (4, 4);

macro_rules! lanes {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty $body:block)*) => {$(
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = "neon,dotprod")]
        pub(crate) fn $name($($arg: $type),*) -> $out $body
    )*};
}

lanes! {
    /// Fetches a line of the cache, whether it is there or not.
    fn prefetch(at: *const u8) -> () {
        // SAFETY: a hint, which touches no register and is no error for any address.
        unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly)) };
    }
    fn splat(x: f32) -> V { vdupq_n_f32(x) }
    // SAFETY: 16 readable bytes.
    fn load(x: &[f32; W]) -> V { unsafe { vld1q_f32(x.as_ptr()) } }
    // SAFETY: 16 writable bytes.
    fn store(v: V, x: &mut [f32; W]) -> () { unsafe { vst1q_f32(x.as_mut_ptr(), v) } }
    fn add(a: V, b: V) -> V { vaddq_f32(a, b) }
    fn sub(a: V, b: V) -> V { vsubq_f32(a, b) }
    fn mul(a: V, b: V) -> V { vmulq_f32(a, b) }
    fn div(a: V, b: V) -> V { vdivq_f32(a, b) }
    /// a · b + c, rounded once.
    fn fma(a: V, b: V, c: V) -> V { vfmaq_f32(c, a, b) }
    /// c − a · b, rounded once.
    fn fnma(a: V, b: V, c: V) -> V { vfmsq_f32(c, a, b) }
    fn max(a: V, b: V) -> V { vmaxq_f32(a, b) }
    fn abs(a: V) -> V { vabsq_f32(a) }
    /// 2ⁿ for n in −126..=127, the last bits of [`WHOLE`](crate::quantize::WHOLE) + n.
    fn pow2(bits: V) -> V {
        let exponent = vshlq_n_s32::<23>(vreinterpretq_s32_f32(bits));
        vreinterpretq_f32_s32(vaddq_s32(exponent, vdupq_n_s32(127 << 23)))
    }
    /// `v`, but 0 where x < limit.
    fn zero_below(v: V, x: V, limit: V) -> V { vbslq_f32(vcltq_f32(x, limit), vdupq_n_f32(0.0), v) }
    /// `a` where x >= 0, else `b`.
    fn select_positive(x: V, a: V, b: V) -> V { vbslq_f32(vcgezq_f32(x), a, b) }
    /// `v` where from <= t < to, else −∞.
    fn only_between(v: V, t: V, from: V, to: V) -> V {
        let seen = vandq_u32(vcleq_f32(from, t), vcltq_f32(t, to));
        vbslq_f32(seen, v, vdupq_n_f32(f32::NEG_INFINITY))
    }
    fn load_f16(x: &[u16; W]) -> V {
        // SAFETY: 8 readable bytes.
        let half = unsafe { vld1_u16(x.as_ptr()) };
        let wide: float32x4_t;
        // SAFETY: FCVTL is part of the base instruction set and touches only these registers.
        unsafe {
            asm!("fcvtl {wide:v}.4s, {half:v}.4h", wide = out(vreg) wide, half = in(vreg) half,
                options(pure, nomem, nostack, preserves_flags));
        }
        wide
    }
    fn load_bf16(x: &[u16; W]) -> V {
        // SAFETY: 8 readable bytes.
        let half = unsafe { vld1_u16(x.as_ptr()) };
        vreinterpretq_f32_u32(vshll_n_u16::<16>(half))
    }
    fn load_i8(x: &[i8; W]) -> V {
        let bytes = u32::from_le_bytes(x.map(i8::cast_unsigned));
        let words = vmovl_s8(vcreate_s8(u64::from(bytes)));
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)))
    }
    /// Values of −127 to 127, to the nearest, ties to even.
    fn store_i8(v: V, x: &mut [i8; W]) -> () {
        let words = vmovn_s32(vcvtnq_s32_f32(v));
        let bytes = vmovn_s16(vcombine_s16(words, words));
        *x = vget_lane_s32::<0>(vreinterpret_s32_s8(bytes)).to_le_bytes().map(u8::cast_signed);
    }
    /// 32 values of −127 to 127 to int8, to the nearest, ties to even, and the sum of each half.
    fn store_group(v: [V; 32 / W], q: &mut [i8; 32]) -> [i16; 2] {
        let mut sums = [0; 2];
        for ((v, q), sum) in v.as_chunks::<4>().0.iter().zip(q.as_chunks_mut::<16>().0).zip(&mut sums) {
            let [a, b, c, d] = v.map(|v| vmovn_s32(vcvtnq_s32_f32(v)));
            let bytes = vcombine_s8(vmovn_s16(vcombine_s16(a, b)), vmovn_s16(vcombine_s16(c, d)));
            *sum = vaddlvq_s8(bytes);
            // SAFETY: 16 writable bytes.
            unsafe { vst1q_s8(q.as_mut_ptr(), bytes) };
        }
        sums
    }
    /// The larger of each, of values without a sign. A NaN is the largest.
    fn max_bits(a: V, b: V) -> V {
        vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)))
    }
    /// The largest lane, of values without a sign. A NaN is the largest.
    fn largest_bits(v: V) -> f32 { f32::from_bits(vmaxvq_u32(vreinterpretq_u32_f32(v))) }
    /// The largest lane. A NaN may be lost.
    fn largest_lane(v: V) -> f32 { vmaxnmvq_f32(v) }
    /// The four sums across lanes, by one fixed tree.
    fn sum4(v: [V; 4]) -> [f32; 4] {
        let [a, b, c, d] = v;
        let mut out = [0.0; 4];
        store(vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)), &mut out);
        out
    }
    /// [`sum4`] of each.
    fn sum4x4(v: [[V; 4]; 4]) -> [[f32; 4]; 4] {
        [sum4(v[0]), sum4(v[1]), sum4(v[2]), sum4(v[3])]
    }
}
