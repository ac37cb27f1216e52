//! The scale of a group of weights (METHOD 6, Eq. 7 with z = 0): q(w) = s clip(round(w / s), lo, hi).
//!
//! Scales are f16 in the file, so every candidate is rounded to f16 first and judged as it will be used. A scale may be negative: the
//! codes are -8..7, so the sign decides which side gets the longer range. `minmax` is the plain rule of the paper and stays positive.

use half::f16;

use crate::scheme::Range;

/// Adding and subtracting this rounds an f32 below 2^22 to the nearest integer, ties to even; it vectorises everywhere.
const ROUND: f32 = 12_582_912.0;
/// Shrunk ranges that the search tries: from the whole range down to a fifth of it.
const STEPS: usize = 40;
const SMALLEST: f32 = 0.2;
/// Least-squares corrections after the search, for p = 2.
const CORRECTIONS: usize = 3;

/// The code of `x`: w / s.
#[inline]
pub(crate) fn code(x: f32, lo: f32, hi: f32) -> f32 {
    // A maximum with NaN is the other side, so this cannot return one.
    (x.max(lo).min(hi) + ROUND) - ROUND
}

/// 1 / s, or 0 for s = 0: everything becomes zero.
pub(crate) fn inverse(s: f32) -> f32 {
    if s == 0.0 { 0.0 } else { 1.0 / s }
}

/// The scale of a group of finite weights, as it is stored. It is infinite if no f16 can hold it, which the caller refuses.
pub fn scale(weights: &[f32], (lo, hi): (f32, f32), range: Range) -> f16 {
    let most = weights.iter().copied().fold(0.0f32, f32::max);
    let least = weights.iter().copied().fold(0.0f32, f32::min);
    let plain = (most / hi).max(least / lo);
    let Range::Lp(p) = range else {
        return f16::from_f32(plain);
    };
    let flipped = (-least / hi).max(most / -lo);
    let mut best = (f16::from_f32(plain), f64::INFINITY);
    let offer = |best: &mut (f16, f64), s: f32| {
        let s = f16::from_f32(s);
        let error = error_below(best.1, weights, s.to_f32(), (lo, hi), p);
        // NaN, from a scale that overflows, is not smaller.
        if error < best.1 {
            *best = (s, error);
        }
    };
    for step in 0..=STEPS {
        let share = 1.0 - (1.0 - SMALLEST) * step as f32 / STEPS as f32;
        offer(&mut best, plain * share);
        offer(&mut best, -flipped * share);
    }
    if p == 2.0 && best.0.is_finite() {
        for _ in 0..CORRECTIONS {
            let s = least_squares(weights, best.0.to_f32(), (lo, hi));
            offer(&mut best, s);
        }
    }
    best.0
}

/// The sum of |w - q(w)|^p.
pub fn error(weights: &[f32], s: f32, levels: (f32, f32), p: f32) -> f64 {
    error_below(f64::INFINITY, weights, s, levels, p)
}

/// The same, or a part of it that is not below `limit`: a sum of what is not negative cannot come back below it, so most candidates of a
/// long group are given up early.
fn error_below(limit: f64, weights: &[f32], s: f32, (lo, hi): (f32, f32), p: f32) -> f64 {
    let inv = inverse(s);
    let mut total = 0.0;
    // Runs of 32 in f32 lanes, their sums in f64.
    for run in weights.chunks(32) {
        let mut sum = 0.0f32;
        if p == 2.0 {
            let mut lanes = [0.0f32; 8];
            let (whole, rest) = run.as_chunks::<8>();
            for w in whole {
                for (lane, &w) in lanes.iter_mut().zip(w) {
                    let d = w - s * code(w * inv, lo, hi);
                    *lane += d * d;
                }
            }
            for &w in rest {
                let d = w - s * code(w * inv, lo, hi);
                sum += d * d;
            }
            sum += lanes.iter().sum::<f32>();
        } else {
            for &w in run {
                sum += (w - s * code(w * inv, lo, hi)).abs().powf(p);
            }
        }
        total += f64::from(sum);
        if total >= limit {
            break;
        }
    }
    total
}

