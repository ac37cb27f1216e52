//! Norm, rotation, gated activation, sums, and the exponential they and attention use.

/// Expands to the kernels of `elementwise.rs` and to `exp_negative`.
macro_rules! elementwise_kernels {
    ($features:literal) => {
        use super::lanes::{self, V, W};
        use $crate::quantize::WHOLE;
        use $crate::scalar;

        /// e^x for x <= 0, at most 2 ulp off; exactly 1 at 0, exactly 0 below −87 and at −∞; NaN stays NaN.
        ///
        /// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by the polynomial of Cephes' `expf`
        /// (<https://www.netlib.org/cephes/>), ln 2 in two parts so that r is exact.
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn exp_negative(x: V) -> V {
            let limit = lanes::splat(-87.0);
            // In this order a NaN is the result on x86; on ARM in any order.
            let bounded = lanes::max(limit, x);
            // The whole number n in the last bits of a f32: rounded to the nearest, ties to even.
            let whole = lanes::splat(WHOLE);
            let bits = lanes::fma(bounded, lanes::splat(std::f32::consts::LOG2_E), whole);
            let n = lanes::sub(bits, whole);
            let r = lanes::fnma(n, lanes::splat(0.693_359_4), bounded);
            let r = lanes::fnma(n, lanes::splat(-2.121_944_4e-4), r);
            let mut p = lanes::splat(1.987_569_1e-4);
            for c in [
                1.398_199_9e-3,
                8.333_452e-3,
                4.166_579_6e-2,
                0.166_666_66,
                0.5,
                1.0,
                1.0,
            ] {
                p = lanes::fma(p, r, lanes::splat(c));
            }
            lanes::zero_below(lanes::mul(p, lanes::pow2(bits)), x, limit)
        }

        /// Up to W values, the rest `fill`.
        #[inline]
        #[target_feature(enable = $features)]
        fn partial(x: &[f32], fill: f32) -> V {
            let mut full = [fill; W];
            full[..x.len()].copy_from_slice(x);
            lanes::load(&full)
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn store_partial(v: V, x: &mut [f32]) {
            let mut full = [0.0; W];
            lanes::store(v, &mut full);
            x.copy_from_slice(&full[..x.len()]);
        }

        /// Sum across lanes, by the fixed tree.
        #[inline]
        #[target_feature(enable = $features)]
        fn sum(v: V) -> f32 {
            let zero = lanes::splat(0.0);
            lanes::sum4([v, zero, zero, zero])[0]
        }

        /// False if the mean square is not finite.
        #[target_feature(enable = $features)]
        pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> bool {
            let (body, tail) = x.as_chunks::<W>();
            let mut squares = [lanes::splat(0.0); 4];
            for (i, x) in body.iter().enumerate() {
                let x = lanes::load(x);
                squares[i % 4] = lanes::fma(x, x, squares[i % 4]);
            }
            let x_tail = partial(tail, 0.0);
            squares[3] = lanes::fma(x_tail, x_tail, squares[3]);
            let [a, b, c, d] = squares;
            let square = sum(lanes::add(lanes::add(a, b), lanes::add(c, d)));
            if !(1e-30..1e30).contains(&square) {
                // f32 has overflowed or lost bits, or there is a NaN.
                return scalar::elementwise::rms_norm(x, weight, eps, out);
            }
            let factor = lanes::splat(1.0 / (square / x.len() as f32 + eps).sqrt());
            let (out, out_tail) = out.as_chunks_mut::<W>();
            let (weight, weight_tail) = weight.as_chunks::<W>();
            for ((out, x), w) in out.iter_mut().zip(body).zip(weight) {
                lanes::store(
                    lanes::mul(lanes::mul(lanes::load(x), factor), lanes::load(w)),
                    out,
                );
            }
            store_partial(
                lanes::mul(lanes::mul(x_tail, factor), partial(weight_tail, 0.0)),
                out_tail,
            );
            true
        }

        #[target_feature(enable = $features)]
        pub(crate) fn rotate(a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
            let (a, a_tail) = a.as_chunks_mut::<W>();
            let (b, b_tail) = b.as_chunks_mut::<W>();
            let (cos, cos_tail) = cos.as_chunks::<W>();
            let (sin, sin_tail) = sin.as_chunks::<W>();
            for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                let (x, y) = (lanes::load(a), lanes::load(b));
                let (cos, sin) = (lanes::load(cos), lanes::load(sin));
                lanes::store(lanes::sub(lanes::mul(x, cos), lanes::mul(y, sin)), a);
                lanes::store(lanes::add(lanes::mul(y, cos), lanes::mul(x, sin)), b);
            }
            scalar::elementwise::rotate(a_tail, b_tail, cos_tail, sin_tail);
        }

        /// g · σ(g) · u, with σ from e^−|g| so that nothing overflows.
        #[inline]
        #[target_feature(enable = $features)]
        fn gated(gate: V, up: V) -> V {
            let one = lanes::splat(1.0);
            let e = exp_negative(lanes::sub(lanes::splat(0.0), lanes::abs(gate)));
            let sigmoid = lanes::div(lanes::select_positive(gate, one, e), lanes::add(one, e));
            lanes::mul(lanes::mul(gate, sigmoid), up)
        }

        #[target_feature(enable = $features)]
        pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
            let (gate, gate_tail) = gate.as_chunks_mut::<W>();
            let (up, up_tail) = up.as_chunks::<W>();
            for (gate, up) in gate.iter_mut().zip(up) {
                lanes::store(gated(lanes::load(gate), lanes::load(up)), gate);
            }
            store_partial(
                gated(partial(gate_tail, 0.0), partial(up_tail, 0.0)),
                gate_tail,
            );
        }

        #[target_feature(enable = $features)]
        pub(crate) fn add_assign(a: &mut [f32], b: &[f32]) {
            let (a, a_tail) = a.as_chunks_mut::<W>();
            let (b, b_tail) = b.as_chunks::<W>();
            for (a, b) in a.iter_mut().zip(b) {
                lanes::store(lanes::add(lanes::load(a), lanes::load(b)), a);
            }
            scalar::elementwise::add_assign(a_tail, b_tail);
        }

        /// The largest value, −∞ of none. A NaN may be lost.
        #[target_feature(enable = $features)]
        pub(crate) fn largest(x: &[f32]) -> f32 {
            let (body, tail) = x.as_chunks::<W>();
            let mut most = [lanes::splat(f32::NEG_INFINITY); 4];
            most[0] = partial(tail, f32::NEG_INFINITY);
            let (fours, rest) = body.as_chunks::<4>();
            for four in fours {
                for (most, x) in most.iter_mut().zip(four) {
                    *most = lanes::max(lanes::load(x), *most);
                }
            }
            for (most, x) in most.iter_mut().zip(rest) {
                *most = lanes::max(lanes::load(x), *most);
            }
            let [a, b, c, d] = most;
            lanes::largest_lane(lanes::max(lanes::max(a, b), lanes::max(c, d)))
        }

        /// Not finite if a value is not, or there is none.
        #[target_feature(enable = $features)]
        pub(crate) fn log_sum_exp(x: &[f32], max: f32) -> f32 {
            let (body, tail) = x.as_chunks::<W>();
            let last = partial(tail, f32::NEG_INFINITY);
            let shift = lanes::splat(max);
            // 0 · x is NaN for −∞, whose exponential would be 0.
            let mut probe = lanes::mul(partial(tail, 0.0), lanes::splat(0.0));
            // Partial sums of 64 vectors in f32, their total in f64.
            let mut total = f64::from(sum(exp_negative(lanes::sub(last, shift))));
            for part in body.chunks(64) {
                let mut acc = lanes::splat(0.0);
                for x in part {
                    let x = lanes::load(x);
                    probe = lanes::fma(x, lanes::splat(0.0), probe);
                    acc = lanes::add(acc, exp_negative(lanes::sub(x, shift)));
                }
                total += f64::from(sum(acc));
            }
            max + total.ln() as f32 + sum(probe)
        }
    };
}
pub(crate) use elementwise_kernels;
