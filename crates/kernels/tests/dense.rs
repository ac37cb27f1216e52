//! The dense GEMM on every instruction set, against f64.

mod support;

use edgethink_kernels::{ColumnsMut, DenseRef, Isa, dense_row, gemm_dense, split_columns};
use half::{bf16, f16};
use support::{Hard, Random, assert_near, assert_same, isas};

/// Weights of every type with the same values up to the type's rounding.
struct Weights {
    f32: Vec<f32>,
    f16: Vec<u16>,
    bf16: Vec<u16>,
    i8: Vec<i8>,
    scales: Vec<f32>,
}

impl Weights {
    fn random(random: &mut Random, rows: usize, cols: usize) -> Self {
        let f32 = Hard::Outliers.values(random, rows * cols);
        Self {
            f16: f32.iter().map(|&w| f16::from_f32(w).to_bits()).collect(),
            bf16: f32.iter().map(|&w| bf16::from_f32(w).to_bits()).collect(),
            i8: f32.iter().map(|&w| (w * 30.0) as i8).collect(),
            scales: (0..rows).map(|_| random.unit()).collect(),
            f32,
        }
    }

    fn all(&self) -> [DenseRef<'_>; 4] {
        [
            DenseRef::F32(&self.f32),
            DenseRef::F16(&self.f16),
            DenseRef::BF16(&self.bf16),
            DenseRef::I8 {
                q: &self.i8,
                scales: &self.scales,
            },
        ]
    }
}

fn name(w: DenseRef<'_>) -> &'static str {
    match w {
        DenseRef::F32(_) => "f32",
        DenseRef::F16(_) => "f16",
        DenseRef::BF16(_) => "bf16",
        DenseRef::I8 { .. } => "i8",
    }
}

fn multiply(isa: Isa, w: DenseRef<'_>, rows: usize, cols: usize, x: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / cols * rows];
    gemm_dense(
        isa,
        w,
        cols,
        0..rows,
        x,
        &mut ColumnsMut::new(&mut out, rows),
        None,
    );
    out
}

#[test]
fn gemm_is_near_f64() {
    let mut random = Random(11);
    for isa in isas() {
        for (rows, cols) in [
            (1, 1),
            (3, 4),
            (4, 7),
            (5, 8),
            (6, 15),
            (7, 16),
            (8, 17),
            (9, 31),
            (13, 128),
            (4, 1000),
        ] {
            let weights = Weights::random(&mut random, rows, cols);
            for w in weights.all() {
                for (t, hard) in [0, 1, 2, 3, 4, 9].into_iter().zip(Hard::ALL) {
                    let x = hard.values(&mut random, t * cols);
                    let what = format!("{isa} {} {rows} x {cols}, T = {t}, {hard:?}", name(w));
                    let got = multiply(isa, w, rows, cols, &x);
                    let (mut want, mut scale) = (vec![], vec![]);
                    let mut row = vec![0.0; cols];
                    for x in x.chunks_exact(cols) {
                        for n in 0..rows {
                            dense_row(w, cols, n, &mut row);
                            let terms = row
                                .iter()
                                .zip(x)
                                .map(|(&w, &x)| f64::from(w) * f64::from(x));
                            want.push(terms.clone().sum());
                            scale.push(terms.map(f64::abs).sum());
                        }
                    }
                    // At most 1000 / 4 additions per lane, each 2^-24 of the sum of magnitudes, rarely all in one direction.
                    assert_near(&got, &want, &scale, 2e-6, &what);

                    let start: Vec<f32> = random.normals(got.len());
                    let mut sum = start.clone();
                    gemm_dense(
                        isa,
                        w,
                        cols,
                        0..rows,
                        &x,
                        &mut ColumnsMut::new(&mut sum, rows),
                        Some(-1.5),
                    );
                    let want: Vec<f32> =
                        start.iter().zip(&got).map(|(s, g)| s + -1.5 * g).collect();
                    assert_same(&sum, &want, &what);
                }
            }
        }
    }
}

#[test]
fn rows_do_not_depend_on_the_batch_or_the_split() {
    let mut random = Random(12);
    let (rows, cols) = (23, 130);
    let weights = Weights::random(&mut random, rows, cols);
    // More tokens than fit the block of the second-level cache at this width would be slow; 400 are several blocks at 1,000 columns.
    for isa in isas() {
        for w in weights.all() {
            let x = random.normals(41 * cols);
            let whole = multiply(isa, w, rows, cols, &x);
            for size in [1, 2, 3, 5, 8] {
                let parts: Vec<f32> = x
                    .chunks(size * cols)
                    .flat_map(|x| multiply(isa, w, rows, cols, x))
                    .collect();
                assert_same(
                    &parts,
                    &whole,
                    &format!("{isa} {} in parts of {size}", name(w)),
                );
            }
            let mut out = vec![f32::NAN; whole.len()];
            let ranges = [0..1, 1..7, 7..23];
            for mut part in split_columns(&mut out, rows, &ranges) {
                let rows = part.columns();
                gemm_dense(isa, w, cols, rows, &x, &mut part, None);
            }
            assert_same(&out, &whole, &format!("{isa} {} split by rows", name(w)));
        }
    }
}

#[test]
fn token_blocks_do_not_change_rows() {
    let mut random = Random(13);
    let (rows, cols) = (5, 3000);
    let weights = Weights::random(&mut random, rows, cols);
    for isa in isas() {
        let x = random.normals(50 * cols);
        let whole = multiply(isa, DenseRef::BF16(&weights.bf16), rows, cols, &x);
        let last = multiply(
            isa,
            DenseRef::BF16(&weights.bf16),
            rows,
            cols,
            &x[49 * cols..],
        );
        assert_same(&last, &whole[49 * rows..], &isa.to_string());
    }
}

#[test]
fn nan_passes_through() {
    for isa in isas() {
        let mut x = vec![1.0; 35];
        x[34] = f32::NAN;
        let out = multiply(isa, DenseRef::F32(&[1.0; 35]), 1, 35, &x);
        assert!(out[0].is_nan(), "{isa}");
    }
}
