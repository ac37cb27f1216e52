//! AVX-VNNI, without AVX-512 (Alder Lake on). `vpdpbusd` multiplies four unsigned bytes with four signed ones and adds them to an i32, so
//! that no sum has to be widened. 6-bit codes, which have two scales in a group, take AVX2's products: these are as fast. The sums are
//! whole numbers, and the results are those of [`Isa::Avx2`](crate::Isa) bit for bit.

#![expect(unsafe_code, reason = "the order of the products needs `asm!`")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::lanes;
use super::packed::{Bytes, less_whole, shifted, starts4};
pub(crate) use super::{attention, dense, elementwise, quantize};
use crate::packed::Bits;
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
        super::dots8,
        1 => 1 + 0
        2 => 2 + 0
        3 => 3 + 0
        4 => 4 + 0
        5 => 5 + 0
        6 => 6 + 0
        7 => 4 + 3
        8 => 4 + 4
        9 => 5 + 4
        10 => 5 + 5
        11 => 6 + 5
        12 => 6 + 6
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

/// What four activations of some rows take: products with the two registers of codes, added to the sums of each row.
macro_rules! of_quad {
    ($($x:ident $a:ident $b:ident)*) => {
        concat!($(
            "vpbroadcastd {y}, dword ptr [{", stringify!($x), "} + \\at]\n",
            "{{vex}} vpdpbusd {", stringify!($a), "}, {c}, {y}\n",
            "{{vex}} vpdpbusd {", stringify!($b), "}, {d}, {y}\n",
        )*)
    };
}
/// A group of codes that are bytes.
macro_rules! bytes {
    ($($rows:ident)*) => {
        concat!(
            ".irp at, 0, 4, 8, 12, 16, 20, 24, 28\n",
            "vmovdqu {c}, ymmword ptr [{codes} + 16*\\at]\n",
            "vmovdqu {d}, ymmword ptr [{codes} + 16*\\at + 32]\n",
            of_quad!($($rows)*),
            ".endr\n",
        )
    };
}
/// A group of codes that are nibbles.
macro_rules! nibbles {
    ($($rows:ident)*) => { of_nibbles!("" "", $($rows)*) };
}
/// The same, which leaves bytes behind.
macro_rules! nibbles_left {
    ($($rows:ident)*) => {
        of_nibbles!(
            "vmovdqu ymmword ptr [{wide} + 16*\\at], {c}\n"
            "vmovdqu ymmword ptr [{wide} + 16*\\at + 32], {d}\n",
            $($rows)*
        )
    };
}
/// Nibbles: the low ones are the first four quads, the high ones the others.
macro_rules! of_nibbles {
    ($leave_c:literal $leave_d:literal, $($rows:ident)*) => {
        concat!(
            ".irp at, 0, 4, 8, 12\n",
            "vpand {c}, {mask}, ymmword ptr [{codes} + 16*\\at]\n",
            "vpand {d}, {mask}, ymmword ptr [{codes} + 16*\\at + 32]\n",
            $leave_c, $leave_d,
            of_quad!($($rows)*),
            ".endr\n",
            ".irp at, 16, 20, 24, 28\n",
            "vmovdqu {c}, ymmword ptr [{codes} + 16*\\at - 256]\n",
            "vmovdqu {d}, ymmword ptr [{codes} + 16*\\at - 224]\n",
            "vpsrlw {c}, {c}, 4\n",
            "vpsrlw {d}, {d}, 4\n",
            "vpand {c}, {c}, {mask}\n",
            "vpand {d}, {d}, {mask}\n",
            $leave_c, $leave_d,
            of_quad!($($rows)*),
            ".endr\n",
        )
    };
}

