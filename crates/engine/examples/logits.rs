//! Logits of some tokens as JSON, with exact weights and KV, for comparisons with other programs (`benchmarks/peft/compare.py`).
//!
//! ```text
//! cargo run --release -p edgethink-engine --example logits -- MODEL ADAPTER|none TOKEN,TOKEN,...
//! ```
#![expect(clippy::print_stdout, reason = "an example prints what it measures")]

use std::error::Error;
use std::sync::Arc;

use edgethink_engine::{AdapterSpan, Engine, EngineOptions, KvFormat, WeightFormat};
use edgethink_model::{Adapter, Model, reference};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, adapter, tokens] = args.as_slice() else {
        return Err("give a model, an adapter or none, and tokens with commas between them".into());
    };
    let tokens: Vec<u32> = tokens
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let model = Arc::new(Model::load(model)?);
    let adapter = match adapter.as_str() {
        "none" => None,
        path => Some(Adapter::load(path, &model.config)?),
    };
    // An adapter whose invocation is absent never acts.
    let acting = adapter
        .as_ref()
        .and_then(|adapter| Some((adapter, adapter.start(&tokens)?)));

    let options = EngineOptions {
        weights: WeightFormat::Stored,
        kv: KvFormat::F32,
        kv_tokens: tokens.len() + 64,
        ..EngineOptions::for_model(&model.config)
    };
    let mut engine = Engine::new(Arc::clone(&model), options)?;
    let span = match acting {
        Some((adapter, from)) => Some(AdapterSpan::starting(engine.load_adapter(adapter)?, from)),
        None => None,
    };
    let engine = engine.logits(&tokens, span)?;
    let reference = reference::forward(&model, &tokens, acting)?.logits;
    println!(
        "{}",
        serde_json::json!({
            "adapter_from": acting.map(|(_, from)| from),
            "vocab_size": model.config.vocab_size,
            "engine": engine,
            "reference": reference,
        })
    );
    Ok(())
}
