//! Reading `config.json`: real files of each family, and what is refused.

use serde_json::{Value, json};

use super::*;

/// A config of Qwen2.5-0.5B, as its makers wrote it.
fn qwen25() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
        "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 21,
        "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1", "use_cache": true, "use_sliding_window": false,
        "vocab_size": 151936
    })
}

/// A config of Llama 3.2 1B in the old form.
fn llama32() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
        "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": true,
        "rope_scaling": { "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3" },
        "vocab_size": 128256
    })
}

fn with(mut config: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else {
        panic!("{changes} is no object")
    };
    config.as_object_mut().unwrap().extend(changes);
    config
}

fn read(config: &Value) -> Result<Config, ConfigError> {
    Config::from_json(&config.to_string())
}

#[test]
fn qwen25_is_read() {
    let config = read(&qwen25()).unwrap();
    assert_eq!(config.family, Family::Qwen2);
    assert_eq!((config.head_dim, config.group_size()), (64, 7));
    assert_eq!((config.rope_theta, config.rms_norm_eps), (1e6, 1e-6));
    assert_eq!(
        (config.sliding_window, config.rope_scaling.as_ref()),
        (None, None)
    );
    assert!(
        config.tie_word_embeddings
            && config.attention_bias
            && !config.output_bias
            && !config.qk_norm
    );
    assert_eq!(config.parameters(), 494_032_768);
    assert_eq!(config.linear_shape(Linear::K), (128, 896));
    assert_eq!(config.linear_shape(Linear::Down), (896, 4864));
}

