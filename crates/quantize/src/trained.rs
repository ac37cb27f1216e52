//! What end-to-end training found (METHOD 6, the last row of the paper's Table 10): factors on top of the transforms in closed form, and the
//! share of each group's whole range that its scale spans.
//!
//! `train` writes it, [`crate::run`] folds and rounds with it. A directory of two files:
//!
//! - `trained.json`: the model and the scheme that it was trained for; any other is refused
//! - `trained.safetensors`, under the names of the Hugging Face tensors: `*layernorm.factor` `[E]`, `v_proj.factor` `[K D]` and
//!   `up_proj.factor` `[F]` (rows of the named tensor times it, columns behind it divided by it), `k_proj.angle` `[K D / 2]` (radians, by
//!   which each rotary pair is turned), and `*.share` `[groups]`

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use edgethink_model::hf::safetensors;
use edgethink_model::{Config, Linear, Tensor, save_tensors, write_atomic};
use serde::{Deserialize, Serialize};

use crate::error::QuantizeError;
use crate::layer::Layer;
use crate::scheme::Scheme;

const TENSORS: &str = "trained.safetensors";
const ORIGIN: &str = "trained.json";

/// What a training was of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Hash of the model.
    pub model: String,
    /// The scheme.
    pub scheme: Scheme,
}

/// Trained transforms and ranges.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trained {
    /// Of each layer.
    pub layers: Vec<TrainedLayer>,
    /// By the name of a matrix, of its groups in row order.
    pub shares: BTreeMap<String, Vec<f32>>,
}

/// Trained transforms of one layer; those that the scheme leaves out are `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainedLayer {
    /// Of both norms against the matrices behind them, `[E]` each.
    pub norms: Option<[Vec<f32>; 2]>,
    /// Of the rows of v against the columns of o, `[K D]`.
    pub value: Option<Vec<f32>>,
    /// Angle of each rotary pair of queries and keys, `[K D / 2]`, radians.
    pub key: Option<Vec<f32>>,
    /// Of the rows of up against the columns of down, `[F]`.
    pub up: Option<Vec<f32>>,
}

/// The row of v that a column of o reads.
pub fn value_row(config: &Config, column: usize) -> usize {
    let d = config.head_dim;
    (column / d / config.group_size()) * d + column % d
}

/// The rows of k and of all query heads that a rotary pair of the keys turns with, as `(linear, (i, i + D/2))`.
pub fn key_pairs(config: &Config, pair: usize) -> impl Iterator<Item = (Linear, (usize, usize))> {
    let (d, half, group) = (config.head_dim, config.head_dim / 2, config.group_size());
    let (head, i) = (pair / half, pair % half);
    let rows = move |head: usize| (head * d + i, head * d + i + half);
    let queries = (head * group..(head + 1) * group).map(move |head| (Linear::Q, rows(head)));
    std::iter::once((Linear::K, rows(head))).chain(queries)
}

impl TrainedLayer {
    /// Folds into a layer that has the transforms in closed form.
    pub fn fold(&self, layer: &mut Layer, config: &Config) {
        let inverse = |factors: &[f32]| -> Vec<f32> { factors.iter().map(|f| 1.0 / f).collect() };
        if let Some([input, post]) = &self.norms {
            let scale =
                |norm: &mut [f32], by: &[f32]| norm.iter_mut().zip(by).for_each(|(n, f)| *n *= f);
            scale(&mut layer.input_layernorm, input);
            scale(&mut layer.post_attention_layernorm, post);
            for linear in [Linear::Q, Linear::K, Linear::V] {
                layer.scale_cols(linear, &inverse(input));
            }
            for linear in [Linear::Gate, Linear::Up] {
                layer.scale_cols(linear, &inverse(post));
            }
        }
        if let Some(factors) = &self.value {
            for (row, &factor) in factors.iter().enumerate() {
                layer.scale_row(Linear::V, row, factor);
            }
            let columns: Vec<f32> = (0..config.q_size())
                .map(|c| 1.0 / factors[value_row(config, c)])
                .collect();
            layer.scale_cols(Linear::O, &columns);
        }
        for (pair, angle) in self.key.iter().flatten().enumerate() {
            for (linear, rows) in key_pairs(config, pair) {
                layer.rotate_rows(linear, rows, (angle.cos(), angle.sin()));
            }
        }
        if let Some(factors) = &self.up {
            for (row, &factor) in factors.iter().enumerate() {
                layer.scale_row(Linear::Up, row, factor);
            }
            layer.scale_cols(Linear::Down, &inverse(factors));
        }
    }

    /// Its vectors with their names behind `model.layers.I.`.
    fn named(&self) -> impl Iterator<Item = (&'static str, &Vec<f32>)> {
        let norms = self.norms.as_ref();
        [
            ("input_layernorm.factor", norms.map(|n| &n[0])),
            ("post_attention_layernorm.factor", norms.map(|n| &n[1])),
            ("self_attn.v_proj.factor", self.value.as_ref()),
            ("self_attn.k_proj.angle", self.key.as_ref()),
            ("mlp.up_proj.factor", self.up.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, values)| Some((name, values?)))
    }
}

