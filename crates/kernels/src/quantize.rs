//! Activations and KV to int8, symmetric: q = round(x / scale), scale = max|x| / 127, ties to even.
//!
//! A group whose max|x| is below 2⁻¹²⁰ (where 127 / max|x| would overflow) is stored as zeros with scale 0.

use crate::error::KernelError;
use crate::isa::{Isa, dispatch};
use crate::packed::GROUP;

/// Quantized rows `[T, cols]`: what packed weights are multiplied with.
#[derive(Clone, Copy, Debug)]
pub struct QuantRows<'a> {
    cols: usize,
    pub(crate) q: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [i32],
}

impl<'a> QuantRows<'a> {
    /// `q` `[T, cols]` in −127..=127, and per group of 32 `scales` and `sums` (of the codes) `[T, cols / 32]`.
    ///
    /// # Panics
    /// On wrong lengths.
    #[must_use]
    pub fn new(cols: usize, q: &'a [i8], scales: &'a [f32], sums: &'a [i32]) -> Self {
        check(cols, q.len(), scales.len(), sums.len());
        Self {
            cols,
            q,
            scales,
            sums,
        }
    }

    /// Columns of a row.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of rows, T.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.q.len() / self.cols
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
            q: &self.q[rows.start * self.cols..rows.end * self.cols],
            scales: &self.scales[rows.start * groups..rows.end * groups],
            sums: &self.sums[rows.start * groups..rows.end * groups],
        }
    }
}

/// Where [`quantize_rows`] writes.
#[derive(Debug)]
pub struct QuantRowsMut<'a> {
    cols: usize,
    q: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl<'a> QuantRowsMut<'a> {
    /// As [`QuantRows::new`].
    ///
    /// # Panics
    /// On wrong lengths.
    #[must_use]
    pub fn new(cols: usize, q: &'a mut [i8], scales: &'a mut [f32], sums: &'a mut [i32]) -> Self {
        check(cols, q.len(), scales.len(), sums.len());
        Self {
            cols,
            q,
            scales,
            sums,
        }
    }
}

fn check(cols: usize, q: usize, scales: usize, sums: usize) {
    assert!(
        cols > 0 && cols.is_multiple_of(GROUP),
        "{cols} columns, not a positive multiple of {GROUP}"
    );
    assert!(q.is_multiple_of(cols), "{q} codes in rows of {cols}");
    assert_eq!(
        (scales, sums),
        (q / GROUP, q / GROUP),
        "scales and sums of {q} codes"
    );
}

/// Quantizes the rows `x` `[T, cols]` per group of 32.
///
/// # Errors
/// [`KernelError::NonFinite`] with the first row that holds a NaN or an infinity; the output is then undefined.
///
/// # Panics
/// If `x` and `out` differ in length, or the machine lacks `isa`.
pub fn quantize_rows(isa: Isa, x: &[f32], out: &mut QuantRowsMut<'_>) -> Result<(), KernelError> {
    assert_eq!(x.len(), out.q.len(), "activations and codes");
    let groups = out.cols / GROUP;
    let blocks = x.as_chunks::<GROUP>().0;
    let codes = out.q.as_chunks_mut::<GROUP>().0;
    let bad = dispatch!(isa, quantize::groups(blocks, codes, out.scales, out.sums));
    bad.map_or(Ok(()), |group| {
        Err(KernelError::NonFinite {
            what: "activations",
            row: group / groups,
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
