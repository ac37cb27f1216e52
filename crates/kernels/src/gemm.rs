//! Packed weights times quantized rows: out[t, n] = Σ_g scale_w[n, g] · scale_x[t, g] · Σ_{c in g} (code[n, c] − zero) · q[t, c].
//!
//! The inner sum is exact in i32. The outer one adds the groups in column order, one multiply-add each, for every T and every tile,
//! so rows do not depend on the batch. With offsets a second multiply-add per group adds offset · (scale_x · Σ q).

use std::ops::Range;

use crate::columns::ColumnsMut;
use crate::isa::{Isa, dispatch};
use crate::packed::{PANEL, PackedRef};
use crate::quantize::QuantRows;
use crate::unit::Unit;

/// Bytes of weights that stay in the second-level cache while the rows pass by.
const PANEL_BLOCK_BYTES: usize = 192 * 1024;
/// Activation rows that stay in the first-level cache while those panels pass by; the largest register tile.
pub(crate) const TILE: usize = 8;
/// Panels that a few rows are multiplied with side by side: memory is then read at four places at once.
pub(crate) const SIDE: usize = 4;

/// Multiplies: `out` `[T, rows of the panels]` = `x` `[T, cols]` · `w`ᵀ, or `out += s · x · w`ᵀ with `accumulate = Some(s)`.
///
/// # Panics
/// If the sizes do not fit each other, or the machine lacks `isa`.
pub fn gemm_packed(
    isa: Isa,
    w: PackedRef<'_>,
    panels: Range<usize>,
    x: QuantRows<'_>,
    out: &mut ColumnsMut<'_>,
    accumulate: Option<f32>,
) {
    let shape = w.shape();
    assert_eq!(x.cols(), shape.cols, "columns of weights and activations");
    assert!(
        panels.end <= shape.panels(),
        "panels {panels:?} of {}",
        shape.panels()
    );
    assert_eq!(out.rows(), x.rows(), "rows of output and activations");
    assert_eq!(
        out.width(),
        shape.rows_of(panels.clone()).len(),
        "columns of output and weight rows"
    );
    let mut unit = Unit::new(isa);
    if panels.is_empty() || x.rows() == 0 {
        return;
    }
    let tile = |panel: usize, rows: Range<usize>| {
        let columns = shape.rows_of(panel..panel + 1);
        let at = columns.start - panels.start * PANEL;
        Tile {
            w,
            panel,
            x,
            rows,
            columns: at..at + columns.len(),
            accumulate,
        }
    };
    let most = unit.most_rows(shape.bits);
    let block = if x.rows() <= most {
        panels.len()
    } else {
        (PANEL_BLOCK_BYTES / shape.panel_bytes().max(1)).max(1)
    };
    for first in panels.clone().step_by(block) {
        let last = (first + block).min(panels.end);
        for row in (0..x.rows()).step_by(most) {
            let rows = row..(row + most).min(x.rows());
            unit.shape(rows.len());
            // The first rows take the panels from memory, those behind them from the cache.
            let beside = if row == 0 && rows.len() <= TILE {
                first + (last - first) / SIDE * SIDE
            } else {
                first
            };
            for four in (first..beside).step_by(SIDE) {
                let tiles = std::array::from_fn(|i| tile(four + i, rows.clone()));
                dispatch!(isa, packed::side_by_side(&tiles, out));
            }
            for panel in beside..last {
                dispatch!(isa, packed::panel(&tile(panel, rows.clone()), out));
            }
        }
    }
}

/// One panel times at most [`TILE`] rows, or as many as the matrix unit takes.
pub(crate) struct Tile<'a> {
    pub(crate) w: PackedRef<'a>,
    pub(crate) panel: usize,
    pub(crate) x: QuantRows<'a>,
    /// Rows of `x` and of the output.
    pub(crate) rows: Range<usize>,
    /// Columns of the output part; fewer than 16 in a padded panel.
    pub(crate) columns: Range<usize>,
    pub(crate) accumulate: Option<f32>,
}

impl Tile<'_> {
    /// Writes or adds the sums of the tile's rows.
    #[inline]
    pub(crate) fn store(&self, sums: &[[f32; PANEL]], out: &mut ColumnsMut<'_>) {
        for (t, sums) in self.rows.clone().zip(sums) {
            self.store_row(t, sums, out);
        }
    }

    /// Writes or adds the sums of row `t`.
    #[inline]
    pub(crate) fn store_row(&self, t: usize, sums: &[f32; PANEL], out: &mut ColumnsMut<'_>) {
        let row = &mut out.row_mut(t)[self.columns.clone()];
        if let Some(s) = self.accumulate {
            for (out, sum) in row.iter_mut().zip(sums) {
                *out += s * sum;
            }
            return;
        }
        match <&mut [f32; PANEL]>::try_from(&mut *row) {
            Ok(row) => *row = *sums,
            Err(_) => row.copy_from_slice(&sums[..row.len()]),
        }
    }
}
