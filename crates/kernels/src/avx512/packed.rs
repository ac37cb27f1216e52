//! Packed weights times quantized rows with `vpdpbusd`: one instruction is 16 rows by 4 columns.
//!
//! A tile is up to eight activation rows. The codes of a group are decoded once into eight registers (a quad each) and multiplied
//! with every row: eight i32 accumulators, eight f32 sums and eight quads of codes fill 24 of the 32 registers, and the activations
//! come as broadcast memory operands. The zero point enters as the accumulator's start, −zero · Σq. Of 6-bit codes four quads, a half of the
//! group, have a scale of their own.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::*;

use crate::columns::ColumnsMut;
use crate::fetch::Fetch;
use crate::gemm::{SIDE, TILE, Tile};
use crate::packed::{Bits, GROUP, GROUP6, HALVES, PANEL, by_format, split};
use crate::quantize::{QuantGroup, QuantRows, WHOLE};

/// One panel times the tile's rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    by_format!(tile.w.shape(), tiles_of::<1>([tile], out));
}

/// Four panels that follow each other times the same rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn side_by_side(tiles: &[Tile<'_>; SIDE], out: &mut ColumnsMut<'_>) {
    by_format!(tiles[0].w.shape(), tiles_of::<SIDE>(tiles.each_ref(), out));
}

/// P panels times the tiles' rows, which are the same.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn tiles_of<const P: usize, const CODES: usize, const BLOCK_BYTES: usize>(
    tiles: [&Tile<'_>; P],
    out: &mut ColumnsMut<'_>,
) {
    tiles.iter().for_each(|tile| Fetch::outputs(tile, out));
    let w = tiles.map(|tile| tile.w.panel(tile.panel).as_chunks::<BLOCK_BYTES>().0);
    let x = tiles[0].x.slice(tiles[0].rows.clone());
    macro_rules! store {
        ($($rows:literal)*) => {
            match x.rows() {
                $($rows => {
                    let mut sums = [[[0.0; PANEL]; $rows]; P];
                    rows::<P, $rows, CODES, BLOCK_BYTES>(w, x, &mut sums);
                    for (tile, sums) in tiles.iter().zip(&sums) {
                        tile.store(sums, out);
                    }
                })*
                count => unreachable!("a tile has 1 to {TILE} rows, not {count}"),
            }
        };
    }
    store!(1 2 3 4 5 6 7 8);
}

/// P panels times R rows: sums by panel and row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn rows<const P: usize, const R: usize, const CODES: usize, const BLOCK_BYTES: usize>(
    w: [&[[u8; BLOCK_BYTES]]; P],
    x: QuantRows<'_>,
    out: &mut [[[f32; PANEL]; R]; P],
) {
    let bits = Bits::of_code_bytes(CODES);
    let has_offset = bits.has_offset(BLOCK_BYTES);
    let groups = bits.block_groups();
    let w = w.map(|blocks| &blocks[..w[0].len()]);
    let fetch = w.map(Fetch::panel::<P, BLOCK_BYTES>);
    let rows = x.first::<R>().map(|row| &row[..w[0].len() * groups]);
    let mut total = [[_mm512_setzero_ps(); R]; P];
    for g in 0..w[0].len() * groups {
        for p in 0..P {
            fetch[p].group::<BLOCK_BYTES>(g);
            let block = &w[p][g / groups];
            let x = rows.map(|row| &row[g]);
            let dots = if bits == Bits::B6 {
                let group = &block.as_chunks::<GROUP6>().0[g % groups];
                dots6(group, x)
            } else {
                dots::<P, R, CODES, BLOCK_BYTES>(split(block).0, x)
            };
            let (w_scales, w_offsets) = split::<HALVES>(&block[bits.scales_at()..]);
            let scale = halves(w_scales);
            for r in 0..R {
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x[r].scale));
                total[p][r] = _mm512_fmadd_ps(scale, dots[r], total[p][r]);
            }
            if has_offset {
                let offset = halves(split::<HALVES>(w_offsets).0);
                for r in 0..R {
                    let sum = _mm512_set1_ps(x[r].scale * x[r].sum as f32);
                    total[p][r] = _mm512_fmadd_ps(offset, sum, total[p][r]);
                }
            }
        }
    }
    for p in 0..P {
        for r in 0..R {
            // SAFETY: 64 writable bytes.
            unsafe { _mm512_storeu_ps(out[p][r].as_mut_ptr(), total[p][r]) };
        }
    }
}

