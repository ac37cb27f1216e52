//! What can be asked of a [`crate::Reasoner`].

use edgethink_engine::Sampling;
use edgethink_model::Message;
use serde_json::{Map, Value};

use crate::error::ReasonError;
use crate::format::ThoughtFormat;
use crate::grammar::Grammar;
use crate::vote::{Aggregate, EarlyStop};

/// Whether the answer is thought through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Think {
    /// With the adapter if there is one, otherwise by the template's own switch (`enable_thinking`).
    On,
    /// The base answers directly.
    Off,
    /// The switcher decides while the prompt is encoded (METHOD 4).
    Auto,
}

/// What scores the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scoring {
    /// Nothing.
    #[default]
    Off,
    /// The trained verifier head (METHOD 5).
    Verifier,
    /// The base itself, asked whether the answer is correct: its p("Yes"). Needs no training.
    GenRm,
}

/// The prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A conversation, put into the model's chat template. Thoughts of earlier turns should be left out of it.
    Messages(Vec<Message>),
    /// Text that goes to the tokenizer as it is.
    Raw(String),
    /// Tokens that go to the model as they are.
    Tokens(Vec<u32>),
}

/// The least length of a thought (budget forcing of s1, arXiv 2501.19393, §3.1): while it is shorter, its end is taken back and
/// replaced by a continuation.
///
/// Never goes past a budget: where the continuation would not fit, the thought ends. Needs a model whose closing tag is one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinThink {
    /// Tokens that a thought should have at least, without its tags.
    pub tokens: usize,
    /// What replaces the end.
    pub continuation: String,
    /// How often at most; after that the thought may end.
    pub times: usize,
}

/// s1's continuation.
pub const DEFAULT_CONTINUATION: &str = "Wait";
/// As often as s1 tried it at most.
pub const DEFAULT_CONTINUATIONS: usize = 6;

impl MinThink {
    /// At least `tokens`, with "Wait" up to six times.
    pub fn new(tokens: usize) -> Self {
        Self {
            tokens,
            continuation: DEFAULT_CONTINUATION.to_owned(),
            times: DEFAULT_CONTINUATIONS,
        }
    }
}

/// How hard to think, in the words of OpenAI's `reasoning_effort`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effort {
    /// Answer at once.
    None,
    /// Think within the smallest budget that the adapter was trained with.
    Minimal,
    /// Within a small one.
    Low,
    /// Within a larger one.
    Medium,
    /// Within the largest one.
    High,
    /// Think without a budget.
    Xhigh,
}

impl Effort {
    /// One of `budgets`, which grow; `None` where there is no limit or no thought.
    pub fn budget(self, budgets: &[usize]) -> Option<usize> {
        let last = budgets.len().checked_sub(1)?;
        let share = match self {
            Self::None | Self::Xhigh => return None,
            Self::Minimal => 0,
            Self::Low => last.div_ceil(3),
            Self::Medium => (2 * last).div_ceil(3),
            Self::High => last,
        };
        budgets.get(share).copied()
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The prompt.
    pub input: Input,
    /// Think or answer at once.
    pub think: Think,
    /// Which of the loaded adapters thinks ([`crate::Reasoner::load_adapter`]); `None` for the reasoner's own.
    pub adapter: Option<String>,
    /// More variables for the chat template, such as `tools`.
    pub template: Map<String, Value>,
    /// The form that the answer must have.
    pub grammar: Option<Grammar>,
    /// Parallel streams from the one prompt, at least 1.
    pub n: usize,
    /// With [`Think::Auto`]: `n` is the most; a score at the switcher's threshold gets one stream, a score of 1 all of them, and a query
    /// that is answered at once gets one.
    pub scale_n: bool,
    /// What scores the answers.
    pub scoring: Scoring,
    /// How the streams' answers become one; `None` leaves them side by side.
    pub vote: Option<Aggregate>,
    /// Ends the streams that still run once the vote is decided.
    pub early_stop: Option<EarlyStop>,
    /// With an early stop: begins only as many streams as can decide the vote, and more where they do not. The fewest tokens; an open
    /// vote takes longer, since later streams begin when earlier ones have ended.
    pub waves: bool,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Every draw is a function of (seed, stream, position).
    pub seed: u64,
    /// At most this many tokens per stream; `None` for what fits in the context.
    pub max_tokens: Option<usize>,
    /// Hard limit in tokens on the whole response, see [`crate::budget`]. 0 ends the thought at once.
    pub budget: Option<usize>,
    /// The budget that the prompt names, in the line that the model was trained with ([`crate::ThoughtFormat::budget_line`]): the
    /// last line of the last user turn. It limits nothing by itself. Not named if the model knows no line, if the prompt is
    /// raw text, or with [`Think::Off`]; [`crate::BudgetUse::line`] says what was written.
    pub named_budget: Option<usize>,
    /// Tokens of the budget that are kept for the answer; `None` for an eighth within bounds.
    pub answer_reserve: Option<usize>,
    /// A thought that ends earlier goes on.
    pub min_think: Option<MinThink>,
    /// Close a thought that repeats itself, see [`crate::loops`].
    pub stop_loops: bool,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// Go on after the end-of-turn token.
    pub ignore_eos: bool,
    /// Log-probabilities of the tokens, each with this many alternatives.
    pub top_logprobs: Option<usize>,
    /// These are of the distribution that the tokens were drawn from, after temperature and filters, not the model's own; 0 for
    /// [`Sampling::greedy`]. Alternatives would still be the model's own, so none may be asked for.
    pub drawn_logprobs: bool,
    /// The response is one text: no thought is told apart in it. For raw prompts that an adapter goes on with ([`Think::On`]).
    pub whole: bool,
}

impl Query {
    /// One greedy answer to `input`, without limits of its own.
    pub fn greedy(input: Input, think: Think) -> Self {
        Self {
            input,
            think,
            adapter: None,
            template: Map::new(),
            grammar: None,
            n: 1,
            scale_n: false,
            scoring: Scoring::Off,
            vote: None,
            early_stop: None,
            waves: false,
            sampling: Sampling::greedy(),
            seed: 0,
            max_tokens: None,
            budget: None,
            named_budget: None,
            answer_reserve: None,
            min_think: None,
            stop_loops: false,
            stop: Vec::new(),
            ignore_eos: false,
            top_logprobs: None,
            drawn_logprobs: false,
            whole: false,
        }
    }

