//! The network's operations written once with those of any backend: what a GPU runs.
//!
//! The short ones take their gradients from the tape. Attention and cross-entropy, whose intermediates would fill the memory, have gradients
//! by hand ([`ByHand`]), as on the CPU; so has the product with a frozen matrix in fewer bits ([`Holds`]). The fused operations beside this folder are the reference: the same tests run both.

mod adapter;
mod attention;
mod cross_entropy;
mod frozen;
mod packed;
#[cfg(test)]
mod tests;

use std::{fmt::Debug, marker::PhantomData, sync::Arc};

use burn_autodiff::Autodiff;
use burn_backend::{
    Backend, ExecutionError, Shape, TensorData, TensorMetadata,
    ops::TransactionPrimitive,
    read_sync,
    tensor::{Device, FloatTensor, IntTensor},
};
use burn_flex::Flex;
use half::bf16;

use super::{AttentionPlan, Lesson, NetOps, Targets, lora};
use crate::recipe::FloatType;

pub(crate) use cross_entropy::score;
pub(crate) use frozen::Holds;

/// The operations on the tensors of a backend.
#[derive(Debug)]
pub(crate) struct Composed<B>(PhantomData<B>);

/// The operations that record a gradient of their own where there is a tape.
pub(crate) trait ByHand: Backend {
    /// The backend without a tape.
    type Inner: Backend;

    /// As [`NetOps::attend`].
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: &Arc<AttentionPlan>,
    ) -> FloatTensor<Self> {
        attention::forward::<Self>(q, k, v, plan).out
    }
    /// As [`NetOps::cross_entropy`].
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: &Arc<Targets>,
        lesson: Option<&Lesson<Self::Inner>>,
    ) -> FloatTensor<Self>;
    /// `x [T, in] W^T`, with a frozen `W [out, in]`.
    fn frozen_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        compute: FloatType,
    ) -> FloatTensor<Self>;
}

/// A backend without a tape keeps nothing for a way back.
macro_rules! without_tape {
    ($backend:ty) => {
        impl ByHand for $backend {
            type Inner = Self;

            fn cross_entropy(
                hidden: FloatTensor<Self>,
                head: FloatTensor<Self>,
                targets: &Arc<Targets>,
                lesson: Option<&Lesson<Self>>,
            ) -> FloatTensor<Self> {
                cross_entropy::run::<Self>(&hidden, &head, targets, lesson, [false, false]).loss
            }
            fn frozen_product(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                compute: FloatType,
            ) -> FloatTensor<Self> {
                frozen::product::<Self>(x, weight, compute)
            }
        }
    };
}
without_tape!(Flex);
#[cfg(feature = "gpu")]
without_tape!(burn_cubecl::CubeBackend);

impl<B: Holds> ByHand for Autodiff<B> {
    type Inner = B;

    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        plan: &Arc<AttentionPlan>,
    ) -> FloatTensor<Self> {
        attention::taped::<B>(q, k, v, plan)
    }
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: &Arc<Targets>,
        lesson: Option<&Lesson<B>>,
    ) -> FloatTensor<Self> {
        cross_entropy::taped::<B>(hidden, head, targets, lesson)
    }
    fn frozen_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        compute: FloatType,
    ) -> FloatTensor<Self> {
        frozen::taped::<B>(x, weight, compute)
    }
}

impl<B: ByHand> NetOps for Composed<B> {
    type Backend = B;
    type Inner = B::Inner;