/// Dot products of a group's codes of 4 or 8 bits, less their zero if there is one. A function for each caller: one that two share is
/// called, with its vectors in memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn dots<const P: usize, const R: usize, const CODES: usize, const BLOCK_BYTES: usize>(
    codes: &[u8; CODES],
    x: [&QuantGroup; R],
) -> [__m512; R] {
    let has_zero = !Bits::of_code_bytes(CODES).has_offset(BLOCK_BYTES);
    let quads = decode(codes);
    if CODES == Bits::B4.code_bytes() {
        let whole = _mm512_set1_ps(WHOLE);
        let mut sums = [_mm512_castps_si512(whole); R];
        if has_zero {
            sums = x.map(|x| _mm512_castps_si512(_mm512_set1_ps(x.start)));
        }
        multiply_add(&mut sums, &quads, x, 0);
        return sums.map(|sum| _mm512_sub_ps(_mm512_castsi512_ps(sum), whole));
    }
    let mut sums = [_mm512_setzero_si512(); R];
    if has_zero {
        sums = x.map(|x| _mm512_set1_epi32(-(x.sum << 7)));
    }
    multiply_add(&mut sums, &quads, x, 0);
    sums.map(|sum| _mm512_cvtepi32_ps(sum))
}

/// Dot products of a group of 6-bit codes, these less their zero and times the scales of its halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn dots6<const R: usize>(group: &[u8; GROUP6], x: [&QuantGroup; R]) -> [__m512; R] {
    let (codes, scales) = split::<{ Bits::B6.code_bytes() }>(group);
    let (scales, _) = split::<{ 2 * PANEL }>(scales);
    // SAFETY: 32 readable bytes.
    let pairs = _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) });
    let scales = [
        _mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(pairs)),
        _mm512_srai_epi32::<16>(pairs),
    ];
    let mut sums = [_mm512_setzero_si512(); R];
    let halves = codes.as_chunks::<{ 3 * 64 }>().0.iter().zip(scales);
    for (half, (codes, scale)) in halves.enumerate() {
        let quads = decode6(codes);
        let mut dots = x.map(|x| _mm512_set1_epi32(-(i32::from(x.halves[half]) << 5)));
        multiply_add(&mut dots, &quads, x, 4 * half);
        for r in 0..R {
            sums[r] = _mm512_add_epi32(sums[r], _mm512_mullo_epi32(dots[r], scale));
        }
    }
    sums.map(|sum| _mm512_cvtepi32_ps(sum))
}

/// dots += quads · those of the activations from quad `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn multiply_add<const R: usize>(
    dots: &mut [__m512i; R],
    quads: &[__m512i],
    x: [&QuantGroup; R],
    first: usize,
) {
    for (j, quad) in quads.iter().enumerate() {
        for r in 0..R {
            dots[r] = _mm512_dpbusd_epi32(dots[r], *quad, broadcast(&x[r].q, first + j));
        }
    }
}

/// The four quads of half a group of 6-bit codes, one code per byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn decode6(bytes: &[u8; 3 * 64]) -> [__m512i; 4] {
    let mut blocks = [_mm512_setzero_si512(); 3];
    for (block, bytes) in blocks.iter_mut().zip(bytes.as_chunks::<64>().0) {
        // SAFETY: 64 readable bytes.
        *block = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
    }
    let [a, b, c] = blocks.map(|block| _mm512_and_si512(block, _mm512_set1_epi8(63)));
    let [x, y, z] = blocks.map(|block| _mm512_and_si512(block, _mm512_set1_epi8(-64)));
    let xy = _mm512_or_si512(_mm512_srli_epi16::<2>(x), y);
    let last = _mm512_srli_epi16::<2>(_mm512_or_si512(_mm512_srli_epi16::<2>(xy), z));
    [a, b, c, last]
}

/// The eight quads of a group, one code per byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn decode<const CODES: usize>(bytes: &[u8; CODES]) -> [__m512i; 8] {
    let mut quads = [_mm512_setzero_si512(); 8];
    let low = _mm512_set1_epi8(15);
    for (j, block) in bytes.as_chunks::<64>().0.iter().enumerate() {
        // SAFETY: the block is 64 readable bytes.
        let block = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        if CODES == Bits::B4.code_bytes() {
            quads[j] = _mm512_and_si512(block, low);
            quads[j + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(block), low);
        } else {
            quads[j] = block;
        }
    }
    quads
}

/// Activations 4j..4j+4 in every 32-bit lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn broadcast(q: &[i8; GROUP], j: usize) -> __m512i {
    let [a, b, c, d] = q.as_chunks::<4>().0[j];
    _mm512_set1_epi32(i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]))
}

/// Sixteen halves to f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) fn halves(bits: &[u8; HALVES]) -> __m512 {
    // SAFETY: 32 readable bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bits.as_ptr().cast()) })
}
