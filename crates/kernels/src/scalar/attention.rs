//! One step of attention over floats, row by row.

use std::ops::Range;

use crate::attention::{Rows, STEP, Step};

/// Lets every row see up to 32 tokens.
pub(crate) fn step(kv: &Step<'_, f32>, rows: &mut Rows<'_>) {
    let d = kv.keys.len() / STEP;
    let keys = kv.keys.as_chunks::<STEP>().0;
    let padded = rows.acc.len() / rows.max.len();
    for r in 0..rows.max.len() {
        let (from, to) = kv.seen.by(r);
        if from >= to {
            continue;
        }
        let query = rows.query[r * d..][..d].to_vec();
        let score = |t: usize| {
            let terms = query.iter().zip(keys).map(|(q, keys)| q * keys[t]);
            terms.fold(0.0, |sum, term| sum + term)
        };
        let Weights {
            tokens,
            rescale,
            share,
        } = weigh(rows, r, from..to, score);
        for (i, acc) in rows.acc[r * padded..][..d].iter_mut().enumerate() {
            let sum = (from..to).fold(0.0, |sum, t| sum + tokens[t] * kv.values[t * padded + i]);
            *acc = *acc * rescale + sum * share;
        }
    }
}

/// What the tokens of a step weigh for a row.
pub(super) struct Weights {
    /// Relative to the largest of the step; 0 where the row sees nothing.
    pub(super) tokens: [f32; STEP],
    /// What the sums so far are multiplied with.
    pub(super) rescale: f32,
    /// What the step's sums are multiplied with.
    pub(super) share: f32,
}

/// Raises row `r`'s largest score, and adds the weights of the tokens that it sees to its sum.
pub(super) fn weigh(
    rows: &mut Rows<'_>,
    r: usize,
    seen: Range<usize>,
    score: impl Fn(usize) -> f32,
) -> Weights {
    let mut tokens = [0.0; STEP];
    let mut largest = f32::NEG_INFINITY;
    for t in seen.clone() {
        tokens[t] = score(t);
        // A NaN stays, so that it reaches the sum and is found at the end.
        largest = if largest > tokens[t] {
            largest
        } else {
            tokens[t]
        };
    }
    let old = rows.max[r];
    let max = if old > largest { old } else { largest };
    rows.max[r] = max;
    let (rescale, share) = ((old - max).exp(), (largest - max).exp());
    let mut sum = 0.0;
    for t in seen {
        tokens[t] = (tokens[t] - largest).exp();
        sum += tokens[t];
    }
    let total = &mut rows.sum[r][0];
    *total = *total * rescale + sum * share;
    Weights {
        tokens,
        rescale,
        share,
    }
}

/// Adds what rows have seen of `part` to what they have seen of `whole`.
pub(crate) fn merge(whole: &mut Rows<'_>, part: &Rows<'_>) {
    for r in 0..part.max.len() {
        let Some(below) = whole.raise(part, r) else {
            continue;
        };
        let [own, other] = below.map(f32::exp);
        for (sums, more) in whole.beside(part, r) {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum = *sum * own + more * other;
            }
        }
    }
}
