//! Transforms leave the function alone: logits by the reference before and after folding, on every family.

mod support;

use edgethink_model::{Adapter, Config, Family, Model, reference};
use edgethink_quantize::scheme::Transforms;
use edgethink_quantize::{QuantizeError, fold_adapter};
use edgethink_testkit::{Tol, compare, tiny_config, write_peft};
use support::{TOKENS, fold, model};

const NONE: Transforms = Transforms {
    residual: false,
    untie: false,
    norm: false,
    value: false,
    key: false,
    up: false,
    seed: 7,
};

fn logits(model: &Model) -> Vec<f32> {
    reference::forward(model, &TOKENS, None)
        .expect("it runs")
        .logits
}

/// Every config that a fold meets: families, biases everywhere, a size that is no power of two, one kv head.
fn configs() -> Vec<(&'static str, Config)> {
    let base = |family| Config {
        sliding_window: None,
        ..tiny_config(family)
    };
    vec![
        ("qwen2, tied, biases", tiny_config(Family::Qwen2)),
        ("qwen3, tied, q/k norm", tiny_config(Family::Qwen3)),
        ("llama, rope scaling", tiny_config(Family::Llama)),
        ("mistral, window", tiny_config(Family::Mistral)),
        (
            "llama, biases on all, hidden 96",
            Config {
                attention_bias: true,
                output_bias: true,
                mlp_bias: true,
                hidden_size: 96,
                head_dim: 24,
                ..base(Family::Llama)
            },
        ),
        (
            "qwen2, untied, one kv head, ffn 80",
            Config {
                tie_word_embeddings: false,
                num_key_value_heads: 1,
                intermediate_size: 80,
                ..tiny_config(Family::Qwen2)
            },
        ),
    ]
}

#[test]
fn every_transform_keeps_the_logits_of_every_family() {
    let one: [(&str, Transforms); 6] = [
        (
            "residual",
            Transforms {
                residual: true,
                untie: true,
                ..NONE
            },
        ),
        ("norm", Transforms { norm: true, ..NONE }),
        (
            "value",
            Transforms {
                value: true,
                ..NONE
            },
        ),
        ("key", Transforms { key: true, ..NONE }),
        ("up", Transforms { up: true, ..NONE }),
        (
            "untie",
            Transforms {
                untie: true,
                ..NONE
            },
        ),
    ];
    let all = Transforms {
        residual: true,
        untie: true,
        norm: false,
        value: true,
        key: true,
        up: true,
        seed: 3,
    };
    for (name, config) in configs() {
        let model = model(&config, 11);
        let want = logits(&model);
        for (transform, wanted) in one.into_iter().chain([("all", all)]) {
            if wanted.key && config.qk_norm {
                continue; // refused, see below
            }
            let folded = fold(&model, wanted).expect(transform);
            if let Err(error) = compare(&logits(&folded), &want, Tol::RelToMax(1e-4)) {
                panic!("{transform} on {name}: {error}");
            }
            let weights = |model: &Model| {
                model
                    .weights
                    .named()
                    .iter()
                    .flat_map(|(_, t)| t.to_f32())
                    .collect::<Vec<_>>()
            };
            assert!(
                transform == "untie" || weights(&folded) != weights(&model),
                "{transform} did nothing to {name}"
            );
        }
    }
}

#[test]
fn an_adapter_goes_along() {
    let all = Transforms {
        residual: true,
        untie: true,
        value: true,
        key: true,
        up: true,
        ..NONE
    };
    for (name, config) in configs() {
        let model = model(&config, 11);
        let dir = tempfile::tempdir().expect("a directory");
        let peft = serde_json::json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 8,
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        });
        write_peft(dir.path(), &config, &peft, 9);
        let adapter = Adapter::load(dir.path(), &config).expect("it loads");
        let wanted = Transforms {
            key: !config.qk_norm,
            ..all
        };
        let folded = fold(&model, wanted).expect(name);
        let along = fold_adapter(&model, &adapter, wanted, None, 2).expect(name);
        let with = |model: &Model, adapter: &Adapter| {
            let forward = reference::forward(model, &TOKENS, Some((adapter, 5)));
            forward.expect("it runs").logits
        };
        let want = with(&model, &adapter);
        if let Err(error) = compare(&with(&folded, &along), &want, Tol::RelToMax(1e-4)) {
            panic!("{name}: {error}");
        }
        let left_behind = compare(&with(&folded, &adapter), &want, Tol::RelToMax(1e-2));
        assert!(left_behind.is_err(), "{name}: the old adapter fits too");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |family, wanted| match fold(&model(&tiny_config(family), 1), wanted) {
        Err(QuantizeError::Transform { transform, .. }) => transform,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(
            Family::Qwen2,
            Transforms {
                residual: true,
                ..NONE
            }
        ),
        "residual"
    );
    assert_eq!(
        refused(Family::Qwen3, Transforms { key: true, ..NONE }),
        "key"
    );
}

#[test]
fn a_folded_residual_stream_has_no_outlier_columns() {
    let config = tiny_config(Family::Llama);
    let model = model(&config, 2);
    let folded = fold(
        &model,
        Transforms {
            residual: true,
            ..NONE
        },
    )
    .expect("untied");
    assert!(folded.weights.norm.to_f32().iter().all(|w| *w == 1.0));
    assert!(
        folded.weights.layers[0]
            .input_layernorm
            .to_f32()
            .iter()
            .all(|w| *w == 1.0)
    );
}
