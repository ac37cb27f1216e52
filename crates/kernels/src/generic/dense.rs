//! Dense products: register tiles of a few weight rows by a few tokens, one accumulator vector per output.
//!
//! Lane i of an accumulator sums columns i, i + W, i + 2W, … in order, one fused multiply-add each, the last partial vector padded
//! with zeros; then one fixed tree adds the lanes. Neither depends on the tile, so an output is the same in every tile.

/// Expands to `gemm` for one type of weight.
macro_rules! dense_kernels {
    ($features:literal, $element:ty, $zero:expr, $load:ident) => {
        use super::lanes::{self, TILE, W};
        use $crate::columns::ColumnsMut;
        use $crate::dense::Finish;

        /// Bytes of activations that stay in the second-level cache while the weights pass by.
        const TOKEN_BLOCK_BYTES: usize = 192 * 1024;

        /// Elements of a run that are fetched ahead.
        const AHEAD: usize = 1024 / size_of::<$element>();

        /// Steps that read a line of the cache.
        const LINE: usize = 64 / (W * size_of::<$element>());

        /// `w` `[N, cols]` times `x` `[T, cols]` into `out` `[T, N]`.
        #[target_feature(enable = $features)]
        pub(crate) fn gemm(
            w: &[$element],
            cols: usize,
            x: &[f32],
            out: &mut ColumnsMut<'_>,
            finish: Finish<'_>,
        ) {
            let (tokens, width) = (out.rows(), out.width());
            if tokens == 1 {
                return single(w, cols, x, out.row_mut(0), finish);
            }
            let block = (TOKEN_BLOCK_BYTES / 4 / cols.max(1))
                .next_multiple_of(TILE.1)
                .max(TILE.1);
            for first in (0..tokens).step_by(block) {
                let end = (first + block).min(tokens);
                for n in (0..width).step_by(4) {
                    let rows = 4.min(width - n);
                    let mut t = first;
                    while t < end {
                        let count = (end - t).min(TILE.1);
                        let tile = Tile {
                            w: &w[n * cols..][..rows * cols],
                            x: &x[t * cols..],
                            cols,
                            n,
                            t,
                            fetch: t == first,
                        };
                        t += match (rows, count) {
                            (4, 4) => tile.run::<{ TILE.0 }, { TILE.1 }>(out, finish),
                            (4, 2 | 3) => tile.run::<4, 2>(out, finish),
                            (4, _) => tile.run::<4, 1>(out, finish),
                            (_, 2..) => tile.run::<1, 2>(out, finish),
                            (_, _) => tile.run::<1, 1>(out, finish),
                        };
                    }
                }
            }
        }

        /// The product of one token. Every weight comes from memory once: four runs of rows side by side come faster than one.
        #[target_feature(enable = $features)]
        fn single(w: &[$element], cols: usize, x: &[f32], out: &mut [f32], finish: Finish<'_>) {
            let run = out.len() / 4;
            let row = |n: usize| &w[n * cols..][..cols];
            for n in 0..run {
                let rows = [row(n), row(n + run), row(n + 2 * run), row(n + 3 * run)];
                let [dots] = dots::<4, 1>(rows, x, cols, Some(AHEAD));
                for (i, dot) in dots.into_iter().enumerate() {
                    finish.write(&[dot], n + i * run, out);
                }
            }
            for n in 4 * run..out.len() {
                let [dots] = dots::<1, 1>([row(n)], x, cols, None);
                finish.write(&[dots[0]], n, out);
            }
        }

        struct Tile<'a> {
            /// 1 to 4 rows.
            w: &'a [$element],
            /// From the first token of the tile on.
            x: &'a [f32],
            cols: usize,
            n: usize,
            t: usize,
            /// Whether the next rows are to be fetched.
            fetch: bool,
        }

        impl Tile<'_> {
            /// All rows of the tile, `ROWS` at a time, by `COUNT` tokens. Returns `COUNT`.
            #[inline]
            #[target_feature(enable = $features)]
            fn run<const ROWS: usize, const COUNT: usize>(
                &self,
                out: &mut ColumnsMut<'_>,
                finish: Finish<'_>,
            ) -> usize {
                for (i, w) in self.w.chunks_exact(ROWS * self.cols).enumerate() {
                    let mut rows: [&[$element]; ROWS] = [&[]; ROWS];
                    for r in 0..ROWS {
                        rows[r] = &w[r * self.cols..][..self.cols];
                    }
                    let ahead = self.fetch.then_some(4 * self.cols);
                    let dots = dots::<ROWS, COUNT>(rows, self.x, self.cols, ahead);
                    for (t, dots) in dots.iter().enumerate() {
                        let dots = dots.first_chunk::<ROWS>().expect("at most four rows");
                        finish.write(dots, self.n + i * ROWS, out.row_mut(self.t + t));
                    }
                }
                COUNT
            }
        }

        /// `[COUNT][ROWS]` dot products. What lies `ahead` elements behind each row is brought into the cache.
        #[inline]
        #[target_feature(enable = $features)]
        fn dots<const ROWS: usize, const COUNT: usize>(
            rows: [&[$element]; ROWS],
            x: &[f32],
            cols: usize,
            ahead: Option<usize>,
        ) -> [[f32; 4]; COUNT] {
            let steps = cols / W;
            let mut weights: [&[[$element; W]]; ROWS] = [&[]; ROWS];
            let mut tokens: [&[[f32; W]]; COUNT] = [&[]; COUNT];
            for (r, weights) in weights.iter_mut().enumerate() {
                *weights = &rows[r][..cols].as_chunks::<W>().0[..steps];
            }
            for (t, tokens) in tokens.iter_mut().enumerate() {
                *tokens = &x[t * cols..][..cols].as_chunks::<W>().0[..steps];
            }
            let zero = lanes::splat(0.0);
            let mut acc = [[zero; 4]; COUNT];
            for line in (0..steps).step_by(LINE) {
                if let Some(ahead) = ahead {
                    for weights in weights {
                        let next = weights[line].as_ptr().wrapping_add(ahead);
                        lanes::prefetch(next.cast());
                    }
                }
                for i in line..steps.min(line + LINE) {
                    let mut x = [zero; COUNT];
                    for t in 0..COUNT {
                        x[t] = lanes::load(&tokens[t][i]);
                    }
                    for r in 0..ROWS {
                        let w = lanes::$load(&weights[r][i]);
                        for t in 0..COUNT {
                            acc[t][r] = lanes::fma(w, x[t], acc[t][r]);
                        }
                    }
                }
            }
            let tail = cols - steps * W;
            if tail > 0 {
                for r in 0..ROWS {
                    let mut padded = [$zero; W];
                    padded[..tail].copy_from_slice(&rows[r][steps * W..]);
                    let w = lanes::$load(&padded);
                    for t in 0..COUNT {
                        let mut padded = [0.0; W];
                        padded[..tail].copy_from_slice(&x[t * cols + steps * W..][..tail]);
                        acc[t][r] = lanes::fma(w, lanes::load(&padded), acc[t][r]);
                    }
                }
            }
            let mut dots = [[0.0; 4]; COUNT];
            let (fours, rest) = acc.as_chunks::<4>();
            let (dot_fours, dot_rest) = dots.as_chunks_mut::<4>();
            for (dots, acc) in dot_fours.iter_mut().zip(fours) {
                *dots = lanes::sum4x4(*acc);
            }
            for (dots, acc) in dot_rest.iter_mut().zip(rest) {
                *dots = lanes::sum4(*acc);
            }
            dots
        }
    };
}

