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
use edgethink_engine::{
    AdapterId, AdapterSpan, Engine, EngineStats, Event, Part, PartTime, Request,
};
use edgethink_model::{Adapter, Model};
use serde::Serialize;

use crate::args::BenchArgs;
use crate::bench_profile::{self, PartFigure};
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
    /// Where the time of all repeats went, on the calling thread.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profile: Vec<PartFigure>,
    /// Repeats that the profile covers.
    #[serde(skip)]
    repeats: usize,
}

/// Greedy tokens that another program can check.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
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
    adapters_bytes: usize,
    /// From the start of the command until the weights are ready, and until the first token behind a prompt of one.
    load_ms: f64,
    first_token_ms: f64,
    /// The most memory that was resident, on Linux.
    peak_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<Sample>,
    figures: Vec<Figure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    switches: Vec<Switch>,
}

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
    report.peak_rss_bytes = peak_rss_bytes();
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

fn new_report(args: &BenchArgs, opened: &Opened, isa: String, stats: &EngineStats) -> Report {
    Report {
        model: opened.name.clone(),
        architecture: opened.model.config.family.architecture(),
        parameters: opened.model.config.parameters(),
        weights: format!("{:?}", args.format.weights).to_lowercase(),
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

/// Measures one engine.
struct Bench<'a> {
    engine: &'a mut Engine,
    threads: usize,
    adapter: Option<AdapterSpan>,
    /// Adapters that share the streams of decode figures with the base.
    mixed: Option<[AdapterSpan; 2]>,
    tokens: Tokens,
    repeats: usize,
}

impl Bench<'_> {
    /// Encodes `prompt` fresh tokens behind `depth` cached ones.
    fn prefill(&mut self, prompt: usize, depth: usize) -> Result<Figure> {
        let (mut rates, mut profile) = (Vec::new(), Vec::new());
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
                bench_profile::add(&mut profile, &time.prefill_profile);
            }
        }
        let figure = self.figure("prefill", 1, depth, prompt, rates, None);
        Ok(Figure { profile, ..figure })
    }

    /// Decodes `count` tokens on each of `streams` behind `depth` tokens of prompt.
    fn decode(&mut self, count: usize, streams: usize, depth: usize) -> Result<Figure> {
        let (mut rates, mut kv_bytes, mut profile) = (Vec::new(), 0, Vec::new());
        for run in 0..=self.repeats {
            self.engine.clear_prefix_cache();
            let tokens = self.tokens.take(depth.max(1));
            // The first token of each stream belongs to the prefill.
            let time = match self.mixed {
                None => self.generate(tokens, streams, count + 1)?,
                Some(adapters) => {
                    let owners = [None, Some(adapters[0]), Some(adapters[1])];
                    let share = |part: usize| (streams + 2 - part) / 3;
                    let requests = owners
                        .into_iter()
                        .enumerate()
                        .filter(|(part, _)| share(*part) > 0);
                    let requests = requests.map(|(part, adapter)| Request {
                        n: share(part),
                        ignore_eos: true,
                        adapter,
                        ..Request::greedy(tokens.clone(), count + 1)
                    });
                    self.run(requests.collect())?
                }
            };
            if run > 0 {
                rates.push((count * streams) as f64 / time.decode_s);
                bench_profile::add(&mut profile, &time.decode_profile);
            }
            kv_bytes = time.kv_bytes;
        }
        let what = if self.mixed.is_some() {
            "decode mixed"
        } else {
            "decode"
        };
        let figure = self.figure(what, streams, depth, count, rates, Some(kv_bytes));
        Ok(Figure { profile, ..figure })
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
            profile: Vec::new(),
            repeats: self.repeats,
        }
    }

    /// Runs one request to its end.
    fn generate(&mut self, prompt: Vec<u32>, n: usize, max_tokens: usize) -> Result<Times> {
        self.run(vec![Request {
            n,
            ignore_eos: true,
            adapter: self.adapter,
            ..Request::greedy(prompt, max_tokens)
        }])
    }

    /// Greedy tokens behind a prompt of 32 random ones.
    fn sample(&mut self, count: usize) -> Result<Sample> {
        let prompt = self.tokens.take(32);
        let tokens = self.generate(prompt.clone(), 1, count)?.tokens;
        Ok(Sample { prompt, tokens })
    }

    /// Runs requests that begin together to their end.
    fn run(&mut self, requests: Vec<Request>) -> Result<Times> {
        let started = Instant::now();
        let mut silent = Vec::new();
        for request in requests {
            silent.push(self.engine.submit(request)?);
        }
        let (mut first, mut blocks, mut prefill_profile) = (None, 0, Vec::new());
        let mut tokens = Vec::new();
        self.engine.take_profile();
        while !self.engine.idle() {
            if interrupt::pressed() {
                bail!("stopped");
            }
            for event in self.engine.step()? {
                match event {
                    Event::Token { request, token, .. } => {
                        tokens.push(token);
                        silent.retain(|id| *id != request);
                        if silent.is_empty() && first.is_none() {
                            first = Some(Instant::now());
                            prefill_profile = self.engine.take_profile();
                        }
                    }
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
            tokens,
            prefill_profile,
            decode_profile: self.engine.take_profile(),
        })
    }
}

struct Times {
    to_first_s: f64,
    decode_s: f64,
    kv_bytes: usize,
    /// All tokens, in the order in which they came.
    tokens: Vec<u32>,
    /// Up to the first token, and from there on.
    prefill_profile: Vec<(Part, PartTime)>,
    decode_profile: Vec<(Part, PartTime)>,
}

/// The most memory that this process has held, as Linux counts it.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
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
        let rss = self
            .peak_rss_bytes
            .map_or("-".to_owned(), crate::info::bytes);
        text += &format!(
            "loaded in {:.0} ms, first token after {:.0} ms, at most {rss} resident\n\n",
            self.load_ms, self.first_token_ms
        );
        if !rows.is_empty() {
            text += &table(
                &[
                    "what", "threads", "streams", "depth", "tokens", "tokens/s", "min", "max", "KV",
                ],
                &rows,
            );
        }
        for f in self.figures.iter().filter(|f| !f.profile.is_empty()) {
            let (unit, count) = match f.what {
                "prefill" => ("prompt", f.repeats),
                _ => ("step", f.repeats * f.tokens),
            };
            text += &format!(
                "\n{} of {} tokens, {} streams, depth {}, {} threads\n{}",
                f.what,
                f.tokens,
                f.streams,
                f.depth,
                f.threads,
                bench_profile::text(&f.profile, unit, count as f64)
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
