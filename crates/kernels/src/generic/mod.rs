//! The float kernels, written once in terms of the `lanes` of an instruction set.
//!
//! Each file is a macro that an instruction set expands with the features to compile for: `#[target_feature]` takes a literal, and a
//! trait cannot have such functions without making them unsafe. The expanding module has a sibling `lanes` with the vector type `V`,
//! its width `W`, and safe functions on it.

mod attention;
mod attention_codes;
mod attention_floats;
mod attention_merge;
mod dense;
mod elementwise;
mod quantize;
mod roofline;

pub(crate) use attention::attention_kernels;
pub(crate) use attention_codes::attention_codes;
pub(crate) use attention_floats::attention_floats;
pub(crate) use attention_merge::attention_merge;
pub(crate) use dense::{dense_dispatch, dense_kernels};
pub(crate) use elementwise::elementwise_kernels;
pub(crate) use quantize::quantize_kernels;
pub(crate) use roofline::read_kernel;
