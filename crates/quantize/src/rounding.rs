//! Rows of weights as blocks of Q4_0 or Q8_0. A scale shared by more than 32 weights is repeated in each of its blocks.

use edgethink_model::{Bytes, Tensor};
use half::f16;

use crate::error::QuantizeError;
use crate::parallel;
use crate::range::{self, code, inverse};
use crate::scheme::{BLOCK, Format};
use crate::straight_through;

/// Rounds the matrix `weights` `[rows, cols]` to the nearest codes.
///
/// # Errors
/// [`QuantizeError`] naming the tensor, for values that are not finite or too large, or rows that are no whole number of groups.
pub fn nearest(
    name: &str,
    weights: &[f32],
    cols: usize,
    format: &Format,
    threads: usize,
) -> Result<Tensor, QuantizeError> {
    rounded(
        name,
        weights,
        cols,
        format,
        threads,
        |row, weights, group| row_scales(name, row, weights, group, format),
    )
}

/// The same with every scale at its share of the whole range of its group; `shares` has one per group, in row order.
///
/// # Errors
/// As [`nearest`]; [`QuantizeError::Trained`] for another number of shares.
pub(crate) fn at_shares(
    name: &str,
    weights: &[f32],
    cols: usize,
    format: &Format,
    shares: &[f32],
    threads: usize,
) -> Result<Tensor, QuantizeError> {
    let groups = cols / format.group_len(name, cols)?;
    if shares.len() * cols != weights.len() * groups {
        return Err(QuantizeError::Trained {
            path: name.into(),
            reason: format!(
                "it has {} shares for {} groups",
                shares.len(),
                weights.len() / cols * groups
            ),
        });
    }
    rounded(
        name,
        weights,
        cols,
        format,
        threads,
        |row, weights, group| {
            finite(name, row, weights)?;
            let shares = &shares[row * groups..][..groups];
            let scale = |(weights, &share): (&[f32], &f32)| {
                let s = straight_through::scale(weights, format.levels(), share);
                storable(name, row, weights, s, format)
            };
            weights.chunks(group).zip(shares).map(scale).collect()
        },
    )
}

/// Rounds to nearest at the scales of each row: `scales` is given the row, its weights and the length of a group.
fn rounded(
    name: &str,
    weights: &[f32],
    cols: usize,
    format: &Format,
    threads: usize,
    scales: impl Fn(usize, &[f32], usize) -> Result<Vec<f16>, QuantizeError> + Sync,
) -> Result<Tensor, QuantizeError> {
    let group = format.group_len(name, cols)?;
    let (lo, hi) = format.levels();
    let rows = weights.len() / cols;
    let parts = parallel::ranges(threads, rows, |range| {
        let mut bytes = Vec::new();
        let mut codes = vec![0.0; cols];
        for row in range {
            let weights = &weights[row * cols..][..cols];
            let scales = scales(row, weights, group)?;
            for ((codes, weights), s) in codes
                .chunks_mut(group)
                .zip(weights.chunks(group))
                .zip(&scales)
            {
                let inv = inverse(s.to_f32());
                for (q, w) in codes.iter_mut().zip(weights) {
                    *q = code(w * inv, lo, hi);
                }
            }
            put_row(&mut bytes, &codes, &scales, group, format);
        }
        Ok(bytes)
    });
    tensor(parts, vec![rows, cols], format)
}

/// The scales of one row, one per group.
pub(crate) fn row_scales(
    name: &str,
    row: usize,
    weights: &[f32],
    group: usize,
    format: &Format,
) -> Result<Vec<f16>, QuantizeError> {
    finite(name, row, weights)?;
    let scale = |weights: &[f32]| {
        let s = range::scale(weights, format.levels(), format.range);
        storable(name, row, weights, s, format)
    };
    weights.chunks(group).map(scale).collect()
}

/// Refuses weights that are not finite.
fn finite(name: &str, row: usize, weights: &[f32]) -> Result<(), QuantizeError> {
    match weights.iter().find(|w| !w.is_finite()) {
        Some(&value) => Err(QuantizeError::NonFinite {
            name: name.to_owned(),
            row,
            value,
        }),
        None => Ok(()),
    }
}

