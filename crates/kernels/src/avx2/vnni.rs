//! AVX-VNNI, without AVX-512 (Alder Lake on). `vpdpbusd` multiplies four unsigned bytes with four signed ones and adds them to an i32, so
//! that no sum has to be widened. 6-bit codes, which have two scales in a group, take AVX2's products: these are as fast. The sums are
//! whole numbers, and the results are those of [`Isa::Avx2`](crate::Isa) bit for bit.

#![expect(unsafe_code, reason = "the order of the products needs `asm!`")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::lanes;
use super::packed::{
    high_nibbles, less_whole, load, low_nibbles, shifted, starts4, with_activations,
};
pub(crate) use super::{attention, dense, elementwise, quantize};
use crate::packed::{Bits, GROUP};
use crate::quantize::{QuantGroup, WHOLE};

pub(crate) mod attention_i8 {
    pub(crate) use super::codes::quantize;
    crate::generic::attention_kernels!("avx2,fma,f16c,avxvnni", 12, 4, super::codes);
}
mod codes {
    crate::generic::attention_codes!("avx2,fma,f16c,avxvnni", 2, super::pairs);
}
mod pairs {
    //! As AVX2's, but one instruction multiplies and adds.

    use std::arch::x86_64::*;

    pub(crate) use super::super::pairs::{Part, Sum, load, part, splat, value, words, zero};

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(crate) fn multiply_add(sum: Sum, x: __m256i, by: __m256i) -> Sum {
        _mm256_dpwssd_avx_epi32(sum, x, by)
    }
}

pub(crate) mod packed {
    crate::avx2::packed::panel_kernels!(
        "avx2,fma,f16c,avxvnni",
        super::dots4,
        crate::avx2::six_bits::dots6,
        super::dots8
    );
}

pub(crate) mod roofline {
    //! The loops of `roofline.rs`, the products with `vpdpbusd`.

    use std::arch::x86_64::*;

    pub(crate) use super::super::roofline::read_all;
    use crate::roofline::CHAINS;

    /// `vpdpbusd`, 32 multiply-adds each.
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    pub(crate) fn multiply_adds(steps: usize) -> i32 {
        let (w, x) = (_mm256_set1_epi8(5), _mm256_set1_epi8(3));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, w, x);
            }
        }
        let all = sums.into_iter().fold(w, |a, b| _mm256_add_epi32(a, b));
        _mm256_extract_epi32::<0>(all)
    }
}

/// Dot products of a group that begins with its 4-bit codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn dots4<const R: usize, const BYTES: usize>(
    group: &[u8; BYTES],
    x: [&QuantGroup; R],
) -> [[__m256; 2]; R] {
    let blocks = group.as_chunks::<64>().0;
    let mut sums = starts4::<R, BYTES>(x).map(|start| [start; 2]);
    macro_rules! blocks {
        ($($j:literal)*) => {$(
            let [a, b] = blocks[$j].as_chunks::<32>().0 else {
                unreachable!("64 bytes are two halves");
            };
            multiply_add::<R, { 4 * $j }>(&mut sums, [low_nibbles(a), low_nibbles(b)], x);
            multiply_add::<R, { 16 + 4 * $j }>(&mut sums, [high_nibbles(a), high_nibbles(b)], x);
        )*};
    }
    blocks!(0 1 2 3);
    sums.map(|sums| sums.map(|sum| less_whole(sum)))
}

/// Dot products of a group that begins with its 8-bit codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn dots8<const R: usize, const BYTES: usize>(
    group: &[u8; BYTES],
    x: [&QuantGroup; R],
) -> [[__m256; 2]; R] {
    let blocks = group.as_chunks::<64>().0;
    let whole = _mm256_castps_si256(_mm256_set1_ps(WHOLE));
    let mut sums = [[whole; 2]; R];
    if !Bits::B8.has_offset(BYTES) {
        for r in 0..R {
            sums[r] = [_mm256_sub_epi32(whole, shifted::<7>(x[r])); 2];
        }
    }
    macro_rules! blocks {
        ($($j:literal)*) => {$(
            let [a, b] = blocks[$j].as_chunks::<32>().0 else {
                unreachable!("64 bytes are two halves");
            };
            multiply_add::<R, { 4 * $j }>(&mut sums, [load(a), load(b)], x);
        )*};
    }
    blocks!(0 1 2 3 4 5 6 7);
    sums.map(|sums| sums.map(|sum| less_whole(sum)))
}

/// sums of each row += the products of two registers of codes with its four activations from `AT` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn multiply_add<const R: usize, const AT: usize>(
    sums: &mut [[__m256i; 2]; R],
    codes: [__m256i; 2],
    x: [&QuantGroup; R],
) {
    for r in 0..R {
        with_activations!(
            &x[r].q, AT,
            [
                "{{vex}} vpdpbusd {sum_a}, {a}, {x}",
                "{{vex}} vpdpbusd {sum_b}, {b}, {x}"
            ],
            a = in(ymm_reg) codes[0],
            b = in(ymm_reg) codes[1],
            sum_a = inout(ymm_reg) sums[r][0],
            sum_b = inout(ymm_reg) sums[r][1],
        );
    }
}