/// sums of up to six rows += the products of a group of codes with their activations, as one piece of assembly: the sums, two registers of
/// codes, a mask and four activations are all 16 registers, and the compiler would keep some of the sums in memory.
macro_rules! multiply_add {
    ($lines:ident, $sums:ident, $x:ident, $operands:tt) => {
        match R {
            0 => {}
            1 => multiply_add!($lines, $sums, $x, $operands, 0 x0 a0 b0),
            2 => multiply_add!($lines, $sums, $x, $operands, 0 x0 a0 b0 1 x1 a1 b1),
            3 => multiply_add!($lines, $sums, $x, $operands, 0 x0 a0 b0 1 x1 a1 b1 2 x2 a2 b2),
            4 => multiply_add!(
                $lines, $sums, $x, $operands,
                0 x0 a0 b0 1 x1 a1 b1 2 x2 a2 b2 3 x3 a3 b3
            ),
            5 => multiply_add!(
                $lines, $sums, $x, $operands,
                0 x0 a0 b0 1 x1 a1 b1 2 x2 a2 b2 3 x3 a3 b3 4 x4 a4 b4
            ),
            6 => multiply_add!(
                $lines, $sums, $x, $operands,
                0 x0 a0 b0 1 x1 a1 b1 2 x2 a2 b2 3 x3 a3 b3 4 x4 a4 b4 5 x5 a5 b5
            ),
            _ => unreachable!("there are registers for six rows, not {R}"),
        }
    };
    (
        $lines:ident, $sums:ident, $x:ident, [$($operands:tt)*],
        $($r:literal $xr:ident $a:ident $b:ident)*
    ) => {
        // SAFETY: callers require AVX-VNNI. What is read are the codes and the activations of a group, and what is written is `wide`.
        unsafe {
            asm!(
                $lines!($($xr $a $b)*),
                $($xr = in(reg) $x[$r].q.as_ptr(),)*
                $($a = inout(ymm_reg) $sums[$r][0],)*
                $($b = inout(ymm_reg) $sums[$r][1],)*
                c = out(ymm_reg) _,
                d = out(ymm_reg) _,
                y = out(ymm_reg) _,
                $($operands)*
                options(nostack, preserves_flags),
            );
        }
    };
}

/// Dot products of a group that begins with its 4-bit codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn dots4<const R: usize, const BYTES: usize>(
    group: &[u8; BYTES],
    bytes: Bytes<'_>,
    x: [&QuantGroup; R],
) -> [[__m256; 2]; R] {
    let mut sums = starts4::<R, BYTES>(x).map(|start| [start; 2]);
    assert!(BYTES >= Bits::B4.code_bytes());
    let mask = _mm256_set1_epi8(15);
    match bytes {
        Bytes::None => multiply_add!(nibbles, sums, x, [
            codes = in(reg) group.as_ptr(),
            mask = in(ymm_reg) mask,
        ]),
        Bytes::Leave(wide) => multiply_add!(nibbles_left, sums, x, [
            codes = in(reg) group.as_ptr(),
            mask = in(ymm_reg) mask,
            wide = in(reg) wide.0.as_mut_ptr(),
        ]),
        Bytes::Left(wide) => multiply_add!(bytes, sums, x, [codes = in(reg) wide.0.as_ptr(),]),
    }
    sums.map(|sums| sums.map(|sum| less_whole(sum)))
}

/// Dot products of a group that begins with its 8-bit codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn dots8<const R: usize, const BYTES: usize>(
    group: &[u8; BYTES],
    x: [&QuantGroup; R],
) -> [[__m256; 2]; R] {
    let whole = _mm256_castps_si256(_mm256_set1_ps(WHOLE));
    let mut sums = [[whole; 2]; R];
    if !Bits::B8.has_offset(BYTES) {
        for r in 0..R {
            sums[r] = [_mm256_sub_epi32(whole, shifted::<7>(x[r])); 2];
        }
    }
    assert!(BYTES >= Bits::B8.code_bytes());
    multiply_add!(bytes, sums, x, [codes = in(reg) group.as_ptr(),]);
    sums.map(|sums| sums.map(|sum| less_whole(sum)))
}
