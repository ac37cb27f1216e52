//! What the switcher adds to prefill on a model of a real shape (that of Qwen2.5-0.5B), on random weights. By hand: it writes 1 GB.
//!
//! ```text
//! cargo run --release -p edgethink-reason --example switch_cost [-- DIR TOKENS]
//! ```
//!
//! DIR keeps the model for the next run. The prompt is encoded with and without hidden states; beside it the time of averaging and of
//! the head alone is taken on states of the same size, which is what the switcher computes.

#![expect(clippy::print_stdout, reason = "this is a program for people")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use edgethink_engine::{Engine, EngineOptions, Event, HiddenStates, Request, WeightFormat};
use edgethink_model::{Dtype, HeadFile, Model};
use edgethink_reason::switcher::{Averages, Averaging, KIND, Mlp, Reading, Switcher};
use edgethink_testkit::{Extras, qwen25_half_billion, write_random_model};
use serde_json::json;

const REPEATS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map(PathBuf::from);
    let tokens: usize = args.next().map_or(Ok(1024), |text| text.parse())?;
    let temporary = tempfile::tempdir()?;
    let dir = dir.unwrap_or_else(|| temporary.path().to_path_buf());
    let config = qwen25_half_billion();
    if !dir.join("model.safetensors").is_file() {
        write_random_model(&dir, &config, 1, Dtype::BF16, Extras::None);
    }
    let model = Arc::new(Model::load(dir.to_str().ok_or("the path is not UTF-8")?)?);
    let switcher = random_switcher(&model)?;
    let options = EngineOptions {
        weights: WeightFormat::Q4,
        kv_tokens: tokens + 64,
        ..EngineOptions::for_model(&config)
    };
    let threads = options.threads;
    let mut engine = Engine::new(Arc::clone(&model), options)?;
    let prompt: Vec<u32> = (0..tokens).map(|i| (i * 7919 % 150_000) as u32).collect();

    // In turn, so that a busy machine slows both alike; the least of each counts.
    let (mut plain, mut read, mut alone) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..REPEATS {
        let (seconds, _) = prefill(&mut engine, &prompt, HiddenStates::None)?;
        plain = plain.min(seconds);
        let (seconds, states) = prefill(&mut engine, &prompt, HiddenStates::Prompt)?;
        read = read.min(seconds);
        let begun = Instant::now();
        let mut known = Averages::new(switcher.averaging(), 64);
        let mut reading = Reading::new(&switcher, &mut known, &prompt, tokens);
        reading.take(0, &states)?;
        let score = reading.finish(&switcher, &mut known, &prompt)?;
        alone = alone.min(begun.elapsed().as_secs_f64());
        assert!((0.0..=1.0).contains(&score), "a score is a share: {score}");
    }
    println!("Qwen2.5-0.5B shape, Q4, {tokens} tokens, {threads} threads, least of {REPEATS}");
    println!("prefill                     {:9.1} ms", 1e3 * plain);
    println!(
        "prefill with hidden states  {:9.1} ms ({:+.2} %)",
        1e3 * read,
        100.0 * (read / plain - 1.0)
    );
    println!(
        "averages and head           {:9.3} ms ({:.3} % of prefill)",
        1e3 * alone,
        100.0 * alone / plain
    );
    Ok(())
}

/// Seconds of encoding a prompt that nothing is known of, and its states.
fn prefill(
    engine: &mut Engine,
    prompt: &[u32],
    hidden: HiddenStates,
) -> Result<(f64, Vec<f32>), Box<dyn Error>> {
    engine.clear_prefix_cache();
    let mut states = Vec::new();
    let begun = Instant::now();
    engine.submit(Request {
        hidden,
        ..Request::greedy(prompt.to_vec(), 1)
    })?;
    while !engine.idle() {
        for event in engine.step()? {
            match event {
                Event::Hidden { data, .. } => states.extend(data),
                Event::Failed { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok((begun.elapsed().as_secs_f64(), states))
}

/// The paper's network on this base.
fn random_switcher(model: &Model) -> Result<Switcher, Box<dyn Error>> {
    let (width, units) = (model.config.hidden_size, 8);
    let wave = |n: usize| (0..n).map(|i| (i as f32).sin() / width as f32).collect();
    let mlp = Mlp {
        mean: wave(width),
        std: vec![1.0; width],
        fc1_weight: wave(units * width),
        fc1_bias: wave(units),
        fc2_weight: wave(units),
        fc2_bias: 0.0,
    };
    let Averaging {
        chunk_tokens,
        alpha,
    } = Averaging::default();
    let settings = json!({
        "layer": "final_norm", "chunk_tokens": chunk_tokens, "alpha": alpha, "threshold": 0.5, "invocation": [],
    });
    let base = model.hash()?;
    let file = HeadFile {
        kind: KIND.to_owned(),
        base: base.to_string(),
        hidden_size: width,
        settings: settings.as_object().cloned().unwrap_or_default(),
        tensors: mlp.tensors(),
    };
    Ok(Switcher::new(&file, &base, width)?)
}
