//! The reference forward pass against transformers (`golden/model.py`): every family, on f32 weights.

use edgethink_model::{Config, Model, reference};
use edgethink_testkit::{Golden, Tol, assert_close, golden, tiny_model_of};

/// Relative to the largest logit. Both sides compute in f32; measured differences are below 3e-6.
const TOLERANCE: Tol = Tol::RelToMax(1e-5);

fn load(case: &Golden) -> Model {
    let config = Config::from_json(&case.config_json()).unwrap();
    let dir = tiny_model_of(&config, case.seed());
    let model = Model::load(dir.path().to_str().unwrap()).unwrap();
    assert_eq!(model.config, config, "the config is written and read back");
    model
}

fn check(name: &str) {
    let case = golden(&format!("model/{name}"));
    let model = load(&case);
    let prompt = case.tokens("prompt");
    let forward = reference::forward(&model, &prompt, None).unwrap();
    let report = assert_close(&forward.logits, &case.tensor("logits"), TOLERANCE);
    println!("{name}: {report:?}");
    let greedy = reference::greedy(&model, &prompt, None, 64).unwrap();
    assert_eq!(greedy, case.tokens("greedy"));
}

#[test]
fn qwen2_with_a_tied_head() {
    check("qwen2_tied");
}

#[test]
fn qwen2_with_its_own_head_and_yarn() {
    check("qwen2_untied");
}

#[test]
fn qwen3() {
    check("qwen3");
}

#[test]
fn llama_with_llama3_rope() {
    check("llama3");
}

#[test]
fn smollm2_with_linear_rope() {
    check("smollm2");
}

#[test]
fn llama_with_every_bias() {
    check("llama_bias");
}

#[test]
fn mistral_with_a_sliding_window() {
    check("mistral");
}

/// The comparison sees a window that is one token too long, an epsilon that is forgotten, a wrong theta.
#[test]
fn small_mistakes_are_seen() {
    let case = golden("model/mistral");
    let mut model = load(&case);
    let want = case.tensor("logits");
    let mistakes: [fn(&mut Config); 3] = [
        |config| config.sliding_window = Some(9),
        |config| config.rms_norm_eps = 1e-4,
        |config| config.rope_theta = 10_100.0,
    ];
    let right = model.config.clone();
    for mistake in mistakes {
        model.config = right.clone();
        mistake(&mut model.config);
        let got = reference::forward(&model, &case.tokens("prompt"), None)
            .unwrap()
            .logits;
        assert!(
            edgethink_testkit::compare(&got, &want, TOLERANCE).is_err(),
            "{:?}",
            model.config
        );
    }
}
