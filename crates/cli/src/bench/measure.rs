//! How `edgethink bench` measures one engine.
//!
//! Prompts are pseudo-random tokens, so nothing but the shapes matters. Each figure is the median of the repeats, after one run that
//! is not counted.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use edgethink_engine::block_pool::BLOCK_TOKENS;
use edgethink_engine::{AdapterId, AdapterSpan, Engine, Event, Part, PartTime, Request};
use edgethink_model::Model;

use super::profile;
use super::report::{Figure, Sample, Switch};
use crate::interrupt;

/// Measures one engine.
pub(crate) struct Bench<'a> {
    pub(crate) engine: &'a mut Engine,
    pub(crate) threads: usize,
    pub(crate) adapter: Option<AdapterSpan>,
    /// Adapters that share the streams of decode figures with the base.
    pub(crate) mixed: Option<[AdapterSpan; 2]>,
    pub(crate) tokens: Tokens,
    pub(crate) repeats: usize,
}

impl Bench<'_> {
    /// Encodes `prompt` fresh tokens behind `depth` cached ones.
    pub(crate) fn prefill(&mut self, prompt: usize, depth: usize) -> Result<Figure> {
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
                profile::add(&mut profile, &time.prefill_profile);
            }
        }
        let figure = self.figure("prefill", 1, depth, prompt, rates, None);
        Ok(Figure { profile, ..figure })
    }

    /// Decodes `count` tokens on each of `streams` behind `depth` tokens of prompt.
    pub(crate) fn decode(&mut self, count: usize, streams: usize, depth: usize) -> Result<Figure> {
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
                profile::add(&mut profile, &time.decode_profile);
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
    pub(crate) fn switch(
        &mut self,
        id: AdapterId,
        tokens: usize,
        invocation: &[u32],
    ) -> Result<Switch> {
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
    pub(crate) fn generate(
        &mut self,
        prompt: Vec<u32>,
        n: usize,
        max_tokens: usize,
    ) -> Result<Times> {
        self.run(vec![Request {
            n,
            ignore_eos: true,
            adapter: self.adapter,
            ..Request::greedy(prompt, max_tokens)
        }])
    }

    /// Greedy tokens behind a prompt of 32 random ones.
    pub(crate) fn sample(&mut self, count: usize) -> Result<Sample> {
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

/// What the requests of a run took.
pub(crate) struct Times {
    pub(crate) to_first_s: f64,
    pub(crate) decode_s: f64,
    pub(crate) kv_bytes: usize,
    /// All tokens, in the order in which they came.
    pub(crate) tokens: Vec<u32>,
    /// Up to the first token, and from there on.
    pub(crate) prefill_profile: Vec<(Part, PartTime)>,
    pub(crate) decode_profile: Vec<(Part, PartTime)>,
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
pub(crate) struct Tokens {
    state: u64,
    vocab_size: u64,
}

impl Tokens {
    pub(crate) fn new(model: &Model) -> Self {
        Self {
            state: 1,
            vocab_size: model.config.vocab_size as u64,
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<u32> {
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
