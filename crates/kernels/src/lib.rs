//! Arithmetic of inference on slices: scalar reference and SIMD per operation, chosen at run time.
//!
//! No function here allocates, starts a thread or knows a model: the caller gives slices, row ranges and scratch, and an [`Isa`].
//!
//! **Rows are independent.** The floating-point operations behind one output element, and their order, are the same whatever the
//! number of rows in the call and wherever the caller splits the work. So a batch equals its members alone, chunked prefill equals
//! whole prefill, and one thread equals many, bit for bit. Different ISAs may differ from each other in the last bits.
//!
//! **Contracts.** A wrong shape is a defect of the caller: every function asserts its shapes and panics with the numbers. Non-finite
//! data is an input error: the functions through which all data passes ([`quantize_rows`], [`quantize_kv`], [`rms_norm`],
//! [`attend_finish`], [`log_sum_exp`], packing) return [`KernelError`].
//!
//! Letters in shape comments: T rows (tokens), E columns of the input, N columns of the output, H heads, D head dim,
//! S cached tokens, R query rows that share a kv head.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod columns;
mod dense;
mod elementwise;
mod error;
mod gemm;
mod generic;
mod isa;
mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod packed;
mod quantize;
mod scalar;

pub use attention::{
    AttentionState, Causal, KvBlock, KvRef, attend_begin, attend_block, attend_finish,
    attention_state_len,
};
pub use columns::{ColumnsMut, split_columns};
pub use dense::{DenseRef, dense_row, gemm_dense};
pub use elementwise::{add_assign, add_row, log_sum_exp, rms_norm, rope, swiglu};
pub use error::KernelError;
pub use gemm::gemm_packed;
pub use isa::{Isa, UnknownIsa};
pub use memory::advise_huge_pages;
pub use pack::{pack_rows, quantize_weights, unpack_row};
pub use packed::{Bits, GROUP, PANEL, PackedMut, PackedRef, PackedShape};
pub use quantize::{QuantRows, QuantRowsMut, quantize_kv, quantize_rows};