    fn rms_norm(x: FloatTensor<B>, weight: FloatTensor<B>, eps: f32) -> FloatTensor<B> {
        let n = weight.shape()[0];
        let mean = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1); // [rows, 1]
        let root = B::float_sqrt(B::float_add_scalar(mean, eps.into()));
        B::float_mul(B::float_div(x, root), reshape::<B>(weight, &[1, n]))
    }

    fn project(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: Option<FloatTensor<B>>,
        compute: FloatType,
    ) -> FloatTensor<B> {
        let y = match frozen::is_narrow::<B>(&weight) || !compute.is_f32() {
            true => B::frozen_product(x, weight, compute),
            false => matmul_nt::<B>(x, weight),
        };
        match bias {
            Some(bias) => {
                let n = bias.shape()[0];
                B::float_add(y, reshape::<B>(bias, &[1, n]))
            }
            None => y,
        }
    }

    fn project_with_adapter(
        x: FloatTensor<B>,
        frozen: lora::Frozen<'_, B>,
        a: FloatTensor<B>,
        b: FloatTensor<B>,
        plan: lora::LoraPlan,
    ) -> FloatTensor<B> {
        let weight = frozen.weight.clone();
        let y = Self::project(x.clone(), weight, frozen.bias.cloned(), frozen.compute);
        adapter::add::<B>(y, x, a, b, &plan)
    }

    fn attend(
        q: FloatTensor<B>,
        k: FloatTensor<B>,
        v: FloatTensor<B>,
        plan: &Arc<AttentionPlan>,
    ) -> FloatTensor<B> {
        B::attend(q, k, v, plan)
    }

    fn swiglu(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
        B::float_mul(B::float_mul(gate.clone(), B::sigmoid(gate)), up)
    }

    fn embed(table: FloatTensor<B>, ids: &Arc<[u32]>) -> FloatTensor<B> {
        let ids = indices::<B>(ids.iter().map(|&id| id as usize), &table.device());
        frozen::cast::<B>(B::float_select(table, 0, ids))
    }

    fn cross_entropy(
        hidden: FloatTensor<B>,
        head: FloatTensor<B>,
        targets: &Arc<Targets>,
        lesson: Option<&Lesson<B::Inner>>,
    ) -> FloatTensor<B> {
        B::cross_entropy(hidden, head, targets, lesson)
    }
}

/// Values put on the device.
pub(crate) fn floats<B: Backend>(
    values: Vec<f32>,
    shape: &[usize],
    device: &Device<B>,
) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(values, Shape::from(shape.to_vec())), device)
}

/// Values put on the device in bf16, rounded to the nearest.
pub(crate) fn halves<B: Backend>(
    values: &[f32],
    shape: &[usize],
    device: &Device<B>,
) -> FloatTensor<B> {
    let values: Vec<bf16> = values.iter().copied().map(bf16::from_f32).collect();
    B::float_from_data(TensorData::new(values, Shape::from(shape.to_vec())), device)
}

/// The values of tensors, each in row order; one wait for all of them.
///
/// # Errors
/// What the device says if it could not.
pub(crate) fn read<B: Backend>(
    tensors: Vec<FloatTensor<B>>,
) -> Result<Vec<Vec<f32>>, ExecutionError> {
    // A backend need not take a transaction of nothing.
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let all = TransactionPrimitive::new(tensors, Vec::new(), Vec::new(), Vec::new());
    let data = read_sync(B::tr_execute(all))?;
    let floats = data.read_floats.into_iter();
    floats
        .map(TensorData::try_into_vec::<f32>)
        .collect::<Result<_, _>>()
        .map_err(|e| ExecutionError::WithContext {
            reason: e.to_string(),
        })
}

/// Row numbers or token ids put on the device.
fn indices<B: Backend>(of: impl Iterator<Item = usize>, device: &Device<B>) -> IntTensor<B> {
    // The tokens of a micro-batch and the words of a vocabulary are far fewer than 2^31.
    let values: Vec<i32> = of.map(|i| i as i32).collect();
    let shape = Shape::from(vec![values.len()]);
    B::int_from_data(TensorData::new(values, shape), device)
}

fn reshape<B: Backend>(x: FloatTensor<B>, shape: &[usize]) -> FloatTensor<B> {
    B::float_reshape(x, Shape::from(shape.to_vec()))
}

/// `a [.., m, k] b [.., n, k]^T -> [.., m, n]`
fn matmul_nt<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(a, B::float_transpose(b))
}

/// `a [.., k, m]^T b [.., k, n] -> [.., m, n]`
fn matmul_tn<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(B::float_transpose(a), b)
}
