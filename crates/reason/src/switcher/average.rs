//! The running average of a prompt's hidden states, taken while the prompt is encoded (METHOD 4).
//!
//! With c tokens to a chunk, m_k the mean of the k-th chunk's states and a the weight of a new chunk:
//!
//! `ema_1 = m_1`, `ema_k = (1 - a) ema_{k-1} + a m_k`
//!
//! The paper does not say how the last chunk counts when it has n < c tokens. Here its weight is `a n / c`: a tail of a few tokens
//! moves the average little, and a full chunk is no special case. The first chunk is the average, however short it is.
//!
//! Rows are added one after the other in f64, so pieces of any size give the same bits.

use super::SwitcherError;

/// How states are averaged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Averaging {
    /// c, at least 1. The paper's is 128.
    pub chunk_tokens: usize,
    /// a, above 0 and at most 1. The paper's is 0.5.
    pub alpha: f64,
}

impl Default for Averaging {
    fn default() -> Self {
        Self {
            chunk_tokens: 128,
            alpha: 0.5,
        }
    }
}

/// The average of the tokens read so far. A clone made at a chunk's end can be continued by any prompt that begins with these tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    averaging: Averaging,
    tokens: usize,
    /// Over whole chunks, `[E]`.
    ema: Vec<f64>,
    /// Sum of the rows of the chunk that is not whole yet, `[E]`.
    sum: Vec<f64>,
}

impl Running {
    /// Nothing read yet, of a base with hidden states `[E]`.
    pub fn new(averaging: Averaging, hidden_size: usize) -> Self {
        Self {
            averaging,
            tokens: 0,
            ema: vec![0.0; hidden_size],
            sum: vec![0.0; hidden_size],
        }
    }

    /// Reads the states of the next tokens, `[n, E]`.
    ///
    /// # Errors
    /// [`SwitcherError::Rows`] if they are no whole rows.
    pub fn push(&mut self, rows: &[f32]) -> Result<(), SwitcherError> {
        let width = self.sum.len();
        if width == 0 || !rows.len().is_multiple_of(width) {
            return Err(SwitcherError::Rows {
                values: rows.len(),
                width,
            });
        }
        for row in rows.chunks_exact(width) {
            for (sum, &x) in self.sum.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
            self.tokens += 1;
            if self.at_boundary() {
                self.ema = self.blend(self.averaging.chunk_tokens);
                self.sum.fill(0.0);
            }
        }
        Ok(())
    }

    /// E.
    pub fn width(&self) -> usize {
        self.sum.len()
    }

    /// Tokens read.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether only whole chunks have been read.
    pub fn at_boundary(&self) -> bool {
        self.tokens.is_multiple_of(self.averaging.chunk_tokens)
    }

    /// The average, `[E]`.
    ///
    /// # Errors
    /// [`SwitcherError::NoTokens`] if nothing was read, [`SwitcherError::NotFinite`] if a state was not finite.
    pub fn average(&self) -> Result<Vec<f32>, SwitcherError> {
        if self.tokens == 0 {
            return Err(SwitcherError::NoTokens);
        }
        let average = match self.tokens % self.averaging.chunk_tokens {
            0 => self.ema.clone(),
            part => self.blend(part),
        };
        if average.iter().any(|x| !x.is_finite()) {
            return Err(SwitcherError::NotFinite {
                what: "the average of the hidden states",
            });
        }
        Ok(average.into_iter().map(|x| x as f32).collect())
    }

