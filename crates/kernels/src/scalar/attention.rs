//! One step of attention, row by row.

use crate::attention::{ROWS, STEP, Step, TileState};

/// Lets the 16 rows of a tile see up to 32 tokens.
pub(crate) fn step(kv: &Step<'_>, tile: &mut TileState<'_>) {
    let d = tile.query.len();
    for r in 0..ROWS {
        let seen = kv.from[r] as usize..kv.to[r] as usize;
        if seen.is_empty() {
            continue;
        }
        let mut weights = [0.0f32; STEP];
        let mut max = tile.max[r];
        for t in seen.clone() {
            let key = &kv.keys[t * d..][..d];
            let score = tile
                .query
                .iter()
                .zip(key)
                .fold(0.0f32, |sum, (q, k)| sum + q[r] * k);
            weights[t] = score;
            // A NaN stays, so that it reaches the sum and is found at the end.
            max = if max > score { max } else { score };
        }
        let rescale = (tile.max[r] - max).exp();
        tile.max[r] = max;
        tile.sum[r] *= rescale;
        for t in seen.clone() {
            weights[t] = (weights[t] - max).exp();
            tile.sum[r] += weights[t];
        }
        for (i, acc) in tile.acc.iter_mut().enumerate() {
            acc[r] *= rescale;
            for t in seen.clone() {
                acc[r] += weights[t] * kv.values[t * d + i];
            }
        }
    }
}
