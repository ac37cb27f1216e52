//! GGUF adapters of llama.cpp: `general.type` = `adapter`, `adapter.type` = `lora`, tensors `blk.0.attn_q.weight.lora_a` and `.lora_b`.
//!
//! One `adapter.lora.alpha` holds for all pairs: scale = alpha / rank, and an alpha of 0 means scale 1 (`llama-adapter.cpp`).
//! `adapter.alora.invocation_tokens` makes it an activated LoRA. In files of architecture `llama` the rows of B for q and k are in
//! llama.cpp's order, as those of the base.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::AdapterError;
use super::{Adapter, LoraPair, module_name};
use crate::gguf::{self, Entry, Gguf, GgufError, GgufWriter, Order, Value};
use crate::{Bytes, Config, Linear, MappedFile, Tensor};

pub(super) fn load(path: &Path, base: &Config) -> Result<Adapter, AdapterError> {
    let io_error = |source| AdapterError::Io {
        path: path.display().to_string(),
        source,
    };
    let file = MappedFile::open(path).map_err(io_error)?;
    let file = Bytes::whole(&file);
    let gguf = Gguf::parse(file.as_slice())?;
    let meta = &gguf.metadata;
    check_kind(&gguf, base)?;
    let alpha = meta.number("adapter.lora.alpha")?;
    let alpha = alpha.ok_or_else(|| GgufError::MissingKey {
        key: "adapter.lora.alpha".to_owned(),
    })?;
    let mut found: BTreeMap<(usize, Linear), (Option<Tensor>, Option<Tensor>)> = BTreeMap::new();
    for info in &gguf.tensors {
        let (layer, linear, is_a) = match place(info.name) {
            Ok(place) => place,
            Err(reason) => {
                return Err(AdapterError::UnsupportedTensor {
                    name: info.name.to_owned(),
                    reason,
                });
            }
        };
        if layer >= base.num_hidden_layers {
            return Err(AdapterError::Layer {
                name: info.name.to_owned(),
                layer,
                layers: base.num_hidden_layers,
            });
        }
        let mut tensor = gguf::map_tensor(&file, info)?;
        if !is_a {
            tensor = reorder(tensor, linear, base, Order::ToHf).map_err(|tensor| {
                let (found, rank) = (tensor.shape, base.linear_shape(linear).0);
                AdapterError::Shape {
                    module: module_name(layer, linear),
                    matrix: "lora_B",
                    found,
                    expected: vec![rank],
                }
            })?;
        }
        let halves = found.entry((layer, linear)).or_default();
        *(if is_a { &mut halves.0 } else { &mut halves.1 }) = Some(tensor);
    }
    if found.is_empty() {
        return Err(AdapterError::NothingMatched);
    }
    let mut layers = vec![[const { None }; 7]; base.num_hidden_layers];
    for ((layer, linear), halves) in found {
        let module = module_name(layer, linear);
        let (a, b) = match halves {
            (Some(a), Some(b)) => (a, b),
            (None, _) => {
                return Err(AdapterError::Incomplete {
                    module,
                    missing: "lora_a",
                });
            }
            (_, None) => {
                return Err(AdapterError::Incomplete {
                    module,
                    missing: "lora_b",
                });
            }
        };
        let rank = a.rows().max(1) as f64;
        let scale = if alpha == 0.0 {
            1.0
        } else {
            (alpha / rank) as f32
        };
        layers[layer][linear as usize] = Some(LoraPair { a, b, scale });
    }
    let name = path.file_stem().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    Adapter::new(name, invocation(&gguf)?, layers, base)
}

fn check_kind(gguf: &Gguf<'_>, base: &Config) -> Result<(), AdapterError> {
    let meta = &gguf.metadata;
    let kind = meta.text("general.type")?.unwrap_or("model");
    if kind != "adapter" {
        let remedy = "give it as the model";
        return Err(GgufError::Kind {
            found: format!("a {kind:?}"),
            expected: "an adapter",
            remedy,
        }
        .into());
    }
    let kind = meta.text("adapter.type")?.unwrap_or_default();
    if kind != "lora" {
        let remedy = "only LoRA adapters are supported";
        return Err(GgufError::Kind {
            found: format!("an adapter of type {kind:?}"),
            expected: "a LoRA adapter",
            remedy,
        }
        .into());
    }
    let expected = gguf::architecture(base.family);
    let found = gguf::family(meta).map(gguf::architecture);
    match found {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => Err(AdapterError::Architecture {
            found: found.to_owned(),
            expected,
        }),
        Err(error) => Err(error.into()),
    }
}

