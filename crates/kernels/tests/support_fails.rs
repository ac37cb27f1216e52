//! The comparisons of the tests must themselves fail when they should.

mod support;

use std::panic::catch_unwind;
use support::{assert_near, assert_same};

#[test]
fn near_fails_on_wrong_nan_infinite_and_short() {
    assert_near(&[1.0, 0.0], &[1.0, 0.0], &[1.0, 0.0], 1e-6, "equal");
    for got in [
        &[1.1, 0.0][..],
        &[f32::NAN, 0.0],
        &[1.0, f32::INFINITY],
        &[1.0],
        &[1.0, 1e-30],
    ] {
        let result = catch_unwind(|| assert_near(got, &[1.0, 0.0], &[1.0, 0.0], 1e-6, "x"));
        assert!(result.is_err(), "{got:?} passed");
    }
}

#[test]
fn same_fails_on_the_last_bit_and_on_nan() {
    assert_same(&[1.0], &[1.0], "equal");
    for got in [1.0 + f32::EPSILON, f32::NAN] {
        assert!(
            catch_unwind(|| assert_same(&[got], &[1.0], "x")).is_err(),
            "{got} passed"
        );
    }
}
