//! Activations and KV to int8, symmetric: q = round(x / scale), scale = max|x| / 127, ties to even.
//!
//! A group whose max|x| is below 2⁻¹²⁰ (where 127 / max|x| would overflow) is stored as zeros with scale 0.

use crate::columns::ColumnsMut;
use crate::error::KernelError;
use crate::isa::{Isa, dispatch};
use crate::packed::GROUP;

/// Some columns of a row of activations: x ≈ scale · q. What a product reads of them lies side by side, at one address.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct QuantGroup {
    /// The codes, in −127..=127.
    pub q: [i8; GROUP],
    /// The step of a code.
    pub scale: f32,
    /// Σ q.
    pub sum: i32,
    /// Σ q of each half.
    pub halves: [i16; 2],
    /// 1.5 · 2²³ − 8 Σ q: where a sum of products with 4-bit codes begins. In that f32 the last bit is 1, so that whole numbers of less
    /// than 2²² are added to its bits.
    pub start: f32,
}

/// A f32 to the bits of which whole numbers of less than 2²² are added; less this, the sum is a f32 without being converted.
pub(crate) const WHOLE: f32 = 12_582_912.0; // 1.5 · 2^23

/// Quantized rows `[T, cols]`: what packed weights are multiplied with.
#[derive(Clone, Copy, Debug)]
pub struct QuantRows<'a> {
    cols: usize,
    groups: &'a [QuantGroup],
}

impl<'a> QuantRows<'a> {
    /// `groups` `[T, cols / 32]`.
    ///
    /// # Panics
    /// If they are no whole rows.
    #[must_use]
    pub fn new(cols: usize, groups: &'a [QuantGroup]) -> Self {
        check(cols, groups);
        Self { cols, groups }
    }

    /// Columns of a row.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of rows, T.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.groups.len() * GROUP / self.cols
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn slice(&self, rows: std::ops::Range<usize>) -> Self {
        let groups = self.cols / GROUP;
        Self {
            cols: self.cols,
            groups: &self.groups[rows.start * groups..rows.end * groups],
        }
    }

    /// The groups of one row.
    #[inline]
    pub(crate) fn row(&self, row: usize) -> &'a [QuantGroup] {
        let groups = self.cols / GROUP;
        &self.groups[row * groups..][..groups]
    }

    /// The groups of the first R rows.
    #[inline]
    pub(crate) fn first<const R: usize>(&self) -> [&'a [QuantGroup]; R] {
        std::array::from_fn(|row| self.row(row))
    }
}

fn check(cols: usize, groups: &[QuantGroup]) {
    assert!(
        cols > 0 && cols.is_multiple_of(GROUP),
        "{cols} columns, not a positive multiple of {GROUP}"
    );
    assert!(
        (groups.len() * GROUP).is_multiple_of(cols),
        "{} groups of {GROUP} in rows of {cols}",
        groups.len()
    );
}

/// Quantizes the rows `x` `[T, cols]` per group of 32, to `out` `[T, cols / 32]`.
///
/// # Errors
/// [`KernelError::NonFinite`] with the first row that holds a NaN or an infinity; the output is then undefined.
///
/// # Panics
/// If `x` and `out` differ in length or are no whole rows, or the machine lacks `isa`.
pub fn quantize_rows(
    isa: Isa,
    cols: usize,
    x: &[f32],
    out: &mut [QuantGroup],
) -> Result<(), KernelError> {
    check(cols, out);
    assert_eq!(x.len(), out.len() * GROUP, "activations and codes");
    let bad = dispatch!(isa, quantize::groups(x.as_chunks::<GROUP>().0, out));
    bad.map_or(Ok(()), |group| {
        Err(KernelError::NonFinite {
            what: "activations",
            row: group / (cols / GROUP),
        })
    })
}

/// The same to some columns of a matrix: `x` `[T, 32 · width]`.
///
/// # Errors
/// As [`quantize_rows`].
///
/// # Panics
/// As [`quantize_rows`].
pub fn quantize_columns(
    isa: Isa,
    x: &[f32],
    out: &mut ColumnsMut<'_, QuantGroup>,
) -> Result<(), KernelError> {
    let x = x.as_chunks::<GROUP>().0;
    assert_eq!(x.len(), out.rows() * out.width(), "activations and codes");
    let bad = dispatch!(isa, quantize::columns(x, out));
    bad.map_or(Ok(()), |row| {
        Err(KernelError::NonFinite {
            what: "activations",
            row,
        })
    })
}

/// Quantizes one head of one token, `x` `[D]`, and returns the scale.
///
/// # Errors
/// [`KernelError::NonFinite`] if `x` holds a NaN or an infinity.
///
/// # Panics
/// If the lengths differ, or the machine lacks `isa`.
pub fn quantize_kv(isa: Isa, x: &[f32], q: &mut [i8]) -> Result<f32, KernelError> {
    assert_eq!(x.len(), q.len(), "values and codes");
    let scale = dispatch!(isa, quantize::vector(x, q));
    scale.ok_or(KernelError::NonFinite {
        what: "keys or values",
        row: 0,
    })
}
