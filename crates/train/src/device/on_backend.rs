//! A device of any backend, with the composed operations.

use std::sync::Arc;

use burn_autodiff::Autodiff;
use burn_backend::{
    Backend, ExecutionError,
    tensor::{Device, FloatTensor},
};

use super::Compute;
use crate::{
    error::TrainError,
    ops::{
        Composed, Score, Targets,
        composed::{self, ByHand},
        simd,
    },
};

/// A device of a backend and its name.
#[derive(Debug, Clone)]
pub(crate) struct OnBackend<B: Backend> {
    device: Device<B>,
    name: Arc<str>,
}

impl<B: Backend> OnBackend<B> {
    pub(crate) fn new(device: Device<B>, name: &str) -> Self {
        Self {
            device,
            name: name.into(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The values of tensors, each in row order.
    fn read(&self, tensors: Vec<FloatTensor<B>>) -> Result<Vec<Vec<f32>>, TrainError> {
        composed::read::<B>(tensors).map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &ExecutionError) -> TrainError {
        TrainError::Device {
            device: self.name.to_string(),
            problem: error.to_string(),
        }
    }
}

impl<B: ByHand> Compute for OnBackend<B> {
    type Inner = B;
    type Plain = Composed<B>;
    type Taped = Composed<Autodiff<B>>;

    fn put(&self, values: Vec<f32>, shape: &[usize]) -> FloatTensor<B> {
        composed::floats::<B>(values, shape, &self.device)
    }

    fn scalar(&self, tensor: FloatTensor<B>) -> Result<f64, TrainError> {
        Ok(f64::from(self.read(vec![tensor])?[0][0]))
    }

    fn add<'s>(
        &self,
        parts: impl Iterator<Item = (FloatTensor<B>, &'s mut [f32])>,
    ) -> Result<(), TrainError> {
        let (parts, sums): (Vec<_>, Vec<_>) = parts.unzip();
        for (part, sum) in self.read(parts)?.iter().zip(sums) {
            simd::vectorized(|| simd::add_assign(sum, part));
        }
        Ok(())
    }

    fn score(
        &self,
        hidden: FloatTensor<B>,
        head: FloatTensor<B>,
        targets: &Targets,
    ) -> Result<Vec<Score>, TrainError> {
        composed::score::<B>(&hidden, &head, targets).map_err(|e| self.failed(&e))
    }

    #[cfg(test)]
    fn values(&self, tensor: FloatTensor<B>) -> Result<Vec<f32>, TrainError> {
        Ok(self.read(vec![tensor])?.remove(0))
    }
}
