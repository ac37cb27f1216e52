//! Packed weights times quantized rows with `vpmaddubsw`: one instruction is 8 rows by 4 columns.
//!
//! It multiplies unsigned bytes with signed ones and adds neighbours into i16, saturating. A 4-bit code gives at most
//! 2 · 15 · 127 = 3,810 per instruction, and the eight quads of a group together 30,480, which i16 holds: a group is summed in i16, then
//! widened once. An 8-bit code less its zero enters as its magnitude, and the activation takes its sign: 2 · 128 · 127 = 32,512, which
//! i16 holds once, so that each product is widened.

#![expect(
    unsafe_code,
    reason = "vector loads and stores take pointers; the order of the products needs `asm!`"
)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::lanes;
use crate::columns::ColumnsMut;
use crate::gemm::{TILE, Tile};
use crate::packed::{Bits, GROUP, HALVES, PANEL, split};
use crate::quantize::QuantRows;

/// Rows of a register tile: 4 x 2 integer sums, codes of both halves of the panel (8 bits: and their magnitudes), activations, a constant
/// and a product are 13 to 15 of the 16 registers. The f32 sums stay in the first-level cache; a group touches each once.
const ROWS: usize = 4;

/// One panel times the tile's rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    let shape = tile.w.shape();
    match (shape.bits, shape.has_offset) {
        (Bits::B4, false) => panel_of::<256, 288>(tile, out),
        (Bits::B4, true) => panel_of::<256, 320>(tile, out),
        (Bits::B8, false) => panel_of::<512, 544>(tile, out),
        (Bits::B8, true) => panel_of::<512, 576>(tile, out),
    }
}