#[test]
fn both_forms_of_the_rope_are_the_same() {
    let old = read(&llama32()).unwrap();
    assert!(matches!(
        old.rope_scaling,
        Some(RopeScaling::Llama3 { factor: 32.0, .. })
    ));
    let mut new = llama32();
    let mut rope = new["rope_scaling"].take();
    rope["rope_theta"] = json!(500000.0);
    let map = new.as_object_mut().unwrap();
    map.remove("rope_scaling");
    map.remove("rope_theta");
    map.insert("rope_parameters".to_owned(), rope);
    assert_eq!(read(&new).unwrap(), old);

    let default = json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 5000.0 }, "rope_theta": null });
    let config = read(&with(qwen25(), default)).unwrap();
    assert_eq!((config.rope_theta, config.rope_scaling), (5000.0, None));
    let yarn = json!({ "rope_scaling": { "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768 } });
    let Some(RopeScaling::Yarn {
        attention_factor,
        beta_fast,
        truncate,
        ..
    }) = read(&with(qwen25(), yarn)).unwrap().rope_scaling
    else {
        panic!("not yarn")
    };
    assert_eq!((beta_fast, truncate), (32.0, true));
    assert!(
        (attention_factor - 1.138_629_436).abs() < 1e-9,
        "0.1 ln 4 + 1"
    );
}

#[test]
fn windows_follow_each_family() {
    let mistral = with(
        llama32(),
        json!({ "architectures": ["MistralForCausalLM"], "rope_scaling": null }),
    );
    assert_eq!(
        read(&mistral).unwrap().sliding_window,
        Some(4096),
        "transformers' default"
    );
    assert_eq!(
        read(&with(mistral.clone(), json!({ "sliding_window": null })))
            .unwrap()
            .sliding_window,
        None
    );
    assert_eq!(
        read(&with(mistral, json!({ "sliding_window": 100 })))
            .unwrap()
            .sliding_window,
        Some(100)
    );
    let every = json!({ "use_sliding_window": true, "max_window_layers": 0, "sliding_window": 64 });
    assert_eq!(
        read(&with(qwen25(), every)).unwrap().sliding_window,
        Some(64)
    );
    let none = json!({ "use_sliding_window": true, "max_window_layers": 24 });
    assert_eq!(read(&with(qwen25(), none)).unwrap().sliding_window, None);
}

#[test]
fn written_configs_are_read_back() {
    let qwen3 =
        json!({ "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 128 });
    let biased = json!({ "attention_bias": true, "mlp_bias": true });
    let yarn = json!({ "rope_scaling": { "rope_type": "yarn", "factor": 4.0, "truncate": false, "attention_factor": 1.5 } });
    let divisors: Vec<f32> = (0..32).map(|i| 1.0 + i as f32 / 7.0).collect();
    let divisors = json!({ "rope_scaling": { "rope_type": "divisors", "divisors": divisors } });
    for config in [
        qwen25(),
        llama32(),
        with(qwen25(), qwen3),
        with(llama32(), biased),
        with(qwen25(), yarn),
        with(llama32(), divisors),
        with(
            qwen25(),
            json!({ "rope_scaling": { "rope_type": "linear", "factor": 2 } }),
        ),
        with(
            qwen25(),
            json!({ "use_sliding_window": true, "max_window_layers": 0 }),
        ),
    ] {
        let config = read(&config).unwrap();
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }
}

#[test]
fn mistakes_are_named() {
    let without = |key: &str| {
        let mut config = qwen25();
        config.as_object_mut().unwrap().remove(key);
        config
    };
    let rope = |kind: &str| json!({ "rope_scaling": { "rope_type": kind, "factor": 2.0 } });
    let table = [
        (without("hidden_size"), "`hidden_size` is missing"),
        (
            without("num_key_value_heads"),
            "`num_key_value_heads` is missing",
        ),
        (without("rms_norm_eps"), "`rms_norm_eps` is missing"),
        (
            with(qwen25(), json!({ "architectures": ["GPT2LMHeadModel"] })),
            "`GPT2LMHeadModel` is not supported; supported are",
        ),
        (
            with(without("architectures"), json!({ "model_type": "gpt2" })),
            "`gpt2` is not supported",
        ),
        (
            with(qwen25(), json!({ "rope_thetta": 1e6 })),
            "there is `rope_thetta`; expected the right spelling",
        ),
        (
            with(qwen25(), json!({ "tie_word_embedding": true })),
            "`tie_word_embeddings` is absent, but there is `tie_word_embedding`",
        ),
        (
            with(qwen25(), json!({ "hidden_size": "896" })),
            "`hidden_size` is \"896\"; expected a whole number",
        ),
        (
            with(qwen25(), json!({ "hidden_size": -1 })),
            "`hidden_size` is -1",
        ),
        (
            with(qwen25(), json!({ "hidden_size": 1e30 })),
            "`hidden_size` is 1e",
        ),
        (
            with(qwen25(), json!({ "hidden_size": 897 })),
            "a multiple of num_attention_heads",
        ),
        (
            with(qwen25(), json!({ "hidden_size": 14 })),
            "`head_dim` is 1; expected an even number",
        ),
        (
            with(qwen25(), json!({ "num_attention_heads": 0 })),
            "num_attention_heads",
        ),
        (
            with(qwen25(), json!({ "num_key_value_heads": 0 })),
            "`num_key_value_heads` is 0",
        ),
        (
            with(qwen25(), json!({ "num_key_value_heads": 3 })),
            "a divisor of num_attention_heads",
        ),
        (
            with(qwen25(), json!({ "vocab_size": 1u64 << 40 })),
            "`vocab_size` is 1099511627776",
        ),
        (
            with(qwen25(), json!({ "num_hidden_layers": 1u64 << 40 })),
            "`num_hidden_layers`",
        ),
        (
            with(qwen25(), json!({ "rms_norm_eps": 0 })),
            "`rms_norm_eps` is 0",
        ),
        (
            with(qwen25(), json!({ "rope_theta": -1 })),
            "`rope_theta` is -1",
        ),
        (
            with(qwen25(), json!({ "hidden_act": "gelu" })),
            "`hidden_act` = \"gelu\" is not supported",
        ),
        (
            with(
                qwen25(),
                json!({ "quantization_config": { "quant_method": "awq" } }),
            ),
            "use the original bf16 checkpoint, or a GGUF file",
        ),
        (
            with(qwen25(), json!({ "use_sliding_window": true })),
            "`max_window_layers` = 21 is not supported",
        ),
        (
            with(qwen25(), json!({ "use_sliding_window": "yes" })),
            "expected true or false",
        ),
        (
            with(qwen25(), json!({ "partial_rotary_factor": 0.5 })),
            "`partial_rotary_factor` = 0.5",
        ),
        (
            with(qwen25(), rope("dynamic")),
            "`rope_scaling.rope_type` = dynamic is not supported; supported are",
        ),
        (
            with(qwen25(), rope("llama3")),
            "`rope_scaling.low_freq_factor` is missing",
        ),
        (
            with(qwen25(), json!({ "rope_scaling": { "factor": 2.0 } })),
            "`rope_scaling.rope_type` is missing",
        ),
        (
            with(
                qwen25(),
                json!({ "rope_scaling": { "rope_type": "linear", "factor": 0 } }),
            ),
            "`rope_scaling.factor` is 0",
        ),
        (
            with(qwen25(), json!({ "rope_scaling": [2.0] })),
            "an object or null",
        ),
        (
            with(
                qwen25(),
                json!({ "rope_parameters": { "full_attention": { "rope_theta": 1e6 } } }),
            ),
            "the same in every layer",
        ),
        (
            with(
                llama32(),
                json!({ "rope_scaling": { "rope_type": "divisors", "divisors": [1.0] } }),
            ),
            "one number per pair",
        ),
        (
            with(qwen25(), json!({ "attention_bias": false })),
            "Qwen2 has biases",
        ),
    ];
    for (config, want) in table {
        let message = read(&config).expect_err(want).to_string();
        assert!(message.contains(want), "`{message}` should say `{want}`");
    }
    let twice = r#"{"hidden_size": 1, "hidden_size": 2}"#;
    assert!(
        Config::from_json(twice)
            .unwrap_err()
            .to_string()
            .contains("`hidden_size` appears twice")
    );
}

/// Values of transformers' `modeling_rope_utils.py` for head size 64, theta 500000 and the scaling of Llama 3.2.
#[test]
fn rope_of_llama3() {
    let rope = read(&llama32()).unwrap().rope();
    assert_eq!(rope.inv_freq.len(), 32);
    for (i, want) in LLAMA32 {
        let error = (rope.inv_freq[i] / want - 1.0).abs();
        assert!(error <= 1e-6, "{i}: {} is not {want}", rope.inv_freq[i]);
    }
    let (mut cos, mut sin) = ([0.0; 32], [0.0; 32]);
    rope.cos_sin(3, &mut cos, &mut sin);
    assert_eq!((cos[0], sin[0]), (3f32.cos(), 3f32.sin()));
}

const LLAMA32: [(usize, f32); 10] = [
    (0, 1.0),
    (1, 0.663_601_3),
    (10, 0.016_560_44),
    (14, 0.003_211_446),
    (15, 0.001_290_548),
    (16, 0.000_429_556_7),
    (17, 9.708_286e-5),
    (18, 1.946_163_9e-5),
    (24, 1.661_967_4e-6),
    (31, 9.418_306e-8),
];
