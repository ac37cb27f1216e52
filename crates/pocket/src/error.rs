//! What can go wrong while a data set is written.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PocketError {
    /// A file could not be read or written.
    #[error("cannot write the data set: check that the folder exists and has space")]
    Io(#[from] std::io::Error),
    /// An example could not be written as JSON.
    #[error("cannot write an example as json")]
    Json(#[from] serde_json::Error),
    /// The settings do not describe a data set.
    #[error("the data set's settings are refused: {}", problems.join("; "))]
    Spec {
        /// All that is wrong, one sentence each.
        problems: Vec<String>,
    },
    /// The tokenizer could not be trained.
    #[error("cannot train the tokenizer: {reason}")]
    Tokenizer {
        /// What the tokenizer library said.
        reason: String,
    },
}
