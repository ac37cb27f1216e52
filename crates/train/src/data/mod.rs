//! Datasets: rows of JSONL and parquet files in TRL's forms or a published data set's own, turned into tokens with their loss and adapter spans.

mod cache;
mod encode;
mod lengths;
mod order;
mod overlap;
#[cfg(feature = "parquet")]
mod parquet;
mod rows;
mod schema;

pub(crate) use encode::{Encoder, Encoding};
pub use lengths::{Lengths, Spread, bin, histogram, lengths};
pub(crate) use order::Order;
pub use overlap::{Benchmark, BenchmarkOverlap, FEWEST_WORDS, Overlap, Shared, decontaminate};
pub(crate) use rows::{Row, understood};
pub use schema::Schema;

use std::{borrow::Cow, ops::Range, sync::Arc};

use crate::error::TrainError;
use cache::TokenFile;

/// One example: a span of the token store, and where the adapter begins in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Example {
    /// First token in the store.
    pub start: usize,
    /// First token in the whole data set, of which the store may hold a part.
    pub place: u64,
    /// Tokens.
    pub len: usize,
    /// First token with the adapter on; `len` if it never is.
    pub adapter_from: usize,
}

/// All examples of a data set, their tokens in one store.
#[derive(Debug, Default, Clone)]
pub(crate) struct Dataset {
    pub tokens: Vec<u32>,
    /// Weight of each token as a target of the loss; zero for what is not learnt.
    pub weights: Vec<f32>,
    pub examples: Vec<Example>,
    /// Examples left out because they were too long.
    pub dropped: usize,
    /// Examples cut to the longest length.
    pub truncated: usize,
    /// Where the tokens are if they are not in memory: then `tokens` and `weights` are empty.
    pub file: Option<Arc<TokenFile>>,
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
            place: self.tokens.len() as u64,
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

    /// A set with these examples in memory, and their indices in it: itself, or a part of what is on the disk.
    ///
    /// # Errors
    /// [`TrainError::Read`] for a token file that cannot be read.
    pub(crate) fn hold<'a>(
        &'a self,
        examples: &'a [usize],
    ) -> Result<(Cow<'a, Self>, Cow<'a, [usize]>), TrainError> {
        let Some(file) = &self.file else {
            return Ok((Cow::Borrowed(self), Cow::Borrowed(examples)));
        };
        let mut held = Self::default();
        for &example in examples {
            let e = &self.examples[example];
            let (tokens, learnt) = file.read(e.place, e.len)?;
            held.push(&tokens, learnt, e.adapter_from);
            if let Some(last) = held.examples.last_mut() {
                last.place = e.place;
            }
        }
        Ok((Cow::Owned(held), Cow::Owned((0..examples.len()).collect())))
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
