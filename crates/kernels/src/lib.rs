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
//! ```
//! use edgethink_kernels::*;
//! # fn main() -> Result<(), KernelError> {
//! let isa = Isa::detect();
//! // Weights [16, 32] to 8-bit codes, packed.
//! let weights: Vec<f32> = (0..16 * 32).map(|i| (i % 7) as f32 - 3.0).collect();
//! let (mut codes, mut scales) = (vec![0; 512], vec![0.0; 16]);
//! quantize_weights(Bits::B8, 32, &weights, &mut codes, &mut scales)?;
//! let shape = PackedShape { rows: 16, cols: 32, bits: Bits::B8, has_offset: false };
//! let mut packed = vec![0; shape.bytes()];
//! pack_rows(&mut PackedMut::new(shape, &mut packed), 0, &codes, &scales, None)?;
//! // One row of activations, quantized.
//! let mut x = [QuantGroup::default()];
//! quantize_rows(isa, 32, &[0.5; 32], &mut x)?;
//! let mut out = [0.0; 16];
//! let w = PackedRef::new(shape, &packed);
//! gemm_packed(isa, w, 0..1, QuantRows::new(32, &x), &mut ColumnsMut::new(&mut out, 16), None);
//! let want: f32 = weights[..32].iter().sum::<f32>() * 0.5;
//! assert!((out[0] - want).abs() < 0.2);
//! # Ok(())
//! # }
//! ```
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
#[cfg(target_arch = "x86_64")]
mod fetch;
mod gemm;
mod generic;
mod heap;
mod isa;
mod memory;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod packed;
mod quantize;
mod roofline;
mod scalar;
mod unit;

pub use attention::{
    AttentionState, Causal, KvBlock, KvRef, attend_again, attend_begin, attend_block,
    attend_finish, attend_merge, attention_state_len, int8_key_at, int8_key_rows, int8_value_at,
};
pub use columns::{ColumnsMut, split_columns};
pub use dense::{DenseRef, dense_row, gemm_dense};
pub use elementwise::{add_assign, add_row, largest, log_sum_exp, rms_norm, rope, swiglu};
pub use error::KernelError;
pub use gemm::gemm_packed;
pub use heap::map_large_buffers;
pub use isa::{Isa, UnknownIsa};
pub use memory::advise_huge_pages;
pub use pack::{pack_rows, quantize_weights, unpack_row};
pub use packed::{Bits, GROUP, PANEL, PackedMut, PackedRef, PackedShape};
pub use quantize::{QuantGroup, QuantRows, quantize_columns, quantize_kv, quantize_rows};
pub use roofline::{multiply_adds, multiply_adds_per_step, read_all};