/// The best scale for the codes that `s` gives: sum(w q) / sum(q^2).
fn least_squares(weights: &[f32], s: f32, (lo, hi): (f32, f32)) -> f32 {
    let inv = inverse(s);
    let (mut cross, mut square) = (0.0f64, 0.0f64);
    for &w in weights {
        let q = f64::from(code(w * inv, lo, hi));
        cross += f64::from(w) * q;
        square += q * q;
    }
    if square == 0.0 {
        0.0
    } else {
        (cross / square) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: (f32, f32) = (-8.0, 7.0);

    fn weights(n: usize) -> Vec<f32> {
        // A bell-like spread: sums of three incommensurable sawtooths.
        (0..n)
            .map(|i| {
                let saw = |step: f32| (i as f32 * step).fract() - 0.5;
                saw(0.618_034) + saw(0.414_214) + saw(0.732_051)
            })
            .collect()
    }

    #[test]
    fn minmax_clips_nothing() {
        let w = [0.7, -0.1, 0.2, -0.8];
        let s = scale(&w, FOUR, Range::MinMax).to_f32();
        assert!((s - 0.1).abs() < 1e-4, "{s}");
        let w = [0.1, -1.6];
        assert!((scale(&w, FOUR, Range::MinMax).to_f32() - 0.2).abs() < 2e-4);
        assert_eq!(scale(&[0.0; 4], FOUR, Range::MinMax), f16::ZERO);
        assert_eq!(scale(&[0.0; 4], FOUR, Range::Lp(2.0)), f16::ZERO);
    }

    #[test]
    fn the_search_never_loses_against_minmax() {
        for p in [1.0, 2.0, 3.5] {
            let w = weights(256);
            let plain = scale(&w, FOUR, Range::MinMax).to_f32();
            let found = scale(&w, FOUR, Range::Lp(p)).to_f32();
            let (worse, better) = (error(&w, plain, FOUR, p), error(&w, found, FOUR, p));
            assert!(better < worse, "p = {p}: {better} against {worse}");
        }
    }

    #[test]
    fn giving_up_early_finds_the_same_scale() {
        for (n, p) in [(32, 2.0), (1000, 2.0), (1000, 3.5), (4096, 1.0)] {
            let mut w = weights(n);
            w[n / 3] = 2.5;
            let most = w.iter().copied().fold(0.0f32, f32::max) / 7.0;
            let mut best = (f32::NAN, f64::INFINITY);
            for step in 0..60 {
                let s = most * (1.0 - step as f32 / 61.0);
                let whole = error(&w, s, FOUR, p);
                let part = error_below(best.1, &w, s, FOUR, p);
                assert_eq!(whole < best.1, part < best.1, "{n} {p} {s}");
                if whole < best.1 {
                    assert_eq!(whole, part);
                    best = (s, whole);
                }
            }
            assert!(best.1.is_finite() && best.0 < most);
        }
    }

    #[test]
    fn an_outlier_is_clipped_when_that_pays() {
        let mut w = weights(1024);
        w[5] = 6.0;
        let plain = scale(&w, FOUR, Range::MinMax).to_f32();
        let found = scale(&w, FOUR, Range::Lp(2.0)).to_f32();
        assert!(found.abs() < 0.7 * plain, "{found} against {plain}");
    }

    #[test]
    fn the_sign_gives_the_longer_side_to_the_larger_weights() {
        let mut w = vec![0.0; 32];
        w[3] = 8.0;
        w[4] = -7.0;
        let s = scale(&w, FOUR, Range::Lp(2.0)).to_f32();
        assert_eq!(s, -1.0);
        assert_eq!(error(&w, s, FOUR, 2.0), 0.0);
    }

    #[test]
    fn codes_are_rounded_and_clipped() {
        for (x, want) in [
            (0.4, 0.0),
            (0.6, 1.0),
            (-0.6, -1.0),
            (2.5, 2.0),
            (9.0, 7.0),
            (-9.0, -8.0),
        ] {
            assert_eq!(code(x, -8.0, 7.0), want, "{x}");
        }
    }
}
