//! The product with a frozen matrix that is held in 16 bits: `y = x W^T`, `dx = dy W`, both in f32, with W made f32 for the product alone.
//!
//! The gradient is by hand, so that the tape keeps the matrix as it is held and no f32 copy of it.

use burn_autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn_backend::{Backend, DType, FloatDType, TensorMetadata, tensor::FloatTensor};

use super::matmul_nt;

/// Whether a tensor is held in fewer bits than the operations compute in.
pub(super) fn is_narrow<B: Backend>(x: &FloatTensor<B>) -> bool {
    x.dtype() != DType::F32
}

/// The values in f32; without a copy if they are.
pub(super) fn widened<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    match is_narrow::<B>(&x) {
        true => B::float_cast(x, FloatDType::F32),
        false => x,
    }
}

/// `x [T, in] W^T`, `W [out, in]`.
pub(super) fn product<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    matmul_nt::<B>(x, widened::<B>(weight))
}

#[derive(Debug)]
struct Frozen;

impl<B: Backend> Backward<B, 1> for Frozen {
    /// The matrix as it is held.
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x] = ops.parents;
        if let Some(x) = x {
            let dx = B::float_matmul(dy, widened::<B>(ops.state));
            grads.register::<B>(x.id, dx);
        }
    }
}

/// The operation on the tape.
pub(super) fn taped<B: Backend>(
    x: FloatTensor<Autodiff<B>>,
    weight: FloatTensor<Autodiff<B>>,
) -> FloatTensor<Autodiff<B>> {
    let nodes = [x.node()];
    let weight = weight.into_primitive();
    let out = product::<B>(x.into_primitive(), weight.clone());
    match Backward::<B, 1>::prepare::<NoCheckpointing>(Frozen, nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prep) => prep.finish(weight, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    }
}
