//! What training needs of a device: its operations, and how values come and go.

use std::fmt::Debug;

use burn_autodiff::Autodiff;
use burn_backend::{Backend, tensor::FloatTensor};
use burn_flex::{Flex, FlexTensor};
use edgethink_model::Tensor;
use half::bf16;

use crate::{
    error::TrainError,
    net::LINEARS,
    ops::{self, NetOps, Score, Targets, simd},
    recipe::BaseFormat,
};

/// A device with its operations.
pub(crate) trait Compute: Debug + Clone + Send + Sync + 'static {
    /// The backend of its tensors.
    type Inner: Backend;
    /// Operations without a tape.
    type Plain: NetOps<Backend = Self::Inner>;
    /// Operations that record a gradient.
    type Taped: NetOps<Backend = Autodiff<Self::Inner>>;

    /// Values as a tensor of a shape.
    fn put(&self, values: Vec<f32>, shape: &[usize]) -> FloatTensor<Self::Inner>;

    /// A tensor of the frozen base, whose matrices are held as `base` says. `rounds` has all values rounded to bf16 first.
    fn put_frozen(
        &self,
        name: &str,
        tensor: &Tensor,
        rounds: bool,
        base: BaseFormat,
    ) -> FloatTensor<Self::Inner>;

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
    #[cfg(test)]
    fn values(&self, tensor: FloatTensor<Self::Inner>) -> Result<Vec<f32>, TrainError>;
}

/// Whether a tensor of the network is a matrix, and no bias or gain.
pub(super) fn is_matrix(shape: &[usize]) -> bool {
    shape.len() == 2
}

/// Values as the forward pass reads them: rounded to bf16 where the recipe says so.
pub(crate) fn rounded(mut values: Vec<f32>, rounds: bool) -> Vec<f32> {
    if rounds {
        for value in &mut values {
            *value = bf16::from_f32(*value).to_f32();
        }
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

    /// As stored, or rounded and in f32.
    fn put_frozen(
        &self,
        name: &str,
        tensor: &Tensor,
        rounds: bool,
        base: BaseFormat,
    ) -> FlexTensor {
        let is_linear = LINEARS
            .iter()
            .any(|l| name.ends_with(&format!("{l}.weight")));
        if base == BaseFormat::Stored && is_linear {
            return ops::frozen::held(tensor);
        }
        let rounds = rounds || base == BaseFormat::Bf16 && is_matrix(&tensor.shape);
        self.put(rounded(tensor.to_f32(), rounds), &tensor.shape)
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

    #[cfg(test)]
    fn values(&self, tensor: FlexTensor) -> Result<Vec<f32>, TrainError> {
        Ok(ops::into_vec(tensor))
    }
}