/// Two panels times one row.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn two_panels(a: &Tile<'_>, b: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    let shape = a.w.shape();
    match (shape.bits, shape.has_offset) {
        (Bits::B4, false) => two_panels_of::<256, 288>(a, b, out),
        (Bits::B4, true) => two_panels_of::<256, 320>(a, b, out),
        (Bits::B8, false) => two_panels_of::<512, 544>(a, b, out),
        (Bits::B8, true) => two_panels_of::<512, 576>(a, b, out),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn two_panels_of<const CODES: usize, const GROUP_BYTES: usize>(
    a: &Tile<'_>,
    b: &Tile<'_>,
    out: &mut ColumnsMut<'_>,
) {
    let w = [a, b].map(|tile| tile.w.panel(tile.panel).as_chunks::<GROUP_BYTES>().0);
    let x = a.x.slice(a.rows.clone());
    let totals = rows::<2, 1, CODES, GROUP_BYTES>(w, x, true);
    for (tile, totals) in [a, b].into_iter().zip(&totals) {
        let mut sums = [[0.0; PANEL]; TILE];
        store(totals, &mut sums);
        tile.store(&sums, out);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn panel_of<const CODES: usize, const GROUP_BYTES: usize>(
    tile: &Tile<'_>,
    out: &mut ColumnsMut<'_>,
) {
    let w = [tile.w.panel(tile.panel).as_chunks::<GROUP_BYTES>().0];
    let mut sums = [[0.0; PANEL]; TILE];
    let parts = tile
        .rows
        .clone()
        .step_by(ROWS)
        .zip(sums.as_chunks_mut::<ROWS>().0);
    for (t, sums) in parts {
        let count = ROWS.min(tile.rows.end - t);
        let x = tile.x.slice(t..t + count);
        let first = t == tile.rows.start;
        match count {
            1 => store(&rows::<1, 1, CODES, GROUP_BYTES>(w, x, first)[0], sums),
            2 => store(&rows::<1, 2, CODES, GROUP_BYTES>(w, x, first)[0], sums),
            3 => store(&rows::<1, 3, CODES, GROUP_BYTES>(w, x, first)[0], sums),
            _ => store(&rows::<1, 4, CODES, GROUP_BYTES>(w, x, first)[0], sums),
        }
    }
    tile.store(&sums, out);
}

/// The tile of R rows on each of P panels, `first` if these are not in the cache yet: sums by panel, row, half of the panel.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rows<const P: usize, const R: usize, const CODES: usize, const GROUP_BYTES: usize>(
    w: [&[[u8; GROUP_BYTES]]; P],
    x: QuantRows<'_>,
    first: bool,
) -> [[[__m256; 2]; R]; P] {
    let has_offset = GROUP_BYTES > CODES + HALVES;
    let four = CODES == Bits::B4.code_bytes();
    let groups = x.cols() / GROUP;
    let q = x.q.as_chunks::<GROUP>().0;
    let mut codes: [&[[i8; GROUP]]; R] = [&[]; R];
    let mut scales: [&[f32]; R] = [&[]; R];
    let mut sums: [&[i32]; R] = [&[]; R];
    for r in 0..R {
        codes[r] = &q[r * groups..][..groups];
        scales[r] = &x.scales[r * groups..][..groups];
        sums[r] = &x.sums[r * groups..][..groups];
    }
    let w = w.map(|w| &w[..groups]);
    let mut totals = [[[_mm256_setzero_ps(); 2]; R]; P];
    for g in 0..groups {
        let mut group = [&[0; GROUP]; R];
        for r in 0..R {
            group[r] = &codes[r][g];
        }
        for (w, total) in w.iter().zip(&mut totals) {
            if first {
                ahead(&w[g], if R == 1 { AHEAD_ONE } else { AHEAD });
            }
            let (_, rest) = split::<CODES>(&w[g]);
            let (w_scales, w_offsets) = split::<HALVES>(rest);
            let dots = if four {
                dots4(&w[g], &group)
            } else {
                dots8(&w[g], &group)
            };
            let scale = [halves(w_scales, 0), halves(w_scales, 1)];
            for r in 0..R {
                // Dots are of codes for 4 bits, of codes less their zero for 8.
                let mut dots = dots[r];
                if four && !has_offset {
                    let zero = shifted::<3>(&sums[r][g]);
                    dots = dots.map(|dot| _mm256_sub_epi32(dot, zero));
                }
                if !four && has_offset {
                    let zero = shifted::<7>(&sums[r][g]);
                    dots = dots.map(|dot| _mm256_add_epi32(dot, zero));
                }
                for half in 0..2 {
                    let scale = _mm256_mul_ps(scale[half], _mm256_set1_ps(scales[r][g]));
                    total[r][half] =
                        _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dots[half]), total[r][half]);
                }
            }
            if has_offset {
                let (w_offsets, _) = split::<HALVES>(w_offsets);
                let offset = [halves(w_offsets, 0), halves(w_offsets, 1)];
                for r in 0..R {
                    let sum = _mm256_set1_ps(scales[r][g] * sums[r][g] as f32);
                    for (total, offset) in total[r].iter_mut().zip(offset) {
                        *total = _mm256_fmadd_ps(offset, sum, *total);
                    }
                }
            }
        }
    }
    totals
}

/// Writes the sums of the first rows of a tile.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(totals: &[[__m256; 2]], out: &mut [[f32; PANEL]]) {
    for (total, out) in totals.iter().zip(out) {
        for (total, out) in total.iter().zip(out.as_chunks_mut::<8>().0) {
            // SAFETY: 32 writable bytes.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *total) };
        }
    }
}

