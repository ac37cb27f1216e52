//! `edgethink bench`: prefill and decode speed by threads, streams and depth, and the time that a switch to the adapter takes.
//!
//! The engine is set up once per number of threads.

mod measure;
mod profile;
mod report;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use edgethink_engine::{AdapterSpan, Engine, EngineStats};
use edgethink_eval::resources::peak_memory_bytes;
use edgethink_model::Adapter;

use crate::args::BenchArgs;
use crate::open::{self, Opened};
use measure::{Bench, Tokens};
use report::Report;

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    let begin = Instant::now();
    let opened = open::open(&args.model)?;
    let second = args.mixed_with.as_deref().map(|path| {
        let loaded = Adapter::load(path, &opened.model.config);
        loaded.with_context(|| format!("cannot use the adapter {path}"))
    });
    let second = second.transpose()?;
    if args.with_adapter && opened.adapter.is_none() {
        bail!("--with-adapter needs an adapter; name one with --adapter");
    }
    let context = opened.model.config.max_position_embeddings;
    let longest = args
        .prefill
        .iter()
        .copied()
        .max()
        .unwrap_or(0)
        .max(args.decode + 1);
    let masked = opened
        .adapter
        .as_ref()
        .and_then(|adapter| adapter.invocation.as_deref());
    let switch = match (args.switch, masked) {
        (Some(0), _) | (None, None) => None,
        (Some(_), None) => {
            bail!("--switch needs an adapter with an invocation sequence; name one with --adapter")
        }
        (tokens, Some(invocation)) => {
            let tokens = tokens.unwrap_or(1024.min(context.saturating_sub(1)));
            if tokens <= invocation.len() || tokens >= context {
                bail!(
                    "--switch takes a prompt of more than {} tokens and less than the model's context of {context}",
                    invocation.len()
                );
            }
            Some((tokens, invocation))
        }
    };
    let deepest = args.depth.iter().copied().max().unwrap_or(0);
    if deepest + longest > context {
        bail!(
            "depth {deepest} plus {longest} tokens are more than the model's context of {context}"
        );
    }
    let streams = args.streams.iter().copied().max().unwrap_or(1);
    let kv_tokens = (2 * (deepest + longest + 64) + streams * (args.decode + 64))
        .max(switch.map_or(0, |(tokens, _)| 2 * (tokens + 64)));
    let mut report = None;
    for &threads in &args.threads {
        let options =
            open::engine_options(&opened.model, threads, &args.format, kv_tokens, streams);
        let isa = options.isa.to_string();
        let mut engine =
            Engine::new(Arc::clone(&opened.model), options).context("cannot set the engine up")?;
        let load_ms = 1e3 * begin.elapsed().as_secs_f64();
        let stats = engine.stats();
        let mut bench = Bench {
            threads: engine.options().threads,
            adapter: None,
            mixed: None,
            tokens: Tokens::new(&opened.model),
            engine: &mut engine,
            repeats: args.repeats,
        };
        let report = match &mut report {
            Some(report) => report,
            empty => {
                let prompt = bench.tokens.take(1);
                bench.generate(prompt, 1, 1)?;
                let mut new = new_report(args, &opened, isa, &stats);
                (new.load_ms, new.first_token_ms) = (load_ms, 1e3 * begin.elapsed().as_secs_f64());
                empty.insert(new)
            }
        };
        bench.engine.profile(args.profile);
        if let (Some((tokens, invocation)), Some(adapter)) = (switch, &opened.adapter) {
            eprint_step(&format!("switch at {tokens}, {} threads", bench.threads));
            let id = bench.engine.load_adapter(adapter)?;
            report.switches.push(bench.switch(id, tokens, invocation)?);
        }
        if let (true, Some(adapter)) = (args.with_adapter, &opened.adapter) {
            bench.adapter = Some(AdapterSpan::starting(
                bench.engine.load_adapter(adapter)?,
                0,
            ));
        }
        if args.sample > 0 && report.sample.is_none() {
            report.sample = Some(bench.sample(args.sample)?);
        }
        if let (Some(second), Some(adapter)) = (&second, &opened.adapter) {
            let ids = [
                bench.engine.load_adapter(adapter)?,
                bench.engine.load_adapter(second)?,
            ];
            bench.mixed = Some(ids.map(|id| AdapterSpan::starting(id, 0)));
        }
        report.adapters_bytes = bench.engine.stats().adapters_bytes;
        for &depth in &args.depth {
            for &prompt in args.prefill.iter().filter(|&&tokens| tokens > 0) {
                eprint_step(&format!(
                    "prefill {prompt} at {depth}, {} threads",
                    bench.threads
                ));
                report.figures.push(bench.prefill(prompt, depth)?);
            }
            for &streams in args.streams.iter().filter(|_| args.decode > 0) {
                eprint_step(&format!(
                    "decode {} x {streams} at {depth}, {} threads",
                    args.decode, bench.threads
                ));
                report
                    .figures
                    .push(bench.decode(args.decode, streams, depth)?);
            }
        }
    }
    eprint_step("");
    let Some(mut report) = report else {
        bail!("--threads is empty")
    };
    report.peak_rss_bytes = peak_memory_bytes();
    if args.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(std::io::stdout(), "{}", report.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what is being measured, on a terminal only.
fn eprint_step(text: &str) {
    if crate::screen::Screen::stderr().live {
        eprint!("\r\x1b[K{text}");
    }
}

/// A report without figures yet.
fn new_report(args: &BenchArgs, opened: &Opened, isa: String, stats: &EngineStats) -> Report {
    Report {
        model: opened.name.clone(),
        architecture: opened.model.config.family.architecture(),
        parameters: opened.model.config.parameters(),
        weights: format!("{:?}", args.format.weights).to_lowercase(),
        adapter_weights: format!("{:?}", args.format.adapter_weights).to_lowercase(),
        kv: format!("{:?}", args.format.kv).to_lowercase(),
        isa,
        adapter: args.with_adapter,
        repeats: args.repeats,
        weights_bytes: stats.weights_bytes,
        kv_bytes_per_token: stats.kv_bytes_per_token,
        adapters_bytes: 0,
        load_ms: 0.0,
        first_token_ms: 0.0,
        peak_rss_bytes: None,
        sample: None,
        figures: Vec::new(),
        switches: Vec::new(),
    }
}
