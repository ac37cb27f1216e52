//! Norm, rotary embedding, gated activation, sums: the small operations between the matrices.

use crate::error::KernelError;
use crate::isa::{Isa, dispatch};

/// RMS norm of each row of `x` `[T, E]`: out = x · weight / √(mean(x²) + eps). `weight` is `[E]`.
///
/// # Errors
/// [`KernelError::NonFinite`] with the first row whose mean square is not finite.
///
/// # Panics
/// On wrong lengths, or if the machine lacks `isa`.
pub fn rms_norm(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let e = weight.len();
    assert_eq!(x.len(), out.len(), "input and output");
    assert!(
        e > 0 && x.len().is_multiple_of(e),
        "{} values in rows of {e}",
        x.len()
    );
    for (row, (x, out)) in x.chunks_exact(e).zip(out.chunks_exact_mut(e)).enumerate() {
        let finite = dispatch!(isa, elementwise::rms_norm(x, weight, eps, out));
        if !finite {
            return Err(KernelError::NonFinite {
                what: "input of the norm",
                row,
            });
        }
    }
    Ok(())
}

/// Rotates the heads `x` `[H, D]` of one token in place, halves paired as in Hugging Face models:
/// (a, b) → (a·cos − b·sin, b·cos + a·sin) with a from the first and b from the second half of a head. `cos`, `sin` are `[D / 2]`.
///
/// # Panics
/// On wrong lengths, or if the machine lacks `isa`.
pub fn rope(isa: Isa, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    assert_eq!(half, sin.len(), "cosines and sines");
    assert!(
        half > 0 && x.len().is_multiple_of(2 * half),
        "{} values in heads of {}",
        x.len(),
        2 * half
    );
    for head in x.chunks_exact_mut(2 * half) {
        let (a, b) = head.split_at_mut(half);
        dispatch!(isa, elementwise::rotate(a, b, cos, sin))
    }
}

/// gate = silu(gate) · up, silu(g) = g / (1 + e^−g). Relative error below 4 ulp.
///
/// # Panics
/// If the lengths differ, or the machine lacks `isa`.
pub fn swiglu(isa: Isa, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up");
    dispatch!(isa, elementwise::swiglu(gate, up))
}

/// a += b.
///
/// # Panics
/// If the lengths differ, or the machine lacks `isa`.
pub fn add_assign(isa: Isa, a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "terms");
    dispatch!(isa, elementwise::add_assign(a, b))
}

/// Adds `row` `[N]` to every row of `a` `[T, N]`: a bias.
///
/// # Panics
/// If `a` is not whole rows, or the machine lacks `isa`.
pub fn add_row(isa: Isa, a: &mut [f32], row: &[f32]) {
    assert!(
        !row.is_empty() && a.len().is_multiple_of(row.len()),
        "{} values in rows of {}",
        a.len(),
        row.len()
    );
    for a in a.chunks_exact_mut(row.len()) {
        add_assign(isa, a, row);
    }
}

/// The largest of values that are not NaN; −∞ if there is none.
///
/// # Panics
/// If the machine lacks `isa`.
#[must_use]
pub fn largest(isa: Isa, x: &[f32]) -> f32 {
    dispatch!(isa, elementwise::largest(x))
}

/// ln Σ e^x without overflow, given the [`largest`] of the values.
///
/// # Errors
/// [`KernelError::NonFinite`] if a value is not finite, or there is none.
///
/// # Panics
/// If the machine lacks `isa`.
pub fn log_sum_exp(isa: Isa, x: &[f32], largest: f32) -> Result<f32, KernelError> {
    let value = dispatch!(isa, elementwise::log_sum_exp(x, largest));
    if value.is_finite() {
        Ok(value)
    } else {
        Err(KernelError::NonFinite {
            what: "logits",
            row: 0,
        })
    }
}