/// Dot products of a group that begins with its 4-bit codes, `[row][half of the panel]`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots4<const R: usize, const BYTES: usize>(
    group: &[u8; BYTES],
    x: &[&[i8; GROUP]; R],
) -> [[__m256i; 2]; R] {
    let blocks = group.as_chunks::<64>().0;
    let mut sums = [[_mm256_undefined_si256(); 2]; R];
    macro_rules! blocks {
        ($($j:literal)*) => {$(
            let [a, b] = blocks[$j].as_chunks::<32>().0 else {
                unreachable!("64 bytes are two halves");
            };
            let quads = [low_nibbles(a), low_nibbles(b)];
            for r in 0..R {
                multiply_add::<{ 4 * $j }>(&mut sums[r], quads, x[r]);
            }
            let quads = [high_nibbles(a), high_nibbles(b)];
            for r in 0..R {
                multiply_add::<{ 16 + 4 * $j }>(&mut sums[r], quads, x[r]);
            }
        )*};
    }
    blocks!(0 1 2 3);
    let one = _mm256_set1_epi16(1);
    sums.map(|sums| sums.map(|sum| _mm256_madd_epi16(sum, one)))
}

/// Dot products of a group that begins with its 8-bit codes, these less their zero, `[row][half of the panel]`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots8<const R: usize, const BYTES: usize>(
    group: &[u8; BYTES],
    x: &[&[i8; GROUP]; R],
) -> [[__m256i; 2]; R] {
    let blocks = group.as_chunks::<64>().0;
    let one = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_undefined_si256(); 2]; R];
    macro_rules! blocks {
        ($($j:literal)*) => {$(
            let [a, b] = blocks[$j].as_chunks::<32>().0 else {
                unreachable!("64 bytes are two halves");
            };
            let codes = [signed(a), signed(b)];
            let sizes = codes.map(|codes| _mm256_abs_epi8(codes));
            for r in 0..R {
                multiply_add_signed::<{ 4 * $j }>(&mut sums[r], codes, sizes, one, x[r]);
            }
        )*};
    }
    blocks!(0 1 2 3 4 5 6 7);
    sums
}

/// Spreads four activations over `x` and goes on with the lines that are given.
///
/// In assembly, because the compiler would take all products of one row together: the sums of a tile then stay in registers one row at
/// a time, and the decoded codes, of which there are more, go through memory. It is not marked as pure, so its order is kept. The place
/// is a constant, so that no instruction is spent on an address: a tile is bound by how many instructions the processor takes in.
macro_rules! with_activations {
    ($row:expr, $at:expr, [$($line:literal),*], $($operands:tt)*) => {{
        const { assert!($at + 4 <= GROUP) };
        let row: &[i8; GROUP] = $row;
        // SAFETY: callers require AVX2; the only memory that is read are four bytes of `row`.
        unsafe {
            asm!(
                "vpbroadcastd {x}, dword ptr [{row} + {at}]",
                $($line,)*
                at = const $at,
                row = in(reg) row.as_ptr(),
                x = out(ymm_reg) _,
                $($operands)*
                options(nostack, preserves_flags, readonly),
            );
        }
    }};
}

/// sums += the products of two registers of codes with four activations, those from `AT` on; with the first four, sums = the products.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_add<const AT: usize>(sums: &mut [__m256i; 2], codes: [__m256i; 2], x: &[i8; GROUP]) {
    if AT == 0 {
        with_activations!(
            x, AT,
            [
                "vpmaddubsw {sum_a}, {a}, {x}",
                "vpmaddubsw {sum_b}, {b}, {x}"
            ],
            a = in(ymm_reg) codes[0],
            b = in(ymm_reg) codes[1],
            sum_a = out(ymm_reg) sums[0],
            sum_b = lateout(ymm_reg) sums[1],
        );
        return;
    }
    with_activations!(
        x, AT,
        [
            "vpmaddubsw {product}, {a}, {x}",
            "vpmaddubsw {x}, {b}, {x}",
            "vpaddw {sum_a}, {sum_a}, {product}",
            "vpaddw {sum_b}, {sum_b}, {x}"
        ],
        a = in(ymm_reg) codes[0],
        b = in(ymm_reg) codes[1],
        sum_a = inout(ymm_reg) sums[0],
        sum_b = inout(ymm_reg) sums[1],
        product = out(ymm_reg) _,
    );
}

