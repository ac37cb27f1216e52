//! The tensors of a model, found by name and checked against the config.
//!
//! Names are those of Hugging Face (`model.layers.0.self_attn.q_proj.weight`). Matrices keep the dtype they are stored
//! in and are used in place; norms and biases are small: they are read and checked for NaN here.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{Bytes, Config, Dtype, Linear, Tensor};

/// All tensors of a model.
#[derive(Debug, Clone)]
pub struct Weights {
    /// `[V, E]`.
    pub embed_tokens: Tensor,
    /// One entry per layer.
    pub layers: Vec<LayerWeights>,
    /// Final norm `[E]`.
    pub norm: Tensor,
    /// `[V, E]`; `None` means that it is the embedding.
    pub lm_head: Option<Tensor>,
}

/// The tensors of one layer.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// The matrices `[out, in]`, indexed by `Linear as usize`.
    pub linears: [Tensor; 7],
    /// Their biases `[out]`, where the config has them.
    pub biases: [Option<Tensor>; 7],
    /// Norm before attention `[E]`.
    pub input_layernorm: Tensor,
    /// Norm before the feed-forward layer `[E]`.
    pub post_attention_layernorm: Tensor,
    /// Norm of each query head `[D]` (Qwen3).
    pub q_norm: Option<Tensor>,
    /// Norm of each key head `[D]` (Qwen3).
    pub k_norm: Option<Tensor>,
}

/// The tensors of a file do not make up the model that its config describes.
#[derive(Debug, Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum WeightsError {
    /// The config needs a tensor that no file has.
    #[error(
        "the tensor `{name}` is missing; the weights belong to another config, or a shard was not downloaded"
    )]
    Missing {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor has another shape than the config says.
    #[error("the tensor `{name}` has shape {found:?}, the config needs {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that follows from the config.
        expected: Vec<usize>,
    },
    /// A tensor whose dtype cannot be used where it stands.
    #[error("the tensor `{name}` is stored as {dtype}; norms and biases must be F32, F16 or BF16")]
    Dtype {
        /// Name of the tensor.
        name: String,
        /// Its dtype.
        dtype: Dtype,
    },
    /// A norm or bias cannot be read.
    #[error("the tensor `{name}` cannot be read ({kind}); the disk or the connection to it failed")]
    Read {
        /// Name of the tensor.
        name: String,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// A norm or bias holds NaN or an infinity.
    #[error(
        "element {index} of the tensor `{name}` is {value}; the file is damaged or its training diverged"
    )]
    NonFinite {
        /// Name of the tensor.
        name: String,
        /// Index of the first such element.
        index: usize,
        /// NaN, inf or -inf.
        value: f32,
    },
    /// A tensor that would change the result if it were used, and that this architecture has no place for.
    #[error(
        "the tensor `{name}` has no place in this architecture; the config and the weights belong to different models"
    )]
    Unexpected {
        /// Name of the tensor.
        name: String,
    },
}

impl Weights {
    /// Sorts tensors into their places. Names that begin with the prefix `model.` or lack it are both accepted, as
    /// base models are sometimes saved without it.
    ///
    /// # Errors
    /// [`WeightsError`] for the first tensor that is missing, has another shape, or is left over.
    pub fn from_named(
        config: &Config,
        named: BTreeMap<String, Tensor>,
    ) -> Result<Self, WeightsError> {
        let mut named = Named { map: named };
        let (e, v, d) = (config.hidden_size, config.vocab_size, config.head_dim);
        let embed_tokens = named.take("model.embed_tokens.weight", &[v, e])?;
        let mut layers = Vec::new();
        for i in 0..config.num_hidden_layers {
            layers.push(named.layer(config, i, e, d)?);
        }
        let norm = named.small("model.norm.weight", &[e])?;
        let lm_head = match config.tie_word_embeddings {
            false => Some(named.take("lm_head.weight", &[v, e])?),
            true => None,
        };
        named.check_left_over()?;
        Ok(Self {
            embed_tokens,
            layers,
            norm,
            lm_head,
        })
    }

    /// All tensors with their Hugging Face names, in a fixed order.
    pub fn named(&self) -> Vec<(String, &Tensor)> {
        let mut all = vec![("model.embed_tokens.weight".to_owned(), &self.embed_tokens)];
        for (i, layer) in self.layers.iter().enumerate() {
            let prefix = format!("model.layers.{i}.");
            all.push((
                format!("{prefix}input_layernorm.weight"),
                &layer.input_layernorm,
            ));
            for linear in Linear::ALL {
                all.push((
                    format!("{prefix}{}.weight", linear.hf_name()),
                    layer.linear(linear),
                ));
                if let Some(bias) = layer.bias(linear) {
                    all.push((format!("{prefix}{}.bias", linear.hf_name()), bias));
                }
            }
            let norms = [
                ("self_attn.q_norm", &layer.q_norm),
                ("self_attn.k_norm", &layer.k_norm),
            ];
            for (name, norm) in norms {
                all.extend(
                    norm.as_ref()
                        .map(|norm| (format!("{prefix}{name}.weight"), norm)),
                );
            }
            all.push((
                format!("{prefix}post_attention_layernorm.weight"),
                &layer.post_attention_layernorm,
            ));
        }
        all.push(("model.norm.weight".to_owned(), &self.norm));
        all.extend(
            self.lm_head
                .as_ref()
                .map(|head| ("lm_head.weight".to_owned(), head)),
        );
        all
    }

