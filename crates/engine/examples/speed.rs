//! Speed and memory of a model: prefill, decode for 1 to 8 streams, the switch to an adapter, peak RSS.
//!
//! ```text
//! cargo run --release -p edgethink-engine --example speed -- MODEL [q4|q8|stored] [threads] [prompt tokens] [tokens]
//! ```
//! Tokens are arbitrary; the program measures time, not text. Memory is read from /proc where there is one.
#![expect(clippy::print_stdout, reason = "an example prints what it measures")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use edgethink_engine::{Engine, EngineOptions, Event, Request, WeightFormat};
use edgethink_model::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |a| a.parse());
    let path = args.first().ok_or("give a model directory or GGUF file")?;
    let begin = Instant::now();
    let model = Arc::new(Model::load(path)?);
    let mut options = EngineOptions::for_model(&model.config);
    options.weights = match args.get(1).map_or("stored", String::as_str) {
        "q4" => WeightFormat::Q4,
        "q8" => WeightFormat::Q8,
        "stored" => WeightFormat::Stored,
        other => return Err(format!("unknown weight format {other}; use q4, q8 or stored").into()),
    };
    options.threads = number(2, options.threads)?;
    let (prompt, tokens) = (number(3, 512)?, number(4, 64)?);
    options.kv_tokens = (prompt + 8 * (tokens + 32)).next_multiple_of(32) + 64;
    let mut engine = Engine::new(Arc::clone(&model), options)?;
    let isa = engine.options().isa;
    println!(
        "loaded in {:.2} s; {isa}, {} threads",
        begin.elapsed().as_secs_f64(),
        engine.options().threads
    );

    let text = |seed: usize| -> Vec<u32> {
        (0..prompt)
            .map(|i| ((i * 7919 + seed * 104_729) % model.config.vocab_size) as u32)
            .collect()
    };
    for round in 0..2 {
        let seconds = run(
            &mut engine,
            Request {
                ignore_eos: true,
                ..Request::greedy(text(round), 1)
            },
        )?;
        println!(
            "prefill {prompt:>5} tokens: {:8.1} tokens/s",
            prompt as f64 / seconds
        );
    }
    for n in [1, 2, 4, 8] {
        let request = |max_tokens| Request {
            n,
            ignore_eos: true,
            ..Request::greedy(text(1), max_tokens)
        };
        let first = run(&mut engine, request(1))?;
        let seconds = run(&mut engine, request(1 + tokens))? - first;
        println!(
            "decode {n:>2} streams:      {:8.1} tokens/s",
            (n * tokens) as f64 / seconds
        );
    }
    let stats = engine.stats();
    let mb = |bytes: usize| bytes as f64 / 1e6;
    println!(
        "weights {:.1} MB, KV {:.1} MB ({} bytes per token)",
        mb(stats.weights_bytes),
        mb(stats.kv_bytes),
        stats.kv_bytes_per_token
    );
    if let Some(peak) = peak_rss() {
        println!(
            "peak RSS {:.1} MB, {:.3} of weights + KV",
            mb(peak),
            peak as f64 / (stats.weights_bytes + stats.kv_bytes) as f64
        );
    }
    Ok(())
}

/// Seconds until a request is done.
fn run(engine: &mut Engine, request: Request) -> Result<f64, Box<dyn Error>> {
    let begin = Instant::now();
    engine.submit(request)?;
    while !engine.idle() {
        for event in engine.step()? {
            if let Event::Failed { error, .. } = event {
                return Err(error.into());
            }
        }
    }
    Ok(begin.elapsed().as_secs_f64())
}

/// Peak resident memory of this process in bytes.
fn peak_rss() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
