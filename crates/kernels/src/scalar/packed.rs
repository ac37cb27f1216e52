//! Packed weights times quantized rows, one element at a time.

use crate::columns::ColumnsMut;
use crate::gemm::{SIDE, Tile};
use crate::packed::{Bits, GROUP, GROUP6, HALVES, PANEL, PackedShape, half};
use crate::quantize::QuantGroup;

/// One panel times the tile's rows.
pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    let shape = tile.w.shape();
    let add = match shape.bits {
        Bits::B6 => add_block6,
        Bits::B4 | Bits::B8 => add_group,
    };
    for t in tile.rows.clone() {
        let mut acc = [0.0f32; PANEL];
        let blocks = tile.w.panel(tile.panel).chunks_exact(shape.block_bytes());
        let x = tile.x.row(t).chunks_exact(shape.bits.block_groups());
        for (block, x) in blocks.zip(x) {
            add(shape, block, x, &mut acc);
        }
        tile.store_row(t, &acc, out);
    }
}

/// A group of 4 or 8 bits.
fn add_group(shape: PackedShape, group: &[u8], x: &[QuantGroup], acc: &mut [f32; PANEL]) {
    let zero = match shape.has_offset {
        true => 0,
        false => i32::from(shape.bits.zero()),
    };
    let (codes, rest) = group.split_at(shape.bits.code_bytes());
    let (scales, offsets) = rest.split_at(HALVES);
    let x = &x[0];
    let dots = dots(&decode(shape.bits, codes), &x.q);
    for r in 0..PANEL {
        let scale = half(scales, r) * x.scale;
        acc[r] += scale * (dots[0][r] + dots[1][r] - zero * x.sum) as f32;
        if shape.has_offset {
            acc[r] += half(offsets, r) * (x.scale * x.sum as f32);
        }
    }
}

/// A block of 6 bits.
fn add_block6(shape: PackedShape, block: &[u8], x: &[QuantGroup], acc: &mut [f32; PANEL]) {
    let zero = i32::from(shape.bits.zero());
    let (groups, shared) = block.split_at(shape.bits.scales_at());
    for (group, x) in groups.as_chunks::<GROUP6>().0.iter().zip(x) {
        let (codes, scales) = group.split_at(shape.bits.code_bytes());
        let dots = dots(&decode(shape.bits, codes), &x.q);
        for r in 0..PANEL {
            let scaled = |h: usize| {
                let dot = dots[h][r] - zero * i32::from(x.halves[h]);
                i32::from(scales[2 * r + h].cast_signed()) * dot
            };
            acc[r] += half(shared, r) * x.scale * (scaled(0) + scaled(1)) as f32;
        }
    }
}

/// Four panels that follow each other times the same rows.
pub(crate) fn side_by_side(tiles: &[Tile<'_>; SIDE], out: &mut ColumnsMut<'_>) {
    for tile in tiles {
        panel(tile, out);
    }
}

/// Bytes of a quad of all rows.
const QUAD: usize = 4 * PANEL;

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
        Bits::B6 => {
            let halves = codes.as_chunks_mut::<{ 4 * QUAD }>().0.iter_mut();
            for (codes, bytes) in halves.zip(bytes.as_chunks::<{ 3 * QUAD }>().0) {
                let (three, last) = codes.split_at_mut(3 * QUAD);
                for (i, (code, byte)) in three.iter_mut().zip(bytes).enumerate() {
                    *code = byte & 63;
                    last[i % QUAD] |= byte >> 6 << (2 * (i / QUAD));
                }
            }
        }
    }
    codes
}

/// Σ code · q of each row, by half of the group.
fn dots(codes: &[u8; GROUP * PANEL], q: &[i8; GROUP]) -> [[i32; PANEL]; 2] {
    let mut dots = [[0; PANEL]; 2];
    let quads = codes.as_chunks::<QUAD>().0.iter();
    for (j, (quad, q)) in quads.zip(q.as_chunks::<4>().0).enumerate() {
        for (dot, codes) in dots[j / 4].iter_mut().zip(quad.as_chunks::<4>().0) {
            for (code, q) in codes.iter().zip(q) {
                *dot += i32::from(*code) * i32::from(*q);
            }
        }
    }
    dots
}
