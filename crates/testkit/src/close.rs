//! Comparison of floats, written so that NaN, a wrong length and an empty comparison fail.

/// How far two numbers may be apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tol {
    /// `|got - want| <= t`.
    Abs(f64),
    /// `|got - want| <= t * |want|`; where `want` is 0, `got` must be 0.
    Rel(f64),
    /// `|got - want| <= t * max |want|` over the slice: the measure for sums whose terms cancel, such as logits.
    RelToMax(f64),
    /// At most so many representable f32 between them. 0 and the smallest denormal are 1 apart.
    Ulp(u32),
}

/// What a comparison that passed has seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Largest |got - want|.
    pub max_abs: f64,
    /// The same over max |want|; 0 if both are 0.
    pub max_rel_to_max: f64,
}

/// Panics unless every number of `got` is as near to that of `want` as `tol` says.
///
/// # Panics
/// On a number out of tolerance, any NaN, infinities that differ, another length, or two empty slices.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f32], tol: Tol) -> Report {
    match compare(got, want, tol) {
        Ok(report) => report,
        Err(message) => panic!("{message}"),
    }
}

/// As [`assert_close`], but gives the message.
///
/// # Errors
/// The message, with the worst number and how many there are.
pub fn compare(got: &[f32], want: &[f32], tol: Tol) -> Result<Report, String> {
    if got.len() != want.len() {
        return Err(format!("{} numbers, expected {}", got.len(), want.len()));
    }
    if want.is_empty() {
        return Err("nothing was compared: both slices are empty".to_owned());
    }
    let largest = want
        .iter()
        .map(|w| f64::from(w.abs()))
        .filter(|w| w.is_finite())
        .fold(0.0, f64::max);
    let mut max_abs = 0.0f64;
    let mut wrong = 0usize;
    let mut worst: Option<(usize, f64)> = None;
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        if g == w {
            continue; // equal infinities pass, NaN does not come here
        }
        let error = (f64::from(g) - f64::from(w)).abs();
        let allowed = match tol {
            Tol::Abs(t) => error <= t,
            Tol::Rel(t) => error <= t * f64::from(w.abs()),
            Tol::RelToMax(t) => error <= t * largest,
            Tol::Ulp(n) => g.is_finite() && w.is_finite() && ulps(g, w) <= u64::from(n),
        };
        // `inf <= t * inf` is true: infinities that differ are wrong under every tolerance.
        if allowed && error.is_finite() {
            max_abs = max_abs.max(error);
            continue;
        }
        wrong += 1;
        let rank = if error.is_nan() { f64::INFINITY } else { error };
        if worst.is_none_or(|(_, most)| rank > most) {
            worst = Some((i, rank));
        }
    }
    match worst {
        None => {
            let max_rel_to_max = if max_abs == 0.0 {
                0.0
            } else {
                max_abs / largest
            };
            Ok(Report {
                max_abs,
                max_rel_to_max,
            })
        }
        Some((i, _)) => Err(format!(
            "{wrong} of {} numbers are not within {tol:?}; the worst is number {i}: got {}, expected {} (largest expected {largest})",
            want.len(),
            got[i],
            want[i],
        )),
    }
}

/// Representable numbers between two finite ones.
fn ulps(a: f32, b: f32) -> u64 {
    // Maps the order of floats to that of integers: negative ones count down from 0.
    let key = |x: f32| {
        let bits = i64::from(x.to_bits() & 0x7fff_ffff);
        if x.is_sign_negative() { -bits } else { bits }
    };
    key(a).abs_diff(key(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Tol; 4] = [
        Tol::Abs(1e30),
        Tol::Rel(1e30),
        Tol::RelToMax(1e30),
        Tol::Ulp(u32::MAX),
    ];

    #[test]
    fn equal_numbers_pass_under_every_tolerance() {
        let values = [0.0, -0.0, 1.5, f32::INFINITY, f32::NEG_INFINITY];
        for tol in [
            Tol::Abs(0.0),
            Tol::Rel(0.0),
            Tol::RelToMax(0.0),
            Tol::Ulp(0),
        ] {
            assert_eq!(compare(&values, &values, tol).unwrap().max_abs, 0.0);
        }
    }

    #[test]
    fn nan_fails_under_every_tolerance() {
        for tol in ALL {
            assert!(compare(&[f32::NAN], &[1.0], tol).is_err(), "{tol:?}");
            assert!(compare(&[1.0], &[f32::NAN], tol).is_err(), "{tol:?}");
            assert!(compare(&[f32::NAN], &[f32::NAN], tol).is_err(), "{tol:?}");
        }
    }

    #[test]
    fn infinities_that_differ_fail_under_every_tolerance() {
        for tol in ALL {
            assert!(compare(&[f32::INFINITY], &[1.0], tol).is_err(), "{tol:?}");
            assert!(compare(&[1.0], &[f32::INFINITY], tol).is_err(), "{tol:?}");
            assert!(
                compare(&[f32::INFINITY], &[f32::NEG_INFINITY], tol).is_err(),
                "{tol:?}"
            );
        }
    }

    #[test]
    fn lengths_must_be_equal_and_not_zero() {
        for tol in ALL {
            assert!(compare(&[1.0], &[1.0, 1.0], tol).is_err());
            assert!(compare(&[1.0, 1.0], &[1.0], tol).is_err());
            assert!(compare(&[], &[], tol).is_err());
        }
    }

    #[test]
    fn zero_is_a_number_like_any_other() {
        assert!(compare(&[1e-30], &[0.0], Tol::Rel(1.0)).is_err());
        assert!(compare(&[1e-30], &[0.0], Tol::RelToMax(1.0)).is_err());
        assert!(compare(&[1.0], &[0.0], Tol::Ulp(1000)).is_err());
        assert!(compare(&[1e-45], &[0.0], Tol::Ulp(1)).is_ok());
        assert!(compare(&[1e-45], &[-1e-45], Tol::Ulp(1)).is_err());
        assert!(compare(&[0.0], &[-0.0], Tol::Ulp(0)).is_ok());
    }

    #[test]
    fn the_tolerance_is_the_limit() {
        assert!(compare(&[1.25], &[1.0], Tol::Abs(0.25)).is_ok());
        assert!(compare(&[1.25], &[1.0], Tol::Abs(0.24)).is_err());
        assert!(compare(&[1.25], &[1.0], Tol::Rel(0.25)).is_ok());
        assert!(compare(&[1.25], &[1.0], Tol::Rel(0.24)).is_err());
        assert!(compare(&[0.5, 4.0], &[0.0, 4.0], Tol::RelToMax(0.125)).is_ok());
        assert!(compare(&[0.5, 4.0], &[0.0, 4.0], Tol::RelToMax(0.124)).is_err());
        let next = f32::from_bits(1.0f32.to_bits() + 4);
        assert!(compare(&[next], &[1.0], Tol::Ulp(4)).is_ok());
        assert!(compare(&[next], &[1.0], Tol::Ulp(3)).is_err());
    }

    #[test]
    #[should_panic(expected = "number 1: got 3, expected 2")]
    fn the_worst_number_is_named() {
        assert_close(&[1.0, 3.0], &[1.0, 2.0], Tol::Abs(0.5));
    }
}
