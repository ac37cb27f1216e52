//! One step of attention: the lanes are query rows.

/// Expands to the kernels of `attention.rs`.
macro_rules! attention_kernels {
    ($features:literal) => {
        use super::elementwise::exp_negative;
        use super::lanes::{self, V, W};
        use $crate::attention::{ROWS, STEP, Step, TileState};

        /// Tokens, and then dims, whose accumulators stay in registers together.
        const ABREAST: usize = 8;

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
                let scores = scores(kv, p, first, tile.query);
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

        /// Scores of eight tokens; those beyond the step are zeros.
        #[inline]
        #[target_feature(enable = $features)]
        fn scores(kv: &Step<'_>, p: usize, first: usize, query: &[[f32; ROWS]]) -> [V; ABREAST] {
            let d = query.len();
            let mut keys: [&[f32]; ABREAST] = [&[]; ABREAST];
            for (j, keys) in keys.iter_mut().enumerate() {
                *keys = &kv.keys[(first + j) * d..][..d];
            }
            let mut acc = [lanes::splat(0.0); ABREAST];
            for i in 0..d {
                let query = lanes::load(part(&query[i], p));
                for j in 0..ABREAST {
                    acc[j] = lanes::fma(query, lanes::splat(keys[j][i]), acc[j]);
                }
            }
            acc
        }

        /// int8 with one scale per token to f32.
        #[target_feature(enable = $features)]
        pub(crate) fn load_i8(q: &[i8], scales: &[f32], d: usize, out: &mut [f32]) {
            for ((out, q), scale) in out.chunks_exact_mut(d).zip(q.chunks_exact(d)).zip(scales) {
                let (body, tail) = q.as_chunks::<W>();
                let (out, out_tail) = out.as_chunks_mut::<W>();
                for (out, q) in out.iter_mut().zip(body) {
                    lanes::store(lanes::mul(lanes::load_i8(q), lanes::splat(*scale)), out);
                }
                for (out, q) in out_tail.iter_mut().zip(tail) {
                    *out = f32::from(*q) * scale;
                }
            }
        }

        /// Half to f32.
        #[target_feature(enable = $features)]
        pub(crate) fn load_f16(halves: &[u16], out: &mut [f32]) {
            let (body, tail) = halves.as_chunks::<W>();
            let (out, out_tail) = out[..halves.len()].as_chunks_mut::<W>();
            for (out, half) in out.iter_mut().zip(body) {
                lanes::store(lanes::load_f16(half), out);
            }
            if !tail.is_empty() {
                let mut padded = [0; W];
                padded[..tail.len()].copy_from_slice(tail);
                let mut full = [0.0; W];
                lanes::store(lanes::load_f16(&padded), &mut full);
                out_tail.copy_from_slice(&full[..tail.len()]);
            }
        }
    };
}
pub(crate) use attention_kernels;
