//! LoRA adapters: y = W x + scale * B (A x) on the linear layers of the blocks.
//!
//! Two file forms, PEFT directories ([`Adapter::load`], [`Adapter::save_peft`]) and GGUF adapters ([`Adapter::save_gguf`]), both plain
//! and *activated*: an activated adapter acts from the first token of the last occurrence of its invocation tokens on, and everything
//! before is the base ([`Adapter::start`]; arXiv 2504.12397, PEFT's `alora_invocation_tokens`).
//!
//! Whatever would change the result and is not computed here (DoRA, biases, saved modules, embeddings, ...) is refused by name.

mod error;
mod gguf;
pub(crate) mod int4;
pub(crate) mod int8;
mod merge;
mod peft;
mod peft_config;
mod stored;

use std::path::Path;

pub use error::AdapterError;
pub use merge::save_merged;
pub use stored::AdapterDtype;

use crate::{Config, ContentHash, Folder, Linear, Tensor};

/// The two matrices of one linear layer.
#[derive(Debug, Clone)]
pub struct LoraPair {
    /// `[R, in]`.
    pub a: Tensor,
    /// `[out, R]`.
    pub b: Tensor,
    /// alpha / r, or alpha / sqrt(r) for rslora.
    pub scale: f32,
}

impl LoraPair {
    /// R.
    pub fn rank(&self) -> usize {
        self.a.rows()
    }
}

/// An adapter, checked against the config of its base.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Name for people: the directory or file it came from.
    pub name: String,
    /// The tokens at whose last occurrence the adapter begins (activated LoRA); `None` for a plain LoRA.
    pub invocation: Option<Vec<u32>>,
    /// Pairs per layer, indexed by `Linear as usize`.
    pub layers: Vec<[Option<LoraPair>; 7]>,
    /// Identity of its tensors, scales and invocation.
    pub hash: ContentHash,
    /// Largest R.
    pub rank_max: usize,
    /// Linear layers that it changes.
    pub matched: usize,
}

impl Adapter {
    /// Loads a PEFT directory or a GGUF adapter and checks it against its base.
    ///
    /// # Errors
    /// [`AdapterError`] for a file that is broken, made for another base, or has parts that are not supported.
    pub fn load(path: impl AsRef<Path>, base: &Config) -> Result<Adapter, AdapterError> {
        let path = path.as_ref();
        if path.is_dir() {
            return peft::load(&Folder::disk(path), base);
        }
        if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        {
            return gguf::load(path, base);
        }
        Err(AdapterError::NotAnAdapter {
            path: path.display().to_string(),
            hint: "",
        })
    }

    /// As [`Adapter::load`], for a PEFT directory that may be inside a bundle.
    ///
    /// # Errors
    /// As [`Adapter::load`].
    pub fn load_from(folder: &Folder, base: &Config) -> Result<Adapter, AdapterError> {
        match folder {
            Folder::Disk(path) => Self::load(path, base),
            Folder::Bundle { .. } => peft::load(folder, base),
        }
    }

    /// An adapter from its parts, for trainers and tests; checked as a loaded one.
    ///
    /// # Errors
    /// [`AdapterError`] for shapes that do not fit the base, NaN, no pair at all, or impossible invocation tokens.
    pub fn new(
        name: impl Into<String>,
        invocation: Option<Vec<u32>>,
        layers: Vec<[Option<LoraPair>; 7]>,
        base: &Config,
    ) -> Result<Adapter, AdapterError> {
        let name = name.into();
        check_invocation(invocation.as_deref(), base)?;
        if layers.len() != base.num_hidden_layers {
            return Err(AdapterError::Layer {
                name,
                layer: layers.len(),
                layers: base.num_hidden_layers,
            });
        }
        let (mut rank_max, mut matched) = (0, 0);
        for (layer, pairs) in layers.iter().enumerate() {
            for (linear, pair) in Linear::ALL.into_iter().zip(pairs) {
                if let Some(pair) = pair {
                    check_pair(&module_name(layer, linear), pair, base.linear_shape(linear))?;
                    rank_max = rank_max.max(pair.rank());
                    matched += 1;
                }
            }
        }
        if matched == 0 {
            return Err(AdapterError::NothingMatched);
        }
        let hash =
            content_hash(invocation.as_deref(), &layers).map_err(|source| AdapterError::Io {
                path: name.clone(),
                source,
            })?;
        Ok(Adapter {
            name,
            invocation,
            layers,
            hash,
            rank_max,
            matched,
        })
    }

    /// The first token that the adapter acts on, by PEFT's rule: the first token of the last occurrence of the invocation sequence,
    /// or `None` if it does not occur. A plain LoRA acts from token 0.
    pub fn start(&self, tokens: &[u32]) -> Option<usize> {
        match &self.invocation {
            None => Some(0),
            Some(sequence) => tokens
                .windows(sequence.len().max(1))
                .rposition(|window| window == sequence),
        }
    }