    /// The average with the open chunk of `part` tokens in it.
    fn blend(&self, part: usize) -> Vec<f64> {
        let Averaging {
            chunk_tokens,
            alpha,
        } = self.averaging;
        let first = self.tokens <= chunk_tokens;
        let weight = if first {
            1.0
        } else {
            alpha * part as f64 / chunk_tokens as f64
        };
        let blended = self.ema.iter().zip(&self.sum);
        blended
            .map(|(ema, sum)| (1.0 - weight) * ema + weight * (sum / part as f64))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgethink_testkit::{Tol, assert_close};
    use proptest::prelude::*;

    /// The formula at the head of this file, with all rows at hand.
    fn naive(rows: &[Vec<f32>], averaging: Averaging) -> Vec<f32> {
        let width = rows[0].len();
        let mut ema: Option<Vec<f64>> = None;
        for chunk in rows.chunks(averaging.chunk_tokens) {
            let mean: Vec<f64> = (0..width)
                .map(|i| {
                    // Summed from the end, so that the order of addition is another.
                    let sum: f64 = chunk.iter().rev().map(|row| f64::from(row[i])).sum();
                    sum / chunk.len() as f64
                })
                .collect();
            let a = averaging.alpha * chunk.len() as f64 / averaging.chunk_tokens as f64;
            ema = Some(match ema {
                None => mean,
                Some(old) => old
                    .iter()
                    .zip(&mean)
                    .map(|(old, new)| old + a * (new - old))
                    .collect(),
            });
        }
        ema.unwrap().iter().map(|&x| x as f32).collect()
    }

    fn state(token: usize, i: usize) -> f32 {
        let x = (token * 7919 + i * 104_729) % 1009;
        let outlier = if token % 37 == 5 { 300.0 } else { 1.0 };
        (x as f32 / 504.5 - 1.0) * outlier
    }

    fn rows(tokens: usize, width: usize) -> Vec<Vec<f32>> {
        (0..tokens)
            .map(|t| (0..width).map(|i| state(t, i)).collect())
            .collect()
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_bits_and_the_naive_formula(
            tokens in 1usize..700,
            chunk_tokens in 1usize..200,
            alpha in 0.01f64..=1.0,
            pieces in prop::collection::vec(0usize..90, 1..40),
        ) {
            let averaging = Averaging { chunk_tokens, alpha };
            let rows = rows(tokens, 5);
            let mut whole = Running::new(averaging, 5);
            whole.push(&rows.concat()).unwrap();
            let mut split = Running::new(averaging, 5);
            let (mut at, mut next) = (0, pieces.iter().cycle());
            while at < tokens {
                let end = tokens.min(at + next.next().unwrap().max(&1));
                split.push(&rows[at..end].concat()).unwrap();
                split.push(&[]).unwrap();
                at = end;
            }
            prop_assert_eq!(&split, &whole);
            assert_close(&whole.average().unwrap(), &naive(&rows, averaging), Tol::RelToMax(1e-6));
        }
    }

    #[test]
    fn by_hand() {
        let averaging = Averaging {
            chunk_tokens: 2,
            alpha: 0.5,
        };
        let mut running = Running::new(averaging, 1);
        let mut averages = Vec::new();
        for x in [1.0, 3.0, 6.0, 8.0] {
            running.push(&[x]).unwrap();
            averages.push(running.average().unwrap()[0]);
        }
        // The first chunk's own mean; then 3/4 of 2 and 1/4 of 6; then half of 2 and half of 7.
        assert_eq!(averages, [1.0, 2.0, 3.0, 4.5]);
    }

    #[test]
    fn a_clone_at_a_boundary_goes_on_as_if_it_had_read_all() {
        let rows = rows(300, 3);
        let mut whole = Running::new(Averaging::default(), 3);
        whole.push(&rows[..256].concat()).unwrap();
        assert!(whole.at_boundary());
        let mut copy = whole.clone();
        whole.push(&rows[256..].concat()).unwrap();
        copy.push(&rows[256..280].concat()).unwrap();
        copy.push(&rows[280..].concat()).unwrap();
        assert_eq!((copy.tokens(), copy.at_boundary()), (300, false));
        assert_eq!(copy, whole);
    }

    #[test]
    fn what_cannot_be_averaged_is_an_error() {
        let mut running = Running::new(Averaging::default(), 2);
        assert!(matches!(running.average(), Err(SwitcherError::NoTokens)));
        assert!(matches!(
            running.push(&[1.0; 3]),
            Err(SwitcherError::Rows {
                values: 3,
                width: 2
            })
        ));
        running.push(&[1.0, f32::NAN]).unwrap();
        assert!(matches!(
            running.average(),
            Err(SwitcherError::NotFinite { .. })
        ));
    }
}
