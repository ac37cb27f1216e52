//! One step of attention: the lanes are tokens for the scores, then dims for the values.

/// Expands to the kernels of `attention.rs` for one type of keys and values, which `$elements` loads and multiplies. At most `$most` query
/// rows, 8 or less, share what is loaded; `$sums` are in registers together.
macro_rules! attention_kernels {
    ($features:literal, $sums:literal, $most:literal, $elements:path) => {
        use super::elementwise::exp_negative;
        use super::lanes::{self, V, W};
        use elements::{Element, UNIT, WORDS};
        use $crate::attention::{LANES, MOST, Rows, STEP, Step};
        use $elements as elements;

        /// Vectors of a step's tokens, and of as many dims.
        const VECTORS: usize = STEP / W;
        /// Whether keys and values are codes, which have scales, and lie as in the cache, from where the next ones are fetched.
        const CODES: bool = size_of::<Element>() == 1;
        /// Bytes of a line of the processor's cache.
        const LINE: usize = 64;
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
        /// How often all units of keys, and of values, are passed by some rows.
        const PASSES: [usize; $most + 2] = {
            let mut passes = [0; $most + 2];
            let mut rows = 1;
            while rows <= $most {
                passes[rows] = VECTORS / together(rows);
                rows += 1;
            }
            passes
        };

        /// Lets every row see up to 32 tokens.
        #[target_feature(enable = $features)]
        pub(crate) fn step(kv: &Step<'_, Element>, rows: &mut Rows<'_>) {
            let whole = scales(kv, (0, STEP));
            if CODES && !kv.next.keys.is_null() {
                for scales in kv.next.scales {
                    for at in (0..size_of::<[f32; STEP]>()).step_by(LINE) {
                        lanes::prefetch(scales.wrapping_add(at));
                    }
                }
            }
            let mut first = kv.seen.rows.start;
            // Rows in parts of about the same size: a lone row leaves the machine waiting for its sums.
            let parts = kv.seen.rows.len().div_ceil($most);
            let (least, more) = (kv.seen.rows.len() / parts, kv.seen.rows.len() % parts);
            let passes = more * PASSES[least + 1] + (parts - more) * PASSES[least];
            let mut fetch = Fetch::new(kv, passes);
            for turn in 0..parts {
                let part = least + usize::from(turn < more);
                macro_rules! part {
                    ($rows:literal) => {
                        rows_at::<$rows, { together($rows) }>(kv, &whole, &mut fetch, rows, first)
                    };
                }
                match part {
                    1 if 1 <= $most => part!(1),
                    2 if 2 <= $most => part!(2),
                    3 if 3 <= $most => part!(3),
                    4 if 4 <= $most => part!(4),
                    5 if 5 <= $most => part!(5),
                    6 if 6 <= $most => part!(6),
                    7 if 7 <= $most => part!(7),
                    8 if 8 <= $most => part!(8),
                    _ => unreachable!("{part} rows, at most {}", $most),
                }
                first += part;
            }
        }

        /// Fetches the next step's keys and values while units are multiplied, a line of each at a time and in order. A core waits for few
        /// lines at once, and would stand if all were fetched at the beginning.
        struct Fetch {
            keys: *const u8,
            values: *const u8,
            /// The next line begins here, and the last one ends there.
            at: usize,
            end: usize,
            /// A power of two less one: units from line to line of a pass.
            mask: usize,
        }

        impl Fetch {
            /// All lines in `passes` over keys and as many over values.
            #[inline]
            fn new(kv: &Step<'_, Element>, passes: usize) -> Self {
                // A pass has as many units of keys as of values, each of two lines for every two rows.
                let every = (passes * 4 / UNIT).max(1);
                Self {
                    keys: kv.next.keys,
                    values: kv.next.values,
                    at: 0,
                    end: if kv.next.keys.is_null() {
                        0
                    } else {
                        size_of_val(kv.keys)
                    },
                    mask: (1 << every.ilog2()) - 1,
                }
            }

            /// To be called for each unit of a pass.
            #[inline]
            #[target_feature(enable = $features)]
            fn unit(&mut self, unit: usize) {
                if CODES && unit & self.mask == 0 && self.at < self.end {
                    lanes::prefetch(self.keys.wrapping_add(self.at));
                    lanes::prefetch(self.values.wrapping_add(self.at));
                    self.at += LINE;
                }
            }
        }

        /// What the weights of a step's tokens are multiplied with, and then their sums of values.
        #[derive(Clone, Copy)]
        struct Scales {
            weights: [V; VECTORS],
            values: f32,
        }

        /// The scales of the values relative to the largest of those that are seen, and that.
        #[inline]
        #[target_feature(enable = $features)]
        fn scales(kv: &Step<'_, Element>, seen: (usize, usize)) -> Scales {
            let zero = lanes::splat(0.0);
            let mut scales = Scales {
                weights: [zero; VECTORS],
                values: 1.0,
            };
            if !CODES {
                return scales;
            }
            let mut most = zero;
            for v in 0..VECTORS {
                let scale = lanes::load(&kv.scales.values.as_chunks().0[v]);
                scales.weights[v] = lanes::max(only_seen(scale, v, seen), zero);
                most = lanes::max(scales.weights[v], most);
            }
            let largest = lanes::largest_lane(most);
            scales.values = largest / MOST;
            if largest > 0.0 {
                for v in 0..VECTORS {
                    let share = lanes::div(scales.weights[v], lanes::splat(largest));
                    scales.weights[v] = lanes::mul(share, lanes::splat(MOST));
                }
            }
            scales
        }

        /// Vector `v` of a step's tokens, −∞ where a token is not seen.
        #[inline]
        #[target_feature(enable = $features)]
        fn only_seen(x: V, v: usize, seen: (usize, usize)) -> V {
            if seen == (0, STEP) {
                return x;
            }
            let (from, to) = (lanes::splat(seen.0 as f32), lanes::splat(seen.1 as f32));
            lanes::only_between(x, lanes::load(&TOKENS.as_chunks().0[v]), from, to)
        }

        /// R rows from `first` on, the sums of N vectors at a time.
        #[target_feature(enable = $features)]
        fn rows_at<const R: usize, const N: usize>(
            kv: &Step<'_, Element>,
            whole: &Scales,
            fetch: &mut Fetch,
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
            let mut scores = scores::<R, N>(kv, fetch, rows, first);
            // Of each row what the largest score so far is below the new one, and then what the step's largest is below it, both at most 0:
            // all these exponentials are taken at once.
            const { assert!(2 * $most <= LANES, "there is a lane for each") };
            let mut below = [0.0; LANES];
            let mut base = [0.0; R];
            for r in 0..R {
                let max = &mut rows.max[first + r];
                let (old, largest) = (*max, largest(&mut scores[r], seen[r]));
                *max = old.max(largest);
                // A row that has seen nothing yet has max −∞; differences to that must be −∞, not NaN.
                let new = max.max(f32::MIN);
                (below[r], below[LANES / 2 + r]) = (old - new, largest - new);
                base[r] = largest.max(f32::MIN);
            }
            let mut factors = [0.0; LANES];
            let chunks = factors.as_chunks_mut::<W>().0.iter_mut();
            for (factor, below) in chunks.zip(below.as_chunks::<W>().0) {
                lanes::store(exp_negative(lanes::load(below)), factor);
            }
            let (rescale, share) = factors.split_at(LANES / 2);

            let mut weights = [[0.0; STEP]; R];
            let mut value = [0.0; R];
            for r in 0..R {
                let own;
                let scales = if !CODES || seen[r] == (0, STEP) {
                    whole
                } else {
                    own = scales(kv, seen[r]);
                    &own
                };
                value[r] = share[r] * scales.values;
                let sum = &mut rows.sum[first + r];
                weigh(
                    &scores[r],
                    base[r],
                    scales,
                    rescale[r],
                    share[r],
                    sum,
                    &mut weights[r],
                );
            }

            let width = rows.acc.len() / rows.max.len();
            let acc = &mut rows.acc[first * width..][..R * width];
            add_values::<R, N>(kv, fetch, from..to, &weights, rescale, &value, acc);
        }

        /// `acc` `[R, D']` times `rescale`, plus the values of some tokens by their weights, times `value`.
        #[inline]
        #[target_feature(enable = $features)]
        fn add_values<const R: usize, const N: usize>(
            kv: &Step<'_, Element>,
            fetch: &mut Fetch,
            tokens: std::ops::Range<usize>,
            weights: &[[f32; STEP]; R],
            rescale: &[f32],
            value: &[f32; R],
            acc: &mut [f32],
        ) {
            let acc = acc.as_chunks_mut::<W>().0;
            let width = acc.len() / R;
            let run = UNIT * width * W;
            for first in (0..width).step_by(N) {
                let mut sums = [[elements::zero(); N]; R];
                let units = kv.values.chunks_exact(run).enumerate();
                for (unit, values) in units
                    .take(tokens.end.div_ceil(UNIT))
                    .skip(tokens.start / UNIT)
                {
                    fetch.unit(unit);
                    let values = elements::part::<N>(values, width * W, first);
                    multiply_add::<R, N>(&mut sums, values, |r| {
                        &weights[r].as_chunks::<WORDS>().0[unit]
                    });
                }
                for r in 0..R {
                    let acc = &mut acc[r * width + first..][..N];
                    let (rescale, value) = (lanes::splat(rescale[r]), lanes::splat(value[r]));
                    for v in 0..N {
                        let old = lanes::mul(lanes::load(&acc[v]), rescale);
                        let sum = lanes::fma(elements::value(sums[r][v]), value, old);
                        lanes::store(sum, &mut acc[v]);
                    }
                }
            }
        }

        /// Scores of R rows with all tokens of a step.
        #[inline]
        #[target_feature(enable = $features)]
        fn scores<const R: usize, const N: usize>(
            kv: &Step<'_, Element>,
            fetch: &mut Fetch,
            rows: &Rows<'_>,
            first: usize,
        ) -> [[V; VECTORS]; R] {
            const RUN: usize = UNIT * STEP;
            let keys = kv.keys.as_chunks::<RUN>().0;
            let mut query = [&[][..]; R];
            for r in 0..R {
                query[r] = &elements::query(rows, first + r).as_chunks::<WORDS>().0[..keys.len()];
            }
            let mut scores = [[lanes::splat(0.0); VECTORS]; R];
            for from in (0..VECTORS).step_by(N) {
                let mut sums = [[elements::zero(); N]; R];
                for unit in 0..keys.len() {
                    fetch.unit(unit);
                    let keys = elements::part::<N>(&keys[unit], STEP, from);
                    multiply_add::<R, N>(&mut sums, keys, |r| &query[r][unit]);
                }
                for v in 0..N {
                    for r in 0..R {
                        scores[r][from + v] = elements::value(sums[r][v]);
                    }
                    if CODES {
                        let scale = lanes::load(&kv.scales.keys.as_chunks().0[from + v]);
                        for r in 0..R {
                            let score = lanes::mul(scores[r][from + v], scale);
                            let scale = lanes::splat(rows.scale[first + r]);
                            scores[r][from + v] = lanes::mul(score, scale);
                        }
                    }
                }
            }
            scores
        }

        /// Sums of R rows += N vectors of a unit of keys or values times those of the rows.
        #[inline]
        #[target_feature(enable = $features)]
        fn multiply_add<'a, const R: usize, const N: usize>(
            sums: &mut [[elements::Sum; N]; R],
            part: elements::Part<'_, N>,
            by: impl Fn(usize) -> &'a [f32; WORDS],
        ) {
            let mut factors = [elements::splat(&[0.0; WORDS]); R];
            for r in 0..R {
                factors[r] = elements::splat(by(r));
            }
            for v in 0..N {
                let codes = elements::load(part, v);
                for r in 0..R {
                    sums[r][v] = elements::multiply_add(sums[r][v], codes, factors[r]);
                }
            }
        }

        /// Takes a row's scores of unseen tokens out. Returns the largest; a NaN may be lost here, as the weights have it too.
        #[inline]
        #[target_feature(enable = $features)]
        fn largest(scores: &mut [V; VECTORS], seen: (usize, usize)) -> f32 {
            for v in 0..VECTORS {
                scores[v] = only_seen(scores[v], v, seen);
            }
            let mut most = scores[0];
            for v in 1..VECTORS {
                most = lanes::max(scores[v], most);
            }
            lanes::largest_lane(most)
        }

        /// The weights of one row's tokens, relative to the step's largest, and their sum, of which `share` is added.
        #[inline]
        #[target_feature(enable = $features)]
        fn weigh(
            scores: &[V; VECTORS],
            base: f32,
            scales: &Scales,
            rescale: f32,
            share: f32,
            sum: &mut [f32; LANES],
            weights: &mut [f32; STEP],
        ) {
            let base = lanes::splat(base);
            let mut weight = [lanes::splat(0.0); VECTORS];
            // The lanes of the sum are sixteen whatever the width, so that all widths agree.
            let mut total = [lanes::splat(0.0); LANES / W];
            for first in (0..VECTORS).step_by(LANES / W) {
                for (lane, total) in total.iter_mut().enumerate() {
                    let v = first + lane;
                    weight[v] = exp_negative(lanes::sub(scores[v], base));
                    *total = lanes::add(*total, weight[v]);
                    if CODES {
                        weight[v] = lanes::mul(weight[v], scales.weights[v]);
                    }
                }
            }
            elements::store(weight, weights);
            let sum = sum.as_chunks_mut::<W>().0;
            for (total, sum) in total.into_iter().zip(sum) {
                let old = lanes::mul(lanes::load(sum), lanes::splat(rescale));
                lanes::store(lanes::fma(total, lanes::splat(share), old), sum);
            }
        }
    };
}
pub(crate) use attention_kernels;
