//! The reference forward pass against transformers and PEFT (`golden/model.py`): every family, on f32 weights.

use edgethink_model::reference::ForwardError;
use edgethink_model::{Adapter, Config, Model, Tensor, reference};
use edgethink_testkit::{Golden, Tol, assert_close, golden, tiny_model_of, write_peft};

/// Relative to the largest logit. Both sides compute in f32; measured differences are below 1.2e-6.
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
    assert_close(&forward.logits, &case.tensor("logits"), TOLERANCE);
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

/// With an adapter, against PEFT. `from` is where the adapter must begin; the base's own logits must be another thing.
fn check_adapter(name: &str, from: Option<usize>, matched: usize) {
    let case = golden(&format!("model/peft_{name}"));
    let model = load(&case);
    let dir = tempfile::tempdir().unwrap();
    write_peft(
        dir.path(),
        &model.config,
        &case.case["adapter"],
        case.seed(),
    );
    let adapter = Adapter::load(dir.path(), &model.config).unwrap();
    assert_eq!(adapter.matched, matched);
    let prompt = case.tokens("prompt");
    assert_eq!(adapter.start(&prompt), from);
    let span = from.map(|from| (&adapter, from));
    let want = case.tensor("logits");
    let forward = reference::forward(&model, &prompt, span).unwrap();
    assert_close(&forward.logits, &want, TOLERANCE);
    let greedy = reference::greedy(&model, &prompt, span, 64).unwrap();
    assert_eq!(greedy, case.tokens("greedy"));

    let base = reference::forward(&model, &prompt, None).unwrap();
    let before = from.unwrap_or(prompt.len()) * model.config.vocab_size;
    assert_eq!(
        base.logits[..before],
        forward.logits[..before],
        "before it starts, it is the base"
    );
    assert_eq!(base.logits == forward.logits, from.is_none());
}

#[test]
fn lora_on_every_layer() {
    check_adapter("lora", Some(0), 14);
}

#[test]
fn rslora_on_two_modules() {
    check_adapter("rslora", Some(0), 4);
}

#[test]
fn rank_and_alpha_patterns() {
    check_adapter("patterns", Some(0), 14);
}

#[test]
fn lora_on_one_layer() {
    check_adapter("one_layer", Some(0), 1);
}

#[test]
fn activated_lora_starts_at_the_last_invocation() {
    check_adapter("alora", Some(12), 14);
}

#[test]
fn activated_lora_without_its_invocation_is_the_base() {
    check_adapter("alora_absent", None, 14);
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

#[test]
fn what_cannot_be_computed_is_an_error() {
    let case = golden("model/peft_lora");
    let mut model = load(&case);
    let forward = |model: &Model, tokens: &[u32]| reference::forward(model, tokens, None);
    let outside = forward(&model, &[1, 160]).unwrap_err();
    assert!(matches!(
        outside,
        ForwardError::Token {
            index: 1,
            id: 160,
            vocab_size: 160
        }
    ));
    assert_eq!(forward(&model, &[]).unwrap().logits.len(), 0);

    let dir = tempfile::tempdir().unwrap();
    write_peft(dir.path(), &model.config, &case.case["adapter"], 1);
    let mut adapter = Adapter::load(dir.path(), &model.config).unwrap();
    adapter.layers.pop();
    let other_base = reference::forward(&model, &[1], Some((&adapter, 0))).unwrap_err();
    assert!(matches!(
        other_base,
        ForwardError::AdapterLayers {
            found: 1,
            expected: 2
        }
    ));

    let mut values = model.weights.embed_tokens.to_f32();
    values[64] = f32::NAN;
    model.weights.embed_tokens = Tensor::from_f32(vec![160, 64], &values).unwrap();
    let damaged = forward(&model, &[0, 1, 0]).unwrap_err();
    assert!(
        matches!(damaged, ForwardError::NonFinite { .. }),
        "{damaged}"
    );
}