    /// The same with a budget that is both a hard limit and named in the prompt.
    #[must_use]
    pub fn with_budget(self, tokens: usize) -> Self {
        Self {
            budget: Some(tokens),
            named_budget: Some(tokens),
            ..self
        }
    }

    /// The same with this much thinking: on or off, with a hard limit that is also named in the prompt, of those in `format`.
    #[must_use]
    pub fn with_effort(self, effort: Effort, format: &ThoughtFormat) -> Self {
        let budget = effort.budget(&format.budgets);
        Self {
            think: if effort == Effort::None {
                Think::Off
            } else {
                Think::On
            },
            budget,
            named_budget: budget,
            ..self
        }
    }

    /// Refuses what can have no answer.
    pub(crate) fn check(&self) -> Result<(), ReasonError> {
        if self.n == 0 {
            return Err(ReasonError::NoStreams);
        }
        if self.scale_n && self.think != Think::Auto {
            return Err(ReasonError::ScaleWithoutAuto);
        }
        match (self.vote, self.early_stop) {
            (Some(vote), _) if vote.needs_scores() && self.scoring == Scoring::Off => {
                return Err(ReasonError::VoteWithoutScores { vote });
            }
            (None, Some(_)) => return Err(ReasonError::StopWithoutVote),
            (_, None) if self.waves => return Err(ReasonError::WavesWithoutStop),
            (_, Some(EarlyStop::Confidence(wanted))) if !(wanted > 0.5 && wanted < 1.0) => {
                return Err(ReasonError::Confidence { wanted });
            }
            _ => {}
        }
        if self.drawn_logprobs && self.top_logprobs.is_some_and(|top| top > 0) {
            return Err(ReasonError::DrawnAlternatives);
        }
        if self.grammar.is_some() && self.ignore_eos {
            return Err(ReasonError::GrammarIgnoresEos);
        }
        if self.max_tokens == Some(0) {
            return Err(ReasonError::NoTokens);
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(ReasonError::EmptyStop);
        }
        if let Some(min) = &self.min_think {
            if min.continuation.trim().is_empty() {
                return Err(ReasonError::EmptyContinuation);
            }
            if self.sampling.presence_penalty != 0.0 || self.sampling.frequency_penalty != 0.0 {
                return Err(ReasonError::MinThinkPenalty);
            }
        }
        match &self.input {
            Input::Messages(messages) if messages.is_empty() => Err(ReasonError::EmptyPrompt),
            Input::Raw(text) if text.is_empty() => Err(ReasonError::EmptyPrompt),
            Input::Tokens(tokens) if tokens.is_empty() => Err(ReasonError::EmptyPrompt),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_effort_is_a_larger_budget() {
        let efforts = [
            Effort::None,
            Effort::Minimal,
            Effort::Low,
            Effort::Medium,
            Effort::High,
            Effort::Xhigh,
        ];
        let of = |budgets: &[usize]| efforts.map(|effort| effort.budget(budgets));
        let [a, b, c, d] = [96, 128, 192, 256].map(Some);
        assert_eq!(of(&[96, 128, 192, 256]), [None, a, b, c, d, None]);
        assert_eq!(of(&[256]), [None, d, d, d, d, None]);
        assert_eq!(of(&[]), [None; 6]);
        let query = Query::greedy(Input::Raw("x".to_owned()), Think::Auto);
        let low = query
            .clone()
            .with_effort(Effort::Low, &ThoughtFormat::default());
        assert_eq!(
            (low.think, low.budget),
            (Think::On, Some(3000)),
            "the paper's budgets"
        );
        let none = query.with_effort(Effort::None, &ThoughtFormat::default());
        assert_eq!((none.think, none.budget), (Think::Off, None));
    }
}