/// Refuses a scale that no f16 holds.
fn storable(
    name: &str,
    row: usize,
    weights: &[f32],
    s: f16,
    format: &Format,
) -> Result<f16, QuantizeError> {
    if s.is_finite() {
        return Ok(s);
    }
    let most = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    Err(QuantizeError::TooLarge {
        name: name.to_owned(),
        row,
        scale: most / format.levels().1,
    })
}

/// Appends the blocks of one row of codes.
pub(crate) fn put_row(
    out: &mut Vec<u8>,
    codes: &[f32],
    scales: &[f16],
    group: usize,
    format: &Format,
) {
    for (i, block) in codes.as_chunks::<BLOCK>().0.iter().enumerate() {
        out.extend_from_slice(&scales[i * BLOCK / group].to_le_bytes());
        if format.bits == 4 {
            // Byte i holds value i in its low and value i + 16 in its high nibble.
            let nibble = |q: f32| (q as i8 + 8).cast_unsigned();
            out.extend((0..16).map(|j| nibble(block[j]) | nibble(block[j + 16]) << 4));
        } else {
            out.extend(block.iter().map(|&q| (q as i8).cast_unsigned()));
        }
    }
}

/// Puts the bytes of consecutive rows together.
pub(crate) fn tensor(
    parts: Vec<Result<Vec<u8>, QuantizeError>>,
    shape: Vec<usize>,
    format: &Format,
) -> Result<Tensor, QuantizeError> {
    let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let bytes = Bytes::copy_of(&parts.concat());
    Ok(Tensor::new(format.dtype(), shape, bytes).expect("whole rows of blocks"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::{Channel, Group, Range, Rounding};
    use edgethink_model::Dtype;

    fn format(bits: u8, group: Group, range: Range) -> Format {
        Format {
            bits,
            group,
            range,
            rounding: Rounding::Nearest,
        }
    }

    fn weights(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.5)
            .collect()
    }

    #[test]
    fn every_weight_is_within_half_a_step() {
        for bits in [4, 8] {
            for group in [
                Group::Of(32),
                Group::Of(64),
                Group::Channel(Channel::Channel),
            ] {
                let format = format(bits, group, Range::MinMax);
                let w = weights(3 * 128);
                let tensor = nearest("w", &w, 128, &format, 2).unwrap();
                assert_eq!(
                    tensor.dtype,
                    if bits == 4 { Dtype::Q4_0 } else { Dtype::Q8_0 }
                );
                assert_eq!(tensor.shape, [3, 128]);
                let step = 0.5 / format.levels().1;
                for (got, want) in tensor.to_f32().iter().zip(&w) {
                    // The scale's f16 rounding may clip by 2^-11 of the largest.
                    assert!(
                        (got - want).abs() <= step * 0.51 + 0.5 / 2048.0,
                        "{got} for {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_shared_scale_is_repeated_and_threads_change_nothing() {
        let format = format(4, Group::Of(64), Range::Lp(2.0));
        let w = weights(5 * 128);
        let one = nearest("w", &w, 128, &format, 1).unwrap();
        let many = nearest("w", &w, 128, &format, 3).unwrap();
        assert_eq!(one.bytes(), many.bytes());
        let bytes = one.bytes();
        let scale = |block: usize| &bytes[block * 18..][..2];
        assert_eq!(scale(0), scale(1));
        assert_ne!(scale(1), scale(2));
    }

    #[test]
    fn what_cannot_be_stored_is_named() {
        let plain = format(4, Group::Of(32), Range::MinMax);
        let error = |w: &[f32], cols, format: &Format| {
            nearest("the.weight", w, cols, format, 1)
                .unwrap_err()
                .to_string()
        };
        let mut w = weights(64);
        assert!(error(&w, 16, &plain).contains("the.weight"));
        assert!(error(&w, 64, &format(4, Group::Of(128), Range::MinMax)).contains("128"));
        w[40] = f32::NAN;
        assert!(error(&w, 32, &plain).contains("row 1 of the tensor `the.weight` holds NaN"));
        w[40] = 1e9;
        for range in [Range::MinMax, Range::Lp(2.0)] {
            assert!(error(&w, 32, &format(4, Group::Of(32), range)).contains("f16"));
        }
    }
}
