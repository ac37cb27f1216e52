//! The verifier: how likely a response is right, read by the same model at the cost of a few tokens (METHOD 5).
//!
//! ```text
//! [ prompt | response | question ]        the prefix cache has the KV of prompt and response: the question's tokens are computed
//!   base     adapter    base              the adapter's span ends with the response
//! ```
//!
//! [`Verifier::Head`] reads the question's last final hidden state (a trained linear layer and a sigmoid), [`Verifier::GenRm`] the
//! probability of "Yes", which needs no training. Either is one request of the engine. The caller submits [`Verifier::request`], forces
//! [`Verifier::forced`], gives the request's events to a [`Reply`], and asks for [`Verifier::score`]:
//!
//! ```
//! use edgethink_engine::{AdapterSpan, Engine};
//! use edgethink_reason::verifier::{Reply, Verifier};
//!
//! /// Of one response; the engine runs nothing else.
//! fn score(
//!     engine: &mut Engine,
//!     verifier: &Verifier,
//!     (prompt, response): (&[u32], &[u32]),
//!     span: Option<AdapterSpan>,
//! ) -> Result<f32, Box<dyn std::error::Error>> {
//!     let id = engine.submit(verifier.request(prompt, response, span))?;
//!     engine.force(id, 0, verifier.forced())?;
//!     let mut reply = Reply::default();
//!     while !engine.idle() {
//!         engine.step()?.iter().for_each(|event| reply.take(event));
//!     }
//!     Ok(verifier.score(&reply)?)
//! }
//! ```

pub mod genrm;
pub mod head;

use edgethink_engine::{AdapterSpan, Event, HiddenStates, Request};
use edgethink_model::{HeadError, TokenizerError};

pub use genrm::GenRm;
pub use head::VerifierHead;

/// A verifier that cannot be used, or a score that is no number.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// The head's file is refused: another base, a missing tensor.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The base's weights could not be read to compare them with the head's.
    #[error("cannot read the base's weights to compare them with the verifier's")]
    Base(#[source] std::io::Error),
    /// A setting of the head is missing or of the wrong kind.
    #[error("the verifier's head.json has no setting `{name}`, {expected}; train it again")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The base cannot turn the question into tokens.
    #[error("the model has no tokenizer; put its tokenizer.json beside config.json")]
    NoTokenizer,
    /// The tokenizer failed.
    #[error("the verifier's question cannot be tokenized")]
    Tokenizer(#[from] TokenizerError),
    /// A text without tokens.
    #[error("the verifier's {what} has no tokens; give it at least one")]
    Empty {
        /// The question or the answer.
        what: &'static str,
    },
    /// The engine gave fewer values than the verifier reads: its request failed or was cancelled.
    #[error(
        "the verifier reads {expected} values, the engine gave {found}; its request did not end"
    )]
    Length {
        /// What is read.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// The head reads a confidence that the caller did not give.
    #[error(
        "this verifier reads the mean log-probability of the response; give it with the reply, or train one without confidence"
    )]
    Confidence,
    /// NaN or an infinity among the values, or a score that is none.
    #[error("the verifier's score is not a number; the base or the head is damaged")]
    NotANumber,
}

/// How responses are scored.
#[derive(Debug, Clone, PartialEq)]
pub enum Verifier {
    /// A trained linear layer.
    Head(VerifierHead),
    /// The probability of "Yes".
    GenRm(GenRm),
}

impl Verifier {
    /// The engine's request that scores `response` to `prompt`.
    ///
    /// `response` are the tokens of a finished stream without the end of turn, `span` where the adapter acted on them (its `until` is set
    /// here). The engine refuses it if prompt, response and question exceed the context.
    pub fn request(&self, prompt: &[u32], response: &[u32], span: Option<AdapterSpan>) -> Request {
        let until = prompt.len() + response.len();
        let question = self.question();
        let mut tokens = Vec::with_capacity(until + question.len());
        for part in [prompt, response, question] {
            tokens.extend_from_slice(part);
        }
        Request {
            adapter: span.map(|span| AdapterSpan { until, ..span }),
            hidden: match self {
                Self::Head(_) => HiddenStates::Last,
                Self::GenRm(_) => HiddenStates::None,
            },
            ..Request::greedy(tokens, self.forced().len())
        }
    }

    /// Tokens of the verification question, which each response costs, `[Q]`.
    pub fn question(&self) -> &[u32] {
        match self {
            Self::Head(head) => head.question(),
            Self::GenRm(genrm) => genrm.question(),
        }
    }

    /// Tokens to force upon the request's only stream: none for a head, those of "Yes" for GenRM.
    pub fn forced(&self) -> &[u32] {
        match self {
            Self::Head(_) => &[],
            Self::GenRm(genrm) => genrm.yes(),
        }
    }

    /// Tokens computed for one response: the question, and all but the last of the forced ones.
    pub fn cost_tokens(&self) -> usize {
        self.question().len() + self.forced().len().saturating_sub(1)
    }

    /// Whether [`Reply::mean_logprob`] must be given.
    pub fn reads_confidence(&self) -> bool {
        match self {
            Self::Head(head) => head.reads_confidence(),
            Self::GenRm(_) => false,
        }
    }

    /// How likely the response is right, 0 to 1.
    ///
    /// # Errors
    /// [`VerifierError::Length`] for a reply that is not whole, [`VerifierError::Confidence`], [`VerifierError::NotANumber`].
    pub fn score(&self, reply: &Reply) -> Result<f32, VerifierError> {
        match self {
            Self::Head(head) => head.score(&reply.hidden, reply.mean_logprob),
            Self::GenRm(genrm) => genrm.score(&reply.logprobs),
        }
    }
}

/// What is known of a response: what the engine answers to a verifier's request, and what decoding has told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// Final hidden state of the question's last token, `[E]`.
    pub hidden: Vec<f32>,
    /// Log-probabilities of the forced tokens, nats.
    pub logprobs: Vec<f32>,
    /// Mean log-probability of the response's tokens before temperature, nats, the end of turn included if it was drawn. The caller
    /// gives it where [`Verifier::reads_confidence`].
    pub mean_logprob: Option<f32>,
}

impl Reply {
    /// Keeps what an event of the request says.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Hidden { data, .. } => self.hidden.extend_from_slice(data),
            Event::Token { logprob, .. } => self.logprobs.push(*logprob),
            _ => {}
        }
    }
}
