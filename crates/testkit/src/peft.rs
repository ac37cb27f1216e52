//! Random adapters on disk, in the form of PEFT.

use std::path::Path;

use edgethink_model::hf::safetensors;
use edgethink_model::{Config, Linear, Tensor, save_tensors};
use serde_json::Value;

use crate::formula;

/// Writes `adapter_config.json` as given, and `adapter_model.safetensors` with A and B of every linear layer that it
/// names: A is `u * sqrt(3/in)` and B `u * sqrt(3/r) / 2`, with `u` of [`formula`] under the tensor's own name.
///
/// Reads `r`, `target_modules` (a list of `q_proj` and so on), `rank_pattern` (keys end in the module's name) and
/// `layers_to_transform`.
///
/// # Panics
/// If the config lacks `r` or `target_modules`, or the files cannot be written.
pub fn write_peft(dir: &Path, base: &Config, adapter_config: &Value, seed: u64) {
    let rank = adapter_config["r"].as_u64().expect("r") as usize;
    let targets = adapter_config["target_modules"]
        .as_array()
        .expect("target_modules is a list");
    let layers = adapter_config["layers_to_transform"].as_array();
    let mut tensors = Vec::new();
    for i in 0..base.num_hidden_layers {
        if layers.is_some_and(|layers| !layers.iter().any(|l| l.as_u64() == Some(i as u64))) {
            continue;
        }
        for linear in Linear::ALL {
            if !targets
                .iter()
                .any(|t| t.as_str() == Some(linear.short_name()))
            {
                continue;
            }
            let module = format!("model.layers.{i}.{}", linear.hf_name());
            let rank = pattern(adapter_config, "rank_pattern", &module).unwrap_or(rank);
            let (out, inner) = base.linear_shape(linear);
            for (side, shape, factor) in [
                ("lora_A", vec![rank, inner], (3.0 / inner as f64).sqrt()),
                ("lora_B", vec![out, rank], (3.0 / rank as f64).sqrt() / 2.0),
            ] {
                let name = format!("base_model.model.{module}.{side}.weight");
                let mut values = formula(seed, &name, shape.iter().product());
                values.iter_mut().for_each(|x| *x *= factor as f32);
                tensors.push((
                    name,
                    Tensor::from_f32(shape, &values).expect("as many values as the shape"),
                ));
            }
        }
    }
    std::fs::create_dir_all(dir).expect("the directory of the adapter");
    std::fs::write(
        dir.join("adapter_config.json"),
        format!("{adapter_config:#}\n"),
    )
    .expect("adapter_config.json");
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
    save_tensors(&dir.join("adapter_model.safetensors"), tensors)
        .expect("adapter_model.safetensors");
}

/// The value of the pattern whose key is the module's name or its end.
fn pattern(adapter_config: &Value, field: &str, module: &str) -> Option<usize> {
    let patterns = adapter_config[field].as_object()?;
    let (_, rank) = patterns
        .iter()
        .find(|(key, _)| module == *key || module.ends_with(&format!(".{key}")))?;
    rank.as_u64().map(|rank| rank as usize)
}

/// The largest difference of a value between the adapters in two directories, and the largest value.
///
/// # Panics
/// If one is not there or has other tensors.
pub fn adapter_distance(a: &Path, b: &Path) -> (f32, f32) {
    let [a, b] = [a, b].map(|dir| {
        let file = dir.join("adapter_model.safetensors");
        safetensors::open(&file).expect("an adapter")
    });
    assert!(
        !a.is_empty() && a.keys().eq(b.keys()),
        "other tensors: {:?} and {:?}",
        a.keys(),
        b.keys()
    );
    let (mut apart, mut largest) = (0f32, 0f32);
    for (name, tensor) in &a {
        for (x, y) in tensor.to_f32().iter().zip(b[name].to_f32()) {
            apart = apart.max((x - y).abs());
            largest = largest.max(x.abs());
        }
    }
    (apart, largest)
}
