//! What happens while a query runs, in the order in which it happens.

use crate::answer::{Answer, Decision, FinishReason, ThoughtEnd, TokenLogprob};
use crate::error::ReasonError;

/// A query in flight, given out by [`crate::Reasoner::submit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// One thing that happened to a query.
#[derive(Debug)]
pub enum Event {
    /// The prompt is encoded; tokens follow.
    Prefilled {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Of these, the ones taken from the prefix cache.
        cached_tokens: usize,
    },
    /// The switcher has decided; the streams begin.
    Decided(Decision),
    /// A token's log-probability, if they were asked for: once per token, in order, and before the text that the token ends.
    Logprob {
        /// The stream.
        stream: usize,
        /// The token.
        logprob: TokenLogprob,
    },
    /// More of a thought.
    Reasoning {
        /// The stream it belongs to.
        stream: usize,
        /// Its text, never empty.
        text: String,
    },
    /// The thought ended.
    ThoughtEnded {
        /// The stream.
        stream: usize,
        /// Tokens of the thought, without its tags.
        tokens: usize,
        /// Why.
        end: ThoughtEnd,
    },
    /// More of the answer.
    Content {
        /// The stream it belongs to.
        stream: usize,
        /// Its text, never empty.
        text: String,
    },
    /// A stream ended.
    StreamFinished {
        /// The stream.
        stream: usize,
        /// Why.
        reason: FinishReason,
    },
    /// A stream's answer was scored.
    Scored {
        /// The stream.
        stream: usize,
        /// From 0 to 1.
        score: f32,
    },
    /// Every stream ended. The last event of a query.
    Answered(Box<Answer>),
    /// The query failed. The last event of a query; others go on.
    Failed(ReasonError),
}
