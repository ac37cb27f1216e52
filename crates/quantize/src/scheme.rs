//! A quantization scheme: how each kind of matrix is stored, and what is done before. Recipes are TOML; unknown keys are refused.
//!
//! ```toml
//! [linears]
//! bits = 4                    # 4 (stored as Q4_0) or 8 (Q8_0)
//! group = "channel"           # weights that share a scale: a whole row, or a multiple of 32
//! range = { lp = 2.0 }        # or "minmax"
//! rounding = "nearest"        # or "gptq"
//! # ... [embedding], [lm_head], [tied] likewise; [transforms], [gptq], [calibration] when wanted
//! ```

use edgethink_model::{Config, Dtype, Linear};
use serde::{Deserialize, Serialize};

use crate::error::QuantizeError;

/// Elements of a block of Q4_0 and Q8_0: every group is a multiple of it.
pub const BLOCK: usize = 32;

/// A scheme.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheme {
    /// The seven linear layers of every block.
    pub linears: Format,
    /// The input embedding of a model whose lm_head is a matrix of its own.
    pub embedding: Format,
    /// That lm_head.
    pub lm_head: Format,
    /// The embedding that is also the lm_head.
    pub tied: Format,
    /// What is folded into the weights first.
    #[serde(default)]
    pub transforms: Transforms,
    /// Settings of `rounding = "gptq"`.
    pub gptq: Option<Gptq>,
    /// How much of the calibration text is used.
    pub calibration: Option<Calibration>,
}

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// 4 or 8.
    pub bits: u8,
    /// Weights that share a scale.
    pub group: Group,
    /// How the scale is found.
    pub range: Range,
    /// How codes are found.
    pub rounding: Rounding,
}

/// Weights that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", untagged)]
pub enum Group {
    /// This many consecutive weights of a row.
    Of(usize),
    /// A row: an output channel.
    Channel(Channel),
}

/// The word `"channel"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// A row.
    Channel,
}

/// How a scale is found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Range {
    /// The smallest that clips nothing.
    MinMax,
    /// The one that makes the sum of |w - q(w)|^p smallest.
    Lp(f32),
}

/// How codes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// The nearest code.
    Nearest,
    /// One column after the other, the later ones making up for the error of the earlier (GPTQ, arXiv 2210.17323).
    Gptq,
}

/// Function-preserving transforms; see [`crate::transforms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transforms {
    /// T_r: rotation of the residual stream.
    pub residual: bool,
    /// Gives a tied model an lm_head of its own, as `residual` needs.
    pub untie: bool,
    /// Scale between a norm's weight and the columns of the matrices behind it; not with `residual`, which folds that weight away.
    pub norm: bool,
    /// T_v: scale and rotation of each value head.
    pub value: bool,
    /// T_k: scale and rotation of each rotary pair of queries and keys.
    pub key: bool,
    /// T_u: scale between the rows of up and the columns of down.
    pub up: bool,
    /// Seed of the signs of the rotations.
    pub seed: u64,
}

/// Settings of GPTQ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gptq {
    /// Added to the diagonal of the Hessian, as a share of its mean.
    pub damping: f64,
    /// Whether columns with large inputs are rounded first.
    pub act_order: bool,
    /// Rounds of fitting scales and codes to the error of the outputs afterwards; 0 for GPTQ alone.
    pub sweeps: usize,
}

/// How much of the calibration text is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Tokens of a chunk; chunks do not see each other.
    pub ctx: usize,
    /// Chunks.
    pub chunks: usize,
}

impl Scheme {
    /// Reads and checks a scheme.
    ///
    /// # Errors
    /// [`QuantizeError::Toml`] for unknown or missing keys, [`QuantizeError::Scheme`] for a value out of range.
    pub fn from_toml(text: &str) -> Result<Self, QuantizeError> {
        let scheme: Scheme = toml::from_str(text)?;
        scheme.validate()?;
        Ok(scheme)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`QuantizeError::Scheme`] for the first that is out of range.
    pub fn validate(&self) -> Result<(), QuantizeError> {
        let formats = [
            (
                ["linears.bits", "linears.group", "linears.range"],
                &self.linears,
            ),
            (
                ["embedding.bits", "embedding.group", "embedding.range"],
                &self.embedding,
            ),
            (
                ["lm_head.bits", "lm_head.group", "lm_head.range"],
                &self.lm_head,
            ),
            (["tied.bits", "tied.group", "tied.range"], &self.tied),
        ];
        for ([bits, group, range], format) in formats {
            check(bits, &format.bits, matches!(format.bits, 4 | 8), "4 or 8")?;
            if let Group::Of(n) = format.group {
                check(
                    group,
                    &n,
                    n > 0 && n.is_multiple_of(BLOCK),
                    "\"channel\" or a multiple of 32",
                )?;
            }
            if let Range::Lp(p) = format.range {
                check(
                    range,
                    &p,
                    (1.0..=8.0).contains(&p),
                    "\"minmax\" or { lp = p } with p from 1 to 8",
                )?;
            }
        }
        for (key, format) in [
            ("embedding.rounding", &self.embedding),
            ("tied.rounding", &self.tied),
        ] {
            let nearest = format.rounding == Rounding::Nearest;
            check(
                key,
                &"gptq",
                nearest,
                "nearest: an embedding multiplies nothing, so it has no Hessian",
            )?;
        }
        let needs = self.needs_calibration();
        check(
            "gptq",
            &"missing",
            !needs || self.gptq.is_some(),
            "a table with damping, act_order and sweeps",
        )?;
        check(
            "calibration",
            &"missing",
            !needs || self.calibration.is_some(),
            "a table with ctx and chunks",
        )?;
        if let Some(gptq) = &self.gptq {
            let fits = gptq.damping > 0.0 && gptq.damping <= 1.0;
            check("gptq.damping", &gptq.damping, fits, "above 0, at most 1")?;
        }
        if let Some(c) = &self.calibration {
            check(
                "calibration.ctx",
                &c.ctx,
                (4..=1 << 20).contains(&c.ctx),
                "from 4 to 2^20",
            )?;
            check(
                "calibration.chunks",
                &c.chunks,
                (1..=1 << 16).contains(&c.chunks),
                "from 1 to 65536",
            )?;
        }
        let t = &self.transforms;
        check(
            "transforms.norm",
            &"true",
            !(t.norm && t.residual),
            "false, as residual folds the norms away",
        )
    }

