//! Scales and codes of a row, fitted to the error of its outputs: E(s, q) = r^T H r with r = w - s q and H the Hessian of its inputs.
//!
//! One sweep moves every scale to the minimum that its group's codes leave, s += q^T H r / q^T H q, and then every code to the level that is
//! nearest to the minimum which the other codes leave, s q_j = w_j - r_j + (H r)_j / H_jj (coordinate descent, as QuantEase,
//! arXiv 2309.01885). Every move is kept only if E falls, so a sweep never makes a row worse.

use half::f16;

use crate::range::code;
use crate::scheme::Format;

/// Runs `sweeps` over one row. `h` is `[n, n]`; `scales` has one scale per group of the row.
pub(crate) fn descend(
    h: &[f32],
    weights: &[f32],
    codes: &mut [f32],
    scales: &mut [f16],
    format: &Format,
    sweeps: usize,
) {
    let n = weights.len();
    let group = n / scales.len();
    let mut g = vec![0.0f32; n]; // H r
    let residual = |codes: &[f32], scales: &[f16], j: usize| {
        weights[j] - scales[j / group].to_f32() * codes[j]
    };
    if sweeps > 0 {
        for j in 0..n {
            axpy(&mut g, residual(codes, scales, j), &h[j * n..][..n]);
        }
    }
    for _ in 0..sweeps {
        for (at, scale) in scales.iter_mut().enumerate() {
            fit_scale(h, &mut g, codes, scale, at * group, group);
        }
        let mut moved = false;
        for j in 0..n {
            let r = residual(codes, scales, j);
            let s = scales[j / group].to_f32();
            moved |= fit_code(h, &mut g, codes, s, j, r, (weights[j], format));
        }
        if !moved {
            break;
        }
    }
}

/// Moves one scale. E changes by d^2 q^T H q - 2 d q^T H r when it grows by d.
fn fit_scale(h: &[f32], g: &mut [f32], codes: &[f32], scale: &mut f16, first: usize, group: usize) {
    let n = g.len();
    let mine = first..first + group;
    let mut hq = vec![0.0f32; n];
    for j in mine.clone().filter(|&j| codes[j] != 0.0) {
        axpy(&mut hq, codes[j], &h[j * n..][..n]);
    }
    let dot = |v: &[f32]| -> f64 {
        mine.clone()
            .map(|j| f64::from(codes[j]) * f64::from(v[j]))
            .sum()
    };
    let (square, cross) = (dot(&hq), dot(g));
    if square <= 0.0 {
        return;
    }
    let wanted = f16::from_f32(scale.to_f32() + (cross / square) as f32);
    let d = f64::from(wanted.to_f32() - scale.to_f32());
    if wanted.is_finite() && d * d * square - 2.0 * d * cross < 0.0 {
        axpy(g, -d as f32, &hq);
        *scale = wanted;
    }
}

/// Moves the code of column `j`, whose residual is `r`. E changes by d^2 H_jj + 2 d (H r)_j when the residual grows by d.
fn fit_code(
    h: &[f32],
    g: &mut [f32],
    codes: &mut [f32],
    s: f32,
    j: usize,
    r: f32,
    (weight, format): (f32, &Format),
) -> bool {
    let n = g.len();
    let diagonal = h[j * n + j];
    if s == 0.0 || diagonal <= 0.0 {
        return false;
    }
    let (lo, hi) = format.levels();
    let q = code((weight - r + g[j] / diagonal) / s, lo, hi);
    let d = s * (codes[j] - q);
    let change = d * d * diagonal + 2.0 * d * g[j];
    if q == codes[j] || change.is_nan() || change >= 0.0 {
        return false;
    }
    codes[j] = q;
    axpy(g, d, &h[j * n..][..n]);
    true
}

/// y += a x
fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::inverse;
    use crate::scheme::{Group, Range, Rounding};

    const FORMAT: Format = Format {
        bits: 4,
        group: Group::Of(32),
        range: Range::MinMax,
        rounding: Rounding::Gptq,
    };

    fn saw(i: usize, step: f32) -> f32 {
        (i as f32 * step).fract() - 0.5
    }

    /// X^T X of correlated inputs.
    fn hessian(n: usize) -> Vec<f32> {
        let x = |t: usize, i: usize| {
            saw(t * 31 + i, 0.618_034) * 0.3 + saw(t * 7, 0.414_214) * saw(i, 0.732_051) * 4.0
        };
        (0..n * n)
            .map(|k| (0..2 * n).map(|t| x(t, k / n) * x(t, k % n)).sum())
            .collect()
    }

    fn error(h: &[f32], w: &[f32], q: &[f32], s: &[f16]) -> f64 {
        let n = w.len();
        let r: Vec<f64> = (0..n)
            .map(|j| f64::from(w[j]) - f64::from(s[j / 32].to_f32()) * f64::from(q[j]))
            .collect();
        (0..n * n)
            .map(|k| r[k / n] * f64::from(h[k]) * r[k % n])
            .sum()
    }

    #[test]
    fn every_sweep_brings_the_outputs_closer() {
        let n = 64;
        let h = hessian(n);
        let w: Vec<f32> = (0..n)
            .map(|i| saw(i, 0.267_949) + saw(i, 0.123_457))
            .collect();
        let mut scales = vec![f16::from_f32(0.12), f16::from_f32(0.15)];
        let mut codes: Vec<f32> = (0..n)
            .map(|j| code(w[j] * inverse(scales[j / 32].to_f32()), -8.0, 7.0))
            .collect();
        let first = error(&h, &w, &codes, &scales);
        let mut before = first;
        for sweep in 0..4 {
            descend(&h, &w, &mut codes, &mut scales, &FORMAT, 1);
            let after = error(&h, &w, &codes, &scales);
            assert!(
                after <= before * (1.0 + 1e-5),
                "sweep {sweep}: {after} after {before}"
            );
            before = after;
        }
        assert!(before < 0.3 * first, "{before} of {first}");
        assert!(
            codes
                .iter()
                .all(|q| (-8.0..=7.0).contains(q) && q.fract() == 0.0)
        );
    }

    #[test]
    fn nothing_moves_without_sweeps_or_where_all_is_zero() {
        let n = 32;
        let (mut codes, mut scales) = (vec![0.0; n], vec![f16::ZERO]);
        descend(
            &hessian(n),
            &vec![0.0; n],
            &mut codes,
            &mut scales,
            &FORMAT,
            3,
        );
        assert_eq!((codes, scales), (vec![0.0; n], vec![f16::ZERO]));
        let (mut codes, mut scales) = (vec![3.0; n], vec![f16::ONE]);
        descend(
            &hessian(n),
            &vec![1.0; n],
            &mut codes,
            &mut scales,
            &FORMAT,
            0,
        );
        assert_eq!((codes, scales), (vec![3.0; n], vec![f16::ONE]));
    }
}
