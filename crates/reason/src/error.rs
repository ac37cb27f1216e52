//! What can go wrong between a query and its answer.

use edgethink_engine::{EngineError, RequestError};
use edgethink_model::template::TemplateError;
use edgethink_model::tokenizer::TokenizerError;

/// A query that cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReasonError {
    /// n is 0.
    #[error("n is 0; ask for at least one answer")]
    NoStreams,
    /// `max_tokens` is 0.
    #[error("max_tokens is 0; allow at least one token")]
    NoTokens,
    /// A stop string is empty.
    #[error("a stop string is empty; it would end every answer before its first character")]
    EmptyStop,
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