impl Trained {
    /// Writes the directory.
    ///
    /// # Errors
    /// [`QuantizeError::Trained`] for a factor or share that no weight can be divided by; a failed write.
    pub fn save(&self, dir: &Path, origin: &Origin) -> Result<(), QuantizeError> {
        let layers = self.layers.iter().enumerate().flat_map(|(i, layer)| {
            let named = layer.named();
            named.map(move |(name, values)| (format!("model.layers.{i}.{name}"), values))
        });
        let shares = self.shares.iter();
        let shares = shares.map(|(name, values)| (name.replace(".weight", ".share"), values));
        let mut tensors = Vec::new();
        for (name, values) in layers.chain(shares) {
            check(dir, &name, values)?;
            let tensor = Tensor::from_f32(vec![values.len()], values).expect("as long as itself");
            tensors.push((name, tensor));
        }
        fs::create_dir_all(dir).map_err(QuantizeError::io(dir))?;
        save_tensors(
            &dir.join(TENSORS),
            tensors.iter().map(|(name, t)| (name.clone(), t)),
        )?;
        let path = dir.join(ORIGIN);
        let text = serde_json::to_vec_pretty(origin).map_err(|e| wrong(&path, e.to_string()))?;
        write_atomic(&path, |file| file.write_all(&text)).map_err(QuantizeError::io(&path))
    }

    /// Identity of all values.
    pub(crate) fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut put = |name: &str, values: &[f32]| {
            hasher
                .update(name.as_bytes())
                .update(&values.len().to_le_bytes());
            hasher.update(bytemuck::cast_slice(values));
        };
        for layer in &self.layers {
            put("layer", &[]);
            layer.named().for_each(|(name, values)| put(name, values));
        }
        self.shares
            .iter()
            .for_each(|(name, values)| put(name, values));
        hasher.finalize().to_hex().to_string()
    }

    /// Reads the directory, for a model of this origin and config.
    ///
    /// # Errors
    /// [`QuantizeError::Trained`] if it is damaged or of another model or scheme; a failed read.
    pub fn load(dir: &Path, origin: &Origin, config: &Config) -> Result<Self, QuantizeError> {
        let path = dir.join(ORIGIN);
        let text = fs::read(&path).map_err(QuantizeError::io(&path))?;
        let found: Origin =
            serde_json::from_slice(&text).map_err(|e| wrong(&path, e.to_string()))?;
        if found != *origin {
            let what = if found.model == origin.model {
                "scheme"
            } else {
                "model"
            };
            let reason = format!("it was trained for another {what}; train it for this one");
            return Err(wrong(dir, reason));
        }
        let path = dir.join(TENSORS);
        let mut tensors = safetensors::open(&path)?;
        let mut take = |name: String, len: usize| -> Result<Vec<f32>, QuantizeError> {
            let tensor = tensors.remove(&name);
            let tensor = tensor.ok_or_else(|| wrong(&path, format!("`{name}` is missing")))?;
            if tensor.len() != len {
                let found = tensor.len();
                return Err(wrong(
                    &path,
                    format!("`{name}` has {found} values, not {len}"),
                ));
            }
            let values = tensor.to_f32();
            check(&path, &name, &values)?;
            Ok(values)
        };
        let wanted = origin.scheme.transforms;
        let (e, kv) = (config.hidden_size, config.kv_size());
        let mut trained = Self::default();
        for i in 0..config.num_hidden_layers {
            let mut take = |wanted: bool, name: &str, len: usize| {
                let name = format!("model.layers.{i}.{name}");
                wanted.then(|| take(name, len)).transpose()
            };
            let input = take(wanted.norm, "input_layernorm.factor", e)?;
            let post = take(wanted.norm, "post_attention_layernorm.factor", e)?;
            trained.layers.push(TrainedLayer {
                norms: input.zip(post).map(|(input, post)| [input, post]),
                value: take(wanted.value, "self_attn.v_proj.factor", kv)?,
                key: take(wanted.key, "self_attn.k_proj.angle", kv / 2)?,
                up: take(wanted.up, "mlp.up_proj.factor", config.intermediate_size)?,
            });
        }
        for (name, format, (rows, cols)) in origin.scheme.matrices(config) {
            let groups = rows * (cols / format.group_len(&name, cols)?);
            let values = take(name.replace(".weight", ".share"), groups)?;
            trained.shares.insert(name, values);
        }
        Ok(trained)
    }
}

/// Every factor and share divides something, and an angle is a number.
fn check(path: &Path, name: &str, values: &[f32]) -> Result<(), QuantizeError> {
    let angle = name.ends_with(".angle");
    let fits = |v: &&f32| !(v.is_finite() && (angle || v.abs() >= f32::MIN_POSITIVE));
    match values.iter().find(fits) {
        Some(value) => Err(wrong(
            path,
            format!("`{name}` holds {value}; train again with a lower rate"),
        )),
        None => Ok(()),
    }
}

fn wrong(path: &Path, reason: String) -> QuantizeError {
    QuantizeError::Trained {
        path: path.to_path_buf(),
        reason,
    }
}
