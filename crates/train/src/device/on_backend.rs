//! A device of any backend, with the composed operations.

use std::sync::Arc;

use burn_autodiff::Autodiff;
use burn_backend::{
    Backend, ExecutionError,
    tensor::{Device, FloatTensor},
};
use edgethink_model::Tensor;

use super::{
    Compute,
    compute::{is_matrix, rounded},
};
use crate::{
    error::TrainError,
    ops::{
        Composed, Score, Targets,
        composed::{self, ByHand},
        simd,
    },
    recipe::BaseFormat,
};
#[cfg(feature = "gpu")]
use burn_backend::{DType, DTypeUsage};

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

    /// Whether it holds bf16 values and makes f32 of them.
    #[cfg(feature = "gpu")]
    pub(super) fn holds_bf16(&self) -> bool {
        B::dtype_usage(&self.device, DType::BF16).contains(DTypeUsage::Storage)
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

    fn put_frozen(
        &self,
        _: &str,
        tensor: &Tensor,
        rounds: bool,
        base: BaseFormat,
    ) -> FloatTensor<B> {
        let (values, shape) = (rounded(tensor.to_f32(), rounds), &tensor.shape);
        match base {
            BaseFormat::Bf16 if is_matrix(shape) => {
                composed::halves::<B>(&values, shape, &self.device)
            }
            // Stored is refused to a GPU.
            _ => self.put(values, shape),
        }
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

#[cfg(test)]
mod tests {
    use burn_backend::DType;
    use burn_flex::FlexDevice;

    use super::*;

    #[test]
    fn matrices_of_a_frozen_base_take_two_bytes_for_a_value() {
        let device: OnBackend<burn_flex::Flex> = OnBackend::new(FlexDevice, "composed");
        let dtype = |shape: &[usize], base| {
            let values = vec![0.1; shape.iter().product()];
            let tensor = Tensor::from_f32(shape.to_vec(), &values).expect("as long as its shape");
            device.put_frozen("any", &tensor, false, base).dtype()
        };
        assert_eq!(dtype(&[2, 3], BaseFormat::Bf16), DType::BF16);
        assert_eq!(dtype(&[6], BaseFormat::Bf16), DType::F32);
        assert_eq!(dtype(&[2, 3], BaseFormat::F32), DType::F32);
    }
}
