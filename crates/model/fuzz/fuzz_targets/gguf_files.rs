//! Any bytes as a model file and as an adapter file: an error or a checked model, never a panic.
#![no_main]

use edgethink_model::{Adapter, Config, Family, Model};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, bytes).expect("temp dir");
    let base = match Model::load(path.to_str().expect("utf-8")) {
        Ok(model) => model.config,
        Err(_) => Config {
            family: Family::Llama,
            hidden_size: 32,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            vocab_size: 320,
            max_position_embeddings: 4096,
            rms_norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: None,
            tie_word_embeddings: false,
            attention_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            sliding_window: None,
        },
    };
    let _ = Adapter::load(&path, &base);
});
