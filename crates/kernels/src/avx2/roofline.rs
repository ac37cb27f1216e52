//! The loops of `roofline.rs`.

use std::arch::x86_64::*;

use crate::roofline::CHAINS;

crate::generic::read_kernel!("avx2,fma,f16c");

/// `vpmaddubsw` and the sum of its result, 32 multiply-adds a pair.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn multiply_adds(steps: usize) -> i32 {
    let (x, one) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..steps {
        for sum in &mut sums {
            // The product depends on the sum before it: none can be left out.
            *sum = _mm256_add_epi16(_mm256_maddubs_epi16(*sum, x), one);
        }
    }
    let all = sums.into_iter().fold(one, |a, b| _mm256_add_epi16(a, b));
    _mm256_extract_epi32::<0>(all)
}
