//! Post-training quantization (METHOD 6): ranges, Hessian-aware rounding, function-preserving transforms, layer by layer.
//!
//! - [`scheme`]: what is wanted, as TOML
//! - [`range`]: the scale of a group (min-max or L^p), `rounding`: its codes as Q4_0 or Q8_0 blocks
//! - [`gptq`]: rounding that makes up for its own error, by the Hessian of the calibration text; `descent` fits scales and codes to it
//! - [`transforms`]: changes of the weights that leave the function alone and make it easier to quantize; [`fold_adapter`] takes an
//!   adapter along
//! - `forward`: the calibration text through one layer; [`layer`]: its weights as f32
//! - [`trained`]: transforms and ranges that `train` found end to end; [`straight_through`]: the rounding that it learns through
//! - [`run`]: a whole model, in the memory of a few layers, to a GGUF file; `work`: what survives a kill
//!
//! Letters in shape comments: T tokens, E hidden, F ffn, H query heads, K kv heads, D head dim, V vocab.

mod adapter;
mod descent;
pub mod error;
mod forward;
pub mod gptq;
pub mod layer;
mod parallel;
pub mod range;
mod rounding;
pub mod run;
pub mod scheme;
pub mod straight_through;
pub mod trained;
pub mod transforms;
mod work;

pub use adapter::fold_adapter;
pub use error::QuantizeError;
pub use rounding::nearest;
pub use run::{Job, Progress, Report, quantize};
pub use scheme::Scheme;
pub use trained::{Origin, Trained};
