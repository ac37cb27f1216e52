//! What can go wrong with a switcher.

use edgethink_engine::{EngineError, RequestError};
use edgethink_model::HeadError;

/// A switcher that cannot be used, or states that it cannot read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwitcherError {
    /// The head's file is damaged, of another kind, or for another base.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The base's hash cannot be computed.
    #[error("cannot read the base's weights")]
    Base(#[source] std::io::Error),
    /// A setting of the head that is missing or out of range.
    #[error("the switcher's setting `{name}` must be {expected}; train it again")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A standard deviation that cannot divide.
    #[error("the switcher's std is not above zero at element {index}; train it again")]
    Std {
        /// Position in `std`.
        index: usize,
    },
    /// Values that are no rows of hidden states.
    #[error("{values} values are no rows of hidden states of width {width}")]
    Rows {
        /// Values given.
        values: usize,
        /// E.
        width: usize,
    },
    /// Hidden states that do not follow what was read.
    #[error("hidden states from position {found} on cannot follow those up to {expected}")]
    Gap {
        /// Position that was next.
        expected: usize,
        /// Position given.
        found: usize,
    },
    /// The prompt ended before all states came.
    #[error("the hidden states of {read} of {wanted} prompt tokens were given")]
    Unread {
        /// Tokens read.
        read: usize,
        /// Tokens that count.
        wanted: usize,
    },
    /// Nothing stands before the generation prompt.
    #[error("the prompt has no tokens that a switcher could read; give a question")]
    NoTokens,
    /// NaN or an infinity.
    #[error("{what} is not finite; the model or the switcher is damaged")]
    NotFinite {
        /// What is not.
        what: &'static str,
    },
    /// The engine refused the request, or failed at it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The engine cannot go on.
    #[error("the engine failed")]
    Engine(#[from] EngineError),
}
