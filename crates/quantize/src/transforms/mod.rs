//! Function-preserving transforms (METHOD 6): the model computes the same, its weights are easier to round.
//!
//! | key | what changes | why nothing else does |
//! |---|---|---|
//! | `residual` T_r | the residual stream x becomes R x | RMS norms see lengths alone, once their weights are folded into the matrices behind |
//! | `norm` | a norm's weight times c, the columns behind it by 1/c | the product is the same |
//! | `value` T_v | a value head v becomes A v, o gets A^-1 | attention mixes tokens, not the elements of a head |
//! | `key` T_k | a rotary pair of q and k is turned by one angle and scaled by 1/a and a | rotations of a plane commute, and q k keeps its value |
//! | `up` T_u | rows of up times u, columns of down by 1/u | the gate multiplies element by element |
//!
//! Everything is folded into the weights: files and engines know nothing of it. One file per transform; all in closed form.

mod key;
mod norm;
mod orthogonal;
mod residual;
mod up;
mod value;

use edgethink_model::Config;

pub use orthogonal::Orthogonal;

use crate::error::QuantizeError;
use crate::layer::Layer;
use crate::scheme::Transforms;

/// The transforms of one model.
#[derive(Debug)]
pub struct Plan {
    config: Config,
    wanted: Transforms,
    /// R, `[E, E]`.
    residual: Option<Orthogonal>,
    /// The rotation of a value head, `[D, D]`.
    head: Option<Orthogonal>,
}

impl Plan {
    /// Checks that the model has room for the wanted transforms.
    ///
    /// # Errors
    /// [`QuantizeError::Transform`] naming the one that does not fit.
    pub fn new(config: &Config, wanted: Transforms) -> Result<Self, QuantizeError> {
        if wanted.residual && config.tie_word_embeddings && !wanted.untie {
            return Err(QuantizeError::Transform {
                transform: "residual",
                reason: "its lm_head is the embedding, and only the lm_head takes the final norm's weight; set untie = true, which stores both",
            });
        }
        if wanted.key && config.qk_norm {
            return Err(QuantizeError::Transform {
                transform: "key",
                reason: "its queries and keys are normed behind the matrices (q_norm, k_norm), which undoes scales and is no rotation's inverse; set key = false",
            });
        }
        let rotation = |n, salt| Orthogonal::new(n, wanted.seed.wrapping_add(salt));
        Ok(Self {
            config: config.clone(),
            wanted,
            residual: wanted.residual.then(|| rotation(config.hidden_size, 1)),
            head: wanted.value.then(|| rotation(config.head_dim, 2)),
        })
    }

    /// The config of the model after the transforms.
    pub fn config(&self) -> Config {
        Config {
            tie_word_embeddings: self.config.tie_word_embeddings && !self.wanted.untie,
            ..self.config.clone()
        }
    }

    /// Folds everything into a layer.
    pub fn fold_layer(&self, layer: &mut Layer, threads: usize) {
        // The residual rotation first: it changes the columns of down, by which `up` goes.
        if let Some(r) = &self.residual {
            residual::fold(layer, r, threads);
        }
        if self.wanted.norm {
            norm::fold(layer);
        }
        if let Some(rotation) = &self.head {
            value::fold(layer, &self.config, rotation, threads);
        }
        if self.wanted.key {
            key::fold(layer, &self.config);
        }
        if self.wanted.up {
            up::fold(layer);
        }
    }

    /// Folds into rows of the embedding, `[n, E]`.
    pub fn fold_embedding(&self, rows: &mut [f32], threads: usize) {
        if let Some(r) = &self.residual {
            residual::fold_rows(rows, None, r, threads);
        }
    }

    /// Folds into rows of an lm_head of its own, `[n, E]`. Its norm's weight then is [`Plan::fold_norm`].
    pub fn fold_lm_head(&self, rows: &mut [f32], norm: &[f32], threads: usize) {
        if let Some(r) = &self.residual {
            residual::fold_rows(rows, Some(norm), r, threads);
        }
    }

    /// What is left of the final norm's weight.
    pub fn fold_norm(&self, norm: &mut [f32]) {
        if self.residual.is_some() {
            norm.fill(1.0);
        }
    }
}

/// sqrt(a_i / b_i) over its geometric mean: scales that equalise a and b without changing the size of either as a whole. Where one of
/// the two is zero, nothing is to be gained and the scale is 1.
fn balance(a: &[f32], b: &[f32]) -> Vec<f32> {
    let log = |(&a, &b): (&f32, &f32)| {
        let ratio = f64::from(a) / f64::from(b);
        (a > 0.0 && b > 0.0 && ratio.is_finite() && ratio > 0.0).then(|| ratio.ln() / 2.0)
    };
    let logs: Vec<Option<f64>> = a.iter().zip(b).map(log).collect();
    let known = logs.iter().flatten().count().max(1);
    let mean = logs.iter().flatten().sum::<f64>() / known as f64;
    logs.into_iter()
        .map(|l| l.map_or(1.0, |l| (l - mean).exp() as f32))
        .collect()
}

/// Euclidean norm.
fn norm2(x: &[f32]) -> f32 {
    x.iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balancing_makes_products_equal() {
        let (a, b) = ([4.0, 1.0, 0.0, 9.0], [1.0, 1.0, 2.0, 1.0]);
        let s = balance(&a, &b);
        assert_eq!(s[2], 1.0);
        // a / s and b s have the same ratio everywhere.
        let ratio = |i: usize| a[i] / s[i] / (b[i] * s[i]);
        assert!((ratio(0) - ratio(1)).abs() < 1e-5 && (ratio(1) - ratio(3)).abs() < 1e-5);
    }
}
