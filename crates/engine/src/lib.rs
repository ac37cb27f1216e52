//! Inference engine: sequences, KV blocks, scheduler, adapters per token span, sampler.
//!
//! The engine knows tokens, not text. One owner calls [`Engine::submit`] and [`Engine::step`]; nothing here is asynchronous or global.
//!
//! What it guarantees: a stream's tokens depend on its own prompt, adapter, sampling settings and seed alone. Batch, chunk sizes,
//! preemption, the prefix cache and the number of threads change nothing, token for token.
//!
//! - [`engine`], [`step`](Engine::step): the owner's door, and the heart
//! - [`request`]: what goes in and comes out
//! - [`scheduler`], [`block_pool`], [`prefix_cache`], [`sequence`]: who computes what in which blocks; no tensors
//! - `runner`, `batch`, `store`, `attention`, `linear`, `rows`, `kv`, `matrix`, `packed`, `weights`, `adapters`: the forward pass
//! - [`sampler`], [`rng`], `mask`: from logits to tokens
//! - [`profile`]: where the time of a step goes
//!
//! Letters in shape comments: T token rows, E hidden, F ffn, H query heads, K kv heads, G = H/K, D head dim, V vocab, R rank.

mod active;
mod adapters;
mod attention;
mod batch;
pub mod block_pool;
pub mod engine;
pub mod error;
mod gated;
mod kv;
mod linear;
mod mask;
mod matrix;
pub mod options;
mod packed;
pub mod prefix_cache;
pub mod profile;
pub mod request;
pub mod rng;
mod rows;
mod runner;
pub mod sampler;
pub mod scheduler;
mod score;
pub mod sequence;
mod spare;
mod stats;
mod step;
mod store;
mod weights;

pub use edgethink_kernels::{
    Isa, advise_huge_pages, map_large_buffers, multiply_adds, multiply_adds_per_step, read_all,
};
pub use engine::{Engine, MAX_STREAMS};
pub use error::{EngineError, Place, RequestError};
pub use mask::TokenMask;
pub use options::{AdapterFormat, EngineOptions, KvFormat, WeightFormat};
pub use profile::{Part, PartTime};
pub use request::{
    AdapterId, AdapterSpan, Event, FinishReason, HiddenStates, Request, RequestId, Sampling,
    TokenId,
};
pub use stats::{Counters, EngineStats};