    /// The pair of a linear layer.
    pub fn pair(&self, layer: usize, linear: Linear) -> Option<&LoraPair> {
        self.layers.get(layer)?[linear as usize].as_ref()
    }

    /// Parameters of all pairs.
    pub fn parameters(&self) -> usize {
        self.layers
            .iter()
            .flatten()
            .flatten()
            .map(|pair| pair.a.len() + pair.b.len())
            .sum()
    }

    /// Writes a PEFT directory (`adapter_config.json`, `adapter_model.safetensors`) that PEFT loads to the same function.
    /// `base_model` goes into `base_model_name_or_path`.
    ///
    /// # Errors
    /// [`AdapterError::Io`].
    pub fn save_peft(
        &self,
        dir: impl AsRef<Path>,
        base_model: Option<&str>,
    ) -> Result<(), AdapterError> {
        peft::save(self, dir.as_ref(), base_model)
    }

    /// Writes a GGUF adapter for llama.cpp. Where the scales cannot be written as one alpha over the ranks, the difference is
    /// multiplied into B, which then is F32.
    ///
    /// # Errors
    /// [`AdapterError::Gguf`].
    pub fn save_gguf(&self, path: impl AsRef<Path>, base: &Config) -> Result<(), AdapterError> {
        gguf::save(self, path.as_ref(), base)
    }
}

/// Hugging Face name of a linear layer.
fn module_name(layer: usize, linear: Linear) -> String {
    format!("model.layers.{layer}.{}", linear.hf_name())
}

fn check_invocation(invocation: Option<&[u32]>, base: &Config) -> Result<(), AdapterError> {
    let Some(tokens) = invocation else {
        return Ok(());
    };
    let bad = |reason| {
        Err(AdapterError::Invocation {
            tokens: tokens.to_vec(),
            reason,
        })
    };
    if tokens.is_empty() {
        return bad("the sequence is empty");
    }
    if tokens.iter().any(|&t| t as usize >= base.vocab_size) {
        return bad("a token is not in the vocabulary of the base");
    }
    Ok(())
}

fn check_pair(
    module: &str,
    pair: &LoraPair,
    (out, inner): (usize, usize),
) -> Result<(), AdapterError> {
    let rank = pair.rank();
    for (matrix, tensor, expected) in [
        ("lora_A", &pair.a, [rank.max(1), inner]),
        ("lora_B", &pair.b, [out, rank.max(1)]),
    ] {
        if tensor.shape != expected {
            let (module, found) = (module.to_owned(), tensor.shape.clone());
            return Err(AdapterError::Shape {
                module,
                matrix,
                found,
                expected: expected.to_vec(),
            });
        }
        if !tensor.dtype.is_in_place() {
            let (module, found) = (module.to_owned(), tensor.dtype.to_string());
            return Err(AdapterError::Dtype {
                module,
                matrix,
                found,
            });
        }
        let finite = |scale: &f32| (128.0 * scale).is_finite();
        if let Some((_, scales)) = tensor.as_int8()
            && scales.iter().all(finite)
        {
            continue;
        }
        let mut row = vec![0.0; tensor.cols()];
        for r in 0..tensor.rows() {
            tensor.dequantize_rows(r..r + 1, &mut row);
            if let Some(i) = row.iter().position(|x| !x.is_finite()) {
                let (module, index, value) = (module.to_owned(), r * row.len() + i, row[i]);
                return Err(AdapterError::NonFinite {
                    module,
                    matrix,
                    index,
                    value,
                });
            }
        }
    }
    if !pair.scale.is_finite() {
        return Err(AdapterError::NonFinite {
            module: module.to_owned(),
            matrix: "scale",
            index: 0,
            value: pair.scale,
        });
    }
    Ok(())
}

/// Hash of invocation, scales and tensors; the name does not count.
fn content_hash(
    invocation: Option<&[u32]>,
    layers: &[[Option<LoraPair>; 7]],
) -> std::io::Result<ContentHash> {
    let mut text = format!("lora {invocation:?}");
    let mut tensors = Vec::new();
    for (layer, pairs) in layers.iter().enumerate() {
        for (linear, pair) in Linear::ALL.into_iter().zip(pairs) {
            if let Some(pair) = pair {
                let name = module_name(layer, linear);
                text.push_str(&format!("\n{name} {:08x}", pair.scale.to_bits()));
                tensors.push((format!("{name}.lora_A"), &pair.a));
                tensors.push((format!("{name}.lora_B"), &pair.b));
            }
        }
    }
    ContentHash::of(&text, tensors)
}

#[cfg(test)]
mod tests;
