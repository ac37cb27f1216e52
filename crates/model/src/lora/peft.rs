//! PEFT directories: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Tensor names are `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` `[R, in]` and `.lora_B.weight` `[out, R]`. Config and
//! tensors must tell the same story: every targeted layer has its pair and every pair is targeted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::AdapterError;
use super::peft_config::PeftConfig;
use super::{Adapter, LoraPair, module_name};
use crate::hf::safetensors;
use crate::hf::{save_tensors, write_atomic};
use crate::{Config, Folder, Linear, Tensor};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT puts before the name of a module of the base.
const PREFIX: &str = "base_model.model.";

/// Matrices of one module as they come in.
type Halves = (Option<Tensor>, Option<Tensor>);

pub(super) fn load(dir: &Folder, base: &Config) -> Result<Adapter, AdapterError> {
    if !dir.has(CONFIG) || !dir.has(TENSORS) {
        let pickle = dir.has("adapter_model.bin");
        let hint = if pickle {
            "; pickle files are not read, save it with safe_serialization"
        } else {
            ""
        };
        return Err(AdapterError::NotAnAdapter {
            path: dir.path().display().to_string(),
            hint,
        });
    }
    let text = dir.read(CONFIG);
    let text = text.map_err(|source| io_error(&dir.path_of(CONFIG), source))?;
    let config = PeftConfig::parse(&text)?;
    let mut found = halves(safetensors::open_in(dir, TENSORS)?, base)?;
    let mut layers = vec![[const { None }; 7]; base.num_hidden_layers];
    for (layer, pairs) in layers.iter_mut().enumerate() {
        for linear in Linear::ALL {
            let module = module_name(layer, linear);
            let pair = match (
                config.targets(&module, layer),
                found.remove(&(layer, linear)),
            ) {
                (false, None) => continue,
                (false, Some(_)) => return Err(AdapterError::NotTargeted { module }),
                (true, None) => {
                    return Err(AdapterError::Incomplete {
                        module,
                        missing: "lora_A and lora_B",
                    });
                }
                (true, Some((None, _))) => {
                    return Err(AdapterError::Incomplete {
                        module,
                        missing: "lora_A",
                    });
                }
                (true, Some((_, None))) => {
                    return Err(AdapterError::Incomplete {
                        module,
                        missing: "lora_B",
                    });
                }
                (true, Some((Some(a), Some(b)))) => LoraPair {
                    a,
                    b,
                    scale: config.scale(&module),
                },
            };
            if pair.rank() != config.rank(&module) {
                let (found, expected) = (
                    pair.a.shape,
                    vec![config.rank(&module), base.linear_shape(linear).1],
                );
                return Err(AdapterError::Shape {
                    module,
                    matrix: "lora_A",
                    found,
                    expected,
                });
            }
            pairs[linear as usize] = Some(pair);
        }
    }
    Adapter::new(dir.name(), config.invocation, layers, base)
}

/// Sorts the tensors by layer and linear; refuses every other tensor.
fn halves(
    tensors: BTreeMap<String, Tensor>,
    base: &Config,
) -> Result<BTreeMap<(usize, Linear), Halves>, AdapterError> {
    let mut found: BTreeMap<(usize, Linear), Halves> = BTreeMap::new();
    for (name, tensor) in tensors {
        let (layer, linear, is_a) = match place(&name) {
            Ok(place) => place,
            Err(reason) => return Err(AdapterError::UnsupportedTensor { name, reason }),
        };
        if layer >= base.num_hidden_layers {
            return Err(AdapterError::Layer {
                name,
                layer,
                layers: base.num_hidden_layers,
            });
        }
        let halves = found.entry((layer, linear)).or_default();
        *(if is_a { &mut halves.0 } else { &mut halves.1 }) = Some(tensor);
    }
    if found.is_empty() {
        Err(AdapterError::NothingMatched)
    } else {
        Ok(found)
    }
}

