//! f32 to int8 with one scale, equal to the scalar kernel bit for bit; int8 and half back to f32.

/// Expands to the kernels of `quantize.rs`.
macro_rules! quantize_kernels {
    ($features:literal) => {
        use super::lanes::{self, W};
        use $crate::packed::GROUP;
        use $crate::quantize::{QuantGroup, WHOLE};
        use $crate::scalar::quantize::scale_of;

        /// Quantizes groups; the index of the first group that holds a non-finite value, if any.
        #[target_feature(enable = $features)]
        pub(crate) fn groups(x: &[[f32; GROUP]], out: &mut [QuantGroup]) -> Option<usize> {
            for (index, (x, out)) in x.iter().zip(out).enumerate() {
                let Some((scale, halves)) = vector_and_sums(x, &mut out.q) else {
                    return Some(index);
                };
                (out.scale, out.halves) = (scale, halves.map(|sum| sum as i16));
                out.sum = (halves[0] + halves[1]) as i32;
                out.start = WHOLE - 8.0 * (halves[0] + halves[1]);
            }
            None
        }

        /// Quantizes one vector with one scale; `None` if it holds a non-finite value.
        #[target_feature(enable = $features)]
        pub(crate) fn vector(x: &[f32], q: &mut [i8]) -> Option<f32> {
            vector_and_sums(x, q).map(|(scale, _)| scale)
        }

        /// The scale, and the sums of the first 16 codes and of those behind them.
        #[inline]
        #[target_feature(enable = $features)]
        fn vector_and_sums(x: &[f32], q: &mut [i8]) -> Option<(f32, [f32; 2])> {
            let (body, tail) = x.as_chunks::<W>();
            let mut last = [0.0; W];
            last[..tail.len()].copy_from_slice(tail);
            let last = lanes::load(&last);
            let zero = lanes::splat(0.0);
            let mut max = lanes::abs(last);
            // 0 · x is 0 for finite x and NaN else.
            let mut probe = lanes::mul(last, zero);
            for x in body {
                let x = lanes::load(x);
                max = lanes::max(max, lanes::abs(x));
                probe = lanes::fma(x, zero, probe);
            }
            let (scale, inverse) = scale_of(lanes::largest_lane(max));
            let inverse = lanes::splat(inverse);
            // Sums of whole numbers below 2^24 are exact in f32.
            let mut sums = [zero; 2];
            let (q, q_tail) = q.as_chunks_mut::<W>();
            for (i, (x, q)) in body.iter().zip(q).enumerate() {
                let code = lanes::round(lanes::mul(lanes::load(x), inverse));
                let half = usize::from(i >= GROUP / 2 / W);
                sums[half] = lanes::add(sums[half], code);
                lanes::store_i8(code, q);
            }
            if !tail.is_empty() {
                let mut codes = [0; W];
                lanes::store_i8(lanes::round(lanes::mul(last, inverse)), &mut codes);
                q_tail.copy_from_slice(&codes[..q_tail.len()]);
            }
            let [first, second, probe, _] = lanes::sum4([sums[0], sums[1], probe, zero]);
            (probe == 0.0).then_some((scale, [first, second]))
        }

        /// int8 to f32.
        #[target_feature(enable = $features)]
        pub(crate) fn widen_i8(q: &[i8], out: &mut [f32]) {
            let (body, tail) = q.as_chunks::<W>();
            let (out, out_tail) = out[..q.len()].as_chunks_mut::<W>();
            for (out, q) in out.iter_mut().zip(body) {
                lanes::store(lanes::load_i8(q), out);
            }
            for (out, q) in out_tail.iter_mut().zip(tail) {
                *out = f32::from(*q);
            }
        }

        /// Half to f32.
        #[target_feature(enable = $features)]
        pub(crate) fn widen_f16(halves: &[u16], out: &mut [f32]) {
            let (body, tail) = halves.as_chunks::<W>();
            let (out, out_tail) = out[..halves.len()].as_chunks_mut::<W>();
            for (out, half) in out.iter_mut().zip(body) {
                lanes::store(lanes::load_f16(half), out);
            }
            if !tail.is_empty() {
                let mut padded = [0; W];
                padded[..tail.len()].copy_from_slice(tail);
                let mut full = [0.0; W];
                lanes::store(lanes::load_f16(&padded), &mut full);
                out_tail.copy_from_slice(&full[..tail.len()]);
            }
        }
    };
}
pub(crate) use quantize_kernels;
