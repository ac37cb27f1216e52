//! What can go wrong between a query and its answer.

use edgethink_engine::{EngineError, RequestError};
use edgethink_model::template::TemplateError;
use edgethink_model::tokenizer::TokenizerError;

use crate::format::FormatError;
use crate::switcher::SwitcherError;
use crate::verifier::VerifierError;
use crate::vote::Aggregate;

/// A query that cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReasonError {
    /// n is 0.
    #[error("n is 0; ask for at least one answer")]
    NoStreams,
    /// The switcher was to decide, but there is none.
    #[error(
        "think auto needs a switcher, and this model has none; say on or off, or train one (edgethink train switcher)"
    )]
    NoSwitcher,
    /// The number of streams was to follow a score that nobody makes.
    #[error("the number of streams can follow the switcher's score with think auto only")]
    ScaleWithoutAuto,
    /// Answers were to be scored by a head, but there is none.
    #[error(
        "verifying needs a verifier, and this model has none; train one (edgethink train verifier), or use the base itself (genrm)"
    )]
    NoVerifier,
    /// A vote by scores, but nothing scores.
    #[error(
        "a {} vote needs scores; turn verifying on, or take the majority",
        vote.as_str()
    )]
    VoteWithoutScores {
        /// The vote asked for.
        vote: Aggregate,
    },
    /// An early stop of a vote that does not take place.
    #[error("stopping early needs a vote; ask for one, such as majority")]
    StopWithoutVote,
    /// Streams were to begin as the vote needs them, but it does not stop early.
    #[error("streams begin in waves only if the vote may stop early; turn that on")]
    WavesWithoutStop,
    /// A confidence that no vote or every vote has.
    #[error("the confidence {wanted} must be above 0.5 and below 1")]
    Confidence {
        /// As asked for.
        wanted: f64,
    },
    /// The switcher cannot be used, or cannot read the prompt.
    #[error("the switcher failed")]
    Switcher(#[from] SwitcherError),
    /// The verifier cannot be used, or gave no score.
    #[error("the verifier failed")]
    Verifier(#[from] VerifierError),
    /// No adapter of this name is loaded.
    #[error("no adapter {name:?} is loaded")]
    UnknownAdapter {
        /// As asked for.
        name: String,
    },
    /// The name is taken.
    #[error("an adapter {name:?} is loaded already; unload it, or take another name")]
    AdapterExists {
        /// The name.
        name: String,
    },
    /// The query is answered, or was never asked.
    #[error("there is no such query in flight")]
    UnknownQuery,
    /// A form that answers cannot have, or an answer that cannot keep to it.
    #[error("the form of the answer cannot be used: {why}")]
    Grammar {
        /// What the grammar's compiler says.
        why: String,
    },
    /// An answer in a given form ends where the form ends.
    #[error("an answer in a given form cannot ignore the end of its turn; turn one of the two off")]
    GrammarIgnoresEos,
    /// Alternatives have the model's own log-probabilities, drawn tokens would have others.
    #[error(
        "log-probabilities of the drawn distribution come without alternatives; ask for 0 of them"
    )]
    DrawnAlternatives,
    /// `max_tokens` is 0.
    #[error("max_tokens is 0; allow at least one token")]
    NoTokens,
    /// A stop string is empty.
    #[error("a stop string is empty; it would end every answer before its first character")]
    EmptyStop,
    /// The continuation of a thought that is too short is empty.
    #[error("the continuation of a short thought is empty; give a word such as \"Wait\"")]
    EmptyContinuation,
    /// A least length of the thought where the end of a thought cannot be taken back.
    #[error("a least thought needs a model that writes {tag} as one token; this one does not")]
    MinThinkTag {
        /// The closing tag.
        tag: String,
    },
    /// A continued thought is a prompt to the engine, and these penalties count the response only.
    #[error(
        "a least thought cannot be combined with a presence or frequency penalty; use a repetition penalty"
    )]
    MinThinkPenalty,
    /// The model's thought format cannot be used.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// No messages, an empty text, or a text without tokens.
    #[error("the prompt is empty; give a question")]
    EmptyPrompt,
    /// Messages were given to a model without a template.
    #[error(
        "the model has no chat template; give raw text instead (--raw), or a model with chat_template.jinja"
    )]
    NoTemplate,
    /// The model has no tokenizer.
    #[error("the model has no tokenizer; put its tokenizer.json beside config.json")]
    NoTokenizer,
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt} tokens and the context {context}, which leaves {left} for the answer but {needed} are needed; shorten the prompt"
    )]
    NoRoom {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        context: usize,
        /// What is left.
        left: usize,
        /// The least an answer takes.
        needed: usize,
    },
    /// The chat template refused the messages.
    #[error("the messages do not fit the model's chat template")]
    Template(#[from] TemplateError),
    /// The tokenizer failed.
    #[error("the text cannot be tokenized")]
    Tokenizer(#[from] TokenizerError),
    /// The engine refused the request, or failed at it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The engine cannot go on.
    #[error("the engine failed")]
    Engine(#[from] EngineError),
}
