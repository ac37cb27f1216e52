//! GPTQ (arXiv 2210.17323): a row's columns are rounded one after the other, and each later column takes up a share of the error so far,
//! as the Hessian H = X^T X of the layer's inputs says.
//!
//! With H^-1 = U^T U and U upper triangular: e = (w_j - q(w_j)) / U_jj, then w_k -= e U_jk for k > j. U needs one Cholesky factorisation:
//! H = V V^T with V upper triangular (the ordinary factorisation of H turned upside down), U = V^-1.
//! Scales are fixed by the original weights, so columns may be taken in any order; `act_order` takes those with the largest inputs first.
//!
//! Afterwards `descent` fits scales and codes to the same error.

use edgethink_kernels::{ColumnsMut, DenseRef, Isa, gemm_dense};
use edgethink_model::Tensor;
use half::f16;

use crate::descent::descend;
use crate::error::QuantizeError;
use crate::parallel;
use crate::range::{code, inverse};
use crate::rounding::{put_row, row_scales, tensor};
use crate::scheme::{Format, Gptq};

/// Rows that one pass over U works on, so that a row of U is used several times while it is near.
const ROWS: usize = 8;

/// The sum of x x^T over the inputs of a layer.
#[derive(Debug)]
pub struct Hessian {
    n: usize,
    /// `[n, n]`
    sum: Vec<f32>,
}

/// U, with the order in which columns are rounded.
#[derive(Debug)]
pub struct Factor {
    order: Vec<usize>,
    /// `[n, n]`, upper triangular, in that order.
    u: Vec<f32>,
    /// The damped Hessian `[n, n]`, in the order of the file.
    h: Vec<f32>,
    sweeps: usize,
}

impl Hessian {
    /// Of no inputs of size `n`.
    pub fn new(n: usize) -> Self {
        let sum = vec![0.0; n * n];
        Self { n, sum }
    }

    /// Adds the inputs `x` `[T, n]`.
    ///
    /// # Panics
    /// If `x` is no whole number of rows.
    pub fn add(&mut self, x: &[f32], threads: usize) {
        let n = self.n;
        assert!(
            x.len().is_multiple_of(n),
            "{} inputs in rows of {n}",
            x.len()
        );
        let tokens = x.len() / n;
        if tokens == 0 {
            return;
        }
        let mut columns = vec![0.0; x.len()]; // [n, T]
        for (t, row) in x.chunks_exact(n).enumerate() {
            row.iter()
                .enumerate()
                .for_each(|(i, x)| columns[i * tokens + t] = *x);
        }
        let isa = Isa::detect();
        let columns = columns.as_slice();
        let rows = n.div_ceil(threads.max(1));
        std::thread::scope(|scope| {
            for (part, out) in self.sum.chunks_mut(rows * n).enumerate() {
                scope.spawn(move || {
                    let x = &columns[part * rows * tokens..][..out.len() / n * tokens];
                    let mut out = ColumnsMut::new(out, n);
                    gemm_dense(
                        isa,
                        DenseRef::F32(columns),
                        tokens,
                        0..n,
                        x,
                        &mut out,
                        Some(1.0),
                    );
                });
            }
        });
    }

    /// U of this Hessian with `damping` times the mean of its diagonal added to it.
    ///
    /// # Errors
    /// [`QuantizeError::Singular`] naming the tensor, if that is not positive definite in f64.
    pub fn factor(&self, name: &str, gptq: &Gptq) -> Result<Factor, QuantizeError> {
        let n = self.n;
        let diagonal: Vec<f64> = (0..n).map(|i| f64::from(self.sum[i * n + i])).collect();
        let mean = diagonal.iter().sum::<f64>() / n as f64;
        // Inputs that are always zero: any damping will do.
        let damping = if mean > 0.0 { gptq.damping * mean } else { 1.0 };
        let mut order: Vec<usize> = (0..n).collect();
        if gptq.act_order {
            order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        }
        // Upside down: row i of `l` is column order[n - 1 - i].
        let mut l = vec![0.0f64; n * n];
        for i in 0..n {
            for j in 0..=i {
                let (a, b) = (order[n - 1 - i], order[n - 1 - j]);
                l[i * n + j] = f64::from(self.sum[a * n + b]) + if i == j { damping } else { 0.0 };
            }
        }
        let positive = cholesky(&mut l, n) && {
            invert_lower(&mut l, n);
            l.iter().all(|x| x.is_finite())
        };
        if !positive {
            let (name, damping) = (name.to_owned(), gptq.damping);
            return Err(QuantizeError::Singular { name, damping });
        }
        l.reverse(); // U_jk = M_(n-1-j)(n-1-k)
        let u = l.into_iter().map(|x| x as f32).collect();
        let mut h = self.sum.clone();
        (0..n).for_each(|i| h[i * n + i] += damping as f32);
        let sweeps = gptq.sweeps;
        Ok(Factor {
            order,
            u,
            h,
            sweeps,
        })
    }
}

