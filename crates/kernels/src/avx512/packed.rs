//! Packed weights times quantized rows with `vpdpbusd`: one instruction is 16 rows by 4 columns.
//!
//! A tile is up to eight activation rows. The codes of a group are decoded once into eight registers (a quad each) and multiplied
//! with every row: eight i32 accumulators, eight f32 sums and eight quads of codes fill 24 of the 32 registers, and the activations
//! come as broadcast memory operands. The zero point enters as the accumulator's start, −zero · Σq.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::*;

use super::lanes;
use crate::columns::ColumnsMut;
use crate::gemm::{TILE, Tile};
use crate::packed::{Bits, GROUP, HALVES, PANEL, split};
use crate::quantize::QuantRows;

/// One panel times the tile's rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn two_panels(a: &Tile<'_>, b: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    panel(a, out);
    panel(b, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn panel_of<const CODES: usize, const GROUP_BYTES: usize>(
    tile: &Tile<'_>,
    out: &mut ColumnsMut<'_>,
) {
    let w = tile.w.panel(tile.panel).as_chunks::<GROUP_BYTES>().0;
    let count = tile.rows.len();
    let x = tile.x.slice(tile.rows.clone());
    let mut sums = [[0.0; PANEL]; TILE];
    match count {
        1 => rows::<1, CODES, GROUP_BYTES>(w, x, &mut sums),
        2 => rows::<2, CODES, GROUP_BYTES>(w, x, &mut sums),
        3 => rows::<3, CODES, GROUP_BYTES>(w, x, &mut sums),
        4 => rows::<4, CODES, GROUP_BYTES>(w, x, &mut sums),
        5 => rows::<5, CODES, GROUP_BYTES>(w, x, &mut sums),
        6 => rows::<6, CODES, GROUP_BYTES>(w, x, &mut sums),
        7 => rows::<7, CODES, GROUP_BYTES>(w, x, &mut sums),
        8 => rows::<8, CODES, GROUP_BYTES>(w, x, &mut sums),
        _ => unreachable!("a tile has 1 to {TILE} rows, not {count}"),
    }
    tile.store(&sums, out);
}

/// The tile of R rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn rows<const R: usize, const CODES: usize, const GROUP_BYTES: usize>(
    w: &[[u8; GROUP_BYTES]],
    x: QuantRows<'_>,
    out: &mut [[f32; PANEL]; TILE],
) {
    let has_offset = GROUP_BYTES > CODES + HALVES;
    let groups = w.len();
    let zero_shift = if CODES == Bits::B4.code_bytes() { 3 } else { 7 };
    let rows = x.first::<R>().map(|row| &row[..groups]);
    let mut total = [_mm512_setzero_ps(); R];
    for g in 0..groups {
        if R > 1 {
            ahead(&w[g]);
        }
        let (w_codes, rest) = split::<CODES>(&w[g]);
        let (w_scales, w_offsets) = split::<HALVES>(rest);
        let quads = decode(w_codes);
        let mut acc = [_mm512_setzero_si512(); R];
        if !has_offset {
            for r in 0..R {
                acc[r] = _mm512_set1_epi32(-(rows[r][g].sum << zero_shift));
            }
        }
        for (j, quad) in quads.iter().enumerate() {
            for r in 0..R {
                acc[r] = _mm512_dpbusd_epi32(acc[r], *quad, broadcast(&rows[r][g].q, j));
            }
        }
        let scale = halves(w_scales);
        for r in 0..R {
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(rows[r][g].scale));
            total[r] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(acc[r]), total[r]);
        }
        if has_offset {
            let offset = halves(split::<HALVES>(w_offsets).0);
            for r in 0..R {
                let x = &rows[r][g];
                let sum = _mm512_set1_ps(x.scale * x.sum as f32);
                total[r] = _mm512_fmadd_ps(offset, sum, total[r]);
            }
        }
    }
    for r in 0..R {
        // SAFETY: out[r] is 64 writable bytes.
        unsafe { _mm512_storeu_ps(out[r].as_mut_ptr(), total[r]) };
    }
}

/// Groups between the one that is multiplied and the one that is fetched.
const AHEAD: usize = 16;

/// Fetches the codes some groups further on, of the next panel at the end of one: they follow each other in memory. With several rows
/// a group takes so long that the machine's own prefetcher falls behind. An address that is not mapped is no error.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn ahead<const GROUP_BYTES: usize>(group: &[u8; GROUP_BYTES]) {
    let next = group.as_ptr().wrapping_add(AHEAD * GROUP_BYTES);
    for line in (0..GROUP_BYTES).step_by(64) {
        lanes::prefetch(next.wrapping_add(line));
    }
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
fn halves(bits: &[u8; HALVES]) -> __m512 {
    // SAFETY: 32 readable bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bits.as_ptr().cast()) })
}
