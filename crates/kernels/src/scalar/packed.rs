//! Packed weights times quantized rows, one element at a time.

use crate::columns::ColumnsMut;
use crate::gemm::Tile;
use crate::packed::{Bits, GROUP, HALVES, PANEL, half};

/// One panel times the tile's rows.
pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    let shape = tile.w.shape();
    let w = tile.w.panel(tile.panel);
    let codes = shape.bits.code_bytes();
    let zero = if shape.has_offset {
        0
    } else {
        i32::from(shape.bits.zero())
    };
    for t in tile.rows.clone() {
        let mut acc = [0.0f32; PANEL];
        for (bytes, x) in w.chunks_exact(shape.group_bytes()).zip(tile.x.row(t)) {
            let (codes, rest) = bytes.split_at(codes);
            let (scales, offsets) = rest.split_at(HALVES);
            let dots = dots(&decode(shape.bits, codes), &x.q);
            for r in 0..PANEL {
                let scale = half(scales, r) * x.scale;
                acc[r] += scale * (dots[r] - zero * x.sum) as f32;
                if shape.has_offset {
                    acc[r] += half(offsets, r) * (x.scale * x.sum as f32);
                }
            }
        }
        tile.store_row(t, &acc, out);
    }
}

/// Two panels times one row.
pub(crate) fn two_panels(a: &Tile<'_>, b: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    panel(a, out);
    panel(b, out);
}

/// The codes of a group, a byte each: `[quad][row][4]`.
fn decode(bits: Bits, bytes: &[u8]) -> [u8; GROUP * PANEL] {
    let mut codes = [0; GROUP * PANEL];
    match bits {
        Bits::B8 => codes.copy_from_slice(bytes),
        Bits::B4 => {
            let (low, high) = codes.split_at_mut(GROUP * PANEL / 2);
            for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
                (*low, *high) = (byte & 15, byte >> 4);
            }
        }
    }
    codes
}

/// Σ code · q of each row.
fn dots(codes: &[u8; GROUP * PANEL], q: &[i8; GROUP]) -> [i32; PANEL] {
    let mut dots = [0; PANEL];
    for (quad, q) in codes
        .as_chunks::<{ 4 * PANEL }>()
        .0
        .iter()
        .zip(q.as_chunks::<4>().0)
    {
        for (dot, codes) in dots.iter_mut().zip(quad.as_chunks::<4>().0) {
            for (code, q) in codes.iter().zip(q) {
                *dot += i32::from(*code) * i32::from(*q);
            }
        }
    }
    dots
}
