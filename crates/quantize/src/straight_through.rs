//! Rounding that can be learnt through: the scale of a group is a share of its whole range, and the gradient passes the rounding as if it
//! were not there (straight-through estimator, as in LSQ, arXiv 1902.08153).
//!
//! ```text
//! m = max(max w / hi, min w / lo)      s = share m      x = w / s      q = clip(round(x))      y = s q
//! inside the range:  dy/dw = 1, dy/ds = q - x           clipped:  dy/dw = 0, dy/ds = q
//! ```
//!
//! m moves with the weight that sets it, so scaling a whole group changes nothing but the size of y. `train` calls this at every step;
//! [`crate::run`] rounds with the shares that came out.

use half::f16;

use crate::range::{code, inverse};

/// The whole range of a group, m, and which weight sets it with which level; `None` if all are zero.
fn whole(weights: &[f32], (lo, hi): (f32, f32)) -> Option<(f32, usize, f32)> {
    let mut found = (0.0, 0, hi);
    for (i, &w) in weights.iter().enumerate() {
        let level = if w < 0.0 { lo } else { hi };
        if w / level > found.0 {
            found = (w / level, i, level);
        }
    }
    (found.0 > 0.0).then_some(found)
}

/// The scale of a group at a share of its whole range, as it is stored. Infinite or NaN for weights and shares that are, or too large.
pub fn scale(weights: &[f32], levels: (f32, f32), share: f32) -> f16 {
    match whole(weights, levels) {
        Some((m, _, _)) => f16::from_f32(share * m),
        None => f16::ZERO,
    }
}

/// The share of the whole range that a scale is; 1 for a group of zeros. It is negative if the scale is.
pub fn share(weights: &[f32], levels: (f32, f32), scale: f16) -> f32 {
    match whole(weights, levels) {
        Some((m, _, _)) if scale != f16::ZERO => scale.to_f32() / m,
        _ => 1.0,
    }
}

/// Rounds a group: y, as an engine reads it.
pub fn round(weights: &mut [f32], levels: (f32, f32), share: f32) {
    let s = scale(weights, levels, share).to_f32();
    let inv = inverse(s);
    for w in weights {
        *w = s * code(*w * inv, levels.0, levels.1);
    }
}

/// Turns the gradient of y into that of the weights, and returns that of the logarithm of the share.
///
/// # Panics
/// If `gradient` has not the length of `weights`.
pub fn backward(weights: &[f32], (lo, hi): (f32, f32), share: f32, gradient: &mut [f32]) -> f32 {
    assert_eq!(weights.len(), gradient.len(), "a gradient per weight");
    let Some((_, widest, level)) = whole(weights, (lo, hi)) else {
        gradient.fill(0.0);
        return 0.0;
    };
    let s = scale(weights, (lo, hi), share).to_f32();
    let inv = inverse(s);
    let mut d_scale = 0.0f64;
    for (&w, g) in weights.iter().zip(&mut *gradient) {
        let x = w * inv;
        let q = code(x, lo, hi);
        if (lo..=hi).contains(&x) {
            d_scale += f64::from(*g) * f64::from(q - x);
        } else {
            d_scale += f64::from(*g) * f64::from(q);
            *g = 0.0;
        }
    }
    gradient[widest] += (d_scale * f64::from(share / level)) as f32;
    (d_scale * f64::from(s)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range;
    use crate::scheme::Range;

    const FOUR: (f32, f32) = (-8.0, 7.0);

    fn weights(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.52)
            .collect()
    }

    fn upstream(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 53 + 7) % 89) as f32 / 89.0 - 0.4)
            .collect()
    }

    #[test]
    fn the_searched_scale_comes_back_from_its_share() {
        for range in [Range::MinMax, Range::Lp(2.0)] {
            let w = weights(64);
            let found = range::scale(&w, FOUR, range);
            let share = share(&w, FOUR, found);
            let again = scale(&w, FOUR, share).to_f32();
            assert!((again / found.to_f32() - 1.0).abs() < 1e-3, "{range:?}");
        }
        assert_eq!(scale(&[0.0; 4], FOUR, 1.0), f16::ZERO);
        assert_eq!(share(&[0.0; 4], FOUR, f16::ZERO), 1.0);
    }

    /// The straight-through function itself: round(x) is x plus a constant inside the range, and a constant outside.
    fn surrogate(w: &[f32], at: &[f32], share: f32, at_share: f32) -> Vec<f64> {
        let (m, widest, level) = whole(at, FOUR).expect("not all zero");
        assert_eq!(whole(w, FOUR).expect("not all zero").1, widest);
        let fixed = f64::from(at_share * m);
        let s = f64::from(share) * f64::from(w[widest]) / f64::from(level);
        let one = |(&w, &at): (&f32, &f32)| {
            let x = f64::from(at) / fixed;
            let q = x.clamp(-8.0, 7.0).round_ties_even();
            if (-8.0..=7.0).contains(&x) {
                f64::from(w) + s * (q - x)
            } else {
                s * q
            }
        };
        w.iter().zip(at).map(one).collect()
    }

    #[test]
    fn gradients_are_the_slopes_of_the_straight_through_function() {
        let (at, g) = (weights(40), upstream(40));
        for share in [1.0, 0.7, -0.6] {
            // The share whose scale is an f16, so that no rounding of it stands between.
            let share = super::share(&at, FOUR, scale(&at, FOUR, share));
            let loss = |w: &[f32], share_now: f32| -> f64 {
                let y = surrogate(w, &at, share_now, share);
                y.iter().zip(&g).map(|(y, g)| y * f64::from(*g)).sum()
            };
            let mut dw = g.clone();
            let d_share = backward(&at, FOUR, share, &mut dw);
            let h = 1e-3;
            let slope = (loss(&at, share * (1.0 + h)) - loss(&at, share * (1.0 - h)))
                / (2.0 * f64::from(h));
            assert!(
                (slope - f64::from(d_share)).abs() < 2e-3 * slope.abs().max(0.1),
                "{slope} {d_share}"
            );
            for i in 0..at.len() {
                let moved = |by: f32| {
                    let mut w = at.clone();
                    w[i] += by;
                    loss(&w, share)
                };
                let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
                assert!(
                    (slope - f64::from(dw[i])).abs() < 2e-3,
                    "share {share}, weight {i}: {slope} {}",
                    dw[i]
                );
            }
        }
    }

    #[test]
    fn a_larger_group_has_larger_values_and_nothing_else() {
        // Scaling all weights scales y: the sum of w dL/dw is the sum of y dL/dy, for every share.
        let (w, g) = (weights(32), upstream(32));
        for share in [1.0, 0.5, -0.8] {
            let mut y = w.clone();
            round(&mut y, FOUR, share);
            let mut dw = g.clone();
            backward(&w, FOUR, share, &mut dw);
            let sum = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            assert!((sum(&w, &dw) - sum(&y, &g)).abs() < 2e-3, "{share}");
        }
    }
}