/// H -> L with H = L L^T, in place on the lower triangle. False if H is not positive definite.
fn cholesky(h: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        let (before, row) = h.split_at_mut(i * n);
        for j in 0..=i {
            let other = if j < i { &before[j * n..][..j] } else { &[] };
            let dot: f64 = if j < i {
                row[..j].iter().zip(other).map(|(a, b)| a * b).sum()
            } else {
                row[..i].iter().map(|a| a * a).sum()
            };
            let value = row[j] - dot;
            if j < i {
                row[j] = value / before[j * n + j];
            } else if value > 0.0 {
                row[i] = value.sqrt();
            } else {
                return false;
            }
        }
    }
    true
}

/// L -> L^-1, in place on the lower triangle: row i is (e_i - sum over k < i of L_ik M_k) / L_ii.
fn invert_lower(l: &mut [f64], n: usize) {
    let mut row = vec![0.0; n];
    for i in 0..n {
        let (before, rest) = l.split_at_mut(i * n);
        row[..i].fill(0.0);
        for (k, m) in before.chunks_exact(n).enumerate() {
            let factor = rest[k];
            row[..=k]
                .iter_mut()
                .zip(m)
                .for_each(|(r, m)| *r -= factor * m);
        }
        let inv = 1.0 / rest[i];
        rest[..i]
            .iter_mut()
            .zip(&row)
            .for_each(|(l, r)| *l = r * inv);
        rest[i] = inv;
    }
}

/// Rounds the matrix `weights` `[rows, cols]` by a Hessian's factor.
///
/// # Errors
/// As [`crate::nearest`].
pub fn gptq(
    name: &str,
    weights: &[f32],
    cols: usize,
    format: &Format,
    factor: &Factor,
    threads: usize,
) -> Result<Tensor, QuantizeError> {
    let group = format.group_len(name, cols)?;
    let rows = weights.len() / cols;
    let parts = parallel::ranges(threads, rows.div_ceil(ROWS), |blocks| {
        let mut bytes = Vec::new();
        for first in blocks.map(|block| block * ROWS) {
            let rows = first..(first + ROWS).min(rows);
            let weights = &weights[first * cols..rows.end * cols];
            let mut scales = rows
                .zip(weights.chunks_exact(cols))
                .map(|(row, weights)| row_scales(name, row, weights, group, format))
                .collect::<Result<Vec<_>, _>>()?;
            let mut codes = round_rows(weights, cols, group, format, &scales, factor);
            let rows = weights.chunks_exact(cols).zip(codes.chunks_exact_mut(cols));
            for ((weights, codes), scales) in rows.zip(&mut scales) {
                descend(&factor.h, weights, codes, scales, format, factor.sweeps);
                put_row(&mut bytes, codes, scales, group, format);
            }
        }
        Ok(bytes)
    });
    tensor(parts, vec![rows, cols], format)
}

