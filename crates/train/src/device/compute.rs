//! What training needs of a device: its operations, and how values come and go.

use std::fmt::Debug;

use burn_autodiff::Autodiff;
use burn_backend::{Backend, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor};
use edgethink_model::{Dtype, Tensor};

use crate::{
    error::TrainError,
    ops::{self, NetOps, Score, Targets, simd},
};

/// A device with its operations.
pub(crate) trait Compute: Debug + Clone + Send + Sync + 'static {
    /// The backend of its tensors.
    type Inner: Backend;
    /// Operations without a tape.
    type Plain: NetOps<Backend = Self::Inner, Inner = Self::Inner>;
    /// Operations that record a gradient.
    type Taped: NetOps<Backend = Autodiff<Self::Inner>, Inner = Self::Inner>;

    /// Values as a tensor of a shape.
    fn put(&self, values: Vec<f32>, shape: &[usize]) -> FloatTensor<Self::Inner>;

    /// Values rounded to bf16 as a tensor that is only read.
    fn put_bf16(&self, values: Vec<f32>, shape: &[usize]) -> FloatTensor<Self::Inner>;

    /// A matrix of a linear layer as its file has it, to be only read. It is of a type that the device [holds](Self::holds).
    fn put_stored(&self, matrix: &Tensor) -> FloatTensor<Self::Inner>;

    /// Whether matrices of a type can be held as they are.
    fn holds(&self, dtype: Dtype) -> bool;

    /// The one value of a tensor.
    fn scalar(&self, tensor: FloatTensor<Self::Inner>) -> Result<f64, TrainError>;

    /// Adds each tensor to the sum beside it.
    fn add<'s>(
        &self,
        parts: impl Iterator<Item = (FloatTensor<Self::Inner>, &'s mut [f32])>,
    ) -> Result<(), TrainError>;

    /// Scores the targets under `softmax(hidden head^T)`, in order.
    fn score(
        &self,
        hidden: FloatTensor<Self::Inner>,
        head: FloatTensor<Self::Inner>,
        targets: &Targets,
    ) -> Result<Vec<Score>, TrainError>;

    /// The values of a tensor, in row order.
    fn values(&self, tensor: FloatTensor<Self::Inner>) -> Result<Vec<f32>, TrainError>;
}

/// Values as the forward pass reads them: rounded to bf16 where the recipe says so.
pub(crate) fn rounded(mut values: Vec<f32>, rounds: bool) -> Vec<f32> {
    if rounds {
        ops::frozen::round_to_bf16(&mut values);
    }
    values
}

/// The CPU: tensors are vectors, and nothing fails.
#[derive(Debug, Clone)]
pub(crate) struct Cpu;

impl Compute for Cpu {
    type Inner = Flex;
    type Plain = Flex;
    type Taped = ops::Taped;

    fn put(&self, values: Vec<f32>, shape: &[usize]) -> FlexTensor {
        ops::tensor(values, shape)
    }

    /// Rounded, and held in f32.
    fn put_bf16(&self, values: Vec<f32>, shape: &[usize]) -> FlexTensor {
        self.put(rounded(values, true), shape)
    }

    fn put_stored(&self, matrix: &Tensor) -> FlexTensor {
        ops::frozen::held(matrix)
    }

    fn holds(&self, _: Dtype) -> bool {
        true
    }

    fn scalar(&self, tensor: FlexTensor) -> Result<f64, TrainError> {
        Ok(f64::from(ops::values(&tensor)[0]))
    }

    fn add<'s>(
        &self,
        parts: impl Iterator<Item = (FlexTensor, &'s mut [f32])>,
    ) -> Result<(), TrainError> {
        for (part, sum) in parts {
            let part = ops::dense(part);
            simd::vectorized(|| simd::add_assign(sum, ops::values(&part)));
        }
        Ok(())
    }

    fn score(
        &self,
        hidden: FlexTensor,
        head: FlexTensor,
        targets: &Targets,
    ) -> Result<Vec<Score>, TrainError> {
        let (hidden, head) = (ops::dense(hidden), ops::dense(head));
        Ok(ops::cross_entropy::score(&hidden, &head, targets))
    }

    fn values(&self, tensor: FlexTensor) -> Result<Vec<f32>, TrainError> {
        Ok(ops::into_vec(tensor))
    }
}
