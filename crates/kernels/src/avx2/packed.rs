//! Packed weights times quantized rows with `vpmaddubsw`: one instruction is 8 rows by 4 columns.
//!
//! It multiplies unsigned codes with signed activations and adds neighbours into i16, saturating. Codes therefore enter as nibbles:
//! 2 · 15 · 128 = 3,840 per instruction, and the eight quads of a group together at most 30,720, which i16 holds. So a group is
//! summed in i16, then widened once. An 8-bit code is two nibbles with their own sums, the high one counted 16 times.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::*;

use crate::columns::ColumnsMut;
use crate::gemm::{TILE, Tile};
use crate::packed::{Bits, GROUP, PANEL};
use crate::quantize::QuantRows;

/// Rows of a register tile: sums of 16 and 32 bits, codes and a mask have 16 registers.
const ROWS: usize = 4;

/// One panel times the tile's rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    let shape = tile.w.shape();
    match (shape.bits, shape.has_offset) {
        (Bits::B4, false) => panel_of::<4, 256, false>(tile, out),
        (Bits::B4, true) => panel_of::<4, 256, true>(tile, out),
        (Bits::B8, false) => panel_of::<8, 512, false>(tile, out),
        (Bits::B8, true) => panel_of::<8, 512, true>(tile, out),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn panel_of<const BITS: usize, const BYTES: usize, const OFFSET: bool>(
    tile: &Tile<'_>,
    out: &mut ColumnsMut<'_>,
) {
    let w = Panel {
        quants: tile.w.panel_quants(tile.panel).as_chunks::<BYTES>().0,
        scales: tile.w.panel_scales(tile.panel),
        offsets: tile.w.panel_offsets(tile.panel),
    };
    let mut sums = [[0.0; PANEL]; TILE];
    let parts = tile
        .rows
        .clone()
        .step_by(ROWS)
        .zip(sums.as_chunks_mut::<ROWS>().0);
    for (t, sums) in parts {
        let count = ROWS.min(tile.rows.end - t);
        let x = tile.x.slice(t..t + count);
        for half in 0..2 {
            match count {
                1 => rows::<1, BITS, BYTES, OFFSET>(&w, half, x, sums),
                2 => rows::<2, BITS, BYTES, OFFSET>(&w, half, x, sums),
                3 => rows::<3, BITS, BYTES, OFFSET>(&w, half, x, sums),
                _ => rows::<4, BITS, BYTES, OFFSET>(&w, half, x, sums),
            }
        }
    }
    tile.store(&sums, out);
}

struct Panel<'a, const BYTES: usize> {
    quants: &'a [[u8; BYTES]],
    scales: &'a [[u16; PANEL]],
    offsets: &'a [[u16; PANEL]],
}

/// R rows times weight rows 8 · half .. 8 · half + 8 of the panel.
#[target_feature(enable = "avx2,fma,f16c")]
fn rows<const R: usize, const BITS: usize, const BYTES: usize, const OFFSET: bool>(
    w: &Panel<'_, BYTES>,
    half: usize,
    x: QuantRows<'_>,
    out: &mut [[f32; PANEL]; ROWS],
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
    let nibble = _mm256_set1_epi8(15);
    let mut total = [_mm256_setzero_ps(); R];
    for g in 0..groups {
        let blocks = w.quants[g].as_chunks::<32>().0;
        let mut low = [_mm256_setzero_si256(); R];
        let mut high = [_mm256_setzero_si256(); R];
        for j in 0..BITS {
            let block = load(&blocks[2 * j + half]);
            let lower = _mm256_and_si256(block, nibble);
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(block), nibble);
            for r in 0..R {
                if BITS == 4 {
                    let a = _mm256_maddubs_epi16(lower, broadcast(&codes[r][g], j));
                    let b = _mm256_maddubs_epi16(upper, broadcast(&codes[r][g], j + 4));
                    low[r] = _mm256_add_epi16(low[r], _mm256_add_epi16(a, b));
                } else {
                    let x = broadcast(&codes[r][g], j);
                    low[r] = _mm256_add_epi16(low[r], _mm256_maddubs_epi16(lower, x));
                    high[r] = _mm256_add_epi16(high[r], _mm256_maddubs_epi16(upper, x));
                }
            }
        }
        let scale = halves(&w_scales[g], half);
        for r in 0..R {
            let mut dot = _mm256_madd_epi16(low[r], _mm256_set1_epi16(1));
            if BITS == 8 {
                let high = _mm256_madd_epi16(high[r], _mm256_set1_epi16(16));
                dot = _mm256_add_epi32(dot, high);
            }
            if !OFFSET {
                dot = _mm256_sub_epi32(dot, _mm256_set1_epi32(sums[r][g] << (BITS - 1)));
            }
            let scale = _mm256_mul_ps(scale, _mm256_set1_ps(scales[r][g]));
            total[r] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dot), total[r]);
        }
        if OFFSET {
            let offset = halves(&w_offsets[g], half);
            for r in 0..R {
                let sum = _mm256_set1_ps(scales[r][g] * sums[r][g] as f32);
                total[r] = _mm256_fmadd_ps(offset, sum, total[r]);
            }
        }
    }
    for r in 0..R {
        let out = &mut out[r].as_chunks_mut::<8>().0[half];
        // SAFETY: 32 writable bytes.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), total[r]) };
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Activations 4j..4j+4 in every 32-bit lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn broadcast(q: &[i8; GROUP], j: usize) -> __m256i {
    let [a, b, c, d] = q.as_chunks::<4>().0[j];
    _mm256_set1_epi32(i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]))
}

/// Eight halves to f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(bits: &[u16; PANEL], half: usize) -> __m256 {
    let bits = &bits.as_chunks::<8>().0[half];
    // SAFETY: 16 readable bytes.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bits.as_ptr().cast()) })
}
