//! What comes back for a query: the choices with their tokens, the vote, the switcher's decision, and what they cost.

use crate::vote::Vote;

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its turn, or a stop string was met.
    Stop,
    /// The token limit, the budget or the end of the context was reached.
    Length,
    /// The caller ended it.
    Cancelled,
    /// The vote was decided without it.
    Decided,
}

impl FinishReason {
    /// The word used in OpenAI's API; `cancelled` and `decided` are ours.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Decided => "decided",
        }
    }
}

/// Why a thought ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThoughtEnd {
    /// The model closed it.
    Model,
    /// The budget cut it.
    Budget,
    /// It repeated itself and was cut.
    Loop,
    /// The caller had enough of it ([`crate::Reasoner::end_thought`]).
    Caller,
    /// The model ended its turn inside it; the budget promises an answer, so the thought was closed.
    Turn,
}

impl ThoughtEnd {
    /// One word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Budget => "budget",
            Self::Loop => "loop",
            Self::Caller => "caller",
            Self::Turn => "turn",
        }
    }
}

/// A token with the log-probability the model gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Its text; bytes that are no UTF-8 on their own are shown as U+FFFD.
    pub text: String,
    /// Natural log of its probability, before temperature and filters.
    pub logp: f32,
    /// The most likely tokens at this place: (token, text, log-probability), best first.
    pub top: Vec<(u32, String, f32)>,
    /// Whether it is part of the thought or of its tags.
    pub thought: bool,
}

/// One of the `n` answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The stream's number, 0 to n - 1.
    pub index: usize,
    /// The answer's text, without the thought. Empty if the thought did not end.
    pub text: String,
    /// The thought, without its tags.
    pub reasoning: String,
    /// Every token of the response, tags and forced tokens included.
    pub token_ids: Vec<u32>,
    /// One entry per token if log-probabilities were asked for.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The stop string that ended it, if one did.
    pub stop: Option<String>,
    /// Tokens of the thought, without its tags.
    pub reasoning_tokens: usize,
    /// Why the thought ended; `None` if there was none, or if it did not end.
    pub thought_closed: Option<ThoughtEnd>,
    /// The budget forced the answer: it cut the thought, or began an answer that did not come.
    pub budget_forced: bool,
    /// How often the thought's end was replaced by a continuation.
    pub continued: usize,
    /// What the verifier gives the answer, 0 to 1; `None` if nothing was to score it, or if there is no answer.
    pub score: Option<f32>,
}

/// What the switcher said about a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// From 0 (answer at once) to 1 (think).
    pub score: f32,
    /// The least score that gets a thought.
    pub threshold: f32,
    /// Whether the query got one.
    pub thinks: bool,
}

/// The limits that a query ran under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetUse {
    /// The hard budget asked for.
    pub hard: Option<usize>,
    /// The line that named a budget in the prompt, as it was written.
    pub line: Option<String>,
    /// Tokens after which an open thought was to be cut; `None` without a hard budget or a thought.
    pub thought_tokens: Option<usize>,
    /// Tokens of a response at most: the budget, within the context and `max_tokens`, with room for the least answer.
    pub response_tokens: usize,
}

/// Counts of tokens. `completion` includes `reasoning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, once, whatever n is.
    pub prompt_tokens: usize,
    /// Of these, the ones whose KV was there already.
    pub cached_tokens: usize,
    /// Tokens of all responses together.
    pub completion_tokens: usize,
    /// Of these, the ones inside thoughts.
    pub reasoning_tokens: usize,
    /// Tokens that were computed to score the answers. No part of `completion_tokens`.
    pub verifier_tokens: usize,
}

/// How long it took. A rate is 0 where nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    /// From the query's start to its first token, milliseconds.
    pub ttft_ms: f64,
    /// Encoded prompt tokens (without the cached ones) per second.
    pub prefill_tps: f64,
    /// Tokens of all streams per second, from the first token to the last.
    pub decode_tps: f64,
    /// From the query's start to its end, milliseconds.
    pub total_ms: f64,
}

/// Whether an adapter took part, and from where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterUse {
    /// The base alone.
    Base,
    /// Masked: the prompt's first `shared_tokens` were encoded by the base, their KV serves both modes.
    Masked {
        /// Tokens before the adapter starts.
        shared_tokens: usize,
    },
    /// A plain LoRA runs from the first token: nothing is shared with the base.
    Plain,
    /// The adapter's invocation does not occur in the prompt, so the base answered.
    NotInvoked,
}

/// The final result of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// One per stream that was begun, in order.
    pub choices: Vec<Choice>,
    /// The vote, if one was asked for.
    pub vote: Option<Vote>,
    /// The switcher's decision, if it was asked.
    pub decision: Option<Decision>,
    /// The budget, if one was asked for.
    pub budget: Option<BudgetUse>,
    /// Token counts.
    pub usage: Usage,
    /// Times and rates.
    pub timings: Timings,
    /// What the adapter did.
    pub adapter: AdapterUse,
}

impl Answer {
    /// The choice to show: the vote's winner, or the first.
    pub fn chosen(&self) -> Option<&Choice> {
        let winner = self.vote.as_ref().and_then(Vote::winner);
        self.choices.get(winner.unwrap_or(0))
    }
}
