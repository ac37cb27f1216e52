//! The time of a step: what it computes, over what this machine was measured to compute.
//!
//! A forward pass takes 2 operations for each value of the network and token, and 4 for each pair of a query's and a key's value in
//! the attention (half of the pairs are masked). A backward pass through frozen layers takes as many, one that also makes the
//! gradients of the layers twice as many.

use std::time::Instant;

use super::{Recipe, Shape};
use crate::{
    net::LINEARS,
    ops::{self, linear::matmul_nt},
};

/// One part of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// What it does.
    pub name: &'static str,
    /// Operations (a multiplication and an addition are two).
    pub flops: f64,
    /// Bytes of weights that must be read, where that may take longer.
    pub bytes: f64,
}

/// What this machine does in a second, as measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Operations of the training's matrix product.
    pub flops: f64,
    /// Bytes read from memory.
    pub bytes: f64,
}

impl Speed {
    /// Measures for about half a second, on all threads.
    pub fn measure() -> Self {
        let (m, k, n) = (512, 1024, 1024);
        let a = ops::tensor(vec![0.5; m * k], &[m, k]);
        let b = ops::tensor(vec![0.25; n * k], &[n, k]);
        let mut best = f64::INFINITY;
        let begun = Instant::now();
        while begun.elapsed().as_secs_f64() < 0.25 {
            let at = Instant::now();
            std::hint::black_box(matmul_nt(&a, &b));
            best = best.min(at.elapsed().as_secs_f64());
        }
        let flops = (2 * m * k * n) as f64 / best;
        // Larger than any cache.
        let values = vec![1.0f32; 32 << 20];
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let at = Instant::now();
            std::hint::black_box(read_all(&values));
            best = best.min(at.elapsed().as_secs_f64());
        }
        Self {
            flops,
            bytes: (values.len() * 4) as f64 / best,
        }
    }
}

fn read_all(values: &[f32]) -> f32 {
    use rayon::prelude::*;
    let part = |chunk: &[f32]| {
        let mut sum = [0.0f32; 16];
        for values in chunk.chunks_exact(16) {
            for (sum, v) in sum.iter_mut().zip(values) {
                *sum += v;
            }
        }
        sum.iter().sum::<f32>()
    };
    values.par_chunks(1 << 16).map(part).sum()
}

impl Work {
    /// Seconds on a machine of this speed, at best.
    pub fn seconds(&self, speed: &Speed) -> f64 {
        (self.flops / speed.flops).max(self.bytes / speed.bytes)
    }
}

/// Optimizer steps, where the recipe alone says them.
pub(super) fn steps(recipe: &Recipe) -> Option<u64> {
    let run = match recipe {
        Recipe::Base(r) => &r.run,
        Recipe::Sft(r) => &r.run,
        Recipe::Quantize(r) => &r.run,
        Recipe::Grpo(r) => return Some(r.run.steps),
        Recipe::Verifier(_) | Recipe::Switcher(_) => return Some(1),
    };
    run.max_tokens
        .map(|tokens| tokens.div_ceil(run.batch_tokens as u64))
}

/// The work of one optimizer step.
pub(super) fn of(recipe: &Recipe, shape: &Shape) -> Vec<Work> {
    let net = Net::of(shape);
    match recipe {
        Recipe::Base(r) => {
            let (tokens, len) = (r.run.batch_tokens, r.data.max_length);
            vec![net.learn(tokens, len, true, r.run.gradient_checkpointing.is_on())]
        }
        Recipe::Quantize(r) => {
            let (tokens, len) = (r.run.batch_tokens, r.data.max_length);
            vec![
                net.forward("teacher", tokens, len),
                net.learn(tokens, len, true, r.run.gradient_checkpointing.is_on()),
            ]
        }
        Recipe::Sft(r) => {
            let (tokens, len) = (r.run.batch_tokens, r.data.max_length);
            vec![net.learn(tokens, len, false, r.run.gradient_checkpointing.is_on())]
        }
        Recipe::Grpo(r) => {
            let completions = r.rollout.questions_per_step * r.rollout.group;
            let longest = r.data.max_prompt_tokens + r.rollout.max_completion_tokens;
            let tokens = completions * longest;
            let mut work = vec![net.decode(
                "rollouts",
                completions,
                r.rollout.max_sequences,
                r.rollout.max_completion_tokens,
            )];
            work.push(net.forward("log-probabilities of the policy", tokens, longest));
            if r.objective.beta > 0.0 {
                work.push(net.forward("log-probabilities of the reference", tokens, longest));
            }
            let mut learn = net.learn(tokens, longest, false, r.run.gradient_checkpointing.is_on());
            learn.flops *= r.objective.iterations as f64;
            work.push(learn);
            work
        }
        Recipe::Verifier(r) => {
            let questions = |given: usize, otherwise: usize| {
                if given == 0 { otherwise } else { given }
            };
            let responses = questions(r.data.train_questions, 7312) * r.sample.n
                + questions(r.data.valid_questions, 188) * r.sample.valid_n;
            vec![net.decode(
                "responses",
                responses,
                r.sample.max_sequences,
                r.sample.max_completion_tokens,
            )]
        }
        Recipe::Switcher(_) => Vec::new(),
    }
}

/// What a pass of the network takes.
struct Net {
    /// Values of the linear layers, of the head, and of the adapter.
    linears: f64,
    head: f64,
    adapter: f64,
    /// Operations of the attention for a query and a key.
    pair: f64,
    stored: f64,
}

impl Net {
    fn of(shape: &Shape) -> Self {
        let spec = &shape.spec;
        let (mut linears, mut adapter) = (0, 0);
        for linear in 0..LINEARS.len() {
            let (out, inner) = spec.linear_shape(linear);
            linears += out * inner;
            if shape.targets[linear] {
                adapter += shape.rank * (out + inner);
            }
        }
        Self {
            linears: (linears * spec.layers) as f64,
            head: (spec.vocab * spec.hidden) as f64,
            adapter: (adapter * spec.layers) as f64,
            pair: (4 * spec.heads * spec.head_dim * spec.layers) as f64,
            stored: shape.file_bytes as f64,
        }
    }

    /// Operations of a forward pass per token of sequences of `len` tokens.
    fn per_token(&self, len: usize) -> f64 {
        2.0 * (self.linears + self.head + self.adapter) + self.pair * len as f64 / 2.0
    }

    fn forward(&self, name: &'static str, tokens: usize, len: usize) -> Work {
        Work {
            name,
            flops: tokens as f64 * self.per_token(len),
            bytes: 0.0,
        }
    }

    fn learn(&self, tokens: usize, len: usize, whole: bool, again: bool) -> Work {
        let forward = self.per_token(len);
        // The attention makes its probabilities again.
        let attention = self.pair * len as f64 / 2.0;
        let mut flops = 2.0 * forward + 1.5 * attention + 2.0 * self.adapter;
        if whole {
            flops += 2.0 * (self.linears + self.head);
        }
        if again {
            flops += forward - 2.0 * self.head;
        }
        Work {
            name: "forward and backward",
            flops: tokens as f64 * flops,
            bytes: 0.0,
        }
    }

    /// `count` completions of `len` tokens, `at_once` at a time.
    fn decode(&self, name: &'static str, count: usize, at_once: usize, len: usize) -> Work {
        let rounds = count.div_ceil(at_once.max(1)) as f64;
        Work {
            name,
            flops: (count * len) as f64 * self.per_token(len),
            bytes: rounds * len as f64 * self.stored,
        }
    }
}
