//! GGUF files against llama.cpp: logits, greedy tokens, tokenization, adapters.
//!
//! The files in golden/gguf were written and quantized by llama.cpp's own code and hold its results (benchmarks/llama_cpp/golden.py).
//!
//! Two comparisons per model. With the weights turned back into F32 by llama.cpp, both sides compute in f32: 1e-5 leaves room for the
//! order of sums (3.6e-7 was seen). With the quantized weights llama.cpp also rounds the activations to 8 bits, in blocks of 32 (Q8_0,
//! Q4_0) or 256 (K-quants), and to f16 for F16, which the reference does not; the file tells how far that moves llama.cpp itself
//! from its own f32 result, and we may be that far away plus a tenth.

use std::collections::BTreeMap;

use edgethink_model::{Adapter, reference};
use edgethink_testkit::{
    LLAMA_CPP_MODELS, LlamaCppGolden, golden_dir, llama_cpp_golden, relative_error,
};

/// Largest relative error where both sides compute in f32.
const EXACT: f64 = 1e-5;

#[test]
fn logits_agree() {
    for name in LLAMA_CPP_MODELS {
        let golden = llama_cpp_golden(name);
        let got = reference::forward(&golden.model, &golden.prompt, None)
            .expect("tokens of the vocabulary")
            .logits;
        let error = relative_error(&got, &golden.exact);
        assert!(
            error <= EXACT,
            "{name}: relative error {error} with weights in f32"
        );
        let rounding = golden.rounding();
        let error = relative_error(&got, &golden.logits);
        assert!(
            error <= rounding * 1.1 + EXACT,
            "{name}: relative error {error}, llama.cpp's own rounding {rounding}"
        );
        assert!(
            rounding < 0.03,
            "{name}: the rounding of activations is {rounding}"
        );
    }
}

/// The prompts were chosen so that no decision is close (the smallest margin is in the files).
#[test]
fn the_same_64_greedy_tokens() {
    for name in LLAMA_CPP_MODELS {
        let LlamaCppGolden {
            model,
            prompt,
            greedy,
            tensors,
            ..
        } = llama_cpp_golden(name);
        assert_eq!(greedy.len(), 64);
        let got = reference::greedy(&model, &prompt, None, greedy.len())
            .expect("tokens of the vocabulary");
        assert_eq!(
            got,
            greedy,
            "{name}, smallest margin {:?}",
            tensors["margin"].to_f32()
        );
    }
}

#[test]
fn a_gguf_adapter_agrees() {
    let LlamaCppGolden {
        model,
        prompt,
        tensors,
        ..
    } = llama_cpp_golden("llama-f32");
    let path = golden_dir().join("gguf/llama-lora.gguf");
    let adapter = Adapter::load(path, &model.config).expect("valid");
    assert_eq!((adapter.matched, adapter.rank_max), (8, 4));
    let got =
        reference::forward(&model, &prompt, Some((&adapter, 0))).expect("tokens of the vocabulary");
    let want = tensors["lora_logits"].to_f32();
    let error = relative_error(&got.logits, &want);
    assert!(error <= EXACT, "relative error {error}");
    let base = relative_error(&tensors["logits"].to_f32(), &want);
    assert!(base > 0.1, "the adapter must matter: {base}");
}

#[test]
fn tokenizers_agree() {
    type Record = (BTreeMap<String, Vec<u32>>, Vec<u32>);
    let text = std::fs::read_to_string(golden_dir().join("gguf/tokens.json")).expect("golden file");
    let json: serde_json::Value = serde_json::from_str(&text).expect("json");
    let ids = |v: &serde_json::Value| serde_json::from_value::<Vec<u32>>(v.clone()).expect("ids");
    for name in LLAMA_CPP_MODELS {
        let texts = json[name]["texts"].as_object().expect("texts");
        let record: Record = (
            texts.iter().map(|(t, v)| (t.clone(), ids(v))).collect(),
            ids(&json[name]["hello"]),
        );
        let model = llama_cpp_golden(name).model;
        let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
        for (text, want) in &record.0 {
            let got = tokenizer.encode(text, false).expect("text");
            assert_eq!(&got, want, "{name}: {text:?}");
            let back = tokenizer.decode(&got, false).expect("ids");
            assert_eq!(&back, text, "{name}");
        }
        assert_eq!(
            tokenizer.encode("Hello", true).expect("text"),
            record.1,
            "{name}: with special tokens"
        );
    }
}

#[test]
fn metadata_become_config_template_and_ends() {
    let model = llama_cpp_golden("qwen2-q8_0").model;
    let c = &model.config;
    assert_eq!(
        (
            c.hidden_size,
            c.intermediate_size,
            c.num_hidden_layers,
            c.vocab_size
        ),
        (64, 96, 2, 320)
    );
    assert_eq!(
        (c.num_attention_heads, c.num_key_value_heads, c.head_dim),
        (4, 2, 16)
    );
    assert!(c.attention_bias && c.tie_word_embeddings && !c.qk_norm);
    assert_eq!((c.rope_theta, c.max_position_embeddings), (1e6, 4096));
    let prompt = model
        .template
        .as_ref()
        .expect("a template")
        .generation_prompt()
        .expect("renders");
    assert_eq!(prompt, "<|im_start|>assistant\n");
    // eos first (<|im_end|>), then the other control tokens that end a text.
    let id = |t: &str| {
        model
            .tokenizer
            .as_ref()
            .expect("a tokenizer")
            .token_id(t)
            .expect("a token")
    };
    assert_eq!(
        model.generation.eos_token_ids,
        [id("<|im_end|>"), id("<|endoftext|>")]
    );
    let llama = &llama_cpp_golden("llama-f32").model.config;
    assert!(!llama.attention_bias && !llama.tie_word_embeddings && llama.rope_scaling.is_some());
    assert!(llama_cpp_golden("qwen3-f16").model.config.qk_norm);
}
