//! Reasoners on tiny random models, and the queries that tests ask them.

use std::sync::Arc;

use edgethink_engine::{Engine, EngineOptions, Sampling};
use edgethink_model::{Adapter, Family, Message, Model};
use edgethink_reason::{Answer, Input, Query, Reasoner, Think, ThoughtFormat};
use edgethink_testkit::{tiny_config, tiny_model, write_peft};
use serde_json::json;

pub(crate) fn load() -> Model {
    let dir = tiny_model(Family::Qwen2, 7);
    Model::load(dir.path().to_str().expect("a UTF-8 path")).expect("the tiny model")
}

pub(crate) fn reasoner(adapter: Option<Adapter>) -> Reasoner {
    reasoner_with(adapter, ThoughtFormat::default())
}

pub(crate) fn reasoner_with(adapter: Option<Adapter>, format: ThoughtFormat) -> Reasoner {
    let model = Arc::new(load());
    let options = EngineOptions {
        threads: 1,
        kv_tokens: 4096,
        ..EngineOptions::for_model(&model.config)
    };
    let engine = Engine::new(Arc::clone(&model), options).expect("an engine");
    Reasoner::new(model, engine, adapter, format).expect("a reasoner")
}

pub(crate) fn adapter(masked: bool) -> Adapter {
    let model = load();
    let tokenizer = model.tokenizer.expect("a tokenizer");
    let invocation = tokenizer
        .encode("<|im_start|>assistant\n", false)
        .expect("tokens");
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 64.0, "target_modules": ["q_proj", "v_proj", "o_proj", "up_proj"]});
    if masked {
        config["alora_invocation_tokens"] = json!(invocation);
    }
    write_peft(dir.path(), &tiny_config(Family::Qwen2), &config, 3);
    Adapter::load(dir.path(), &tiny_config(Family::Qwen2)).expect("the adapter")
}

pub(crate) fn token(text: &str) -> u32 {
    load()
        .tokenizer
        .and_then(|t| t.token_id(text))
        .expect("a token")
}

pub(crate) fn chat(text: &str) -> Input {
    Input::Messages(vec![Message::new("user", text)])
}

pub(crate) fn raw(text: &str) -> Input {
    Input::Raw(text.to_owned())
}

/// A query that ends neither its turn nor its thought by itself.
pub(crate) fn endless(input: Input, think: Think, max_tokens: usize) -> Query {
    let ban = |text| (token(text), f32::NEG_INFINITY);
    Query {
        max_tokens: Some(max_tokens),
        sampling: Sampling {
            logit_bias: vec![
                ban("<|im_end|>"),
                ban("<|endoftext|>"),
                ban("</think>"),
                ban("<think>"),
            ],
            ..Sampling::temperature(1.0)
        },
        seed: 5,
        ..Query::greedy(input, think)
    }
}

pub(crate) fn ask(reasoner: &mut Reasoner, query: &Query) -> Answer {
    reasoner.answer(query, |_| {}, || false).expect("an answer")
}
