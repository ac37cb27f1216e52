//! The head itself: `score = sigmoid(W2 relu(W1 (x - mean) / std + b1) + b2)`.
//!
//! x and mean, std are `[E]`, W1 `[H, E]`, W2 `[1, H]`; the paper's H is 8, which makes 28,689 trained values for a 7B base of E = 3584.

use std::collections::BTreeMap;

use edgethink_model::{HeadError, HeadFile, HeadTensor};

use super::SwitcherError;

/// The weights. All are finite and `std` is above zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    /// Mean of the training set's averages, `[E]`.
    pub mean: Vec<f32>,
    /// Their standard deviation, `[E]`.
    pub std: Vec<f32>,
    /// W1, `[H, E]`.
    pub fc1_weight: Vec<f32>,
    /// b1, `[H]`.
    pub fc1_bias: Vec<f32>,
    /// W2, `[H]`.
    pub fc2_weight: Vec<f32>,
    /// b2.
    pub fc2_bias: f32,
}

impl Mlp {
    /// From the tensors of a head's file.
    ///
    /// # Errors
    /// [`SwitcherError::Head`] for a tensor that is missing or of another shape, [`SwitcherError::Std`] for a deviation of zero or less.
    pub(super) fn read(file: &HeadFile) -> Result<Self, SwitcherError> {
        let (e, get) = (file.hidden_size, |name, shape: &[usize]| {
            file.tensor(name, shape).map(<[f32]>::to_vec)
        });
        let width = file.tensors.get("fc1.bias").map(|tensor| tensor.data.len());
        let h = width.ok_or_else(|| HeadError::Missing {
            kind: file.kind.clone(),
            name: "fc1.bias".to_owned(),
        })?;
        let mlp = Self {
            mean: get("mean", &[e])?,
            std: get("std", &[e])?,
            fc1_weight: get("fc1.weight", &[h, e])?,
            fc1_bias: get("fc1.bias", &[h])?,
            fc2_weight: get("fc2.weight", &[1, h])?,
            fc2_bias: file.tensor("fc2.bias", &[1])?[0],
        };
        match mlp.std.iter().position(|&std| std <= 0.0) {
            Some(index) => Err(SwitcherError::Std { index }),
            None => Ok(mlp),
        }
    }

    /// As they stand in the head's file.
    pub fn tensors(&self) -> BTreeMap<String, HeadTensor> {
        let (e, h) = (self.mean.len(), self.fc1_bias.len());
        let tensor = |shape: &[usize], data: &[f32]| HeadTensor {
            shape: shape.to_vec(),
            data: data.to_vec(),
        };
        [
            ("mean", tensor(&[e], &self.mean)),
            ("std", tensor(&[e], &self.std)),
            ("fc1.weight", tensor(&[h, e], &self.fc1_weight)),
            ("fc1.bias", tensor(&[h], &self.fc1_bias)),
            ("fc2.weight", tensor(&[1, h], &self.fc2_weight)),
            ("fc2.bias", tensor(&[1], &[self.fc2_bias])),
        ]
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .into()
    }

    /// The score of an average `[E]`: how likely the query is one to think about. Sums are made in f64.
    ///
    /// # Errors
    /// [`SwitcherError::Rows`] for another width, [`SwitcherError::NotFinite`].
    pub fn score(&self, average: &[f32]) -> Result<f32, SwitcherError> {
        let width = self.mean.len();
        if average.len() != width {
            return Err(SwitcherError::Rows {
                values: average.len(),
                width,
            });
        }
        let standard: Vec<f64> = average
            .iter()
            .zip(self.mean.iter().zip(&self.std))
            .map(|(&x, (&mean, &std))| f64::from(x - mean) / f64::from(std))
            .collect();
        let rows = self.fc1_weight.chunks_exact(width);
        let logit = rows.zip(self.fc1_bias.iter().zip(&self.fc2_weight)).fold(
            f64::from(self.fc2_bias),
            |logit, (row, (&bias, &out))| {
                let dot: f64 = row
                    .iter()
                    .zip(&standard)
                    .map(|(&w, x)| f64::from(w) * x)
                    .sum();
                let unit = dot + f64::from(bias);
                // Written so that NaN passes, and is found below.
                logit + f64::from(out) * if unit < 0.0 { 0.0 } else { unit }
            },
        );
        let score = 1.0 / (1.0 + (-logit).exp());
        if score.is_nan() {
            return Err(SwitcherError::NotFinite {
                what: "the switcher's score",
            });
        }
        Ok(score as f32)
    }
}
