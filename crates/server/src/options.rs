//! What the server is told when it starts: names, limits, keys, origins.

use std::path::PathBuf;
use std::time::Duration;

use crate::guard::ApiKeys;

/// Settings that hold for the life of a server.
#[derive(Debug)]
pub struct Options {
    /// The address to listen on, a name or a number.
    pub host: String,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The base's name in the API.
    pub model: String,
    /// The name in the API of the adapter that the reasoner was made with.
    pub adapter: String,
    /// Further names: (name, the model or adapter it stands for).
    pub aliases: Vec<(String, String)>,
    /// Keys of which a request must have one; empty for none.
    pub keys: ApiKeys,
    /// Where adapters may be loaded from at run time; `None` loads none.
    pub adapter_root: Option<PathBuf>,
    /// Origins of pages that browsers may let use the API; `*` is all.
    pub origins: Vec<String>,
    /// Names by which a browser may reach a server without keys, besides the loopback's.
    pub hosts: Vec<String>,
    /// Bounds on requests.
    pub limits: Limits,
}

/// Bounds on requests.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests that may wait; further ones are refused at once.
    pub queue: usize,
    /// Streams of one request.
    pub max_n: usize,
    /// Tokens of one response; a request without a limit of its own gets this one. `None` for what fits in the context.
    pub max_tokens: Option<usize>,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// From a request's arrival to the end of its answer.
    pub deadline: Duration,
    /// After a signal: how long running requests may go on.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 128,
            max_n: 64,
            max_tokens: None,
            body_bytes: 8 << 20,
            deadline: Duration::from_secs(600),
            drain: Duration::from_secs(600),
        }
    }
}

/// The server cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address is taken, or is none of this machine's.
    #[error("cannot listen on {address}; choose another --host or --port")]
    Listen {
        /// As asked for.
        address: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The system gives no event loop or thread.
    #[error("cannot start the server")]
    Start(#[source] std::io::Error),
    /// A file of keys cannot be used.
    #[error("cannot use the key file {path}: {why}")]
    Keys {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// An origin or a name that cannot be meant.
    #[error("{value:?} is no {what}")]
    Setting {
        /// What it should be.
        what: &'static str,
        /// As given.
        value: String,
    },
    /// The directory of adapters is none.
    #[error("the adapter root {path} cannot be used")]
    AdapterRoot {
        /// As given.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The engine stopped.
    #[error("the engine failed: {0}")]
    Engine(String),
}
