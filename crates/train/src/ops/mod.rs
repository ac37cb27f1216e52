//! The arithmetic of training as a few fused operations with hand-written gradients.
//!
//! The tensor library gives the autodiff tape, the tensors and the matrix product. Its elementwise operations
//! each pass over memory once more, so everything between two matrix products is one operation here. Each file
//! holds one operation: the forward on slices, the backward on slices, and the entry on the tape.
//!
//! Shapes are `[T, *]`: the rows of a micro-batch are the tokens of its documents, one after the other, without
//! padding. Letters: T tokens, E hidden, H query heads, K kv heads, D head dim, F ffn, V vocab, R rank.

pub(crate) mod attention;
pub(crate) mod blocks;
#[cfg(any(test, feature = "gpu"))]
pub(crate) mod composed;
pub(crate) mod cross_entropy;
pub(crate) mod embedding;
pub(crate) mod frozen;
pub(crate) mod linear;
pub(crate) mod lora;
pub(crate) mod rms_norm;
pub(crate) mod simd;
pub(crate) mod swiglu;

use std::sync::Arc;

use burn_autodiff::Autodiff;
use burn_backend::{Backend, Shape, TensorData, TensorMetadata, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor};

pub(crate) use attention::AttentionPlan;
#[cfg(any(test, feature = "gpu"))]
pub(crate) use composed::Composed;
pub(crate) use cross_entropy::{Lesson, Score, Targets};
pub(crate) use lora::AdapterRows;

use crate::recipe::FloatType;

/// The backend that records a tape.
pub(crate) type Taped = Autodiff<Flex>;

/// What the network needs of a tensor library, beyond `float_add` and `float_reshape`.
///
/// Operations on `Autodiff<_>` also record the gradient. `Flex` and [`Taped`] have fused ones for the CPU; [`Composed`] writes them with the
/// operations of any backend.
pub(crate) trait NetOps: std::fmt::Debug + 'static {
    /// Whose tensors they work on.
    type Backend: Backend;
    /// The same without a tape.
    type Inner: Backend;

    /// `y = x / sqrt(mean(x^2) + eps) * weight` for each row of `weight.len()` values.
    fn rms_norm(x: Tensor<Self>, weight: Tensor<Self>, eps: f32) -> Tensor<Self>;
    /// `y [T, out] = x [T, in] W^T + bias`, `W [out, in]`. `compute` is of the product, and `Bf16` of a frozen `W` alone.
    fn project(
        x: Tensor<Self>,
        weight: Tensor<Self>,
        bias: Option<Tensor<Self>>,
        compute: FloatType,
    ) -> Tensor<Self>;
    /// As `project`, with frozen `weight` and `bias`, plus `scale * B A x` on the rows where the adapter is on.
    fn project_with_adapter(
        x: Tensor<Self>,
        frozen: lora::Frozen<'_, Self::Backend>,
        a: Tensor<Self>,
        b: Tensor<Self>,
        plan: lora::LoraPlan,
    ) -> Tensor<Self>;
    /// Rotary positions and causal attention inside each document: q `[T, H D]`, k and v `[T, K D]` -> `[T, H D]`.
    fn attend(
        q: Tensor<Self>,
        k: Tensor<Self>,
        v: Tensor<Self>,
        plan: &Arc<AttentionPlan>,
    ) -> Tensor<Self>;
    /// `silu(gate) * up`.
    fn swiglu(gate: Tensor<Self>, up: Tensor<Self>) -> Tensor<Self>;
    /// Rows `ids` of `table [V, E]`.
    fn embed(table: Tensor<Self>, ids: &Arc<[u32]>) -> Tensor<Self>;
    /// Weighted sum of the negative log-likelihoods (nats) of `targets` under `softmax(hidden head^T)`, or, with a lesson, of the divergences
    /// from its distributions: `[1]`.
    fn cross_entropy(
        hidden: Tensor<Self>,
        head: Tensor<Self>,
        targets: &Arc<Targets>,
        lesson: Option<&Lesson<Self::Inner>>,
    ) -> Tensor<Self>;
}

/// A tensor that some operations work on.
pub(crate) type Tensor<O> = FloatTensor<<O as NetOps>::Backend>;

/// A tensor from a vector, without a copy.
pub(crate) fn tensor(data: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, Shape::from(shape.to_vec())))
}

