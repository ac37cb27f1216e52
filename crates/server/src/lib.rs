//! An OpenAI-compatible server on top of the reasoner: one thread serves HTTP, one owns the engine.
//!
//! - [`server`]: routes, socket, drain
//! - [`options`]: names, limits, keys
//! - `worker`: the engine's thread: queue, admission, cancelling
//! - `ask`: the one place where a request of any API becomes a query
//! - `chat`, `completions`, `responses`, `messages`: one API each: its types, conversions and streams
//! - `tools`: tool calls in what the model writes
//! - `wire`, `extension`, `sse`, `extract`, `error`: what the APIs have in common
//! - `app`: what every handler shares
//! - `manage`: health, metrics, props, models, adapters, tokenizer
//! - `guard`, `page`, `openapi`: who may ask, the page, the document
//!
//! Nothing here prints, reads flags, or handles signals: the caller says when to stop.

mod app;
mod ask;
mod chat;
mod completions;
mod error;
mod extension;
mod extract;
pub mod guard;
mod manage;
mod messages;
mod metrics;
mod openapi;
pub mod options;
mod page;
mod responses;
pub mod server;
mod sse;
mod tools;
mod wire;
mod worker;

pub use guard::ApiKeys;
pub use options::{Limits, Options, ServeError};
pub use server::Server;

/// Seconds since 1970.
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
