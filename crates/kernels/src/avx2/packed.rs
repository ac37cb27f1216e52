//! Packed weights times quantized rows: the panel kernel, written once over how a group's dot products are taken, and that with
//! `vpmaddubsw`: one instruction is 8 rows by 4 columns.
//!
//! `vpmaddubsw` multiplies unsigned bytes with signed ones and adds neighbours into i16, saturating. A 4-bit code gives at most
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

use crate::columns::ColumnsMut;
use crate::gemm::{TILE, Tile};
use crate::packed::{Bits, GROUP, HALVES};
use crate::quantize::{QuantGroup, WHOLE};
use crate::unit::VNNI_MOST;

/// Defines the kernels of panels, compiled with the target features `$features`, on the group products of `$dots4`, `$dots6` and `$dots8`:
/// `[row][half of the panel]`, of codes less their zero, or of the codes themselves if they have offsets. A tile of `$count` rows is multiplied
/// group by group, `$a` rows first and then `$b`, as many as there are registers for.
///
/// A register tile is 4 rows with `vpmaddubsw`: 4 x 2 integer sums, codes of both halves of the panel (8 bits: and their magnitudes),
/// activations, a constant and a product are 13 to 15 of the 16 registers. The f32 sums stay in the first-level cache; a group touches each
/// once.
macro_rules! panel_kernels {
    (
        $features:literal, $dots4:path, $dots6:path, $dots8:path,
        $($count:literal => $a:literal + $b:literal)*
    ) => {
        use $crate::avx2::packed::{Bytes, Wide, add, groups_of, halves, most_rows, store};
        use $crate::columns::ColumnsMut;
        use $crate::fetch::Fetch;
        use $crate::gemm::{SIDE, Tile};
        use $crate::packed::{Bits, GROUP, GROUP6, HALVES, by_format, split};
        use $crate::quantize::{QuantGroup, QuantRows};
        use {$dots4 as group_dots4, $dots6 as group_dots6, $dots8 as group_dots8};

        /// One panel times the tile's rows.
        #[target_feature(enable = $features)]
        pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
            by_format!(tile.w.shape(), tiles_of::<1>([tile], out));
        }

        /// Four panels that follow each other times the same rows.
        #[target_feature(enable = $features)]
        pub(crate) fn side_by_side(tiles: &[Tile<'_>; SIDE], out: &mut ColumnsMut<'_>) {
            by_format!(tiles[0].w.shape(), tiles_of::<SIDE>(tiles.each_ref(), out));
        }

        /// P panels times the tiles' rows, which are the same.
        #[inline]
        #[target_feature(enable = $features)]
        fn tiles_of<const P: usize, const CODES: usize, const BLOCK_BYTES: usize>(
            tiles: [&Tile<'_>; P],
            out: &mut ColumnsMut<'_>,
        ) {
            tiles.iter().for_each(|tile| Fetch::outputs(tile, out));
            let w = tiles.map(|tile| tile.w.panel(tile.panel).as_chunks::<BLOCK_BYTES>().0);
            let x = tiles[0].x.slice(tiles[0].rows.clone());
            let bits = Bits::of_code_bytes(CODES);
            match x.rows() {
                $($count if $count <= most_rows(P, bits) => {
                    let mut totals = [[[[0.0; 8]; 2]; $count]; P];
                    rows::<P, $a, $b, $count, CODES, BLOCK_BYTES>(w, x, &mut totals);
                    for (tile, totals) in tiles.iter().zip(&totals) {
                        store(tile, totals, out);
                    }
                })*
                rows => unreachable!("a tile has 1 to {} rows, not {rows}", most_rows(P, bits)),
            }
        }

        /// P panels times R rows, of each group first A rows and then B, as many as there are registers for: adds to sums by panel, row, half
        /// of the panel.
        #[inline]
        #[target_feature(enable = $features)]
        fn rows<
            const P: usize,
            const A: usize,
            const B: usize,
            const R: usize,
            const CODES: usize,
            const BLOCK_BYTES: usize,
        >(
            w: [&[[u8; BLOCK_BYTES]]; P],
            x: QuantRows<'_>,
            totals: &mut [[[[f32; 8]; 2]; R]; P],
        ) {
            let groups = x.cols() / GROUP;
            let rows = x.first::<R>();
            let bits = Bits::of_code_bytes(CODES);
            let blocks = bits.block_groups();
            let w = w.map(|w| &w[..groups / blocks]);
            let fetch = w.map(Fetch::panel::<P, BLOCK_BYTES>);
            let mut wide = Wide::default();
            for g in 0..groups {
                for ((w, totals), fetch) in w.iter().zip(&mut *totals).zip(fetch) {
                    fetch.group::<BLOCK_BYTES>(g);
                    let (block, place) = (&w[g / blocks], g % blocks);
                    let (a, b) = totals.split_at_mut(A);
                    let bytes = if B > 0 {
                        Bytes::Leave(&mut wide)
                    } else {
                        Bytes::None
                    };
                    $crate::avx2::packed::group!(
                        A,
                        bits,
                        block,
                        place,
                        bytes,
                        groups_of::<A>(&rows, g),
                        a
                    );
                    if B > 0 {
                        $crate::avx2::packed::group!(
                            B,
                            bits,
                            block,
                            place,
                            Bytes::Left(&wide),
                            groups_of::<B>(&rows[A..], g),
                            b
                        );
                    }
                }
            }
        }
    };
}
pub(super) use panel_kernels;

/// `totals` of R rows += a group of a panel, that at `place` in its block, times those of the rows, `x`. A macro, because the compiler calls
/// a function that is used twice, with its vectors in memory.
macro_rules! group {
    ($R:ident, $bits:expr, $block:expr, $place:expr, $bytes:expr, $x:expr, $totals:expr) => {{
        let (block, x, totals): (&[u8; BLOCK_BYTES], [&QuantGroup; $R], _) = ($block, $x, $totals);
        let (w_scales, w_offsets) = split::<HALVES>(&block[$bits.scales_at()..]);
        let dots = match $bits {
            Bits::B4 => group_dots4(block, $bytes, x),
            Bits::B6 => group_dots6(&block.as_chunks::<GROUP6>().0[$place], x),
            Bits::B8 => group_dots8(block, x),
        };
        let scales = [halves(w_scales, 0), halves(w_scales, 1)];
        let offsets = $bits.has_offset(BLOCK_BYTES).then(|| {
            let (w_offsets, _) = split::<HALVES>(w_offsets);
            [halves(w_offsets, 0), halves(w_offsets, 1)]
        });
        if $R > 0 {
            add::<0>(totals, dots[0], x[0], scales, offsets);
        }
        if $R > 1 {
            add::<1>(totals, dots[1], x[1], scales, offsets);
        }
        if $R > 2 {
            add::<2>(totals, dots[2], x[2], scales, offsets);
        }
        if $R > 3 {
            add::<3>(totals, dots[3], x[3], scales, offsets);
        }
        if $R > 4 {
            add::<4>(totals, dots[4], x[4], scales, offsets);
        }
        if $R > 5 {
            add::<5>(totals, dots[5], x[5], scales, offsets);
        }
    }};
}
pub(super) use group;

/// Rows that are multiplied with so many panels at once. Of 6-bit codes the compiler would keep the sums of more in memory.
pub(super) const fn most_rows(panels: usize, bits: Bits) -> usize {
    match (panels, bits) {
        (1, Bits::B4 | Bits::B8) => VNNI_MOST,
        _ => TILE,
    }
}

/// Group `g` of the first R rows.
#[inline(always)]
pub(super) fn groups_of<'a, const R: usize>(
    rows: &[&'a [QuantGroup]],
    g: usize,
) -> [&'a QuantGroup; R] {
    std::array::from_fn(|r| &rows[r][g])
}

/// With `vpmaddubsw`.
mod by_pairs {
    super::panel_kernels!(
        "avx2,fma,f16c",
        super::dots4,
        crate::avx2::six_bits::dots6,
        super::dots8,
        1 => 1 + 0
        2 => 2 + 0
        3 => 3 + 0
        4 => 4 + 0
        5 => 4 + 1
        6 => 4 + 2
        7 => 4 + 3
        8 => 4 + 4
    );
}
pub(crate) use by_pairs::{panel, side_by_side};

/// totals of row `R` += scales · scale of x · dots, and offsets · (scale of x · Σ q) if there are any.
///
/// In assembly, because the compiler would hold some of a tile's totals in registers and, as there are too few, move them out of the
/// way of every group and back.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add<const R: usize>(
    totals: &mut [[[f32; 8]; 2]],
    dots: [__m256; 2],
    x: &QuantGroup,
    scales: [__m256; 2],
    offsets: Option<[__m256; 2]>,
) {
    macro_rules! add {
        ([$($line:literal),*], $($operands:tt)*) => {
            // SAFETY: the function requires AVX2 and FMA; the memory is `x` and the totals of row R.
            unsafe {
                asm!(
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
    assert!(R < totals.len());
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

/// Stores the totals of a tile's rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store(tile: &Tile<'_>, totals: &[[[f32; 8]; 2]], out: &mut ColumnsMut<'_>) {
    for (t, total) in tile.rows.clone().zip(totals) {
        let total = total.as_flattened().try_into().expect("2 x 8 are a panel");
        tile.store_row(t, total, out);
    }
}

/// Dot products of a group that begins with its 4-bit codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots4<const R: usize, const BYTES: usize>(
    group: &[u8; BYTES],
    mut bytes: Bytes<'_>,
    x: [&QuantGroup; R],
) -> [[__m256; 2]; R] {
    let blocks = group.as_chunks::<64>().0;
    let mut sums = [[_mm256_undefined_si256(); 2]; R];
    macro_rules! blocks {
        ($($j:literal)*) => {$(
            let [a, b] = blocks[$j].as_chunks::<32>().0 else {
                unreachable!("64 bytes are two halves");
            };
            let quads = match &mut bytes {
                Bytes::Left(wide) => taken(&wide.0[$j]),
                Bytes::Leave(wide) => left([low_nibbles(a), low_nibbles(b)], &mut wide.0[$j]),
                Bytes::None => [low_nibbles(a), low_nibbles(b)],
            };
            for r in 0..R {
                multiply_add::<{ 4 * $j }>(&mut sums[r], quads, &x[r].q);
            }
            let quads = match &mut bytes {
                Bytes::Left(wide) => taken(&wide.0[4 + $j]),
                Bytes::Leave(wide) => left([high_nibbles(a), high_nibbles(b)], &mut wide.0[4 + $j]),
                Bytes::None => [high_nibbles(a), high_nibbles(b)],
            };
            for r in 0..R {
                multiply_add::<{ 16 + 4 * $j }>(&mut sums[r], quads, &x[r].q);
            }
        )*};
    }
    blocks!(0 1 2 3);
    let one = _mm256_set1_epi16(1);
    let starts = starts4::<R, BYTES>(x);
    let mut dots = [[_mm256_setzero_ps(); 2]; R];
    for r in 0..R {
        let sums = sums[r].map(|sum| _mm256_madd_epi16(sum, one));
        dots[r] = sums.map(|sum| less_whole(_mm256_add_epi32(sum, starts[r])));
    }
    dots
}

/// The 4-bit codes of a group as bytes, `[quad][half of the panel]`.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Wide(pub(super) [[[u8; 32]; 2]; GROUP / 4]);

/// What is done with the bytes of 4-bit codes: the first rows of a tile leave them in the first-level cache, and those behind them take them
/// from there, without shifting and masking again.
pub(super) enum Bytes<'a> {
    None,
    Leave(&'a mut Wide),
    Left(&'a Wide),
}

/// Two registers of codes, left behind.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn left(quads: [__m256i; 2], bytes: &mut [[u8; 32]; 2]) -> [__m256i; 2] {
    for (quad, bytes) in quads.into_iter().zip(bytes) {
        // SAFETY: 32 writable bytes.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), quad) };
    }
    quads
}

/// The same that were left.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn taken(bytes: &[[u8; 32]; 2]) -> [__m256i; 2] {
    [load(&bytes[0]), load(&bytes[1])]
}

/// Where the sums of products with 4-bit codes begin, bits of f32s: less the codes' zero, if there are no offsets.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn starts4<const R: usize, const BYTES: usize>(x: [&QuantGroup; R]) -> [__m256i; R] {
    let whole = _mm256_castps_si256(_mm256_set1_ps(WHOLE));
    let mut starts = [whole; R];
    if !Bits::B4.has_offset(BYTES) {
        for r in 0..R {
            starts[r] = _mm256_castps_si256(_mm256_set1_ps(x[r].start));
        }
    }
    starts
}

/// A sum that began so, as a number.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn less_whole(sum: __m256i) -> __m256 {
    _mm256_sub_ps(_mm256_castsi256_ps(sum), _mm256_set1_ps(WHOLE))
}

/// Dot products of a group that begins with its 8-bit codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots8<const R: usize, const BYTES: usize>(
    group: &[u8; BYTES],
    x: [&QuantGroup; R],
) -> [[__m256; 2]; R] {
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
    if Bits::B8.has_offset(BYTES) {
        for r in 0..R {
            let zero = shifted::<7>(x[r]);
            sums[r] = sums[r].map(|sum| _mm256_add_epi32(sum, zero));
        }
    }
    sums.map(|sums| sums.map(|sum| _mm256_cvtepi32_ps(sum)))
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
pub(super) fn shifted<const BITS: u32>(x: &QuantGroup) -> __m256i {
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
pub(super) fn low_nibbles(block: &[u8; 32]) -> __m256i {
    _mm256_and_si256(load(block), _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn high_nibbles(block: &[u8; 32]) -> __m256i {
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
pub(super) fn halves(bits: &[u8; HALVES], half: usize) -> __m256 {
    let bits = &bits.as_chunks::<16>().0[half];
    // SAFETY: 16 readable bytes.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bits.as_ptr().cast()) })
}
