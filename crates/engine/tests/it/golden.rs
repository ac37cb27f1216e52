//! The engine against transformers and PEFT (golden files made by `golden/model.py`).

use crate::support::*;
use edgethink_engine::{AdapterSpan, EngineOptions, Isa, Request};
use edgethink_model::{Adapter, Config};
use edgethink_testkit::{Tol, assert_close, golden, write_peft};

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
            span = adapter
                .start(&prompt)
                .map(|from| AdapterSpan::starting(id, from));
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
