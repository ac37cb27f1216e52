//! Loading rules of adapters: what is accepted, and each refusal by its name. That accepted ones compute what PEFT and llama.cpp compute
//! is tested against golden files in `tests/`.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::*;
use crate::hf::save_tensors;
use crate::{Bytes, Dtype, Family};

/// A base with 2 layers: E = 8, F = 12, H = 2, K = 1, D = 4, V = 32.
fn base(family: Family) -> Config {
    Config {
        family,
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        vocab_size: 32,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        rope_scaling: None,
        tie_word_embeddings: true,
        attention_bias: true,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        sliding_window: None,
    }
}

fn matrix(rows: usize, cols: usize, seed: usize) -> Tensor {
    let values: Vec<f32> = (0..rows * cols)
        .map(|i| ((i * 37 + seed * 11) % 19) as f32 / 8.0 - 1.0)
        .collect();
    Tensor::from_f32(vec![rows, cols], &values).expect("fits")
}

type Named = Vec<(String, Tensor)>;

/// The pair of one layer and linear under PEFT's names.
fn pair(base: &Config, layer: usize, linear: Linear, rank: usize) -> Named {
    let (out, inner) = base.linear_shape(linear);
    let name = format!("base_model.model.{}", module_name(layer, linear));
    let seed = layer * 7 + linear as usize;
    vec![
        (format!("{name}.lora_A.weight"), matrix(rank, inner, seed)),
        (
            format!("{name}.lora_B.weight"),
            matrix(out, rank, seed + 100),
        ),
    ]
}

/// q_proj and v_proj of both layers, rank 2, alpha 4.
fn standard(base: &Config) -> (Json, Named) {
    let config = json!({ "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none",
        "target_modules": ["q_proj", "v_proj"], "modules_to_save": null, "use_dora": false, "lora_dropout": 0.1 });
    let tensors = [0, 1]
        .iter()
        .flat_map(|&l| [pair(base, l, Linear::Q, 2), pair(base, l, Linear::V, 2)].concat())
        .collect();
    (config, tensors)
}

fn write(dir: &Path, config: &Json, tensors: &[(String, Tensor)]) {
    std::fs::write(dir.join("adapter_config.json"), config.to_string()).expect("temp dir");
    save_tensors(
        &dir.join("adapter_model.safetensors"),
        tensors.iter().map(|(n, t)| (n.clone(), t)),
    )
    .expect("temp dir");
}

fn load(
    config: &Json,
    tensors: &[(String, Tensor)],
    base: &Config,
) -> Result<Adapter, AdapterError> {
    let dir = tempfile::tempdir().expect("temp dir");
    write(dir.path(), config, tensors);
    Adapter::load(dir.path(), base)
}