/// Layer, linear, and whether it is A; or why the tensor is refused.
fn place(name: &str) -> Result<(usize, Linear, bool), &'static str> {
    const OTHER: &str = "only LoRA on the linear layers of the blocks is";
    if name.contains("lora_magnitude_vector") {
        return Err("it belongs to DoRA");
    }
    if name.contains("lora_embedding_") {
        return Err("LoRA on embeddings is not computed");
    }
    if name.contains("modules_to_save") {
        return Err("it is a saved module");
    }
    let module = name
        .strip_prefix(PREFIX)
        .ok_or("its name does not begin with base_model.model.")?;
    let (module, is_a) = match (
        module.strip_suffix(".lora_A.weight"),
        module.strip_suffix(".lora_B.weight"),
    ) {
        (Some(module), _) => (module, true),
        (None, Some(module)) => (module, false),
        (None, None) => return Err("only lora_A.weight and lora_B.weight are"),
    };
    let (number, part) = module
        .strip_prefix("model.layers.")
        .and_then(|rest| rest.split_once('.'))
        .ok_or(OTHER)?;
    let layer: usize = number.parse().map_err(|_| OTHER)?;
    let linear = Linear::ALL
        .into_iter()
        .find(|linear| linear.hf_name() == part)
        .ok_or(OTHER)?;
    if layer.to_string() == number {
        Ok((layer, linear, is_a))
    } else {
        Err(OTHER)
    }
}

pub(super) fn save(
    adapter: &Adapter,
    dir: &Path,
    base_model: Option<&str>,
) -> Result<(), AdapterError> {
    fs::create_dir_all(dir).map_err(|source| io_error(dir, source))?;
    let mut tensors = Vec::new();
    let mut targets = BTreeSet::new();
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    let mut common: Option<(usize, f64)> = None;
    for (layer, pairs) in adapter.layers.iter().enumerate() {
        for (linear, pair) in Linear::ALL.into_iter().zip(pairs) {
            let Some(pair) = pair else { continue };
            let module = module_name(layer, linear);
            tensors.push((format!("{PREFIX}{module}.lora_A.weight"), &pair.a));
            tensors.push((format!("{PREFIX}{module}.lora_B.weight"), &pair.b));
            let this = (pair.rank(), alpha(pair));
            let (r, common_alpha) = *common.get_or_insert(this);
            // Dots are the only characters of our names that mean something in a pattern.
            let pattern = || format!("^{}", module.replace('.', "\\."));
            if this.0 != r {
                ranks.insert(pattern(), json!(this.0));
            }
            if (this.1 - common_alpha).abs() > 0.0 {
                alphas.insert(pattern(), number(this.1));
            }
            targets.insert(module);
        }
    }
    let (r, alpha) = common.ok_or(AdapterError::NothingMatched)?;
    let config = json!({
        "alora_invocation_tokens": adapter.invocation,
        "alpha_pattern": alphas,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": number(alpha),
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": r,
        "rank_pattern": ranks,
        "revision": null,
        "target_modules": target_modules(&targets, adapter.layers.len()),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    save_tensors(&dir.join(TENSORS), tensors)?;
    let path = dir.join(CONFIG);
    write_atomic(&path, |file| writeln!(file, "{config:#}"))
        .map_err(|source| io_error(&path, source))
}

/// Short names such as `q_proj` when they say the same for every layer, otherwise the full names.
fn target_modules(modules: &BTreeSet<String>, layers: usize) -> Vec<Value> {
    let in_all = |linear: &Linear| {
        (0..layers)
            .filter(|&layer| modules.contains(&module_name(layer, *linear)))
            .count()
    };
    if Linear::ALL
        .iter()
        .all(|linear| [0, layers].contains(&in_all(linear)))
    {
        return Linear::ALL
            .iter()
            .filter(|linear| in_all(linear) > 0)
            .map(|linear| json!(linear.short_name()))
            .collect();
    }
    modules.iter().map(|module| json!(module)).collect()
}

/// The alpha that gives the pair's scale: scale * r, rounded to a whole number where that gives the same f32.
fn alpha(pair: &LoraPair) -> f64 {
    let r = pair.rank() as f64;
    let exact = f64::from(pair.scale) * r;
    let round = exact.round();
    if ((round / r) as f32).to_bits() == pair.scale.to_bits() {
        round
    } else {
        exact
    }
}

/// A whole number without a fraction, as PEFT writes `lora_alpha`.
fn number(value: f64) -> Value {
    let whole = value.fract() == 0.0 && value.abs() < 1e9;
    if whole {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn io_error(path: &Path, source: std::io::Error) -> AdapterError {
    AdapterError::Io {
        path: path.display().to_string(),
        source,
    }
}
