//! Evaluation: tasks, models under test, a record of every answer, statistics, and the report.
//!
//! - [`task`], [`rows`], [`question`]: from a task's definition and a data set's rows to questions with their right answers
//! - [`subject`]: what answers: [`local`] (the reasoner of this program) or [`endpoint`] (any server with OpenAI's API)
//! - [`run`], [`record`], [`columns`], [`store`]: asks what is open and keeps every answer, so that a stopped run goes on
//! - [`code`]: programs under test, in a sandbox
//! - [`stats`], [`votes`], [`summary`]: figures from records
//! - [`resources`]: wall time, memory, energy
//! - [`mod@chart`], [`routed`], [`report`]: pictures, and the page that shows everything beside the paper's own numbers
//!
//! Nothing here prints or reads flags.

pub mod chart;
pub mod code;
pub mod columns;
pub mod endpoint;
pub mod error;
mod livecodebench;
pub mod local;
pub mod question;
pub mod record;
pub mod report;
pub mod resources;
pub mod routed;
pub mod rows;
pub mod run;
pub mod stats;
pub mod store;
pub mod subject;
pub mod summary;
pub mod task;
pub mod votes;

pub use error::EvalError;
