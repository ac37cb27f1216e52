//! One step of attention: the lanes are tokens for the scores, then dims for the values.

/// Expands to the kernels of `attention.rs`. `$most` is the number of query rows, at most 4, that share what is loaded.
macro_rules! attention_kernels {
    ($features:literal, $most:literal) => {
        use super::elementwise::exp_negative;
        use super::lanes::{self, V, W};
        use $crate::attention::{LANES, Rows, STEP, Step};

        /// Vectors of a step's tokens, and of as many dims.
        const VECTORS: usize = STEP / W;
        /// Tokens of a step.
        const TOKENS: [f32; STEP] = {
            let mut tokens = [0.0; STEP];
            let mut t = 1;
            while t < STEP {
                tokens[t] = tokens[t - 1] + 1.0;
                t += 1;
            }
            tokens
        };

        /// Lets every row see up to 32 tokens.
        #[target_feature(enable = $features)]
        pub(crate) fn step(kv: &Step<'_>, rows: &mut Rows<'_>) {
            let count = rows.max.len();
            let mut first = 0;
            // Rows in parts of about the same size: a lone row leaves the machine waiting for its sums.
            for parts in (1..=count.div_ceil($most)).rev() {
                let part = (count - first).div_ceil(parts);
                match part {
                    1 => rows_at::<1>(kv, rows, first),
                    2 => rows_at::<2>(kv, rows, first),
                    3 => rows_at::<3>(kv, rows, first),
                    _ => rows_at::<4>(kv, rows, first),
                }
                first += part;
            }
        }

        /// R rows from `first` on.
        #[target_feature(enable = $features)]
        fn rows_at<const R: usize>(kv: &Step<'_>, rows: &mut Rows<'_>, first: usize) {
            let mut seen = [(0, 0); R];
            let (mut from, mut to) = (STEP, 0);
            for r in 0..R {
                seen[r] = kv.seen(first + r);
                if seen[r].0 < seen[r].1 {
                    (from, to) = (from.min(seen[r].0), to.max(seen[r].1));
                }
            }
            if from >= to {
                return;
            }
            let scores = scores::<R>(kv, rows.query, first);
            let mut weights = [[0.0; STEP]; R];
            let mut rescale = [lanes::splat(0.0); R];
            for r in 0..R {
                let (max, sum) = (&mut rows.max[first + r], &mut rows.sum[first + r]);
                rescale[r] = weigh(kv, &scores[r], seen[r], max, sum, &mut weights[r]);
            }

            let width = rows.acc.len() / rows.max.len();
            let acc = &mut rows.acc[first * width..][..R * width];
            add_values(kv, from..to, &weights, &rescale, acc);
        }

        /// `acc` `[R, D']` times the factors, plus the values of some tokens by their weights.
        #[inline]
        #[target_feature(enable = $features)]
        fn add_values<const R: usize>(
            kv: &Step<'_>,
            tokens: std::ops::Range<usize>,
            weights: &[[f32; STEP]; R],
            rescale: &[V; R],
            acc: &mut [f32],
        ) {
            let values = kv.values.as_chunks::<STEP>().0;
            let acc = acc.as_chunks_mut::<STEP>().0;
            let width = acc.len() / R;
            for chunk in 0..width {
                let mut sums = [[lanes::splat(0.0); VECTORS]; R];
                for r in 0..R {
                    let acc = acc[r * width + chunk].as_chunks::<W>().0;
                    for v in 0..VECTORS {
                        sums[r][v] = lanes::mul(lanes::load(&acc[v]), rescale[r]);
                    }
                }
                for t in tokens.clone() {
                    let values = values[t * width + chunk].as_chunks::<W>().0;
                    let mut weight = [lanes::splat(0.0); R];
                    for r in 0..R {
                        weight[r] = lanes::splat(weights[r][t]);
                    }
                    for v in 0..VECTORS {
                        let value = lanes::load(&values[v]);
                        for r in 0..R {
                            sums[r][v] = lanes::fma(weight[r], value, sums[r][v]);
                        }
                    }
                }
                for r in 0..R {
                    let acc = acc[r * width + chunk].as_chunks_mut::<W>().0;
                    for v in 0..VECTORS {
                        lanes::store(sums[r][v], &mut acc[v]);
                    }
                }
            }
        }

        /// Scores of R rows with all tokens of a step.
        #[inline]
        #[target_feature(enable = $features)]
        fn scores<const R: usize>(
            kv: &Step<'_>,
            queries: &[f32],
            first: usize,
        ) -> [[V; VECTORS]; R] {
            let d = kv.keys.len();
            let mut query = [&[][..]; R];
            for r in 0..R {
                query[r] = &queries[(first + r) * d..][..d];
            }
            let mut sums = [[lanes::splat(0.0); VECTORS]; R];
            for i in 0..d {
                let keys = kv.keys[i].as_chunks::<W>().0;
                let mut q = [lanes::splat(0.0); R];
                for r in 0..R {
                    q[r] = lanes::splat(query[r][i]);
                }
                for v in 0..VECTORS {
                    let key = lanes::load(&keys[v]);
                    for r in 0..R {
                        sums[r][v] = lanes::fma(q[r], key, sums[r][v]);
                    }
                }
            }
            for v in 0..VECTORS {
                let scale = lanes::load(&kv.key_scales.as_chunks().0[v]);
                for r in 0..R {
                    sums[r][v] = lanes::mul(sums[r][v], scale);
                }
            }
            sums
        }

        /// The online softmax of one row: its weights, and the factor of what it has summed so far.
        #[inline]
        #[target_feature(enable = $features)]
        fn weigh(
            kv: &Step<'_>,
            scores: &[V; VECTORS],
            seen: (usize, usize),
            max: &mut f32,
            sum: &mut [f32; LANES],
            weights: &mut [f32; STEP],
        ) -> V {
            let mut scores = *scores;
            if seen != (0, STEP) {
                let (from, to) = (lanes::splat(seen.0 as f32), lanes::splat(seen.1 as f32));
                for v in 0..VECTORS {
                    let tokens = lanes::load(&TOKENS.as_chunks().0[v]);
                    scores[v] = lanes::only_between(scores[v], tokens, from, to);
                }
            }
            let mut most = scores[0];
            for v in 1..VECTORS {
                most = lanes::max(scores[v], most);
            }
            let old = *max;
            // A NaN may be lost here: the weights have it too.
            *max = lanes::largest_lane(lanes::max(most, lanes::splat(old)));
            // A row that has seen nothing yet has max −∞; its differences must be −∞, not NaN.
            let base = max.max(f32::MIN);
            let rescale = exp_negative(lanes::splat(old - base));
            let base = lanes::splat(base);
            // The lanes of the sum are sixteen whatever the width, so that all widths agree.
            let mut total = [lanes::splat(0.0); LANES / W];
            let sum = sum.as_chunks_mut::<W>().0;
            for (total, sum) in total.iter_mut().zip(sum.iter()) {
                *total = lanes::mul(lanes::load(sum), rescale);
            }
            let scales = kv.value_scales.as_chunks::<W>().0;
            let weights = weights.as_chunks_mut::<W>().0;
            for first in (0..VECTORS).step_by(LANES / W) {
                for (lane, total) in total.iter_mut().enumerate() {
                    let v = first + lane;
                    let weight = exp_negative(lanes::sub(scores[v], base));
                    *total = lanes::add(*total, weight);
                    lanes::store(lanes::mul(weight, lanes::load(&scales[v])), &mut weights[v]);
                }
            }
            for (total, sum) in total.into_iter().zip(sum) {
                lanes::store(total, sum);
            }
            rescale
        }
    };
}
pub(crate) use attention_kernels;
