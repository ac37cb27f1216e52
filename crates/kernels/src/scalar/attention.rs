//! One step of attention, row by row.

use crate::attention::{Rows, STEP, Step};

/// Lets every row see up to 32 tokens.
pub(crate) fn step<T: Copy + Into<f32>>(kv: &Step<'_, T>, rows: &mut Rows<'_>) {
    let d = kv.keys.len();
    let padded = rows.acc.len() / rows.max.len();
    for r in 0..rows.max.len() {
        let (from, to) = kv.seen.by(r);
        if from >= to {
            continue;
        }
        let query = &rows.query[r * d..][..d];
        let mut weights = [0.0f32; STEP];
        let old = rows.max[r];
        let mut max = old;
        for (t, weight) in weights.iter_mut().enumerate().take(to).skip(from) {
            let dot = query
                .iter()
                .zip(kv.keys)
                .fold(0.0f32, |sum, (q, keys)| sum + q * keys[t].into());
            *weight = dot * kv.scales.keys[t];
            // A NaN stays, so that it reaches the sum and is found at the end.
            max = if max > *weight { max } else { *weight };
        }
        let rescale = (old - max).exp();
        rows.max[r] = max;
        let sum = &mut rows.sum[r][0];
        *sum *= rescale;
        let acc = &mut rows.acc[r * padded..][..d];
        for acc in acc.iter_mut() {
            *acc *= rescale;
        }
        for (t, weight) in weights.iter().enumerate().take(to).skip(from) {
            let weight = (weight - max).exp();
            *sum += weight;
            let values = &kv.values[t * padded..][..d];
            for (acc, value) in acc.iter_mut().zip(values) {
                *acc += weight * kv.scales.values[t] * (*value).into();
            }
        }
    }
}
