//! Packed weights times quantized rows, one element at a time.

use half::f16;

use crate::columns::ColumnsMut;
use crate::gemm::Tile;
use crate::packed::{Bits, GROUP, PANEL};

/// One panel times the tile's rows.
pub(crate) fn panel(tile: &Tile<'_>, out: &mut ColumnsMut<'_>) {
    let shape = tile.w.shape();
    let groups = shape.groups();
    let quants = tile.w.panel_quants(tile.panel);
    let scales = tile.w.panel_scales(tile.panel);
    let offsets = tile.w.panel_offsets(tile.panel);
    let zero = if shape.has_offset {
        0
    } else {
        i32::from(shape.bits.zero())
    };
    for t in tile.rows.clone() {
        let x = tile.x.slice(t..t + 1);
        let mut acc = [0.0f32; PANEL];
        let blocks = quants
            .chunks_exact(shape.bits.group_bytes())
            .zip(x.q.as_chunks::<GROUP>().0);
        for (g, (bytes, q)) in blocks.enumerate().take(groups) {
            let dots = match shape.bits {
                Bits::B4 => dots4(bytes, q),
                Bits::B8 => dots8(bytes, q),
            };
            for r in 0..PANEL {
                let scale = f16::from_bits(scales[g][r]).to_f32() * x.scales[g];
                acc[r] += scale * (dots[r] - zero * x.sums[g]) as f32;
                if let Some(offsets) = offsets.get(g) {
                    acc[r] +=
                        f16::from_bits(offsets[r]).to_f32() * (x.scales[g] * x.sums[g] as f32);
                }
            }
        }
        let row = &mut out.row_mut(t)[tile.columns.clone()];
        row.copy_from_slice(&acc[..row.len()]);
    }
}

/// Σ code · q of each row of a group of 4-bit codes.
fn dots4(bytes: &[u8], q: &[i8; GROUP]) -> [i32; PANEL] {
    let mut dots = [0; PANEL];
    for (i, &byte) in bytes.iter().enumerate() {
        let (quad, r, c) = (i / 64, i / 4 % PANEL, i % 4);
        dots[r] += i32::from(byte & 15) * i32::from(q[quad * 4 + c]);
        dots[r] += i32::from(byte >> 4) * i32::from(q[quad * 4 + 16 + c]);
    }
    dots
}

/// Σ code · q of each row of a group of 8-bit codes.
fn dots8(bytes: &[u8], q: &[i8; GROUP]) -> [i32; PANEL] {
    let mut dots = [0; PANEL];
    for (i, &byte) in bytes.iter().enumerate() {
        let (quad, r, c) = (i / 64, i / 4 % PANEL, i % 4);
        dots[r] += i32::from(byte) * i32::from(q[quad * 4 + c]);
    }
    dots
}
