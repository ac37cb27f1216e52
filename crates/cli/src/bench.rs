//! `edgethink bench`: prefill and decode speed by threads, streams and depth, and the time that a switch to the adapter takes.
//!
//! Prompts are pseudo-random tokens, so nothing but the shapes matters. Each figure is the median of the repeats, after one run that
//! is not counted. The engine is set up once per number of threads.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use edgethink_engine::block_pool::BLOCK_TOKENS;
use edgethink_engine::{AdapterId, AdapterSpan, Engine, Event, Request};
use edgethink_model::Model;
use serde::Serialize;

use crate::args::BenchArgs;
use crate::interrupt;
use crate::open::{self, Opened};
use crate::show::rate;
use crate::table::table;

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
struct Figure {
    what: &'static str,
    threads: usize,
    streams: usize,
    depth: usize,
    tokens: usize,
    tokens_per_second: f64,
    /// Slowest and fastest repeat.
    min: f64,
    max: f64,
    /// KV held at most while decoding: the prompt once, and what each stream wrote.
    kv_bytes: Option<usize>,
}

/// What it costs to go on with the adapter behind a prompt that the base has read.
#[derive(Debug, Clone, Serialize)]
struct Switch {
    threads: usize,
    /// Tokens of the prompt.
    tokens: usize,
    /// Time to the adapter's first token.
    switch_ms: f64,
    /// Time to the base's first token, the prompt read anew: what a switch costs where nothing is shared.
    prefill_ms: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    architecture: &'static str,
    parameters: usize,
    weights: String,
    kv: String,
    isa: String,
    adapter: bool,
    repeats: usize,
    weights_bytes: usize,
    kv_bytes_per_token: usize,
    figures: Vec<Figure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    switches: Vec<Switch>,
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    let opened = open::open(&args.model)?;
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
        let stats = engine.stats();
        let report = report.get_or_insert_with(|| {
            new_report(
                args,
                &opened,
                isa,
                stats.weights_bytes,
                stats.kv_bytes_per_token,
            )
        });
        let mut bench = Bench {
            threads: engine.options().threads,
            adapter: None,
            tokens: Tokens::new(&opened.model),
            engine: &mut engine,
            repeats: args.repeats,
        };
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
    let Some(report) = report else {
        bail!("--threads is empty")
    };
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

fn new_report(
    args: &BenchArgs,
    opened: &Opened,
    isa: String,
    weights_bytes: usize,
    kv_bytes_per_token: usize,
) -> Report {
    Report {
        model: opened.name.clone(),
        architecture: opened.model.config.family.architecture(),
        parameters: opened.model.config.parameters(),
        weights: format!("{:?}", args.format.weights).to_lowercase(),
        kv: format!("{:?}", args.format.kv).to_lowercase(),
        isa,
        adapter: args.with_adapter,
        repeats: args.repeats,
        weights_bytes,
        kv_bytes_per_token,
        figures: Vec::new(),
        switches: Vec::new(),
    }
}

/// Measures one engine.
struct Bench<'a> {
    engine: &'a mut Engine,
    threads: usize,
    adapter: Option<AdapterSpan>,
    tokens: Tokens,
    repeats: usize,
}

