//! Models written as GGUF and read again: the same function for plain floats, near it for blocks, and the same text.
//!
//! That llama.cpp runs the files is measured by `benchmarks/export/gguf.py`.

use std::path::Path;

use edgethink_model::gguf::{ExportOptions, save_model};
use edgethink_model::{
    Dtype, Family, Linear, Message, Model, RenderOptions, RopeScaling, reference,
};
use edgethink_testkit::{
    LLAMA_CPP_MODELS, llama_cpp_golden, relative_error, tiny_config, tiny_model, tiny_model_of,
};

const TEXT: &str = "<|im_start|>user\nthe assistant is at 1234 (ähm)\n\n  it's<|im_end|>\n<think>";

fn load(path: &Path) -> Model {
    Model::load(path.to_str().expect("UTF-8")).expect("it loads")
}

fn exported(model: &Model, dtype: Option<Dtype>) -> Result<Model, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let name = "test";
    let mut told = (0, 0);
    save_model(
        model,
        &path,
        &ExportOptions { name, dtype },
        &mut |now, all| {
            assert!(now > told.0 && now <= all, "{now} of {all}");
            told = (now, all);
        },
    )?;
    let size = std::fs::metadata(&path)?.len();
    assert_eq!(told.1, size, "the promised size");
    Ok(load(&path))
}

fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let forward = reference::forward(model, tokens, None);
    forward.expect("tokens of the vocabulary").logits
}

#[test]
fn every_family_comes_back_as_the_same_function() {
    for family in Family::ALL {
        let dir = tiny_model(family, 3);
        let model = load(dir.path());
        let back = exported(&model, Some(Dtype::F32)).expect("written");
        let tokenizer = model.tokenizer.as_ref().expect("there");
        let tokens = tokenizer.encode(TEXT, false).expect("text");
        let again = back.tokenizer.as_ref().expect("there");
        assert_eq!(again.encode(TEXT, false).expect("text"), tokens);
        let error = relative_error(&logits(&back, &tokens), &logits(&model, &tokens));
        // Llama 3's frequencies become divisors in f32: one rounding each. Everything else is copied.
        let bound = if family == Family::Llama { 1e-5 } else { 0.0 };
        assert!(error <= bound, "{family:?}: {error}");
        let chat = |model: &Model| {
            let options = RenderOptions {
                add_generation_prompt: true,
                ..Default::default()
            };
            let template = model.template.as_ref().expect("there");
            template.render(&[Message::new("user", "the")], &options)
        };
        assert_eq!(
            chat(&back).expect("renders"),
            chat(&model).expect("renders")
        );
        assert_eq!(
            back.generation.eos_token_ids,
            model.generation.eos_token_ids
        );
    }
}

#[test]
fn every_dtype_holds_what_it_can() {
    for family in Family::ALL {
        let dir = tiny_model(family, 4);
        let model = load(dir.path());
        let tokens: Vec<u32> = (0..20).map(|i| i * 7 % 250).collect();
        let want = logits(&model, &tokens);
        // A step of the dtype on weights of order one, through two layers.
        for (dtype, bound) in [
            (Dtype::F16, 2e-3),
            (Dtype::BF16, 1.5e-2),
            (Dtype::Q8_0, 3e-2),
            (Dtype::Q4_0, 0.4),
        ] {
            let back = exported(&model, Some(dtype)).expect("written");
            let error = relative_error(&logits(&back, &tokens), &want);
            assert!(error > 0.0 && error <= bound, "{family:?} {dtype}: {error}");
            assert_eq!(back.weights.layers[1].linear(Linear::Down).dtype, dtype);
            let global = if dtype == Dtype::Q4_0 {
                Dtype::Q8_0
            } else {
                dtype
            };
            assert_eq!(back.weights.embed_tokens.dtype, global);
        }
    }
}

/// Files of llama.cpp's own making, written again as they are, stay the same model to the bit.
#[test]
fn what_llama_cpp_wrote_is_kept_to_the_bit() {
    for name in LLAMA_CPP_MODELS {
        let golden = llama_cpp_golden(name);
        let back = exported(&golden.model, None).expect("written");
        assert_eq!(
            back.hash().expect("read"),
            golden.model.hash().expect("read"),
            "{name}"
        );
        let encode = |model: &Model, text: &str| {
            let tokenizer = model.tokenizer.as_ref().expect("there");
            tokenizer.encode(text, true).expect("text")
        };
        for text in [
            "",
            "Hello, the world and 12345 things!",
            "I'll DON'T  we'LL\n\n日本",
        ] {
            let (got, want) = (encode(&back, text), encode(&golden.model, text));
            assert_eq!(got, want, "{name} {text:?}");
        }
    }
}

#[test]
fn rows_that_are_no_blocks_become_f16() {
    let mut config = tiny_config(Family::Qwen2);
    config.intermediate_size = 80;
    let dir = tiny_model_of(&config, 5);
    let back = exported(&load(dir.path()), Some(Dtype::Q8_0)).expect("written");
    let layer = &back.weights.layers[0];
    assert_eq!(layer.linear(Linear::Down).dtype, Dtype::F16);
    assert_eq!(layer.linear(Linear::Up).dtype, Dtype::Q8_0);
}

#[test]
fn what_llama_cpp_would_compute_otherwise_is_refused() {
    let refused = |change: &dyn Fn(&mut edgethink_model::Config), family| {
        let mut config = tiny_config(family);
        change(&mut config);
        let dir = tiny_model_of(&config, 6);
        let error = exported(&load(dir.path()), Some(Dtype::F16)).expect_err("refused");
        error.to_string()
    };
    let biases = refused(
        &|c| (c.attention_bias, c.output_bias) = (true, true),
        Family::Qwen3,
    );
    assert!(biases.contains("biases for qwen3"), "{biases}");
    let yarn = refused(
        &|c| {
            c.rope_scaling = Some(RopeScaling::Yarn {
                factor: 4.0,
                original_max_position_embeddings: 64,
                beta_fast: 32.0,
                beta_slow: 1.0,
                attention_factor: 1.0,
                truncate: false,
            });
        },
        Family::Qwen2,
    );
    assert!(yarn.contains("truncate"), "{yarn}");
}

#[test]
fn a_weight_that_no_half_holds_is_named() {
    let dir = tiny_model(Family::Qwen2, 7);
    let mut model = load(dir.path());
    let mut values = model.weights.layers[1].linear(Linear::Up).to_f32();
    values[64 * 3 + 1] = 1e6;
    let shape = model.weights.layers[1].linear(Linear::Up).shape.clone();
    let tensor = edgethink_model::Tensor::from_f32(shape, &values).expect("its shape");
    model.weights.layers[1].linears[Linear::Up as usize] = tensor;
    let error = exported(&model, Some(Dtype::F16)).expect_err("refused");
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        said += &format!(": {cause}");
        source = cause.source();
    }
    assert!(
        said.contains("blk.1.ffn_up.weight") && said.contains("1000000"),
        "{said}"
    );
    assert!(exported(&model, Some(Dtype::BF16)).is_ok());
}
