//! Datasets: rows of JSONL and parquet files in TRL's forms, turned into tokens with their loss and adapter spans.

mod encode;
mod order;
#[cfg(feature = "parquet")]
mod parquet;
mod rows;

pub(crate) use encode::{Encoder, Encoding};
pub(crate) use order::Order;
pub(crate) use rows::{Row, json_lines, read};

use std::ops::Range;

/// One example: a span of the token store, and where the adapter begins in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Example {
    /// First token in the store.
    pub start: usize,
    /// Tokens.
    pub len: usize,
    /// First token with the adapter on; `len` if it never is.
    pub adapter_from: usize,
}

/// All examples of a data set, their tokens in one store.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Dataset {
    pub tokens: Vec<u32>,
    /// Weight of each token as a target of the loss; zero for what is not learnt.
    pub weights: Vec<f32>,
    pub examples: Vec<Example>,
    /// Examples left out because they were too long.
    pub dropped: usize,
    /// Examples cut to the longest length.
    pub truncated: usize,
}

impl Dataset {
    /// The tokens of an example.
    pub(crate) fn tokens_of(&self, example: &Example) -> &[u32] {
        &self.tokens[example.start..example.start + example.len]
    }

    /// The weights of an example's tokens.
    pub(crate) fn weights_of(&self, example: &Example) -> &[f32] {
        &self.weights[example.start..example.start + example.len]
    }

    /// Number of tokens of an example that carry loss; the first one cannot, as nothing stands before it.
    pub(crate) fn targets_of(&self, example: &Example) -> usize {
        let weights = self.weights_of(example);
        weights.iter().skip(1).filter(|&&w| w != 0.0).count()
    }

    /// Adds an example.
    pub(crate) fn push(
        &mut self,
        tokens: &[u32],
        weights: impl IntoIterator<Item = f32>,
        adapter_from: usize,
    ) {
        self.examples.push(Example {
            start: self.tokens.len(),
            len: tokens.len(),
            adapter_from,
        });
        self.tokens.extend_from_slice(tokens);
        self.weights.extend(weights);
        debug_assert_eq!(self.tokens.len(), self.weights.len());
    }

    /// [`Dataset::micro_batches`] of examples, less those in which nothing is learnt.
    pub(crate) fn learnt_batches<'a>(
        &self,
        examples: &'a [usize],
        limit: usize,
    ) -> Vec<&'a [usize]> {
        let learns = |e: &usize| self.targets_of(&self.examples[*e]) > 0;
        let runs = self.micro_batches(examples, limit).into_iter();
        runs.map(|run| &examples[run])
            .filter(|run| run.iter().any(learns))
            .collect()
    }

    /// Splits examples into runs of at most `limit` tokens, in order; an example longer than that stands alone.
    pub(crate) fn micro_batches(&self, examples: &[usize], limit: usize) -> Vec<Range<usize>> {
        let mut out = Vec::new();
        let (mut from, mut tokens) = (0, 0);
        for (at, &example) in examples.iter().enumerate() {
            let len = self.examples[example].len;
            if at > from && tokens + len > limit {
                out.push(from..at);
                (from, tokens) = (at, 0);
            }
            tokens += len;
        }
        if from < examples.len() {
            out.push(from..examples.len());
        }
        out
    }
}
