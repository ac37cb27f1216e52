//! The product with a frozen matrix: `y = x W^T`, `dx = dy W`, in f32 or in bf16, with W made f32 or bf16 for the product alone.
//!
//! The gradient is by hand, so that the tape keeps the matrix as it is held and no copy of it.

use burn_autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::{
    Backend, DType, FloatDType, TensorMetadata,
    tensor::{Device, FloatTensor},
};
use burn_flex::Flex;
use edgethink_model::{Dtype, Tensor};

use super::matmul_nt;
use crate::{ops::frozen, recipe::FloatType};

/// A backend that holds matrices `[out, in]` as their file has them.
pub(crate) trait Holds: Backend {
    /// Whether it holds those of a type.
    fn holds(dtype: Dtype, device: &Device<Self>) -> bool;
    /// A matrix of a type that it holds. Of its tensor nothing but the type has a meaning to others.
    fn held(matrix: &Tensor, device: &Device<Self>) -> FloatTensor<Self>;
    /// The matrix in f32.
    fn widened(held: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// As on the CPU.
impl Holds for Flex {
    fn holds(_: Dtype, _: &Device<Self>) -> bool {
        true
    }
    fn held(matrix: &Tensor, _: &Device<Self>) -> FloatTensor<Self> {
        frozen::held(matrix)
    }
    fn widened(held: FloatTensor<Self>) -> FloatTensor<Self> {
        frozen::widened(&held)
    }
}

/// Whether a tensor is held in fewer bits than the operations compute in.
pub(super) fn is_narrow<B: Backend>(x: &FloatTensor<B>) -> bool {
    x.dtype() != DType::F32
}

/// Floats in f32; without a copy if they are.
pub(super) fn cast<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    match is_narrow::<B>(&x) {
        true => B::float_cast(x, FloatDType::F32),
        false => x,
    }
}

/// Floats in bf16.
fn halved<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cast(x, FloatDType::BF16)
}

/// `x [T, in] W^T`, `W [out, in]`.
pub(super) fn product<B: Holds>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    compute: FloatType,
) -> FloatTensor<B> {
    multiply::<B>(matmul_nt::<B>, x, weight, compute)
}

/// `dy [T, out] W`.
fn back<B: Holds>(
    dy: FloatTensor<B>,
    weight: FloatTensor<B>,
    compute: FloatType,
) -> FloatTensor<B> {
    multiply::<B>(B::float_matmul, dy, weight, compute)
}

fn multiply<B: Holds>(
    matmul: fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    compute: FloatType,
) -> FloatTensor<B> {
    match compute {
        FloatType::F32 => matmul(x, B::widened(weight)),
        FloatType::Bf16 => {
            let weight = match weight.dtype() {
                DType::BF16 => weight,
                _ => halved::<B>(B::widened(weight)),
            };
            cast::<B>(matmul(halved::<B>(x), weight))
        }
    }
}

#[derive(Debug)]
struct Frozen;

impl<B: Holds> Backward<B, 1> for Frozen {
    /// The matrix as it is held.
    type State = (FloatTensor<B>, FloatType);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x] = ops.parents;
        if let Some(x) = x {
            let (weight, compute) = ops.state;
            grads.register::<B>(x.id, back::<B>(dy, weight, compute));
        }
    }
}

/// The operation on the tape.
pub(super) fn taped<B: Holds>(
    x: FloatTensor<Autodiff<B>>,
    weight: FloatTensor<Autodiff<B>>,
    compute: FloatType,
) -> FloatTensor<Autodiff<B>> {
    let nodes = [x.node()];
    let weight = weight.into_primitive();
    let out = product::<B>(x.into_primitive(), weight.clone(), compute);
    match Backward::<B, 1>::prepare::<NoCheckpointing>(Frozen, nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish((weight, compute), out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
