//! The loops of `roofline.rs`.

use std::arch::x86_64::*;

use crate::roofline::CHAINS;

crate::generic::read_kernel!("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c");

/// `vpdpbusd`, 64 multiply-adds each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn multiply_adds(steps: usize) -> i32 {
    let (w, x) = (_mm512_set1_epi8(5), _mm512_set1_epi8(3));
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, w, x);
        }
    }
    let all = sums
        .into_iter()
        .fold(_mm512_setzero_si512(), |a, b| _mm512_add_epi32(a, b));
    _mm512_reduce_add_epi32(all)
}
