//! One step of attention: the lanes are query rows.

/// Expands to the kernels of `attention.rs`. `$abreast` is the number of tokens, and then of dims, whose accumulators stay in registers
/// together: 8 or 16.
macro_rules! attention_kernels {
    ($features:literal, $abreast:literal) => {
        use super::elementwise::exp_negative;
        use super::lanes::{self, V, W};
        use $crate::attention::{ROWS, STEP, Step, TileState};

        const ABREAST: usize = $abreast;

        /// Lets the 16 rows of a tile see up to 32 tokens, W rows at a time.
        #[target_feature(enable = $features)]
        pub(crate) fn step(kv: &Step<'_>, tile: &mut TileState<'_>) {
            for part in 0..ROWS / W {
                let rows = part * W..(part + 1) * W;
                let to = kv.to[rows.clone()].iter().copied().max().unwrap_or(0);
                if kv.from[rows.clone()]
                    .iter()
                    .zip(&kv.to[rows])
                    .any(|(from, to)| from < to)
                {
                    part_of_tile(kv, part, to as usize, tile);
                }
            }
        }

        /// The lanes `part` of a row of 16.
        #[inline]
        #[target_feature(enable = $features)]
        fn part<'a, T>(row: &'a [T; ROWS], part: usize) -> &'a [T; W] {
            &row.as_chunks::<W>().0[part]
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn part_mut(row: &mut [f32; ROWS], part: usize) -> &mut [f32; W] {
            &mut row.as_chunks_mut::<W>().0[part]
        }

        #[target_feature(enable = $features)]
        fn part_of_tile(kv: &Step<'_>, p: usize, tokens: usize, tile: &mut TileState<'_>) {
            let d = tile.query.len();
            let (from, to) = (part(&kv.from, p), part(&kv.to, p));
            let from = lanes::load(&from.map(|t| t as f32));
            let to = lanes::load(&to.map(|t| t as f32));

            // Scores, −∞ where a row does not see the token.
            let mut weights = [lanes::splat(f32::NEG_INFINITY); STEP];
            let old = lanes::load(part(tile.max, p));
            let mut max = old;
            for first in (0..tokens).step_by(ABREAST) {
                let keys = &kv.keys[first * d..][..ABREAST * d];
                let scores = match d {
                    32 => scores::<32>(keys, p, tile.query),
                    64 => scores::<64>(keys, p, tile.query),
                    128 => scores::<128>(keys, p, tile.query),
                    _ => scores::<0>(keys, p, tile.query),
                };
                for (j, score) in scores.into_iter().enumerate() {
                    let seen =
                        lanes::only_between(score, lanes::splat((first + j) as f32), from, to);
                    weights[first + j] = seen;
                    max = lanes::max(seen, max);
                }
            }

            // A row that has seen nothing yet has max −∞; its differences must be −∞, not NaN.
            let base = lanes::max(lanes::splat(f32::MIN), max);
            let rescale = exp_negative(lanes::sub(old, base));
            lanes::store(max, part_mut(tile.max, p));
            let mut sum = lanes::mul(lanes::load(part(tile.sum, p)), rescale);
            for weight in &mut weights[..tokens] {
                *weight = exp_negative(lanes::sub(*weight, base));
                sum = lanes::add(sum, *weight);
            }
            lanes::store(sum, part_mut(tile.sum, p));

            // Values.
            let weights = &weights[..tokens];
            let (blocks, rest) = tile.acc.as_chunks_mut::<ABREAST>();
            for (b, block) in blocks.iter_mut().enumerate() {
                let mut acc = [rescale; ABREAST];
                for (acc, row) in acc.iter_mut().zip(block.iter()) {
                    *acc = lanes::mul(lanes::load(part(row, p)), rescale);
                }
                for (weight, values) in weights.iter().zip(kv.values.chunks_exact(d)) {
                    let values: &[f32; ABREAST] = &values.as_chunks().0[b];
                    for j in 0..ABREAST {
                        acc[j] = lanes::fma(*weight, lanes::splat(values[j]), acc[j]);
                    }
                }
                for (acc, row) in acc.into_iter().zip(block) {
                    lanes::store(acc, part_mut(row, p));
                }
            }
            for (i, row) in rest.iter_mut().enumerate() {
                let mut acc = lanes::mul(lanes::load(part(row, p)), rescale);
                for (weight, values) in weights.iter().zip(kv.values.chunks_exact(d)) {
                    let value = values[d / ABREAST * ABREAST + i];
                    acc = lanes::fma(*weight, lanes::splat(value), acc);
                }
                lanes::store(acc, part_mut(row, p));
            }
        }

        /// Scores of some tokens, whose keys are `[ABREAST, D]`. D is known to the compiler for the usual head dims, so that all keys
        /// are at fixed distances from one pointer; 0 is any.
        #[target_feature(enable = $features)]
        fn scores<const D: usize>(keys: &[f32], p: usize, query: &[[f32; ROWS]]) -> [V; ABREAST] {
            let d = if D == 0 { query.len() } else { D };
            let (query, keys) = (&query[..d], &keys[..ABREAST * d]);
            let mut acc = [lanes::splat(0.0); ABREAST];
            for i in 0..d {
                let query = lanes::load(part(&query[i], p));
                for j in 0..ABREAST {
                    acc[j] = lanes::fma(query, lanes::splat(keys[j * d + i]), acc[j]);
                }
            }
            acc
        }
    };
}
pub(crate) use attention_kernels;
