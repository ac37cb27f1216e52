//! The method as code: from messages to an answer with thinking, budget and parallel streams.
//!
//! - [`query`]: what can be asked: messages or text, thinking on or off, n streams, sampling, limits
//! - [`prompt`]: messages to tokens, and the place where a masked adapter starts
//! - [`reasoner`]: owns the engine, runs any number of queries at once, gives out events and answers
//! - [`split`]: streamed text into thought and answer
//! - [`stop`]: stop strings over token borders
//! - [`budget`]: the hard limit that closes a thought and forces an answer
//! - [`loops`]: sees a thought that repeats itself
//! - [`mod@format`]: what an adapter says of itself: how its thoughts end, how a budget is named to it
//! - [`grammar`], `form`: answers in a given form, such as JSON
//! - `thinker`: the adapters that think, by name
//! - [`switcher`]: reads hidden states while the prompt is encoded, and says whether to think
//! - [`verifier`]: how likely a response is right
//! - [`vote`]: from the answers of N streams to one, and when to stop asking
//! - `decide`, `drive`, `judge`: the pipeline of a query: its mode, its tokens, its scores and its vote
//! - [`event`], [`answer`]: what happens, and what comes back
//!
//! Nothing here prints or reads flags, and `edgethink.json` is the only file that is known.

pub mod answer;
pub mod budget;
mod decide;
mod drive;
pub mod error;
pub mod event;
mod form;
pub mod format;
pub mod grammar;
mod job;
mod judge;
pub mod loops;
pub mod prompt;
pub mod query;
pub mod reasoner;
pub mod split;
pub mod stop;
mod stream;
mod submit;
pub mod switcher;
mod thinker;
pub mod verifier;
pub mod vote;

pub use answer::{
    AdapterUse, Answer, BudgetUse, Choice, Decision, FinishReason, ThoughtEnd, Timings,
    TokenLogprob, Usage,
};
pub use error::ReasonError;
pub use event::{Event, QueryId};
pub use format::{FormatError, ThoughtFormat};
pub use grammar::Grammar;
pub use query::{Effort, Input, MinThink, Query, Scoring, Think};
pub use reasoner::Reasoner;
pub use switcher::{Switcher, SwitcherError};
pub use verifier::{Verifier, VerifierError, VerifierHead};
pub use vote::{Aggregate, EarlyStop, Vote};
