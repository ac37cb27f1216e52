//! The order of examples: a new permutation in each epoch, a function of the seed and the epoch only.
//!
//! The stream of examples is that of all epochs one after the other. A place in it is one number, so a resumed run
//! goes on at exactly the next example.

use rand::seq::SliceRandom;

use super::Dataset;
use crate::params::generator;

/// The stream of examples of a run.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    set: &'a Dataset,
    seed: u64,
    shuffle: bool,
    /// Examples of the whole run.
    end: u64,
    epoch: Option<(u64, Vec<usize>)>,
}

/// The examples of one optimizer step, and the place after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub examples: Vec<usize>,
    pub tokens: usize,
    pub next: u64,
}

impl<'a> Order<'a> {
    /// A run of `epochs` passes, or of all examples until `max_tokens` are seen.
    pub(crate) fn new(
        set: &'a Dataset,
        seed: u64,
        shuffle: bool,
        epochs: Option<f64>,
        max_tokens: Option<u64>,
    ) -> Self {
        let n = set.examples.len() as u64;
        let mut order = Self {
            set,
            seed,
            shuffle,
            end: u64::MAX,
            epoch: None,
        };
        order.end = match (epochs, max_tokens) {
            (Some(epochs), _) => ((epochs * n as f64).round() as u64).max(1),
            (None, limit) => {
                let (mut seen, mut at) = (0u64, 0u64);
                let limit = limit.unwrap_or(u64::MAX);
                while seen < limit {
                    seen += set.examples[order.example(at)].len as u64;
                    at += 1;
                }
                at
            }
        };
        order
    }

    /// The example at a place of the stream.
    fn example(&mut self, at: u64) -> usize {
        let n = self.set.examples.len() as u64;
        let (epoch, index) = (at / n, (at % n) as usize);
        if !self.shuffle {
            return index;
        }
        if self.epoch.as_ref().is_none_or(|(e, _)| *e != epoch) {
            let mut permutation: Vec<usize> = (0..n as usize).collect();
            permutation.shuffle(&mut generator(self.seed, &format!("epoch {epoch}")));
            self.epoch = Some((epoch, permutation));
        }
        self.epoch.as_ref().map_or(index, |(_, p)| p[index])
    }

    /// The step that begins at `at`: examples until their tokens reach `batch_tokens`. `None` at the end of the run.
    pub(crate) fn step(&mut self, at: u64, batch_tokens: usize) -> Option<Step> {
        if at >= self.end {
            return None;
        }
        let mut step = Step {
            examples: Vec::new(),
            tokens: 0,
            next: at,
        };
        while step.next < self.end && step.tokens < batch_tokens {
            let example = self.example(step.next);
            step.examples.push(example);
            step.tokens += self.set.examples[example].len;
            step.next += 1;
        }
        Some(step)
    }

    /// Number of steps and of tokens of the whole run.
    pub(crate) fn totals(&mut self, batch_tokens: usize) -> (u64, u64) {
        let (mut steps, mut tokens, mut at) = (0, 0, 0);
        while let Some(step) = self.step(at, batch_tokens) {
            steps += 1;
            tokens += step.tokens as u64;
            at = step.next;
        }
        (steps, tokens)
    }

    /// The epoch at a place, as a number with a fraction.
    pub(crate) fn epoch_at(&self, at: u64) -> f64 {
        at as f64 / self.set.examples.len().max(1) as f64
    }
}
