//! The engine on GGUF files against llama.cpp's results for them (golden/gguf, made by benchmarks/llama_cpp/golden.py).
//!
//! Both round the inputs of quantized layers to 8 bits: llama.cpp in blocks of 32 or 256, the engine in blocks of 32. The golden
//! files hold llama.cpp's logits with that rounding and, from the same weights as floats, without it. So the engine is measured
//! against the exact logits and may be as far from them as llama.cpp is, plus a quarter: f16 scales and KV, and Q6_K's two scales
//! per group of 32 joined into one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgethink_engine::{Engine, EngineOptions, Event, Isa, KvFormat, Request, WeightFormat};
use edgethink_model::Model;
use edgethink_model::hf::safetensors;

/// Weights in floats first: there the engine's only rounding is that of its f16 KV cache.
const MODELS: [&str; 10] = [
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
/// Relative error that f16 KV and the order of sums may cause.
const FLOAT: f64 = 1e-3;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden/gguf")
        .join(name)
}

struct Golden {
    engine: Engine,
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    tensors: safetensors::Tensors,
}

fn open(name: &str, isa: Isa) -> Golden {
    let path = golden(&format!("{name}.gguf"));
    let model = Model::load(path.to_str().expect("utf-8")).expect("a golden model");
    let options = EngineOptions {
        threads: 1,
        isa,
        weights: WeightFormat::Stored,
        kv: KvFormat::F16,
        kv_tokens: 256,
        max_batch_tokens: 64,
        max_sequences: 2,
        prefix_cache: false,
    };
    let engine = Engine::new(Arc::new(model), options).expect("a tiny engine");
    let tensors =
        safetensors::open(&golden(&format!("{name}.safetensors"))).expect("a golden file");
    let tokens = |name: &str| {
        tensors[name]
            .to_f32()
            .iter()
            .map(|&token| token as u32)
            .collect()
    };
    Golden {
        engine,
        prompt: tokens("prompt"),
        greedy: tokens("greedy"),
        tensors,
    }
}

/// |got - want| / |want| over all elements; infinite if anything is NaN.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f64| x * x;
    let pairs = got.iter().zip(want);
    let error: f64 = pairs
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

#[test]
fn logits_are_as_exact_as_llama_cpps_on_every_instruction_set() {
    for name in MODELS {
        for isa in Isa::available() {
            let mut golden = open(name, isa);
            let got = golden
                .engine
                .logits(&golden.prompt, None)
                .expect("finite logits");
            let stored = golden.tensors["logits"].to_f32();
            let exact = golden
                .tensors
                .get("exact_logits")
                .map_or_else(|| stored.clone(), |t| t.to_f32());
            let rounding = relative_error(&stored, &exact);
            let error = relative_error(&got, &exact);
            eprintln!("{name} {isa}: {error:.1e}, llama.cpp {rounding:.1e}");
            assert!(
                error <= FLOAT + 1.25 * rounding,
                "{name} {isa}: {error}, llama.cpp {rounding}"
            );
        }
    }
}

/// The prompts were chosen so that no decision is close; the smallest margin is in the files.
#[test]
fn the_same_64_greedy_tokens_as_llama_cpp() {
    for name in MODELS {
        let mut golden = open(name, Isa::detect());
        let request = Request {
            ignore_eos: true,
            ..Request::greedy(golden.prompt.clone(), golden.greedy.len())
        };
        golden.engine.submit(request).expect("a valid request");
        let mut got = Vec::new();
        while !golden.engine.idle() {
            for event in golden.engine.step().expect("a step") {
                if let Event::Token { token, .. } = event {
                    got.push(token);
                }
            }
        }
        assert_eq!(
            got,
            golden.greedy,
            "{name}, smallest margin {:?}",
            golden.tensors["margin"].to_f32()
        );
    }
}
