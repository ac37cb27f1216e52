//! Datasets: rows of JSONL and parquet files in TRL's forms, turned into tokens with their loss and adapter spans.

mod encode;
mod order;
#[cfg(feature = "parquet")]
mod parquet;
mod rows;

pub(crate) use encode::{Encoder, Encoding};
pub(crate) use order::Order;
pub(crate) use rows::{Row, read};

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
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Dataset {
    pub tokens: Vec<u32>,
    /// Whether each token is learnt, that is, a target of the loss.
    pub learnt: Vec<bool>,
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

    /// Whether each token of an example is learnt.
    pub(crate) fn learnt_of(&self, example: &Example) -> &[bool] {
        &self.learnt[example.start..example.start + example.len]
    }

    /// Number of tokens of an example that carry loss; the first one cannot, as nothing stands before it.
    pub(crate) fn targets_of(&self, example: &Example) -> usize {
        let learnt = self.learnt_of(example);
        learnt.iter().skip(1).filter(|&&l| l).count()
    }

    /// Adds an example.
    pub(crate) fn push(&mut self, tokens: &[u32], learnt: &[bool], adapter_from: usize) {
        debug_assert_eq!(tokens.len(), learnt.len());
        self.examples.push(Example {
            start: self.tokens.len(),
            len: tokens.len(),
            adapter_from,
        });
        self.tokens.extend_from_slice(tokens);
        self.learnt.extend_from_slice(learnt);
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
