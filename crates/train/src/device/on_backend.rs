//! A device of any backend, with the composed operations.

use std::sync::Arc;

use burn_autodiff::Autodiff;
use burn_backend::{
    Backend, ExecutionError,
    tensor::{Device, FloatTensor},
};
use edgethink_model::{Dtype, Tensor};

use super::Compute;
use crate::{
    error::TrainError,
    ops::{
        Composed, Score, Targets,
        composed::{self, ByHand, Holds},
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

impl<B: ByHand<Inner = B> + Holds> Compute for OnBackend<B> {
    type Inner = B;
    type Plain = Composed<B>;
    type Taped = Composed<Autodiff<B>>;

    fn put(&self, values: Vec<f32>, shape: &[usize]) -> FloatTensor<B> {
        composed::floats::<B>(values, shape, &self.device)
    }

    fn put_bf16(&self, values: Vec<f32>, shape: &[usize]) -> FloatTensor<B> {
        composed::halves::<B>(&values, shape, &self.device)
    }

    fn put_stored(&self, matrix: &Tensor) -> FloatTensor<B> {
        B::held(matrix, &self.device)
    }

    fn holds(&self, dtype: Dtype) -> bool {
        B::holds(dtype, &self.device)
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

    fn values(&self, tensor: FloatTensor<B>) -> Result<Vec<f32>, TrainError> {
        Ok(self.read(vec![tensor])?.remove(0))
    }
}

#[cfg(test)]
mod tests {
    use burn_backend::DType;
    use burn_flex::FlexDevice;

    use super::*;

    #[test]
    fn matrices_of_a_frozen_base_take_two_bytes_for_a_value() {
        let device: OnBackend<burn_flex::Flex> = OnBackend::new(FlexDevice, "composed");
        let halves = device.put_bf16(vec![0.1; 6], &[2, 3]);
        assert_eq!(halves.dtype(), DType::BF16);
        let floats = device.put(vec![0.1; 6], &[2, 3]);
        assert_eq!(floats.dtype(), DType::F32);
        let matrix = Tensor::bf16_from_f32(vec![2, 3], &[0.1; 6]).expect("as long as its shape");
        assert_eq!(device.put_stored(&matrix).dtype(), DType::BF16);
    }
}