/// Codes of a few rows.
fn round_rows(
    weights: &[f32],
    cols: usize,
    group: usize,
    format: &Format,
    scales: &[Vec<f16>],
    factor: &Factor,
) -> Vec<f32> {
    let (lo, hi) = format.levels();
    // Columns in the order of rounding.
    let mut left: Vec<f32> = weights
        .chunks_exact(cols)
        .flat_map(|row| factor.order.iter().map(|&c| row[c]))
        .collect();
    let mut codes = vec![0.0; weights.len()];
    for (j, &column) in factor.order.iter().enumerate() {
        let u = &factor.u[j * cols + j..(j + 1) * cols];
        for (row, scales) in scales.iter().enumerate() {
            let left = &mut left[row * cols + j..(row + 1) * cols];
            let s = scales[column / group].to_f32();
            let q = code(left[0] * inverse(s), lo, hi);
            codes[row * cols + column] = q;
            let error = (left[0] - s * q) / u[0];
            left.iter_mut().zip(u).for_each(|(w, u)| *w -= error * u);
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounding::nearest;
    use crate::scheme::{Group, Range, Rounding};

    const FORMAT: Format = Format {
        bits: 4,
        group: Group::Of(32),
        range: Range::MinMax,
        rounding: Rounding::Gptq,
    };

    /// Deterministic numbers in -0.5..0.5.
    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
        (0..n)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }

    /// Inputs with strong correlations: few directions, some columns large.
    fn inputs(tokens: usize, n: usize) -> Vec<f32> {
        let directions = noise(6 * n, 9);
        let mut x = noise(tokens * n, 1);
        for (t, row) in x.chunks_exact_mut(n).enumerate() {
            let mix = noise(6, 100 + t as u32);
            for (i, x) in row.iter_mut().enumerate() {
                let common: f32 = (0..6).map(|k| mix[k] * directions[k * n + i]).sum();
                *x = (0.1 * *x + 4.0 * common) * if i % 17 == 3 { 5.0 } else { 1.0 };
            }
        }
        x
    }

    fn hessian(x: &[f32], n: usize) -> Hessian {
        let mut h = Hessian::new(n);
        h.add(&x[..x.len() / 2 / n * n], 2);
        h.add(&x[x.len() / 2 / n * n..], 1);
        h
    }

    /// |X (W - Q)^T|^2
    fn output_error(x: &[f32], w: &[f32], q: &Tensor, n: usize) -> f64 {
        let q = q.to_f32();
        let mut total = 0.0;
        for x in x.chunks_exact(n) {
            for (w, q) in w.chunks_exact(n).zip(q.chunks_exact(n)) {
                let d: f64 = x
                    .iter()
                    .zip(w.iter().zip(q))
                    .map(|(x, (w, q))| f64::from(*x) * f64::from(w - q))
                    .sum();
                total += d * d;
            }
        }
        total
    }

    #[test]
    fn the_hessian_is_the_sum_of_outer_products() {
        let (n, t) = (33, 20);
        let x = noise(n * t, 4);
        let h = hessian(&x, n);
        for i in 0..n {
            for j in 0..n {
                let want: f32 = x.chunks_exact(n).map(|row| row[i] * row[j]).sum();
                assert!((h.sum[i * n + j] - want).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn the_factor_gives_the_inverse() {
        let n = 40;
        let x = inputs(100, n);
        let h = hessian(&x, n);
        for act_order in [false, true] {
            let gptq = Gptq {
                damping: 0.01,
                sweeps: 0,
                act_order,
            };
            let f = h.factor("w", &gptq).unwrap();
            let mean: f32 = (0..n).map(|i| h.sum[i * n + i]).sum::<f32>() / n as f32;
            // (U^T U) H = 1, in the order of the factor.
            for i in 0..n {
                for j in 0..n {
                    let mut sum = 0.0f64;
                    for k in 0..n {
                        let inverse: f64 = (0..n)
                            .map(|m| f64::from(f.u[m * n + i]) * f64::from(f.u[m * n + k]))
                            .sum();
                        let damp = if k == j { 0.01 * mean } else { 0.0 };
                        sum += inverse * f64::from(h.sum[f.order[k] * n + f.order[j]] + damp);
                    }
                    let want = f64::from(u8::from(i == j));
                    assert!((sum - want).abs() < 2e-3, "{i}, {j}: {sum}");
                    assert!(j >= i || f.u[i * n + j] == 0.0, "upper triangular");
                }
            }
        }
    }

    #[test]
    fn the_outputs_come_closer_than_by_the_nearest_codes() {
        let n = 96;
        let x = inputs(200, n);
        let w = noise(24 * n, 7);
        let plain = nearest("w", &w, n, &FORMAT, 1).unwrap();
        let worse = output_error(&x, &w, &plain, n);
        for act_order in [false, true] {
            let f = hessian(&x, n)
                .factor(
                    "w",
                    &Gptq {
                        damping: 0.01,
                        sweeps: 0,
                        act_order,
                    },
                )
                .unwrap();
            let better = gptq("w", &w, n, &FORMAT, &f, 2).unwrap();
            assert_eq!(
                better.bytes(),
                gptq("w", &w, n, &FORMAT, &f, 1).unwrap().bytes()
            );
            let better = output_error(&x, &w, &better, n);
            assert!(
                better < 0.5 * worse,
                "act_order {act_order}: {better} against {worse}"
            );
        }
    }

    #[test]
    fn without_correlation_it_is_rounding_to_nearest() {
        let n = 32;
        let mut h = Hessian::new(n);
        h.add(
            &(0..n * n)
                .map(|i| if i % (n + 1) == 0 { 2.0 } else { 0.0 })
                .collect::<Vec<_>>(),
            1,
        );
        let f = h
            .factor(
                "w",
                &Gptq {
                    damping: 0.01,
                    sweeps: 0,
                    act_order: false,
                },
            )
            .unwrap();
        let w = noise(4 * n, 3);
        let plain = nearest("w", &w, n, &FORMAT, 1).unwrap();
        assert_eq!(
            gptq("w", &w, n, &FORMAT, &f, 1).unwrap().bytes(),
            plain.bytes()
        );
    }

    #[test]
    fn a_hessian_that_is_not_positive_is_refused() {
        let mut h = Hessian::new(2);
        h.sum = vec![1.0, 3.0, 3.0, 1.0];
        let error = h.factor(
            "the.weight",
            &Gptq {
                damping: 0.01,
                sweeps: 0,
                act_order: false,
            },
        );
        assert!(error.unwrap_err().to_string().contains("the.weight"));
        assert!(
            Hessian::new(2)
                .factor(
                    "w",
                    &Gptq {
                        damping: 0.01,
                        sweeps: 0,
                        act_order: false
                    }
                )
                .is_ok()
        );
    }
}
