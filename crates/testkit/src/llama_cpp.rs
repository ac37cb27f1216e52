//! What llama.cpp computed on tiny GGUF files of its own making (`benchmarks/llama_cpp/golden.py`).

use std::sync::Arc;

use edgethink_model::Model;
use edgethink_model::hf::safetensors;

use crate::golden::golden_dir;

/// The files under `golden/gguf`, by family and weight type.
pub const LLAMA_CPP_MODELS: [&str; 10] = [
    "qwen2-f32",
    "qwen2-yarn",
    "llama-f32",
    "qwen3-f16",
    "qwen2-q8_0",
    "qwen2-q4_0",
    "qwen2-q4_k",
    "qwen2-q5_0",
    "qwen2-q5_1",
    "llama-q8_0",
];

/// A model with a prompt and what llama.cpp makes of it.
#[derive(Debug)]
pub struct LlamaCppGolden {
    /// The model, read from the GGUF file.
    pub model: Arc<Model>,
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// The 64 greedy tokens that follow. No decision is close: `tensors["margin"]` holds the smallest margin.
    pub greedy: Vec<u32>,
    /// Logits of the prompt `[tokens, V]`. llama.cpp also rounds activations: to 8 bits in blocks of 32 (Q8_0, Q4_0) or 256 (K-quants)
    /// and to f16 for F16.
    pub logits: Vec<f32>,
    /// Logits without that rounding, from the same weights in f32.
    pub exact: Vec<f32>,
    /// Everything in the file.
    pub tensors: safetensors::Tensors,
}

impl LlamaCppGolden {
    /// Relative error that llama.cpp's own rounding of activations makes.
    pub fn rounding(&self) -> f64 {
        relative_error(&self.logits, &self.exact)
    }
}

/// Opens one of [`LLAMA_CPP_MODELS`].
///
/// # Panics
/// If a file is missing or damaged.
pub fn llama_cpp_golden(name: &str) -> LlamaCppGolden {
    let path = golden_dir().join("gguf").join(format!("{name}.gguf"));
    let model = Model::load(path.to_str().expect("a UTF-8 path"))
        .unwrap_or_else(|e| panic!("{name}: {e:?}"));
    let tensors = safetensors::open(&path.with_extension("safetensors"))
        .unwrap_or_else(|e| panic!("{name}: {e:?}"));
    let tokens = |key: &str| tensors[key].to_f32().iter().map(|&t| t as u32).collect();
    let logits = tensors["logits"].to_f32();
    LlamaCppGolden {
        model: Arc::new(model),
        prompt: tokens("prompt"),
        greedy: tokens("greedy"),
        exact: tensors
            .get("exact_logits")
            .map_or_else(|| logits.clone(), |t| t.to_f32()),
        logits,
        tensors,
    }
}

/// |got - want| / |want| over all elements; infinite if anything is NaN.
///
/// # Panics
/// If the lengths differ.
pub fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len(), "lengths");
    let square = |x: f64| x * x;
    let error: f64 = got
        .iter()
        .zip(want)
        .map(|(&g, &w)| square(f64::from(g) - f64::from(w)))
        .sum();
    let norm: f64 = want.iter().map(|&w| square(f64::from(w))).sum();
    let relative = (error / norm).sqrt();
    if relative.is_finite() {
        relative
    } else {
        f64::INFINITY
    }
}
