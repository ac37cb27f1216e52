//! The engine against transformers, PEFT and llama.cpp (golden files made by `golden/model.py` and `benchmarks/llama_cpp/golden.py`).

mod support;

use std::sync::Arc;

use edgethink_engine::{AdapterSpan, EngineOptions, Isa, Request};
use edgethink_model::hf::safetensors;
use edgethink_model::{Adapter, Config, Model};
use edgethink_testkit::{Tol, assert_close, golden, golden_dir, write_peft};
use support::*;

/// f32 weights and KV: only the order of sums differs.
const FLOAT: Tol = Tol::RelToMax(2e-5);

fn check(name: &str, adapted: bool) {
    let case = golden(&format!("model/{name}"));
    let config = Config::from_json(&case.config_json()).expect("a good config");
    let model = model_of(&config, case.seed());
    let prompt = case.tokens("prompt");
    for isa in Isa::available() {
        let mut engine = engine(&model, &EngineOptions { isa, ..options() });
        let mut span = None;
        if adapted {
            let dir = tempfile::tempdir().expect("a temporary directory");
            write_peft(dir.path(), &config, &case.case["adapter"], case.seed());
            let adapter = Adapter::load(dir.path(), &config).expect("a good adapter");
            let id = engine.load_adapter(&adapter).expect("it fits");
            span = adapter.start(&prompt).map(|from| AdapterSpan { id, from });
        }
        let got = engine.logits(&prompt, span).expect("finite logits");
        assert_close(&got, &case.tensor("logits"), FLOAT);
        let greedy = case.tokens("greedy");
        let request = Request {
            adapter: span,
            ignore_eos: true,
            ..Request::greedy(prompt.clone(), greedy.len())
        };
        assert_eq!(
            run_one(&mut engine, &request).tokens(0),
            greedy,
            "{name} on {isa}"
        );
    }
}

#[test]
fn transformers_logits_and_greedy_tokens() {
    for name in [
        "qwen2_tied",
        "qwen2_untied",
        "qwen3",
        "llama3",
        "smollm2",
        "llama_bias",
        "mistral",
    ] {
        check(name, false);
    }
}

#[test]
fn peft_logits_and_greedy_tokens() {
    for name in [
        "lora",
        "rslora",
        "patterns",
        "one_layer",
        "alora",
        "alora_absent",
    ] {
        check(&format!("peft_{name}"), true);
    }
}

const GGUF: [&str; 10] = [
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

/// |got - want| / |want| over all logits; NaN fails every comparison with it.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = got.iter().zip(want).map(|(&g, &w)| square(g - w)).sum();
    (error / want.iter().map(|&w| square(w)).sum::<f64>()).sqrt()
}

/// Packed integers as they are in the file. llama.cpp also rounds activations (to 8 bits per 32, or per 256 for K-quants), so the file
/// holds its logits with and without that. Ours may be as far from the exact ones as its own, and a half more; 1e-3 is the KV's halves.
#[test]
fn llama_cpp_logits_and_greedy_tokens() {
    for name in GGUF {
        let path = golden_dir().join("gguf").join(format!("{name}.gguf"));
        let model =
            Arc::new(Model::load(path.to_str().expect("a UTF-8 path")).expect("a good file"));
        let tensors =
            safetensors::open(&path.with_extension("safetensors")).expect("a golden file");
        let tokens =
            |name: &str| -> Vec<u32> { tensors[name].to_f32().iter().map(|&t| t as u32).collect() };
        let stored = tensors["logits"].to_f32();
        let exact = tensors
            .get("exact_logits")
            .map_or_else(|| stored.clone(), |t| t.to_f32());
        let rounding = relative_error(&stored, &exact);
        for isa in Isa::available() {
            let mut engine = engine(&model, &EngineOptions { isa, ..options() });
            let got = engine
                .logits(&tokens("prompt"), None)
                .expect("finite logits");
            let error = relative_error(&got, &exact);
            eprintln!("{name} {isa}: {error:.1e} from exact, llama.cpp {rounding:.1e}");
            assert!(
                error <= rounding * 1.5 + 1e-3,
                "{name} {isa}: {error}, llama.cpp's own rounding {rounding}"
            );
            let greedy = tokens("greedy");
            let request = Request {
                ignore_eos: true,
                ..Request::greedy(tokens("prompt"), greedy.len())
            };
            assert_eq!(
                run_one(&mut engine, &request).tokens(0),
                greedy,
                "{name} on {isa}"
            );
        }
    }
}
