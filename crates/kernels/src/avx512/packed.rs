//! Packed weights times quantized rows with `vpdpbusd`: one instruction is 16 rows by 4 columns.
//!
//! A tile is up to eight activation rows. The codes of a group are decoded once into eight registers (a quad each) and multiplied
//! with every row: eight i32 accumulators, eight f32 sums and eight quads of codes fill 24 of the 32 registers, and the activations
//! come as broadcast memory operands. The zero point enters as the accumulator's start, −zero · Σq.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::*;

use crate::columns::ColumnsMut;
use crate::gemm::{TILE, Tile};
use crate::packed::{Bits, GROUP, PANEL};
use crate::quantize::QuantRows;

/// One panel times the tile's rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    let shape = tile.w.shape();
    match (shape.bits, shape.has_offset) {
        (Bits::B4, false) => panel_of::<4, 256, false>(tile, out),
        (Bits::B4, true) => panel_of::<4, 256, true>(tile, out),
        (Bits::B8, false) => panel_of::<8, 512, false>(tile, out),
        (Bits::B8, true) => panel_of::<8, 512, true>(tile, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn panel_of<const BITS: usize, const BYTES: usize, const OFFSET: bool>(
    tile: &Tile<'_>,
    out: &mut ColumnsMut<'_>,
) {
    let w = Panel {
        quants: tile.w.panel_quants(tile.panel).as_chunks::<BYTES>().0,
        scales: tile.w.panel_scales(tile.panel),
        offsets: tile.w.panel_offsets(tile.panel),
    };
    let count = tile.rows.len();
    let x = tile.x.slice(tile.rows.clone());
    let mut sums = [[0.0; PANEL]; TILE];
    match count {
        1 => rows::<1, BITS, BYTES, OFFSET>(&w, x, &mut sums),
        2 => rows::<2, BITS, BYTES, OFFSET>(&w, x, &mut sums),
        3 => rows::<3, BITS, BYTES, OFFSET>(&w, x, &mut sums),
        4 => rows::<4, BITS, BYTES, OFFSET>(&w, x, &mut sums),
        5 => rows::<5, BITS, BYTES, OFFSET>(&w, x, &mut sums),
        6 => rows::<6, BITS, BYTES, OFFSET>(&w, x, &mut sums),
        7 => rows::<7, BITS, BYTES, OFFSET>(&w, x, &mut sums),
        8 => rows::<8, BITS, BYTES, OFFSET>(&w, x, &mut sums),
        _ => unreachable!("a tile has 1 to {TILE} rows, not {count}"),
    }
    tile.store(&sums, out);
}

struct Panel<'a, const BYTES: usize> {
    quants: &'a [[u8; BYTES]],
    scales: &'a [[u16; PANEL]],
    offsets: &'a [[u16; PANEL]],
}

/// The tile of R rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn rows<const R: usize, const BITS: usize, const BYTES: usize, const OFFSET: bool>(
    w: &Panel<'_, BYTES>,
    x: QuantRows<'_>,
    out: &mut [[f32; PANEL]; TILE],
) {
    let groups = w.quants.len();
    let q = x.q.as_chunks::<GROUP>().0;
    let mut codes: [&[[i8; GROUP]]; R] = [&[]; R];
    let mut scales: [&[f32]; R] = [&[]; R];
    let mut sums: [&[i32]; R] = [&[]; R];
    for r in 0..R {
        codes[r] = &q[r * groups..][..groups];
        scales[r] = &x.scales[r * groups..][..groups];
        sums[r] = &x.sums[r * groups..][..groups];
    }
    let w_scales = &w.scales[..groups];
    let w_offsets = if OFFSET { &w.offsets[..groups] } else { &[] };
    let mut total = [_mm512_setzero_ps(); R];
    for g in 0..groups {
        if R > 1 {
            ahead(&w.quants[g]);
        }
        let quads = decode::<BITS, BYTES>(&w.quants[g]);
        let mut acc = [_mm512_setzero_si512(); R];
        if !OFFSET {
            for r in 0..R {
                acc[r] = _mm512_set1_epi32(-(sums[r][g] << (BITS - 1)));
            }
        }
        for (j, quad) in quads.iter().enumerate() {
            for r in 0..R {
                acc[r] = _mm512_dpbusd_epi32(acc[r], *quad, broadcast(&codes[r][g], j));
            }
        }
        let scale = halves(&w_scales[g]);
        for r in 0..R {
            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(scales[r][g]));
            total[r] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(acc[r]), total[r]);
        }
        if OFFSET {
            let offset = halves(&w_offsets[g]);
            for r in 0..R {
                let sum = _mm512_set1_ps(scales[r][g] * sums[r][g] as f32);
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
fn ahead<const BYTES: usize>(group: &[u8; BYTES]) {
    let next = group.as_ptr().wrapping_add(AHEAD * BYTES);
    for line in (0..BYTES).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(line).cast());
    }
}

/// The eight quads of a group, one code per byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn decode<const BITS: usize, const BYTES: usize>(bytes: &[u8; BYTES]) -> [__m512i; 8] {
    let mut quads = [_mm512_setzero_si512(); 8];
    let low = _mm512_set1_epi8(15);
    for (j, block) in bytes.as_chunks::<64>().0.iter().enumerate() {
        // SAFETY: the block is 64 readable bytes.
        let block = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
        if BITS == 4 {
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
fn halves(bits: &[u16; PANEL]) -> __m512 {
    // SAFETY: 32 readable bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bits.as_ptr().cast()) })
}