impl Bench<'_> {
    /// Encodes `prompt` fresh tokens behind `depth` cached ones.
    fn prefill(&mut self, prompt: usize, depth: usize) -> Result<Figure> {
        let mut rates = Vec::new();
        for run in 0..=self.repeats {
            let mut tokens = self.tokens.take(depth);
            if depth > 0 {
                self.generate(tokens.clone(), 1, 1)?;
            }
            tokens.extend(self.tokens.take(prompt));
            let time = self.generate(tokens, 1, 1)?;
            if run > 0 {
                // The last depth token may have to be computed again; its share is below the noise.
                rates.push(prompt as f64 / time.to_first_s);
            }
        }
        Ok(self.figure("prefill", 1, depth, prompt, rates, None))
    }

    /// Decodes `count` tokens on each of `streams` behind `depth` tokens of prompt.
    fn decode(&mut self, count: usize, streams: usize, depth: usize) -> Result<Figure> {
        let (mut rates, mut kv_bytes) = (Vec::new(), 0);
        for run in 0..=self.repeats {
            self.engine.clear_prefix_cache();
            let tokens = self.tokens.take(depth.max(1));
            // The first token of each stream belongs to the prefill.
            let time = self.generate(tokens, streams, count + 1)?;
            if run > 0 {
                rates.push((count * streams) as f64 / time.decode_s);
            }
            kv_bytes = time.kv_bytes;
        }
        Ok(self.figure("decode", streams, depth, count, rates, Some(kv_bytes)))
    }

    /// Lets the base read fresh prompts that end with the invocation sequence, and then the adapter answer them.
    fn switch(&mut self, id: AdapterId, tokens: usize, invocation: &[u32]) -> Result<Switch> {
        let (mut prefills, mut switches) = (Vec::new(), Vec::new());
        let from = tokens - invocation.len();
        for run in 0..=self.repeats {
            let mut prompt = self.tokens.take(from);
            prompt.extend_from_slice(invocation);
            self.adapter = None;
            let prefill = self.generate(prompt.clone(), 1, 1)?;
            self.adapter = Some(AdapterSpan::starting(id, from));
            let switch = self.generate(prompt, 1, 1)?;
            self.adapter = None;
            if run > 0 {
                prefills.push(1e3 * prefill.to_first_s);
                switches.push(1e3 * switch.to_first_s);
            }
        }
        prefills.sort_by(f64::total_cmp);
        switches.sort_by(f64::total_cmp);
        Ok(Switch {
            threads: self.threads,
            tokens,
            switch_ms: median(&switches),
            prefill_ms: median(&prefills),
        })
    }

    fn figure(
        &self,
        what: &'static str,
        streams: usize,
        depth: usize,
        tokens: usize,
        mut rates: Vec<f64>,
        kv_bytes: Option<usize>,
    ) -> Figure {
        rates.sort_by(f64::total_cmp);
        Figure {
            what,
            threads: self.threads,
            streams,
            depth,
            tokens,
            tokens_per_second: median(&rates),
            min: rates[0],
            max: rates[rates.len() - 1],
            kv_bytes,
        }
    }

    /// Runs one request to its end.
    fn generate(&mut self, prompt: Vec<u32>, n: usize, max_tokens: usize) -> Result<Times> {
        let started = Instant::now();
        self.engine.submit(Request {
            n,
            ignore_eos: true,
            adapter: self.adapter,
            ..Request::greedy(prompt, max_tokens)
        })?;
        let (mut first, mut blocks) = (None, 0);
        while !self.engine.idle() {
            if interrupt::pressed() {
                bail!("stopped");
            }
            for event in self.engine.step()? {
                match event {
                    Event::Token { .. } if first.is_none() => first = Some(Instant::now()),
                    Event::Failed { error, .. } => return Err(error.into()),
                    _ => {}
                }
            }
            let stats = self.engine.stats();
            blocks = blocks.max(stats.blocks_total - stats.blocks_free);
        }
        let first = first.context("the engine gave no token")?;
        Ok(Times {
            to_first_s: (first - started).as_secs_f64(),
            decode_s: first.elapsed().as_secs_f64(),
            kv_bytes: blocks * BLOCK_TOKENS * self.engine.stats().kv_bytes_per_token,
        })
    }
}

struct Times {
    to_first_s: f64,
    decode_s: f64,
    kv_bytes: usize,
}

/// The middle value, or the mean of the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[half - 1], sorted[half])
    } else {
        sorted[half]
    }
}

/// Pseudo-random tokens that never repeat a prefix (a linear congruential generator; constants of Knuth's MMIX).
#[derive(Debug)]
struct Tokens {
    state: u64,
    vocab_size: u64,
}

impl Tokens {
    fn new(model: &Model) -> Self {
        Self {
            state: 1,
            vocab_size: model.config.vocab_size as u64,
        }
    }

    fn take(&mut self, count: usize) -> Vec<u32> {
        (0..count)
            .map(|_| {
                self.state = self
                    .state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                u32::try_from((self.state >> 33) % self.vocab_size).unwrap_or(0)
            })
            .collect()
    }
}

impl Report {
    fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .figures
            .iter()
            .map(|f| {
                vec![
                    f.what.to_owned(),
                    f.threads.to_string(),
                    f.streams.to_string(),
                    f.depth.to_string(),
                    f.tokens.to_string(),
                    rate(f.tokens_per_second),
                    rate(f.min),
                    rate(f.max),
                    f.kv_bytes
                        .map_or("-".to_owned(), |bytes| crate::info::bytes(bytes as u64)),
                ]
            })
            .collect();
        let head = format!(
            "{}, {} parameters, weights {} ({}), KV {} ({} per token), {}{}\n\n",
            self.model,
            crate::info::count(self.parameters),
            self.weights,
            crate::info::bytes(self.weights_bytes as u64),
            self.kv,
            crate::info::bytes(self.kv_bytes_per_token as u64),
            self.isa,
            if self.adapter { ", adapter on" } else { "" },
        );
        let mut text = head;
        if !rows.is_empty() {
            text += &table(
                &[
                    "what", "threads", "streams", "depth", "tokens", "tokens/s", "min", "max", "KV",
                ],
                &rows,
            );
        }
        for s in &self.switches {
            text += &format!(
                "\nswitch to the adapter behind {} tokens, {} threads: {:.1} ms to its first token; reading them anew takes {:.1} ms, {:.0} times as long\n",
                s.tokens,
                s.threads,
                s.switch_ms,
                s.prefill_ms,
                s.prefill_ms / s.switch_ms
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }

    #[test]
    fn tokens_stay_in_the_vocabulary_and_go_on() {
        let mut tokens = Tokens {
            state: 1,
            vocab_size: 100,
        };
        let first = tokens.take(50);
        assert!(first.iter().all(|&t| t < 100));
        assert_ne!(first, tokens.take(50));
    }
}