/// As [`multiply_add`], of signed codes, whose magnitudes are `sizes`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_add_signed<const AT: usize>(
    sums: &mut [__m256i; 2],
    codes: [__m256i; 2],
    sizes: [__m256i; 2],
    one: __m256i,
    x: &[i8; GROUP],
) {
    if AT == 0 {
        with_activations!(
            x, AT,
            [
                "vpsignb {sum_a}, {x}, {a}",
                "vpsignb {x}, {x}, {b}",
                "vpmaddubsw {sum_a}, {size_a}, {sum_a}",
                "vpmaddubsw {x}, {size_b}, {x}",
                "vpmaddwd {sum_a}, {sum_a}, {one}",
                "vpmaddwd {sum_b}, {x}, {one}"
            ],
            a = in(ymm_reg) codes[0],
            b = in(ymm_reg) codes[1],
            size_a = in(ymm_reg) sizes[0],
            size_b = in(ymm_reg) sizes[1],
            one = in(ymm_reg) one,
            sum_a = out(ymm_reg) sums[0],
            sum_b = lateout(ymm_reg) sums[1],
        );
        return;
    }
    with_activations!(
        x, AT,
        [
            "vpsignb {product}, {x}, {a}",
            "vpsignb {x}, {x}, {b}",
            "vpmaddubsw {product}, {size_a}, {product}",
            "vpmaddubsw {x}, {size_b}, {x}",
            "vpmaddwd {product}, {product}, {one}",
            "vpmaddwd {x}, {x}, {one}",
            "vpaddd {sum_a}, {sum_a}, {product}",
            "vpaddd {sum_b}, {sum_b}, {x}"
        ],
        a = in(ymm_reg) codes[0],
        b = in(ymm_reg) codes[1],
        size_a = in(ymm_reg) sizes[0],
        size_b = in(ymm_reg) sizes[1],
        one = in(ymm_reg) one,
        sum_a = inout(ymm_reg) sums[0],
        sum_b = inout(ymm_reg) sums[1],
        product = out(ymm_reg) _,
    );
}

/// A sum of activations in every lane, shifted: what the codes' zero adds to a dot product. In assembly, because the compiler would shift
/// before it spreads, which takes twice the instructions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn shifted<const BITS: u32>(sum: &i32) -> __m256i {
    let spread;
    // SAFETY: the function requires AVX2; the only memory that is read is `sum`.
    unsafe {
        asm!(
            "vpbroadcastd {spread}, dword ptr [{sum}]",
            "vpslld {spread}, {spread}, {bits}",
            sum = in(reg) sum,
            bits = const BITS,
            spread = lateout(ymm_reg) spread,
            options(pure, nostack, preserves_flags, readonly),
        );
    }
    spread
}

/// 8-bit codes less their zero.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn signed(block: &[u8; 32]) -> __m256i {
    _mm256_xor_si256(load(block), _mm256_set1_epi8(-128))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn low_nibbles(block: &[u8; 32]) -> __m256i {
    _mm256_and_si256(load(block), _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn high_nibbles(block: &[u8; 32]) -> __m256i {
    _mm256_and_si256(_mm256_srli_epi16::<4>(load(block)), _mm256_set1_epi8(15))
}

/// Bytes between what is multiplied and what is fetched. A single row takes little time for a group: the machine's own prefetcher fetches
/// too, but starts anew in every page.
const AHEAD_ONE: usize = 1024;
const AHEAD: usize = 4608;

/// Fetches what lies some bytes behind a group; see the same in `avx512`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn ahead<const GROUP_BYTES: usize>(group: &[u8; GROUP_BYTES], bytes: usize) {
    let next = group.as_ptr().wrapping_add(bytes);
    for line in (0..GROUP_BYTES).step_by(64) {
        lanes::prefetch(next.wrapping_add(line));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Eight halves to f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(bits: &[u8; HALVES], half: usize) -> __m256 {
    let bits = &bits.as_chunks::<16>().0[half];
    // SAFETY: 16 readable bytes.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bits.as_ptr().cast()) })
}
