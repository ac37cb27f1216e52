//! Packed weights times quantized rows: out[t, n] = Σ_g scale_w[n, g] · scale_x[t, g] · Σ_{c in g} (code[n, c] − zero) · q[t, c].
//!
//! The inner sum is exact in i32. The outer one adds the groups in column order, one multiply-add each, for every T and every tile,
//! so rows do not depend on the batch. With offsets a second multiply-add per group adds offset · (scale_x · Σ q).

use std::ops::Range;

use crate::columns::ColumnsMut;
use crate::isa::Isa;
use crate::packed::{PANEL, PackedRef};
use crate::quantize::QuantRows;
use crate::scalar;

/// Bytes of activations that are kept in the second-level cache while the panels pass by.
const ROW_BLOCK_BYTES: usize = 256 * 1024;

/// Multiplies: `out` `[T, rows of the panels]` = `x` `[T, cols]` · `w`ᵀ.
///
/// # Panics
/// If the sizes do not fit each other, or the machine lacks `isa`.
pub fn gemm_packed(
    isa: Isa,
    w: PackedRef<'_>,
    panels: Range<usize>,
    x: QuantRows<'_>,
    out: &mut ColumnsMut<'_>,
) {
    isa.require();
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
    let block = (ROW_BLOCK_BYTES / shape.cols).next_multiple_of(8);
    let mut first = 0;
    while first < x.rows() {
        let rows = first..(first + block).min(x.rows());
        for panel in panels.clone() {
            let columns = shape.rows_of(panel..panel + 1);
            let at = columns.start - panels.start * PANEL;
            let tile = Tile {
                w,
                panel,
                x,
                rows: rows.clone(),
                columns: at..at + columns.len(),
            };
            scalar::packed::panel(&tile, out)
        }
        first = rows.end;
    }
}

/// One panel times some rows.
pub(crate) struct Tile<'a> {
    pub(crate) w: PackedRef<'a>,
    pub(crate) panel: usize,
    pub(crate) x: QuantRows<'a>,
    /// Rows of `x` and of the output.
    pub(crate) rows: Range<usize>,
    /// Columns of the output part; fewer than 16 in a padded panel.
    pub(crate) columns: Range<usize>,
}