fn invocation(gguf: &Gguf<'_>) -> Result<Option<Vec<u32>>, AdapterError> {
    let key = "adapter.alora.invocation_tokens";
    let Some(numbers) = gguf.metadata.numbers(key)? else {
        return Ok(None);
    };
    let token = |v: Value<'_>| v.as_u64().and_then(|n| u32::try_from(n).ok());
    let tokens: Option<Vec<u32>> = numbers.iter().map(token).collect();
    tokens.map(Some).ok_or_else(|| {
        let found = "an array with other values".to_owned();
        GgufError::WrongValue {
            key: key.to_owned(),
            found,
            expected: "an array of token ids",
        }
        .into()
    })
}

/// Layer, linear, and whether it is A; or why the tensor is refused.
fn place(name: &str) -> Result<(usize, Linear, bool), &'static str> {
    const OTHER: &str = "only LoRA on the linear layers of the blocks is";
    let (base, is_a) = match (name.strip_suffix(".lora_a"), name.strip_suffix(".lora_b")) {
        (Some(base), _) => (base, true),
        (None, Some(base)) => (base, false),
        (None, None) => return Err("only names that end in .lora_a and .lora_b are"),
    };
    let (layer, part) = gguf::split_block(base).ok_or(OTHER)?;
    let linear = part
        .strip_suffix(".weight")
        .and_then(gguf::linear_of)
        .ok_or(OTHER)?;
    Ok((layer, linear, is_a))
}

/// Reorders the rows of B where the architecture asks for it; gives the tensor back when its rows are no whole heads.
fn reorder(b: Tensor, linear: Linear, base: &Config, order: Order) -> Result<Tensor, Tensor> {
    if gguf::permutes_heads(base.family) && matches!(linear, Linear::Q | Linear::K) {
        gguf::permute_heads(&b, base.head_dim, order).ok_or(b)
    } else {
        Ok(b)
    }
}

pub(super) fn save(adapter: &Adapter, path: &Path, base: &Config) -> Result<(), AdapterError> {
    let mut file = GgufWriter::new();
    let pairs = || adapter.layers.iter().flatten().flatten();
    let first = pairs().next().ok_or(AdapterError::NothingMatched)?;
    let alpha = first.scale * first.rank() as f32;
    file.key(
        "general.architecture",
        &Entry::String(gguf::architecture(base.family)),
    )?;
    file.key("general.type", &Entry::String("adapter"))?;
    file.key("general.name", &Entry::String(&adapter.name))?;
    file.key("adapter.type", &Entry::String("lora"))?;
    file.key("adapter.lora.alpha", &Entry::F32(alpha))?;
    if let Some(tokens) = &adapter.invocation {
        file.key("adapter.alora.invocation_tokens", &Entry::U32s(tokens))?;
    }
    for (layer, pairs) in adapter.layers.iter().enumerate() {
        for (linear, pair) in Linear::ALL.into_iter().zip(pairs) {
            let Some(pair) = pair else { continue };
            let module = module_name(layer, linear);
            let name = format!("blk.{layer}.{}.weight", gguf::linear_name(linear));
            let read_scale = if alpha == 0.0 {
                1.0
            } else {
                (f64::from(alpha) / pair.rank() as f64) as f32
            };
            let b = match pair.scale / read_scale {
                1.0 => pair.b.clone(),
                factor => {
                    let values: Vec<f32> =
                        pair.b.to_f32().into_iter().map(|x| x * factor).collect();
                    Tensor::from_f32(pair.b.shape.clone(), &values).map_err(|_| {
                        AdapterError::Incomplete {
                            module: module.clone(),
                            missing: "lora_B",
                        }
                    })?
                }
            };
            let b = reorder(b, linear, base, Order::ToGguf).map_err(|b| {
                let expected = vec![base.linear_shape(linear).0, pair.rank()];
                AdapterError::Shape {
                    module,
                    matrix: "lora_B",
                    found: b.shape,
                    expected,
                }
            })?;
            file.tensor(&format!("{name}.lora_a"), pair.a.clone())?;
            file.tensor(&format!("{name}.lora_b"), b)?;
        }
    }
    Ok(file.save(path)?)
}
