//! A matrix of outputs `[T, N]` split by columns, so that several threads fill one matrix.

#![expect(
    unsafe_code,
    reason = "the parts of a matrix split by columns are not slices"
)]

use std::marker::PhantomData;
use std::ops::Range;

/// Some columns of a row-major matrix `[T, N]`, exclusively borrowed.
#[derive(Debug)]
pub struct ColumnsMut<'a, X = f32> {
    /// Element (0, `columns.start`).
    start: *mut X,
    stride: usize,
    rows: usize,
    columns: Range<usize>,
    matrix: PhantomData<&'a mut [X]>,
}

// SAFETY: it stands for a `&mut` to the elements (t, c) with t < rows and c in `columns`; no other part of the split holds them.
unsafe impl<X: Send> Send for ColumnsMut<'_, X> {}
// SAFETY: `&ColumnsMut` gives no access to the elements.
unsafe impl<X: Sync> Sync for ColumnsMut<'_, X> {}

impl<'a, X> ColumnsMut<'a, X> {
    /// The whole of `matrix` `[T, n]`.
    ///
    /// # Panics
    /// If the length is not a multiple of `n`, or `n` is 0.
    #[must_use]
    pub fn new(matrix: &'a mut [X], n: usize) -> Self {
        assert!(
            n > 0 && matrix.len().is_multiple_of(n),
            "matrix of {} elements with rows of {n}",
            matrix.len()
        );
        Self {
            start: matrix.as_mut_ptr(),
            stride: n,
            rows: matrix.len() / n,
            columns: 0..n,
            matrix: PhantomData,
        }
    }

    /// Number of rows, T.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns in this part.
    #[must_use]
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Which columns of the whole matrix this part holds.
    #[must_use]
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// This part's elements of row `t`.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn row_mut(&mut self, t: usize) -> &mut [X] {
        assert!(t < self.rows, "row {t} of {}", self.rows);
        // SAFETY: row t exists (above) and `start` is its first column of this part; the range is inside the borrowed matrix, and
        // `&mut self` makes the reference unique.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(t * self.stride), self.columns.len())
        }
    }

    /// Some of the columns, counted in this part.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn part(&mut self, columns: Range<usize>) -> ColumnsMut<'_, X> {
        assert!(
            columns.start <= columns.end && columns.end <= self.width(),
            "columns {columns:?} of {}",
            self.width()
        );
        let first = self.columns.start;
        ColumnsMut {
            start: self.start.wrapping_add(columns.start),
            columns: first + columns.start..first + columns.end,
            ..*self
        }
    }

    /// The columns before `at` (counted in this part) and the rest.
    ///
    /// # Panics
    /// If `at` is beyond the width.
    #[must_use]
    pub fn split_at(self, at: usize) -> (Self, Self) {
        assert!(at <= self.width(), "split at {at} of {}", self.width());
        let middle = self.columns.start + at;
        let left = Self {
            columns: self.columns.start..middle,
            ..self
        };
        let right = Self {
            start: self.start.wrapping_add(at),
            columns: middle..self.columns.end,
            ..self
        };
        (left, right)
    }
}

/// Splits `matrix` `[T, n]` into the given column ranges, which must be ascending and disjoint. Allocates nothing.
///
/// # Panics
/// The iterator panics at a range that begins before the end of the one before it, or ends beyond `n`.
pub fn split_columns<'a>(
    matrix: &'a mut [f32],
    n: usize,
    ranges: &'a [Range<usize>],
) -> impl Iterator<Item = ColumnsMut<'a>> {
    let mut rest = Some(ColumnsMut::new(matrix, n));
    ranges.iter().filter_map(move |range| {
        let whole = rest.take()?;
        let at = whole.columns.start;
        assert!(
            range.start >= at && range.start <= range.end && range.end <= n,
            "columns {range:?} after {at} of {n}"
        );
        let (_, tail) = whole.split_at(range.start - at);
        let (part, tail) = tail.split_at(range.len());
        rest = Some(tail);
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of ranges is meant")]
    fn parts_are_the_columns() {
        let mut matrix: Vec<f32> = (0..12u8).map(f32::from).collect();
        let ranges = [0..1, 2..4];
        let mut parts: Vec<_> = split_columns(&mut matrix, 4, &ranges).collect();
        assert_eq!(parts[0].row_mut(2), [8.0]);
        assert_eq!(parts[1].row_mut(1), [6.0, 7.0]);
        parts[1].part(0..2).row_mut(0).fill(-1.0);
        assert_eq!(parts[1].part(1..2).row_mut(1), [7.0]);
        assert_eq!(matrix[..4], [0.0, 1.0, -1.0, -1.0]);
        assert_eq!(split_columns(&mut matrix, 4, &[0..4]).count(), 1);
        assert_eq!(
            split_columns(&mut [], 4, &[1..3])
                .map(|p| p.rows())
                .sum::<usize>(),
            0
        );
    }

    #[test]
    #[should_panic(expected = "columns 1..3 after 2")]
    fn overlap_is_refused() {
        let mut matrix = [0.0; 8];
        let ranges = [0..2, 1..3];
        let _ = split_columns(&mut matrix, 4, &ranges).count();
    }
}
