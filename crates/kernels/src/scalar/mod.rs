//! Plain Rust for every operation: what runs where nothing better is known, and what the SIMD kernels are compared to.

pub(crate) mod attention;
pub(crate) mod attention_i8;
pub(crate) mod dense;
pub(crate) mod elementwise;
pub(crate) mod packed;
pub(crate) mod quantize;
pub(crate) mod roofline;