/// Expands to `gemm` over all types of weight, each from its module.
macro_rules! dense_dispatch {
    ($features:literal) => {
        use std::ops::Range;
        use $crate::columns::ColumnsMut;
        use $crate::dense::{DenseRef, Finish};

        #[target_feature(enable = $features)]
        pub(crate) fn gemm(
            w: DenseRef<'_>,
            cols: usize,
            rows: Range<usize>,
            x: &[f32],
            out: &mut ColumnsMut<'_>,
            accumulate: Option<f32>,
        ) {
            let range = rows.start * cols..rows.end * cols;
            let finish = Finish {
                scales: None,
                accumulate,
            };
            match w {
                DenseRef::F32(w) => super::dense_f32::gemm(&w[range], cols, x, out, finish),
                DenseRef::F16(w) => super::dense_f16::gemm(&w[range], cols, x, out, finish),
                DenseRef::BF16(w) => super::dense_bf16::gemm(&w[range], cols, x, out, finish),
                DenseRef::I8 { q, scales } => {
                    let finish = Finish {
                        scales: Some(&scales[rows]),
                        accumulate,
                    };
                    super::dense_i8::gemm(&q[range], cols, x, out, finish);
                }
            }
        }
    };
}
pub(crate) use {dense_dispatch, dense_kernels};