/// The same tensor with its values in row order.
pub(crate) fn dense(t: FlexTensor) -> FlexTensor {
    if t.as_slice::<f32>().is_some() {
        t
    } else {
        t.to_contiguous()
    }
}

/// The values of a tensor made by [`dense`] or [`tensor`].
///
/// # Panics
/// If the tensor is not contiguous f32: the callers make sure of it.
pub(crate) fn values(t: &FlexTensor) -> &[f32] {
    t.as_slice::<f32>()
        .expect("operations keep their tensors contiguous and f32")
}

/// Copies the values out, in row order.
pub(crate) fn into_vec(t: FlexTensor) -> Vec<f32> {
    let t = dense(t);
    values(&t).to_vec()
}

/// Rows and columns of a two-dimensional tensor.
pub(crate) fn rows_cols(t: &FlexTensor) -> (usize, usize) {
    let shape = t.shape();
    (shape[0], shape[1])
}

impl NetOps for Flex {
    type Backend = Self;
    type Inner = Self;

    fn rms_norm(x: FlexTensor, weight: FlexTensor, eps: f32) -> FlexTensor {
        rms_norm::forward(&dense(x), &dense(weight), eps).0
    }
    fn project(
        x: FlexTensor,
        weight: FlexTensor,
        bias: Option<FlexTensor>,
        compute: FloatType,
    ) -> FlexTensor {
        linear::forward(&x, &weight, bias.as_ref(), compute)
    }
    fn project_with_adapter(
        x: FlexTensor,
        frozen: lora::Frozen<'_, Self>,
        a: FlexTensor,
        b: FlexTensor,
        plan: lora::LoraPlan,
    ) -> FlexTensor {
        lora::forward(&dense(x), &frozen, &a, &b, &plan).0
    }
    fn attend(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        plan: &Arc<AttentionPlan>,
    ) -> FlexTensor {
        attention::forward(q, k, v, plan).out
    }
    fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        swiglu::forward(&dense(gate), &dense(up))
    }
    fn embed(table: FlexTensor, ids: &Arc<[u32]>) -> FlexTensor {
        embedding::forward(&dense(table), ids)
    }
    fn cross_entropy(
        hidden: FlexTensor,
        head: FlexTensor,
        targets: &Arc<Targets>,
        lesson: Option<&Lesson<Self>>,
    ) -> FlexTensor {
        let (hidden, head) = (dense(hidden), dense(head));
        cross_entropy::run(&hidden, &head, targets, lesson, [false, false]).loss
    }
}

impl NetOps for Taped {
    type Backend = Self;
    type Inner = Flex;

    fn rms_norm(x: Tensor<Self>, weight: Tensor<Self>, eps: f32) -> Tensor<Self> {
        rms_norm::taped(x, weight, eps)
    }
    fn project(
        x: Tensor<Self>,
        weight: Tensor<Self>,
        bias: Option<Tensor<Self>>,
        compute: FloatType,
    ) -> Tensor<Self> {
        linear::taped(x, weight, bias.as_ref(), compute)
    }
    fn project_with_adapter(
        x: Tensor<Self>,
        frozen: lora::Frozen<'_, Self>,
        a: Tensor<Self>,
        b: Tensor<Self>,
        plan: lora::LoraPlan,
    ) -> Tensor<Self> {
        lora::taped(x, &frozen, a, b, plan)
    }
    fn attend(
        q: Tensor<Self>,
        k: Tensor<Self>,
        v: Tensor<Self>,
        plan: &Arc<AttentionPlan>,
    ) -> Tensor<Self> {
        attention::taped(q, k, v, plan)
    }
    fn swiglu(gate: Tensor<Self>, up: Tensor<Self>) -> Tensor<Self> {
        swiglu::taped(gate, up)
    }
    fn embed(table: Tensor<Self>, ids: &Arc<[u32]>) -> Tensor<Self> {
        embedding::taped(table, ids)
    }
    fn cross_entropy(
        hidden: Tensor<Self>,
        head: Tensor<Self>,
        targets: &Arc<Targets>,
        lesson: Option<&Lesson<Flex>>,
    ) -> Tensor<Self> {
        cross_entropy::taped(hidden, head, targets, lesson)
    }
}