    /// The output matrix `[V, E]`: lm_head, or the embedding if they are tied.
    pub fn output(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// Stored bytes of all tensors.
    pub fn size_bytes(&self) -> usize {
        self.named()
            .iter()
            .map(|(_, tensor)| tensor.storage().len())
            .sum()
    }
}

impl LayerWeights {
    /// The matrix `[out, in]` of a linear layer.
    pub fn linear(&self, linear: Linear) -> &Tensor {
        &self.linears[linear as usize]
    }

    /// The bias `[out]` of a linear layer.
    pub fn bias(&self, linear: Linear) -> Option<&Tensor> {
        self.biases[linear as usize].as_ref()
    }
}

struct Named {
    map: BTreeMap<String, Tensor>,
}

impl Named {
    fn layer(
        &mut self,
        config: &Config,
        i: usize,
        e: usize,
        d: usize,
    ) -> Result<LayerWeights, WeightsError> {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        let mut linears = Vec::with_capacity(7);
        let mut biases: [Option<Tensor>; 7] = Default::default();
        for linear in Linear::ALL {
            let (out, inner) = config.linear_shape(linear);
            linears.push(self.take(
                &name(&format!("{}.weight", linear.hf_name())),
                &[out, inner],
            )?);
            if config.has_bias(linear) {
                let bias = self.small(&name(&format!("{}.bias", linear.hf_name())), &[out])?;
                biases[linear as usize] = Some(bias);
            }
        }
        let (mut q_norm, mut k_norm) = (None, None);
        if config.qk_norm {
            q_norm = Some(self.small(&name("self_attn.q_norm.weight"), &[d])?);
            k_norm = Some(self.small(&name("self_attn.k_norm.weight"), &[d])?);
        }
        Ok(LayerWeights {
            linears: linears.try_into().expect("seven were pushed"),
            biases,
            input_layernorm: self.small(&name("input_layernorm.weight"), &[e])?,
            post_attention_layernorm: self.small(&name("post_attention_layernorm.weight"), &[e])?,
            q_norm,
            k_norm,
        })
    }

    fn take(&mut self, name: &str, expected: &[usize]) -> Result<Tensor, WeightsError> {
        let short = name.strip_prefix("model.").unwrap_or(name);
        let found = self.map.remove(name).or_else(|| self.map.remove(short));
        let tensor = found.ok_or_else(|| WeightsError::Missing {
            name: name.to_owned(),
        })?;
        if tensor.shape != expected {
            let (name, expected) = (name.to_owned(), expected.to_vec());
            return Err(WeightsError::Shape {
                name,
                found: tensor.shape,
                expected,
            });
        }
        Ok(tensor)
    }

    /// As `take`, for a vector: a plain float without NaN, in memory of its own. Touched on the mapping of a file, each would
    /// make the pages around it resident, which for the many vectors of a model is megabytes.
    fn small(&mut self, name: &str, expected: &[usize]) -> Result<Tensor, WeightsError> {
        let tensor = self.take(name, expected)?;
        if !tensor.dtype.is_float() {
            return Err(WeightsError::Dtype {
                name: name.to_owned(),
                dtype: tensor.dtype,
            });
        }
        let mut bytes = Vec::new();
        tensor
            .read_rows_into(0..tensor.rows(), &mut bytes)
            .map_err(|error| WeightsError::Read {
                name: name.to_owned(),
                kind: error.kind(),
            })?;
        let tensor = Tensor::new(tensor.dtype, tensor.shape, Bytes::copy_of(&bytes))
            .expect("all bytes of a valid tensor");
        let values = tensor.to_f32();
        match values.iter().position(|x| !x.is_finite()) {
            Some(index) => Err(WeightsError::NonFinite {
                name: name.to_owned(),
                index,
                value: values[index],
            }),
            None => Ok(tensor),
        }
    }

    /// Old checkpoints carry rotary tables, and tied ones a copy of the embedding; anything else is a mistake.
    fn check_left_over(self) -> Result<(), WeightsError> {
        let harmless =
            |name: &str| name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight";
        match self.map.into_keys().find(|name| !harmless(name)) {
            Some(name) => Err(WeightsError::Unexpected { name }),
            None => Ok(()),
        }
    }
}
