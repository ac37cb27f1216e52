//! One step of attention: the lanes are tokens for the scores, then dims for the values.

/// Expands to the kernels of `attention.rs` for one type of keys and values. At most `$most` query rows, 8 or less, share what is loaded;
/// `$sums` registers are for their sums.
macro_rules! attention_kernels {
    ($features:literal, $sums:literal, $most:literal, $element:ty, $load:ident) => {
        use super::elementwise::exp_negative;
        use super::lanes::{self, V, W};
        use $crate::attention::{LANES, Rows, STEP, Step};

        /// Vectors of a step's tokens, and of as many dims.
        const VECTORS: usize = STEP / W;
        /// Whether each load goes with the fetch of what lies there in the next step. Floats have been widened into the scratch.
        const FETCH: bool = size_of::<$element>() == 1;
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

        /// Vectors whose sums of some rows are in registers together.
        const fn together(rows: usize) -> usize {
            let mut vectors = VECTORS;
            while vectors > 1 && rows * vectors > $sums {
                vectors /= 2;
            }
            vectors
        }

        /// Lets every row see up to 32 tokens.
        #[target_feature(enable = $features)]
        pub(crate) fn step(kv: &Step<'_, $element>, rows: &mut Rows<'_>) {
            let mut first = kv.seen.rows.start;
            let count = kv.seen.rows.len();
            // Rows in parts of about the same size: a lone row leaves the machine waiting for its sums.
            for parts in (1..=count.div_ceil($most)).rev() {
                let part = (kv.seen.rows.end - first).div_ceil(parts);
                match part {
                    1 if 1 <= $most => rows_at::<1, { together(1) }>(kv, rows, first),
                    2 if 2 <= $most => rows_at::<2, { together(2) }>(kv, rows, first),
                    3 if 3 <= $most => rows_at::<3, { together(3) }>(kv, rows, first),
                    4 if 4 <= $most => rows_at::<4, { together(4) }>(kv, rows, first),
                    5 if 5 <= $most => rows_at::<5, { together(5) }>(kv, rows, first),
                    6 if 6 <= $most => rows_at::<6, { together(6) }>(kv, rows, first),
                    7 if 7 <= $most => rows_at::<7, { together(7) }>(kv, rows, first),
                    8 if 8 <= $most => rows_at::<8, { together(8) }>(kv, rows, first),
                    _ => unreachable!("{part} rows, at most {}", $most),
                }
                first += part;
            }
        }

        /// R rows from `first` on, the sums of N vectors at a time.
        #[target_feature(enable = $features)]
        fn rows_at<const R: usize, const N: usize>(
            kv: &Step<'_, $element>,
            rows: &mut Rows<'_>,
            first: usize,
        ) {
            let mut seen = [(0, 0); R];
            let (mut from, mut to) = (STEP, 0);
            for r in 0..R {
                seen[r] = kv.seen.by(first + r);
                if seen[r].0 < seen[r].1 {
                    (from, to) = (from.min(seen[r].0), to.max(seen[r].1));
                }
            }
            if from >= to {
                return;
            }
            let mut scores = scores::<R, N>(kv, rows.query, first);
            // The largest scores so far less the new ones, at most 0: the exponentials of all rows are taken at once.
            let mut risen = [0.0; LANES];
            let mut base = [0.0; R];
            for r in 0..R {
                (base[r], risen[r]) = raise(&mut scores[r], seen[r], &mut rows.max[first + r]);
            }
            let mut rescale = [0.0; LANES];
            let factors = rescale.as_chunks_mut::<W>().0.iter_mut();
            for (risen, factor) in risen
                .as_chunks::<W>()
                .0
                .iter()
                .zip(factors)
                .take(R.div_ceil(W))
            {
                lanes::store(exp_negative(lanes::load(risen)), factor);
            }
            let mut weights = [[0.0; STEP]; R];
            for r in 0..R {
                let sum = &mut rows.sum[first + r];
                weigh(kv, &scores[r], base[r], rescale[r], sum, &mut weights[r]);
            }

            let width = rows.acc.len() / rows.max.len();
            let acc = &mut rows.acc[first * width..][..R * width];
            add_values::<R, N>(kv, from..to, &weights, &rescale, acc);
        }

        /// `acc` `[R, D']` times the factors, plus the values of some tokens by their weights.
        #[inline]
        #[target_feature(enable = $features)]
        fn add_values<const R: usize, const N: usize>(
            kv: &Step<'_, $element>,
            tokens: std::ops::Range<usize>,
            weights: &[[f32; STEP]; R],
            rescale: &[f32; LANES],
            acc: &mut [f32],
        ) {
            let values = kv.values.as_chunks::<W>().0;
            let acc = acc.as_chunks_mut::<W>().0;
            let width = acc.len() / R;
            for first in (0..width).step_by(N) {
                let mut sums = [[lanes::splat(0.0); N]; R];
                for r in 0..R {
                    let acc = &acc[r * width + first..][..N];
                    let rescale = lanes::splat(rescale[r]);
                    for v in 0..N {
                        sums[r][v] = lanes::mul(lanes::load(&acc[v]), rescale);
                    }
                }
                for t in tokens.clone() {
                    if FETCH {
                        lanes::prefetch(kv.next.1.wrapping_add((t * width + first) * W));
                    }
                    let values = &values[t * width + first..][..N];
                    let mut weight = [lanes::splat(0.0); R];
                    for r in 0..R {
                        weight[r] = lanes::splat(weights[r][t]);
                    }
                    for v in 0..N {
                        let value = lanes::$load(&values[v]);
                        for r in 0..R {
                            sums[r][v] = lanes::fma(weight[r], value, sums[r][v]);
                        }
                    }
                }
                for r in 0..R {
                    let acc = &mut acc[r * width + first..][..N];
                    for v in 0..N {
                        lanes::store(sums[r][v], &mut acc[v]);
                    }
                }
            }
        }

        /// Scores of R rows with all tokens of a step.
        #[inline]
        #[target_feature(enable = $features)]
        fn scores<const R: usize, const N: usize>(
            kv: &Step<'_, $element>,
            queries: &[f32],
            first: usize,
        ) -> [[V; VECTORS]; R] {
            let d = kv.keys.len();
            let mut query = [&[][..]; R];
            for r in 0..R {
                query[r] = &queries[(first + r) * d..][..d];
            }
            let mut scores = [[lanes::splat(0.0); VECTORS]; R];
            for from in (0..VECTORS).step_by(N) {
                let mut sums = [[lanes::splat(0.0); N]; R];
                for i in 0..d {
                    if FETCH {
                        lanes::prefetch(kv.next.0.wrapping_add(i * STEP + from * W));
                    }
                    let keys = &kv.keys[i].as_chunks::<W>().0[from..from + N];
                    let mut q = [lanes::splat(0.0); R];
                    for r in 0..R {
                        q[r] = lanes::splat(query[r][i]);
                    }
                    for v in 0..N {
                        let key = lanes::$load(&keys[v]);
                        for r in 0..R {
                            sums[r][v] = lanes::fma(q[r], key, sums[r][v]);
                        }
                    }
                }
                for v in 0..N {
                    let scale = lanes::load(&kv.scales.keys.as_chunks().0[from + v]);
                    for r in 0..R {
                        scores[r][from + v] = lanes::mul(sums[r][v], scale);
                    }
                }
            }
            scores
        }

        /// Takes a row's scores of unseen tokens out and raises its largest score. Returns what its scores are exponentials against, and by
        /// how much the largest one so far is below that.
        #[inline]
        #[target_feature(enable = $features)]
        fn raise(scores: &mut [V; VECTORS], seen: (usize, usize), max: &mut f32) -> (f32, f32) {
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
            (base, old - base)
        }

        /// The weights of one row's tokens, and their sum.
        #[inline]
        #[target_feature(enable = $features)]
        fn weigh(
            kv: &Step<'_, $element>,
            scores: &[V; VECTORS],
            base: f32,
            rescale: f32,
            sum: &mut [f32; LANES],
            weights: &mut [f32; STEP],
        ) {
            let (base, rescale) = (lanes::splat(base), lanes::splat(rescale));
            // The lanes of the sum are sixteen whatever the width, so that all widths agree.
            let mut total = [lanes::splat(0.0); LANES / W];
            let sum = sum.as_chunks_mut::<W>().0;
            for (total, sum) in total.iter_mut().zip(sum.iter()) {
                *total = lanes::mul(lanes::load(sum), rescale);
            }
            let scales = kv.scales.values.as_chunks::<W>().0;
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
        }
    };
}
pub(crate) use attention_kernels;
