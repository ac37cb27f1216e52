//! Packed weights times quantized rows with `vpmaddubsw`: one instruction is 8 rows by 4 columns.
//!
//! It multiplies unsigned bytes with signed ones and adds neighbours into i16, saturating. A 4-bit code gives at most
//! 2 · 15 · 127 = 3,810 per instruction, and the eight quads of a group together 30,480, which i16 holds: a group is summed in i16, then
//! widened once. An 8-bit code less its zero enters as its magnitude, and the activation takes its sign: 2 · 128 · 127 = 32,512, which
//! i16 holds once, so that each product is widened. Of 6-bit codes two products fit, 2 · 2 · 63 · 127 = 32,004; the instruction that widens
//! multiplies with the scale of the 16 columns as well.

#![expect(
    unsafe_code,
    reason = "vector loads and stores take pointers; the order of the products needs `asm!`"
)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::offset_of;

use super::fetch::Fetch;
use super::lanes;
use super::six_bits::dots6;
use crate::columns::ColumnsMut;
use crate::gemm::Tile;
use crate::packed::{Bits, GROUP, GROUP6, HALVES, by_format, split};
use crate::quantize::{QuantGroup, QuantRows};

/// Rows of a register tile: 4 x 2 integer sums, codes of both halves of the panel (8 bits: and their magnitudes), activations, a constant
/// and a product are 13 to 15 of the 16 registers. The f32 sums stay in the first-level cache; a group touches each once.
const ROWS: usize = 4;

/// One panel times the tile's rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    by_format!(tile.w.shape(), panel_of(tile, out));
}

/// A panel of each of two runs times one row.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn side_by_side(tiles: &[Tile<'_>], out: &mut ColumnsMut<'_>) {
    by_format!(tiles[0].w.shape(), side_by_side_of(tiles, out));
}

