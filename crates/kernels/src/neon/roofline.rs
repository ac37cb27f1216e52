//! The loops of `roofline.rs`.

use std::arch::aarch64::*;

use super::packed::sdot;
use crate::roofline::CHAINS;

crate::generic::read_kernel!("neon,dotprod");

/// `sdot`, 16 multiply-adds each.
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn multiply_adds(steps: usize) -> i32 {
    let (w, x) = (vdupq_n_s8(5), vdupq_n_s8(3));
    let mut sums = [vdupq_n_s32(0); CHAINS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = sdot::<0>(*sum, w, x);
        }
    }
    sums.into_iter()
        .map(|sum| vaddvq_s32(sum))
        .fold(0, i32::wrapping_add)
}
