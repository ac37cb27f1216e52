//! Golden files: what other programs computed, stored under `golden/` beside the script that made them.

use std::path::{Path, PathBuf};

use edgethink_model::hf::safetensors;
use serde_json::Value;

/// A case: `golden/<name>.json` and the tensors of `golden/<name>.safetensors`.
#[derive(Debug)]
pub struct Golden {
    /// The whole JSON file.
    pub case: Value,
    tensors: safetensors::Tensors,
}

/// `golden/` of the repository.
pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

/// Loads a case by its path under `golden/`, without extension.
///
/// # Panics
/// If a file is missing or damaged.
pub fn golden(name: &str) -> Golden {
    golden_at(&golden_dir().join(format!("{name}.json")))
}

/// Loads a case by the path of its JSON file.
///
/// # Panics
/// If a file is missing or damaged.
pub fn golden_at(path: &Path) -> Golden {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let case = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let tensors =
        safetensors::open(&path.with_extension("safetensors")).unwrap_or_else(|e| panic!("{e:?}"));
    Golden { case, tensors }
}

impl Golden {
    /// A tensor as f32.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn tensor(&self, name: &str) -> Vec<f32> {
        self.tensors
            .get(name)
            .unwrap_or_else(|| panic!("no tensor `{name}`"))
            .to_f32()
    }

    /// A list of token ids of the JSON file.
    ///
    /// # Panics
    /// If it is missing or holds something else.
    pub fn tokens(&self, key: &str) -> Vec<u32> {
        let list = self.case[key]
            .as_array()
            .unwrap_or_else(|| panic!("no list `{key}`"));
        list.iter()
            .map(|v| u32::try_from(v.as_u64().expect("an id")).expect("a 32-bit id"))
            .collect()
    }

    /// The seed of the weights.
    ///
    /// # Panics
    /// If it is missing.
    pub fn seed(&self) -> u64 {
        self.case["seed"].as_u64().expect("a seed")
    }

    /// The text of the config.json that transformers wrote.
    pub fn config_json(&self) -> String {
        self.case["config"].to_string()
    }
}
