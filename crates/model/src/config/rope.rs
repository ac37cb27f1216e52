//! Rotary position embedding: the inverse frequencies of a config, with the scalings for long contexts.
//!
//! Angles are `position * inv_freq[i]` in f32, as transformers computes them (`modeling_rope_utils.py`), and the pair
//! that is rotated is `(x[i], x[i + D/2])`.

use super::{Config, ConfigError, invalid};

/// How the frequencies are changed for contexts longer than the training's.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// All frequencies divided by `factor`.
    Linear {
        /// At least 1 in practice; any positive number.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are scaled.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the first training, in tokens.
        original_max_position_embeddings: usize,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Context of the first training, in tokens.
        original_max_position_embeddings: usize,
        /// Rotations in that context above which a frequency is kept.
        beta_fast: f64,
        /// Rotations in that context below which a frequency is scaled.
        beta_slow: f64,
        /// Factor on cos and sin; already resolved from `mscale` and `factor`.
        attention_factor: f64,
        /// Whether the ends of the ramp are rounded to whole dimensions.
        truncate: bool,
    },
    /// Each frequency divided by its own number, `[D/2]`: how GGUF stores the scaling of Llama 3 (`rope_freqs.weight`).
    Divisors(Vec<f32>),
}

impl RopeScaling {
    /// Checks that the formulas have a value.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = |field, value: f64| {
            if value > 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(invalid(field, value, "a positive number"))
            }
        };
        match self.clone() {
            RopeScaling::Linear { factor } => positive("rope_scaling.factor", factor),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                positive("rope_scaling.factor", factor)?;
                positive("rope_scaling.low_freq_factor", low_freq_factor)?;
                positive("rope_scaling.high_freq_factor", high_freq_factor)?;
                positive(
                    "rope_scaling.original_max_position_embeddings",
                    original_max_position_embeddings as f64,
                )?;
                if high_freq_factor <= low_freq_factor {
                    return Err(invalid(
                        "rope_scaling.high_freq_factor",
                        high_freq_factor,
                        "more than low_freq_factor",
                    ));
                }
                Ok(())
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                attention_factor,
                ..
            } => {
                positive("rope_scaling.factor", factor)?;
                positive(
                    "rope_scaling.original_max_position_embeddings",
                    original_max_position_embeddings as f64,
                )?;
                positive("rope_scaling.beta_fast", beta_fast)?;
                positive("rope_scaling.beta_slow", beta_slow)?;
                positive("rope_scaling.attention_factor", attention_factor)
            }
            RopeScaling::Divisors(divisors) => divisors
                .iter()
                .try_for_each(|&x| positive("rope_scaling.divisors", f64::from(x))),
        }
    }
}

/// Rotary frequencies, ready to use.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Radians per token, `[D/2]`.
    pub inv_freq: Vec<f32>,
    /// Factor on cos and sin (1 except for YaRN).
    pub attention_factor: f32,
}

impl Rope {
    pub(super) fn new(config: &Config) -> Self {
        let d = config.head_dim;
        let theta = config.rope_theta;
        let mut inv_freq: Vec<f64> = (0..d / 2)
            .map(|i| theta.powf(-((2 * i) as f64) / d as f64))
            .collect();
        let mut attention_factor = 1.0;
        match config.rope_scaling.clone() {
            None => {}
            Some(RopeScaling::Divisors(divisors)) => {
                assert_eq!(divisors.len(), d / 2, "Config::validate compares them");
                inv_freq
                    .iter_mut()
                    .zip(divisors)
                    .for_each(|(f, x)| *f /= f64::from(x));
            }
            Some(RopeScaling::Linear { factor }) => inv_freq.iter_mut().for_each(|f| *f /= factor),
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                let original = original_max_position_embeddings as f64;
                for f in &mut inv_freq {
                    let wavelen = 2.0 * std::f64::consts::PI / *f;
                    let smooth = ((original / wavelen - low_freq_factor)
                        / (high_freq_factor - low_freq_factor))
                        .clamp(0.0, 1.0);
                    *f = (1.0 - smooth) * *f / factor + smooth * *f;
                }
            }
            Some(RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                attention_factor: on_cos_and_sin,
                truncate,
            }) => {
                attention_factor = on_cos_and_sin;
                // The dimension whose frequency turns `rotations` times in the original context.
                let dimension = |rotations: f64| {
                    let context = original_max_position_embeddings as f64;
                    d as f64 * (context / (rotations * 2.0 * std::f64::consts::PI)).ln()
                        / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(d as f64 - 1.0));
                if low == high {
                    high += 0.001; // as transformers does, against a division by zero
                }
                for (i, f) in inv_freq.iter_mut().enumerate() {
                    let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    *f = *f / factor * ramp + *f * (1.0 - ramp);
                }
            }
        }
        Self {
            inv_freq: inv_freq.into_iter().map(|f| f as f32).collect(),
            attention_factor: attention_factor as f32,
        }
    }

    /// Cosines and sines of one position, each `[D/2]`, times the attention factor.
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn cos_sin(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        assert_eq!(
            (cos.len(), sin.len()),
            (self.inv_freq.len(), self.inv_freq.len())
        );
        for ((c, s), f) in cos.iter_mut().zip(sin).zip(&self.inv_freq) {
            let angle = position as f32 * f;
            *c = angle.cos() * self.attention_factor;
            *s = angle.sin() * self.attention_factor;
        }
    }
}
