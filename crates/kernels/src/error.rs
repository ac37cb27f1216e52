//! What the data can do wrong.

/// Data that a kernel refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A NaN or an infinity where the operation needs finite numbers.
    #[error(
        "non-finite value in {what}, row {row}; the weights or the activations before it overflowed"
    )]
    NonFinite {
        /// Which argument of which operation.
        what: &'static str,
        /// The row (token, query row or weight row) that holds it, counted from the start of the slice.
        row: usize,
    },
    /// A weight scale or offset that f16 cannot hold.
    #[error("the scale or offset of weight row {row}, group {group} is outside the range of f16")]
    ScaleRange {
        /// Weight row, counted from the start of the slice.
        row: usize,
        /// Group of 32 columns.
        group: usize,
    },
}