    /// Refuses rounding that training of ranges knows nothing of.
    ///
    /// # Errors
    /// [`QuantizeError::Scheme`] for a scheme that rounds by the Hessian.
    pub fn rounds_to_nearest(&self) -> Result<(), QuantizeError> {
        check(
            "rounding",
            &"gptq",
            !self.needs_calibration(),
            "nearest, as ranges are trained for the nearest codes",
        )
    }

    /// Name, format and shape of every matrix that is rounded, for a model of `config`, which has the transforms in it.
    pub fn matrices(&self, config: &Config) -> Vec<(String, Format, (usize, usize))> {
        let tied = config.tie_word_embeddings;
        let table = (config.vocab_size, config.hidden_size);
        let embedding = if tied { self.tied } else { self.embedding };
        let mut all = vec![("model.embed_tokens.weight".to_owned(), embedding, table)];
        for layer in 0..config.num_hidden_layers {
            all.extend(Linear::ALL.map(|linear| {
                let name = format!("model.layers.{layer}.{}.weight", linear.hf_name());
                (name, self.linears, config.linear_shape(linear))
            }));
        }
        if !tied {
            all.push(("lm_head.weight".to_owned(), self.lm_head, table));
        }
        all
    }

    /// Whether any matrix is rounded by its Hessian.
    pub fn needs_calibration(&self) -> bool {
        [&self.linears, &self.lm_head]
            .iter()
            .any(|f| f.rounding == Rounding::Gptq)
    }
}

impl Format {
    /// What the blocks are.
    pub fn dtype(&self) -> Dtype {
        if self.bits == 4 {
            Dtype::Q4_0
        } else {
            Dtype::Q8_0
        }
    }

    /// Smallest and largest code of Eq. 7 that the block format holds. Q8_0 leaves -128 out, so that codes and their negatives both fit.
    pub fn levels(&self) -> (f32, f32) {
        if self.bits == 4 {
            (-8.0, 7.0)
        } else {
            (-127.0, 127.0)
        }
    }

    /// Weights that share a scale in rows of `cols`.
    ///
    /// # Errors
    /// [`QuantizeError::Columns`] if the row is no whole number of groups and blocks.
    pub fn group_len(&self, name: &str, cols: usize) -> Result<usize, QuantizeError> {
        let group = match self.group {
            Group::Of(n) => n,
            Group::Channel(_) => cols,
        };
        let fits = group > 0 && cols.is_multiple_of(group) && group.is_multiple_of(BLOCK);
        if fits {
            return Ok(group);
        }
        Err(QuantizeError::Columns {
            name: name.to_owned(),
            cols,
            group: if group == cols { BLOCK } else { group },
        })
    }
}

fn check(
    key: &'static str,
    found: &dyn std::fmt::Display,
    fits: bool,
    expected: &'static str,
) -> Result<(), QuantizeError> {
    if fits {
        return Ok(());
    }
    Err(QuantizeError::Scheme {
        key,
        found: found.to_string(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "
[linears]
bits = 4
group = \"channel\"
range = { lp = 2.0 }
rounding = \"nearest\"
[embedding]
bits = 8
group = 32
range = \"minmax\"
rounding = \"nearest\"
[lm_head]
bits = 4
group = \"channel\"
range = \"minmax\"
rounding = \"nearest\"
[tied]
bits = 8
group = 32
range = \"minmax\"
rounding = \"nearest\"
";

    #[test]
    fn a_scheme_is_read() {
        let scheme = Scheme::from_toml(PLAIN).unwrap();
        assert_eq!(scheme.linears.group, Group::Channel(Channel::Channel));
        assert_eq!(scheme.linears.range, Range::Lp(2.0));
        assert_eq!(scheme.embedding.group, Group::Of(32));
        assert_eq!(scheme.embedding.range, Range::MinMax);
        assert!(!scheme.needs_calibration());
        assert_eq!(scheme.transforms, Transforms::default());
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |from: &str, to: &str| {
            let text = PLAIN.replacen(from, to, 1);
            assert_ne!(text, PLAIN);
            Scheme::from_toml(&text).unwrap_err().to_string()
        };
        for (from, to, named) in [
            ("bits = 4", "bits = 3", "linears.bits"),
            ("group = 32", "group = 48", "embedding.group"),
            ("lp = 2.0", "lp = 0.5", "linears.range"),
            ("bits = 8", "bits = 8\nscale = 1", "scale"),
            ("lp = 2.0", "l1 = 2.0", "l1"),
            ("rounding = \"nearest\"", "rounding = \"gptq\"", "gptq"),
            ("[tied]", "[transforms]\nspin = true\n[tied]", "spin"),
            (
                "[tied]",
                "[transforms]\nnorm = true\nresidual = true\n[tied]",
                "transforms.norm",
            ),
        ] {
            let error = wrong(from, to);
            assert!(error.contains(named), "{to}: {error}");
        }
    }
}
