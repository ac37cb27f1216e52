//! Loops on slices, compiled for several instruction sets and chosen at run time.
//!
//! [`vectorized`] runs a closure in a function that may use AVX2 or AVX-512 where the machine has it; plain loops
//! inside it are vectorised by the compiler. Sums are kept in sixteen lanes, so their order does not depend on
//! the machine's vector width: only fused multiply-adds could, and none are used.

/// Lanes of a sum.
const LANES: usize = 16;

/// Runs `f` compiled for the best instruction set of this machine.
#[inline]
pub(crate) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// `sum_i a_i b_i`
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [0.0f32; LANES];
    let (ac, at) = a.as_chunks::<LANES>();
    let (bc, bt) = b.as_chunks::<LANES>();
    for (x, y) in ac.iter().zip(bc) {
        for i in 0..LANES {
            acc[i] += x[i] * y[i];
        }
    }
    let mut sum = fold(acc);
    for (x, y) in at.iter().zip(bt) {
        sum += x * y;
    }
    sum
}

/// `sum_i a_i b_i c_i`
#[inline(always)]
pub(crate) fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut acc = [0.0f32; LANES];
    let (ac, at) = a.as_chunks::<LANES>();
    let (bc, bt) = b.as_chunks::<LANES>();
    let (cc, ct) = c.as_chunks::<LANES>();
    for ((x, y), z) in ac.iter().zip(bc).zip(cc) {
        for i in 0..LANES {
            acc[i] += x[i] * y[i] * z[i];
        }
    }
    let mut sum = fold(acc);
    for ((x, y), z) in at.iter().zip(bt).zip(ct) {
        sum += x * y * z;
    }
    sum
}

/// `sum_i a_i`
#[inline(always)]
pub(crate) fn sum(a: &[f32]) -> f32 {
    let mut acc = [0.0f32; LANES];
    let (ac, at) = a.as_chunks::<LANES>();
    for x in ac {
        for i in 0..LANES {
            acc[i] += x[i];
        }
    }
    let mut sum = fold(acc);
    for x in at {
        sum += x;
    }
    sum
}

/// The largest value, or NaN if there is one; `-inf` for an empty slice.
#[inline(always)]
pub(crate) fn max(a: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let (ac, at) = a.as_chunks::<LANES>();
    for x in ac {
        for i in 0..LANES {
            // A NaN stays, and a NaN comes in: no comparison with it is true.
            let keep = acc[i].is_nan() | (x[i] <= acc[i]);
            acc[i] = if keep { acc[i] } else { x[i] };
        }
    }
    let mut best = f32::NEG_INFINITY;
    for &x in acc.iter().chain(at) {
        if x > best || x.is_nan() {
            best = x;
        }
        if best.is_nan() {
            return best;
        }
    }
    best
}

#[inline(always)]
fn fold(acc: [f32; LANES]) -> f32 {
    let mut a8 = [0.0f32; 8];
    for i in 0..8 {
        a8[i] = acc[i] + acc[i + 8];
    }
    ((a8[0] + a8[4]) + (a8[1] + a8[5])) + ((a8[2] + a8[6]) + (a8[3] + a8[7]))
}

/// `dst_i += src_i`
#[inline(always)]
pub(crate) fn add_assign(dst: &mut [f32], src: &[f32]) {
    for (d, s) in dst.iter_mut().zip(src) {
        *d += s;
    }
}

/// `dst_i += factor * src_i`
#[inline(always)]
pub(crate) fn add_scaled(dst: &mut [f32], factor: f32, src: &[f32]) {
    for (d, s) in dst.iter_mut().zip(src) {
        *d += factor * s;
    }
}

/// `e^x` to about 2 ULP between -87 and 88, clamped outside; NaN stays NaN.
///
/// Cephes `expf`: `x = n ln 2 + r`, a polynomial of degree 5 for `e^r`, and `2^n` by its exponent bits. The
/// rounding to `n` is the addition of 1.5 * 2^23, whose low mantissa bits then hold `n`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    p * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        let mut x = -86.9f32;
        while x < 87.9 {
            let want = f64::from(x).exp();
            let error = ((f64::from(exp(x)) - want) / want).abs();
            assert!(error <= 3e-7, "exp({x}) is off by {error:e}");
            x += 0.0137;
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn sums_and_maxima_of_any_length() {
        for n in [0usize, 1, 7, 15, 16, 17, 33, 100] {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let b: Vec<f32> = (0..n).map(|i| (i as f32 * 0.3).cos()).collect();
            let want: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(x * y)).sum();
            assert!((f64::from(dot(&a, &b)) - want).abs() <= 1e-5);
            let want = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(max(&a) == want);
        }
        assert!(max(&[1.0, f32::NAN, 2.0]).is_nan());
        let mut long = vec![1.0; 40];
        long[3] = f32::NAN;
        assert!(max(&long).is_nan());
    }
}
