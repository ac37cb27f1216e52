//! What can be asked of a [`crate::Reasoner`].

use edgethink_engine::Sampling;
use edgethink_model::Message;

use crate::error::ReasonError;

/// Whether the answer is thought through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Think {
    /// With the adapter if there is one, otherwise by the template's own switch (`enable_thinking`).
    On,
    /// The base answers directly.
    Off,
}

/// The prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A conversation, put into the model's chat template. Thoughts of earlier turns should be left out of it.
    Messages(Vec<Message>),
    /// Text that goes to the tokenizer as it is.
    Raw(String),
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The prompt.
    pub input: Input,
    /// Think or answer at once.
    pub think: Think,
    /// Parallel streams from the one prompt, at least 1.
    pub n: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Every draw is a function of (seed, stream, position).
    pub seed: u64,
    /// At most this many tokens per stream; `None` for what fits in the context.
    pub max_tokens: Option<usize>,
    /// Hard limit in tokens on the whole response, see [`crate::budget`]. 0 ends the thought at once.
    pub budget: Option<usize>,
    /// Tokens of the budget that are kept for the answer; `None` for an eighth within bounds.
    pub answer_reserve: Option<usize>,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// Go on after the end-of-turn token.
    pub ignore_eos: bool,
    /// Log-probabilities of the tokens, each with this many alternatives.
    pub top_logprobs: Option<usize>,
}

impl Query {
    /// One greedy answer to `input`, without limits of its own.
    pub fn greedy(input: Input, think: Think) -> Self {
        Self {
            input,
            think,
            n: 1,
            sampling: Sampling::greedy(),
            seed: 0,
            max_tokens: None,
            budget: None,
            answer_reserve: None,
            stop: Vec::new(),
            ignore_eos: false,
            top_logprobs: None,
        }
    }

    /// Refuses what can have no answer.
    pub(crate) fn check(&self) -> Result<(), ReasonError> {
        if self.n == 0 {
            return Err(ReasonError::NoStreams);
        }
        if self.max_tokens == Some(0) {
            return Err(ReasonError::NoTokens);
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(ReasonError::EmptyStop);
        }
        match &self.input {
            Input::Messages(messages) if messages.is_empty() => Err(ReasonError::EmptyPrompt),
            Input::Raw(text) if text.is_empty() => Err(ReasonError::EmptyPrompt),
            _ => Ok(()),
        }
    }
}