#[target_feature(enable = "avx2,fma,f16c")]
fn side_by_side_of<const CODES: usize, const BLOCK_BYTES: usize>(
    tiles: &[Tile<'_>],
    out: &mut ColumnsMut<'_>,
) {
    let [a, b] = tiles else {
        unreachable!("{} runs, not 2", tiles.len());
    };
    let w = [a, b].map(|tile| tile.w.panel(tile.panel).as_chunks::<BLOCK_BYTES>().0);
    let x = a.x.slice(a.rows.clone());
    let fetch = w.map(Fetch::near);
    let totals = rows::<2, 1, CODES, BLOCK_BYTES>(w, x, fetch);
    for (tile, totals) in tiles.iter().zip(&totals) {
        store(tile, tile.rows.start, totals, out);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn panel_of<const CODES: usize, const BLOCK_BYTES: usize>(
    tile: &Tile<'_>,
    out: &mut ColumnsMut<'_>,
) {
    let w = [tile.w.panel(tile.panel).as_chunks::<BLOCK_BYTES>().0];
    // Stores are done in order: where the outputs are not in the cache, as those of a head, the next panel's would wait for them.
    for t in tile.rows.clone() {
        lanes::prefetch(out.row_mut(t)[tile.columns.clone()].as_ptr().cast());
    }
    let parts = tile.rows.len().div_ceil(ROWS);
    for (part, t) in tile.rows.clone().step_by(ROWS).enumerate() {
        let count = ROWS.min(tile.rows.end - t);
        let x = tile.x.slice(t..t + count);
        let fetch = [Fetch::next_panel(w[0], part, parts)];
        match count {
            1 => store(
                tile,
                t,
                &rows::<1, 1, CODES, BLOCK_BYTES>(w, x, fetch)[0],
                out,
            ),
            2 => store(
                tile,
                t,
                &rows::<1, 2, CODES, BLOCK_BYTES>(w, x, fetch)[0],
                out,
            ),
            3 => store(
                tile,
                t,
                &rows::<1, 3, CODES, BLOCK_BYTES>(w, x, fetch)[0],
                out,
            ),
            _ => store(
                tile,
                t,
                &rows::<1, 4, CODES, BLOCK_BYTES>(w, x, fetch)[0],
                out,
            ),
        }
    }
}

/// The tile of R rows on each of P panels: sums by panel, row, half of the panel.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rows<const P: usize, const R: usize, const CODES: usize, const BLOCK_BYTES: usize>(
    w: [&[[u8; BLOCK_BYTES]]; P],
    x: QuantRows<'_>,
    fetch: [Fetch; P],
) -> [[[[f32; 8]; 2]; R]; P] {
    let bits = Bits::of_code_bytes(CODES);
    let has_offset = BLOCK_BYTES > bits.scales_at() + HALVES;
    let groups = x.cols() / GROUP;
    let rows = x.first::<R>();
    let w = w.map(|w| &w[..groups / bits.block_groups()]);
    let mut totals = [[[[0.0; 8]; 2]; R]; P];
    for g in 0..groups {
        let x = rows.map(|row| &row[g]);
        for ((w, totals), fetch) in w.iter().zip(&mut totals).zip(fetch) {
            fetch.group::<BLOCK_BYTES>(g);
            let block = &w[g / bits.block_groups()];
            let (w_scales, w_offsets) = split::<HALVES>(&block[bits.scales_at()..]);
            // Less the codes' zero, but that of 4 bits and that of 8 bits with offsets.
            let dots = match bits {
                Bits::B4 => dots4(block, x),
                Bits::B6 => dots6(&block.as_chunks::<GROUP6>().0[g % bits.block_groups()], x),
                Bits::B8 => dots8(block, x),
            };
            let scales = [halves(w_scales, 0), halves(w_scales, 1)];
            let offsets = has_offset.then(|| {
                let (w_offsets, _) = split::<HALVES>(w_offsets);
                [halves(w_offsets, 0), halves(w_offsets, 1)]
            });
            macro_rules! rows {
                ($($r:literal)*) => {$(if $r < R {
                    let mut dots = dots[$r];
                    if bits == Bits::B4 && !has_offset {
                        let zero = shifted::<3>(x[$r]);
                        dots = dots.map(|dot| _mm256_sub_epi32(dot, zero));
                    }
                    if bits == Bits::B8 && has_offset {
                        let zero = shifted::<7>(x[$r]);
                        dots = dots.map(|dot| _mm256_add_epi32(dot, zero));
                    }
                    add::<$r>(totals.as_flattened_mut(), dots, x[$r], scales, offsets);
                })*};
            }
            rows!(0 1 2 3);
        }
    }
    totals
}

/// totals of row `R` += scales · scale of x · dots, and offsets · (scale of x · Σ q) if there are any.
///
/// In assembly, because the compiler would hold some of a tile's totals in registers and, as there are too few, move them out of the
/// way of every group and back.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add<const R: usize>(
    totals: &mut [[f32; 8]],
    dots: [__m256i; 2],
    x: &QuantGroup,
    scales: [__m256; 2],
    offsets: Option<[__m256; 2]>,
) {
    macro_rules! add {
        ([$($line:literal),*], $($operands:tt)*) => {
            // SAFETY: the function requires AVX2 and FMA; the memory is `x` and the totals of row R.
            unsafe {
                asm!(
                    "vcvtdq2ps {a}, {a}",
                    "vcvtdq2ps {b}, {b}",
                    "vbroadcastss {x_scale}, dword ptr [{x} + {scale}]",
                    "vmulps {product}, {scale_a}, {x_scale}",
                    "vfmadd213ps {a}, {product}, ymmword ptr [{totals} + {at}]",
                    "vmulps {product}, {scale_b}, {x_scale}",
                    "vfmadd213ps {b}, {product}, ymmword ptr [{totals} + {at} + 32]",
                    $($line,)*
                    "vmovups ymmword ptr [{totals} + {at}], {a}",
                    "vmovups ymmword ptr [{totals} + {at} + 32], {b}",
                    a = inout(ymm_reg) dots[0] => _,
                    b = inout(ymm_reg) dots[1] => _,
                    x = in(reg) x,
                    scale = const offset_of!(QuantGroup, scale),
                    totals = in(reg) totals.as_mut_ptr(),
                    at = const 64 * R,
                    scale_a = in(ymm_reg) scales[0],
                    scale_b = in(ymm_reg) scales[1],
                    x_scale = out(ymm_reg) _,
                    product = out(ymm_reg) _,
                    $($operands)*
                    options(nostack, preserves_flags),
                );
            }
        };
    }
    assert!(2 * R + 2 <= totals.len());
    match offsets {
        None => add!([],),
        Some(offsets) => add!(
            [
                "vpbroadcastd {product}, dword ptr [{x} + {sum}]",
                "vcvtdq2ps {product}, {product}",
                "vmulps {product}, {product}, {x_scale}",
                "vfmadd231ps {a}, {offset_a}, {product}",
                "vfmadd231ps {b}, {offset_b}, {product}"
            ],
            sum = const offset_of!(QuantGroup, sum),
            offset_a = in(ymm_reg) offsets[0],
            offset_b = in(ymm_reg) offsets[1],
        ),
    }
}

/// Stores the totals of rows `first..`.
#[inline]
fn store(tile: &Tile<'_>, first: usize, totals: &[[[f32; 8]; 2]], out: &mut ColumnsMut<'_>) {
    for (t, total) in (first..).zip(totals) {
        let total = total.as_flattened().try_into().expect("2 x 8 are a panel");
        tile.store_row(t, total, out);
    }
}

/// Dot products of a group that begins with its 4-bit codes, `[row][half of the panel]`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots4<const R: usize, const BYTES: usize>(
    group: &[u8; BYTES],
    x: [&QuantGroup; R],
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
                multiply_add::<{ 4 * $j }>(&mut sums[r], quads, &x[r].q);
            }
            let quads = [high_nibbles(a), high_nibbles(b)];
            for r in 0..R {
                multiply_add::<{ 16 + 4 * $j }>(&mut sums[r], quads, &x[r].q);
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
    x: [&QuantGroup; R],
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
                multiply_add_signed::<{ 4 * $j }>(&mut sums[r], codes, sizes, one, &x[r].q);
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
/// is a constant, so that no instruction is spent on an address.
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

pub(super) use with_activations;

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

/// The sum of a group's activations in every lane, shifted: what the codes' zero adds to a dot product. In assembly, because the
/// compiler would shift before it spreads, which takes twice the instructions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn shifted<const BITS: u32>(x: &QuantGroup) -> __m256i {
    let spread;
    // SAFETY: the function requires AVX2; the only memory that is read is `x`.
    unsafe {
        asm!(
            "vpbroadcastd {spread}, dword ptr [{x} + {sum}]",
            "vpslld {spread}, {spread}, {bits}",
            x = in(reg) x,
            sum = const offset_of!(QuantGroup, sum),
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

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load(bytes: &[u8; 32]) -> __m256i {
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
