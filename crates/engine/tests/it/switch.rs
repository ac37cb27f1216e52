//! Switching to an adapter costs its own tokens and not the prompt's.

use std::time::{Duration, Instant};

use crate::support::*;
use edgethink_engine::{Engine, EngineOptions, Request};
use edgethink_model::{Config, Family};
use edgethink_testkit::tiny_config;

/// The time to the first token of a request.
fn first_token(engine: &mut Engine, request: &Request) -> (Duration, u64) {
    let before = engine.stats().counters.computed_tokens;
    let begin = Instant::now();
    let answer = run_one(engine, request);
    let took = begin.elapsed();
    assert_eq!(answer.tokens(0).len(), 1, "{:?}", answer.error);
    (took, engine.stats().counters.computed_tokens - before)
}

/// After a base prefill of 1,024 tokens, the adapter's first token needs the 4 tokens of the generation prompt: 1/256 of the rows of a
/// re-prefill. The times are printed; they depend on the machine, the rows do not.
#[test]
fn the_adapter_s_first_token_costs_its_own_rows() {
    let config = Config {
        hidden_size: 256,
        intermediate_size: 768,
        num_hidden_layers: 4,
        head_dim: 64,
        ..tiny_config(Family::Qwen2)
    };
    let model = model_of(&config, 1);
    let options = EngineOptions {
        kv_tokens: 4096,
        max_batch_tokens: 256,
        ..formats()[1].clone()
    };
    let mut engine = engine(&model, &options);
    let id = engine
        .load_adapter(&adapter(&model.config, 1, 8))
        .expect("it fits");
    let tokens = prompt(1, 1024);
    first_token(&mut engine, &Request::greedy(tokens.clone(), 1));
    let (masked, masked_rows) = first_token(
        &mut engine,
        &with_adapter(Request::greedy(tokens.clone(), 1), id, 1020),
    );
    let (plain, plain_rows) = first_token(
        &mut engine,
        &with_adapter(Request::greedy(tokens, 1), id, 0),
    );
    eprintln!(
        "first token after the switch: {masked:?}, with a re-prefill: {plain:?}, ratio 1/{:.0}",
        plain.as_secs_f64() / masked.as_secs_f64()
    );
    assert_eq!((masked_rows, plain_rows), (4, 1024));
}