/// The variant's name, for comparing.
fn kind(result: Result<Adapter, AdapterError>) -> String {
    let text = format!("{:?}", result.expect_err("must be refused"));
    text.split(['(', ' ', '{'])
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn with(mut config: Json, field: &str, value: Json) -> Json {
    config[field] = value;
    config
}

#[test]
fn a_plain_adapter_loads() {
    let base = base(Family::Qwen2);
    let (config, tensors) = standard(&base);
    let adapter = load(&config, &tensors, &base).expect("valid");
    assert_eq!(
        (
            adapter.matched,
            adapter.rank_max,
            adapter.invocation.clone()
        ),
        (4, 2, None)
    );
    assert_eq!(adapter.start(&[1, 2, 3]), Some(0));
    let q = adapter.pair(1, Linear::Q).expect("q");
    assert_eq!(q.scale, 2.0);
    assert_eq!(q.b.to_f32(), matrix(8, 2, 107).to_f32());
    assert!(adapter.pair(1, Linear::K).is_none() && adapter.pair(2, Linear::Q).is_none());
    assert_eq!(adapter.parameters(), 2 * (2 * 8 + 8 * 2 + 2 * 8 + 4 * 2));
}

#[test]
fn an_activated_adapter_starts_at_the_last_occurrence() {
    let base = base(Family::Qwen2);
    let (config, tensors) = standard(&base);
    let adapter = load(
        &with(config.clone(), "alora_invocation_tokens", json!([5, 6])),
        &tensors,
        &base,
    )
    .expect("valid");
    assert_eq!(adapter.start(&[5, 6, 1, 5, 6, 7]), Some(3));
    assert_eq!(adapter.start(&[5, 6]), Some(0));
    assert_eq!(adapter.start(&[6, 5]), None);
    assert_eq!(adapter.start(&[5]), None);
    assert_eq!(adapter.start(&[]), None);
    for bad in [json!([]), json!([32])] {
        assert_eq!(
            kind(load(
                &with(config.clone(), "alora_invocation_tokens", bad),
                &tensors,
                &base
            )),
            "Invocation"
        );
    }
    assert_eq!(
        kind(load(
            &with(config, "alora_invocation_tokens", json!([-1])),
            &tensors,
            &base
        )),
        "Field"
    );
}

#[test]
fn scales_follow_rslora_and_the_patterns() {
    let base = base(Family::Qwen2);
    let (config, mut tensors) = standard(&base);
    let rs = load(
        &with(config.clone(), "use_rslora", json!(true)),
        &tensors,
        &base,
    )
    .expect("valid");
    assert_eq!(
        rs.pair(0, Linear::Q).expect("q").scale,
        (4.0 / 2f64.sqrt()) as f32
    );
    // The first pattern that matches the end of the name counts; ranks and alphas are looked up apart.
    tensors.retain(|(name, _)| !name.contains("layers.1.self_attn.v_proj"));
    tensors.extend(pair(&base, 1, Linear::V, 3));
    let config = with(
        config,
        "rank_pattern",
        json!({ "layers\\.1\\.self_attn\\.v_proj": 3 }),
    );
    let config = with(
        config,
        "alpha_pattern",
        json!({ "nothing": 99, ".*1.*v_proj": 12, "v_proj": 5.5 }),
    );
    let adapter = load(&config, &tensors, &base).expect("valid");
    let scale = |layer, linear| adapter.pair(layer, linear).expect("there").scale;
    assert_eq!(
        [
            scale(0, Linear::Q),
            scale(0, Linear::V),
            scale(1, Linear::V)
        ],
        [2.0, 2.75, 4.0]
    );
    assert_eq!(adapter.rank_max, 3);
}

#[test]
fn targets_are_lists_patterns_or_all() {
    let base = base(Family::Qwen2);
    let (config, tensors) = standard(&base);
    let layer_1: Named = tensors
        .iter()
        .filter(|(n, _)| n.contains("layers.1."))
        .cloned()
        .collect();
    for (targets, tensors) in [
        (
            json!("model\\.layers\\.\\d+\\.self_attn\\.(q|v)_proj"),
            &tensors,
        ),
        (
            json!([
                "self_attn.q_proj",
                "model.layers.0.self_attn.v_proj",
                "layers.1.self_attn.v_proj"
            ]),
            &tensors,
        ),
        (json!(".*layers\\.1.*(q|v)_proj"), &layer_1),
    ] {
        assert!(
            load(
                &with(config.clone(), "target_modules", targets.clone()),
                tensors,
                &base
            )
            .is_ok(),
            "{targets}"
        );
    }
    for layers in [json!(1), json!([1])] {
        assert!(
            load(
                &with(config.clone(), "layers_to_transform", layers),
                &layer_1,
                &base
            )
            .is_ok()
        );
    }
    let exclude = with(
        config.clone(),
        "exclude_modules",
        json!(".*layers\\.0\\..*"),
    );
    assert!(load(&exclude, &layer_1, &base).is_ok());
    // A part of a name is no match: "proj" is not "q_proj".
    assert_eq!(
        kind(load(
            &with(config.clone(), "target_modules", json!(["proj"])),
            &tensors,
            &base
        )),
        "NotTargeted"
    );
    assert_eq!(
        kind(load(
            &with(config.clone(), "target_modules", json!("all-linear")),
            &tensors,
            &base
        )),
        "Incomplete"
    );
    assert_eq!(
        kind(load(
            &with(config.clone(), "target_modules", json!("(")),
            &tensors,
            &base
        )),
        "Pattern"
    );
    assert_eq!(
        kind(load(
            &with(config.clone(), "target_modules", json!(null)),
            &tensors,
            &base
        )),
        "Field"
    );
    assert_eq!(kind(load(&config, &layer_1, &base)), "Incomplete");
}

#[test]
fn parts_that_are_not_computed_are_refused_by_name() {
    let base = base(Family::Qwen2);
    let (config, tensors) = standard(&base);
    for (field, value) in [
        ("use_dora", json!(true)),
        ("bias", json!("all")),
        ("lora_bias", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["x"])),
        ("layer_replication", json!([[0, 2]])),
        ("fan_in_fan_out", json!(true)),
        ("use_qalora", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("peft_type", json!("IA3")),
        ("task_type", json!("SEQ_CLS")),
        ("a_field_of_the_future", json!(3)),
    ] {
        let error = load(&with(config.clone(), field, value), &tensors, &base).expect_err(field);
        assert!(
            matches!(&error, AdapterError::Unsupported { field: f, .. } if f == field),
            "{field}: {error}"
        );
    }
    // The same fields unused are fine, also unknown ones.
    let unused = [
        ("use_dora", json!(false)),
        ("modules_to_save", json!([])),
        ("a_field_of_the_future", json!(null)),
    ];
    for (field, value) in unused {
        assert!(
            load(&with(config.clone(), field, value), &tensors, &base).is_ok(),
            "{field}"
        );
    }
    for (field, value) in [
        ("r", json!(0)),
        ("r", json!("8")),
        ("lora_alpha", json!(null)),
        ("rank_pattern", json!({ "q": 0 })),
    ] {
        assert_eq!(
            kind(load(&with(config.clone(), field, value), &tensors, &base)),
            "Field",
            "{field}"
        );
    }
}

#[test]
fn tensors_that_do_not_belong_are_refused() {
    let base = base(Family::Qwen2);
    let (config, tensors) = standard(&base);
    let q = "base_model.model.model.layers.0.self_attn.q_proj";
    for (name, want) in [
        (
            format!("{q}.lora_magnitude_vector.weight"),
            "UnsupportedTensor",
        ),
        (format!("{q}.lora_A.bias"), "UnsupportedTensor"),
        (
            "base_model.model.lm_head.lora_A.weight".to_owned(),
            "UnsupportedTensor",
        ),
        (
            "base_model.model.model.embed_tokens.lora_embedding_A".to_owned(),
            "UnsupportedTensor",
        ),
        (
            "base_model.model.model.layers.00.self_attn.q_proj.lora_A.weight".to_owned(),
            "UnsupportedTensor",
        ),
        (
            "model.layers.0.self_attn.q_proj.lora_A.weight".to_owned(),
            "UnsupportedTensor",
        ),
        (
            q.replace("layers.0", "layers.2") + ".lora_A.weight",
            "Layer",
        ),
        (
            q.replace("q_proj", "k_proj") + ".lora_A.weight",
            "NotTargeted",
        ),
    ] {
        let mut more = tensors.clone();
        more.push((name.clone(), matrix(2, 8, 0)));
        assert_eq!(kind(load(&config, &more, &base)), want, "{name}");
    }
    let without = |part: &str| {
        tensors
            .iter()
            .filter(|(n, _)| !n.contains(part))
            .cloned()
            .collect::<Named>()
    };
    assert_eq!(
        kind(load(
            &config,
            &without("layers.0.self_attn.q_proj.lora_B"),
            &base
        )),
        "Incomplete"
    );
    assert_eq!(kind(load(&config, &[], &base)), "NothingMatched");
}

#[test]
fn shapes_must_fit_base_and_rank() {
    let base = base(Family::Qwen2);
    let (config, tensors) = standard(&base);
    let change = |part: &str, tensor: &Tensor| {
        let swap = |(n, t): &(String, Tensor)| {
            (
                n.clone(),
                if n.ends_with(part) {
                    tensor.clone()
                } else {
                    t.clone()
                },
            )
        };
        tensors.iter().map(swap).collect::<Named>()
    };
    for (part, tensor) in [
        ("0.self_attn.q_proj.lora_A.weight", matrix(2, 7, 0)),
        ("0.self_attn.q_proj.lora_A.weight", matrix(3, 8, 0)),
        ("0.self_attn.q_proj.lora_B.weight", matrix(8, 3, 0)),
        ("0.self_attn.v_proj.lora_B.weight", matrix(8, 2, 0)),
        (
            "0.self_attn.q_proj.lora_A.weight",
            Tensor::from_f32(vec![16], &[0.0; 16]).expect("16"),
        ),
    ] {
        assert_eq!(
            kind(load(&config, &change(part, &tensor), &base)),
            "Shape",
            "{part}"
        );
    }
    let mut values = vec![0.5f32; 16];
    values[9] = f32::NAN;
    let nan = Tensor::from_f32(vec![2, 8], &values).expect("2x8");
    let error = load(
        &config,
        &change("1.self_attn.q_proj.lora_A.weight", &nan),
        &base,
    )
    .expect_err("NaN");
    assert!(
        matches!(&error, AdapterError::NonFinite { index: 9, matrix: "lora_A", module, .. } if module.contains("layers.1")),
        "{error}"
    );
}

#[test]
fn what_is_saved_loads_to_the_same_adapter() {
    let base = base(Family::Llama);
    let dir = tempfile::tempdir().expect("temp dir");
    let mut layers = vec![[const { None }; 7]; 2];
    // Uneven on purpose: other ranks, other scales, and a layer without q.
    for (layer, linear, rank, scale) in [
        (0, Linear::Q, 2, 2.0),
        (0, Linear::K, 3, 0.3),
        (1, Linear::K, 2, 2.0),
        (1, Linear::Down, 2, 0.1),
    ] {
        let (out, inner) = base.linear_shape(linear);
        layers[layer][linear as usize] = Some(LoraPair {
            a: matrix(rank, inner, 1),
            b: matrix(out, rank, 2),
            scale,
        });
    }
    let adapter = Adapter::new("test", Some(vec![3, 4]), layers, &base).expect("valid");
    adapter
        .save_peft(dir.path().join("peft"), Some("some/base"))
        .expect("saved");
    let back = Adapter::load(dir.path().join("peft"), &base).expect("loads");
    assert_eq!(
        (back.hash, back.invocation.clone(), back.matched),
        (adapter.hash, Some(vec![3, 4]), 4)
    );

    adapter
        .save_gguf(dir.path().join("a.gguf"), &base)
        .expect("saved");
    let back = Adapter::load(dir.path().join("a.gguf"), &base).expect("loads");
    assert_eq!(
        (back.invocation.clone(), back.matched, back.rank_max),
        (Some(vec![3, 4]), 4, 3)
    );
    for (layer, linear) in [
        (0, Linear::Q),
        (0, Linear::K),
        (1, Linear::K),
        (1, Linear::Down),
    ] {
        let (want, got) = (
            adapter.pair(layer, linear).expect("there"),
            back.pair(layer, linear).expect("there"),
        );
        assert_eq!(got.a.to_f32(), want.a.to_f32());
        for (got_b, want_b) in got.b.to_f32().iter().zip(want.b.to_f32()) {
            let (got, want) = (got_b * got.scale, want_b * want.scale);
            assert!(
                (got - want).abs() <= 1e-6 * want.abs(),
                "{layer} {linear:?}: {got} for {want}"
            );
        }
    }
}

#[test]
fn the_hash_sees_weights_scale_and_invocation_but_not_the_name() {
    let base = base(Family::Qwen2);
    let (config, tensors) = standard(&base);
    let hash = |config: &Json, tensors: &[(String, Tensor)]| {
        load(config, tensors, &base).expect("valid").hash
    };
    let first = hash(&config, &tensors);
    assert_eq!(first, hash(&config, &tensors), "another directory");
    assert_ne!(
        first,
        hash(&with(config.clone(), "lora_alpha", json!(5)), &tensors)
    );
    assert_ne!(
        first,
        hash(
            &with(config.clone(), "alora_invocation_tokens", json!([1])),
            &tensors
        )
    );
    let mut other = tensors.clone();
    other[0].1 = matrix(2, 8, 55);
    assert_ne!(first, hash(&config, &other));
}

#[test]
fn gguf_adapters_are_checked_like_the_others() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("a.gguf");
    let qwen = base(Family::Qwen2);
    let (config, tensors) = standard(&qwen);
    load(&config, &tensors, &qwen)
        .expect("valid")
        .save_gguf(&path, &qwen)
        .expect("saved");
    assert!(Adapter::load(&path, &qwen).is_ok());
    assert_eq!(
        kind(Adapter::load(&path, &base(Family::Llama))),
        "Architecture"
    );
    assert_eq!(
        kind(Adapter::load(
            &path,
            &Config {
                num_hidden_layers: 1,
                ..base(Family::Qwen2)
            }
        )),
        "Layer"
    );
    assert_eq!(
        kind(Adapter::load(
            &path,
            &Config {
                hidden_size: 12,
                ..base(Family::Qwen2)
            }
        )),
        "Shape"
    );
    assert_eq!(kind(Adapter::load(dir.path(), &qwen)), "NotAnAdapter");
    assert_eq!(
        kind(Adapter::load(dir.path().join("none"), &qwen)),
        "NotAnAdapter"
    );
    // A model file is no adapter, and an adapter no model.
    use crate::gguf::{Entry, GgufWriter};
    let mut writer = GgufWriter::new();
    writer
        .key("general.architecture", &Entry::String("qwen2"))
        .expect("new");
    writer.save(&dir.path().join("m.gguf")).expect("saved");
    assert_eq!(
        kind(Adapter::load(dir.path().join("m.gguf"), &qwen)),
        "Gguf"
    );
    let error = crate::Model::load(path.to_str().expect("utf-8")).expect_err("an adapter");
    assert!(
        std::error::Error::source(&error)
            .expect("gguf")
            .to_string()
            .contains("adapter"),
        "{error:?}"
    );
}

#[test]
fn a_quantized_adapter_is_refused() {
    let base = Config {
        hidden_size: 32,
        ..base(Family::Qwen2)
    };
    let mut layers = vec![[const { None }; 7]; 2];
    let a = Tensor::new(Dtype::Q8_0, vec![1, 32], Bytes::copy_of(&[0; 34])).expect("one block");
    layers[0][Linear::Q as usize] = Some(LoraPair {
        a,
        b: matrix(8, 1, 0),
        scale: 1.0,
    });
    assert_eq!(kind(Adapter::new("q", None, layers, &base)), "Dtype");
}
