//! The small operations, element by element.

/// False if the mean square is not finite.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> bool {
    let square: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if !square.is_finite() {
        return false;
    }
    let factor = (1.0 / (square / x.len() as f64 + f64::from(eps)).sqrt()) as f32;
    for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * w;
    }
    true
}

pub(crate) fn rotate(a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

pub(crate) fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + (-*gate).exp()) * up;
    }
}

pub(crate) fn add_assign(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

/// The largest value, −∞ of none. A NaN may be lost.
pub(crate) fn largest(x: &[f32]) -> f32 {
    x.iter()
        .copied()
        .fold(f32::NEG_INFINITY, |a, b| if a >= b { a } else { b })
}

/// Not finite if a value is not, or there is none.
pub(crate) fn log_sum_exp(x: &[f32], max: f32) -> f32 {
    if x.contains(&f32::NEG_INFINITY) {
        return f32::NAN;
    }
    let sum: f64 = x.iter().map(|x| f64::from(x - max).exp()).sum();
    max + sum.ln() as f32
}
