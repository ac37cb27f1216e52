//! Norm, rotation, gated activation and sums on every instruction set, against f64.

mod support;

use edgethink_kernels::{
    KernelError, add_assign, add_row, largest, log_sum_exp, rms_norm, rope, swiglu,
};
use support::{Hard, Random, assert_near, assert_same, isas};

const LENGTHS: [usize; 12] = [1, 3, 4, 7, 8, 9, 15, 16, 17, 64, 100, 896];

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

#[test]
fn rms_norm_is_near_f64() {
    let mut random = Random(21);
    for isa in isas() {
        for hard in Hard::ALL {
            for e in LENGTHS {
                let x = hard.values(&mut random, 3 * e);
                let weight = random.normals(e);
                let mut out = vec![f32::NAN; x.len()];
                rms_norm(isa, &x, &weight, 1e-6, &mut out).expect("finite");
                let mut want = vec![];
                for x in wide(&x).chunks_exact(e) {
                    let mean = x.iter().map(|x| x * x).sum::<f64>() / e as f64;
                    want.extend(
                        x.iter()
                            .zip(&weight)
                            .map(|(x, &w)| x / (mean + 1e-6).sqrt() * f64::from(w)),
                    );
                }
                let scale: Vec<f64> = want.iter().map(|w: &f64| w.abs()).collect();
                assert_near(&out, &want, &scale, 2e-6, &format!("{isa} {hard:?} {e}"));
            }
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = vec![1.0; 70];
            x[40] = bad;
            let error = rms_norm(isa, &x, &[1.0; 35], 1e-6, &mut [0.0; 70]);
            assert_eq!(
                error,
                Err(KernelError::NonFinite {
                    what: "input of the norm",
                    row: 1
                }),
                "{isa}"
            );
        }
    }
}

#[test]
fn rope_rotates_pairs() {
    let mut random = Random(22);
    for isa in isas() {
        for half in [1, 4, 5, 8, 16, 17, 32, 64] {
            let angles: Vec<f32> = (0..half).map(|_| random.unit() * 3.0).collect();
            let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
            let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
            let x = random.normals(3 * 2 * half);
            let mut out = x.clone();
            rope(isa, &mut out, &cos, &sin);
            let (mut want, mut scale) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            for head in 0..3 {
                for i in 0..half {
                    let (a, b) = (head * 2 * half + i, head * 2 * half + half + i);
                    let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
                    let (xa, xb) = (f64::from(x[a]), f64::from(x[b]));
                    (want[a], want[b]) = (xa * c - xb * s, xb * c + xa * s);
                    (scale[a], scale[b]) = (xa.abs() + xb.abs(), xa.abs() + xb.abs());
                }
            }
            assert_near(&out, &want, &scale, 2e-7, &format!("{isa} {half}"));
        }
    }
}

#[test]
fn swiglu_is_near_f64_and_never_overflows() {
    let mut random = Random(23);
    for isa in isas() {
        for hard in Hard::ALL {
            for n in [0].into_iter().chain(LENGTHS) {
                let gate: Vec<f32> = hard
                    .values(&mut random, n)
                    .iter()
                    .map(|g| g * 8.0)
                    .collect();
                let up = random.normals(n);
                let mut out = gate.clone();
                swiglu(isa, &mut out, &up);
                let silu = |g: f64| g / (1.0 + (-g).exp());
                let want: Vec<f64> = wide(&gate)
                    .iter()
                    .zip(wide(&up))
                    .map(|(&g, u)| silu(g) * u)
                    .collect();
                // Below −87 the kernels may give 0.
                let scale: Vec<f64> = want.iter().map(|w| w.abs() + 1e-30).collect();
                assert_near(&out, &want, &scale, 5e-7, &format!("{isa} {hard:?} {n}"));
            }
        }
        let mut out = [f32::NAN; 20];
        swiglu(isa, &mut out, &[1.0; 20]);
        assert!(out.iter().all(|o| o.is_nan()), "{isa}");
    }
}

#[test]
fn the_exponential_is_within_its_bound() {
    // silu(g) / g for g < 0 is e^g / (1 + e^g): below −17 the denominator is 1 in f32, so this is e^g itself.
    for isa in isas() {
        let gate: Vec<f32> = (0..40_000).map(|i| -17.0 - i as f32 * 0.00174).collect();
        let mut out = gate.clone();
        swiglu(isa, &mut out, &vec![1.0; gate.len()]);
        for (&g, &o) in gate.iter().zip(&out) {
            let want = f64::from(g) * f64::from(g).exp();
            assert!(
                (f64::from(o) - want).abs() <= 4e-7 * want.abs(),
                "{isa}: {o:e} at {g}, should be {want:e}"
            );
        }
    }
}

#[test]
fn sums_are_exact() {
    let mut random = Random(24);
    for isa in isas() {
        for n in [0].into_iter().chain(LENGTHS) {
            let (a, b) = (random.normals(n), random.normals(n));
            let mut sum = a.clone();
            add_assign(isa, &mut sum, &b);
            let want: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            assert_same(&sum, &want, &format!("{isa} {n}"));
        }
        let mut matrix = vec![1.0; 51];
        add_row(isa, &mut matrix, &[2.0; 17]);
        assert_same(&matrix, &[3.0; 51], "rows");
    }
}

#[test]
fn log_sum_exp_is_near_f64() {
    let mut random = Random(25);
    for isa in isas() {
        for hard in Hard::ALL {
            for n in LENGTHS.into_iter().chain([5000]) {
                let x = hard.values(&mut random, n);
                let got = log_sum_exp(isa, &x, largest(isa, &x)).expect("finite");
                let max = wide(&x).into_iter().fold(f64::NEG_INFINITY, f64::max);
                let want = max + wide(&x).iter().map(|x| (x - max).exp()).sum::<f64>().ln();
                assert_near(
                    &[got],
                    &[want],
                    &[want.abs() + 1.0],
                    1e-6,
                    &format!("{isa} {hard:?} {n}"),
                );
            }
        }
        assert!(
            log_sum_exp(isa, &[], largest(isa, &[])).is_err(),
            "{isa}: nothing"
        );
        let mut long = vec![0.0; 203];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 7, 100, 199, 202] {
                long[at] = bad;
                let sum = log_sum_exp(isa, &long, largest(isa, &long));
                assert!(sum.is_err(), "{isa}: {bad} at {at}");
                long[at] = 0.0;
            }
        }
    }
}

#[test]
fn the_largest_is_found_anywhere() {
    let mut random = Random(26);
    for isa in isas() {
        assert_eq!(largest(isa, &[]), f32::NEG_INFINITY, "{isa}");
        for n in LENGTHS {
            let mut x = random.normals(n);
            x[0] = f32::NEG_INFINITY;
            for at in 0..n.min(80) {
                let before = std::mem::replace(&mut x[at], 100.0);
                assert_eq!(largest(isa, &x), 100.0, "{isa}: at {at} of {n}");
                x[at] = before;
            }
        }
    }
}
