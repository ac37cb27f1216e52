//! The method as code: from messages to an answer with thinking, budget and parallel streams.
//!
//! - [`query`]: what can be asked: messages or text, thinking on or off, n streams, sampling, limits
//! - [`prompt`]: messages to tokens, and the place where a masked adapter starts
//! - [`reasoner`]: owns the engine, runs any number of queries at once, gives out events and answers
//! - [`split`]: streamed text into thought and answer
//! - [`stop`]: stop strings over token borders
//! - [`budget`]: the hard limit that closes a thought and forces an answer
//! - [`event`], [`answer`]: what happens, and what comes back
//!
//! Nothing here prints, reads flags, or knows a file format.

pub mod answer;
pub mod budget;
pub mod error;
pub mod event;
mod job;
pub mod prompt;
pub mod query;
pub mod reasoner;
pub mod split;
pub mod stop;
mod stream;

pub use answer::{AdapterUse, Answer, Choice, FinishReason, Timings, TokenLogprob, Usage};
pub use error::ReasonError;
pub use event::{Event, QueryId};
pub use query::{Input, Query, Think};
pub use reasoner::{Reasoner, ThoughtFormat};
