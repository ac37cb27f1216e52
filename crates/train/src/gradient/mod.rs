//! Loss and gradient of one micro-batch, on the device that holds the network.

mod tape;

use crate::{
    base_model::NamedTensors,
    device::Device,
    error::TrainError,
    net::{MicroBatch, Slots, Spec},
    ops::Score,
    params::Param,
    recipe::{BaseFormat, Checkpointing, FloatType},
};
use tape::{Held, Tensors};

/// The network and how its gradient is made.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub spec: &'a Spec,
    pub slots: &'a Slots,
    pub checkpointing: Checkpointing,
    /// The adapter, if one is trained: then the base is frozen.
    pub adapter: Option<AdapterSide<'a>>,
    /// Whose distributions are learnt instead of the target tokens.
    pub teacher: Option<&'a Teacher>,
}

/// A frozen network that is asked, never trained. It is on the device of the network that learns from it.
#[derive(Debug)]
pub(crate) struct Teacher {
    spec: Spec,
    slots: Slots,
    leaves: Leaves,
}

impl Teacher {
    /// A network with its parameters.
    pub(crate) fn new(device: &Device, spec: Spec, base: NamedTensors) -> Self {
        Self {
            slots: spec.numbered_slots(),
            spec,
            leaves: Leaves::frozen(device, base, false, BaseFormat::F32),
        }
    }
}

/// The adapter's side of a pass.
#[derive(Debug)]
pub(crate) struct AdapterSide<'a> {
    pub slots: &'a [[Option<(usize, usize)>; 7]],
    pub scale: f32,
    pub dropout: Option<(f32, u64)>,
    /// Of the products with the frozen base.
    pub compute: FloatType,
}

/// The parameters of one optimizer step as tensors on a device.
#[derive(Debug)]
pub(crate) struct Leaves(Box<dyn Held>);

impl Leaves {
    /// Tensors of a base to be trained.
    pub(crate) fn base(device: &Device, base: &[Param], bf16_weights: bool) -> Self {
        Self(match device {
            Device::Cpu(at) => Box::new(Tensors::base(at.clone(), base, bf16_weights)),
            #[cfg(test)]
            Device::Composed(at) => Box::new(Tensors::base(at.clone(), base, bf16_weights)),
            #[cfg(feature = "gpu")]
            Device::Gpu(at) => Box::new(Tensors::base(at.clone(), base, bf16_weights)),
        })
    }

    /// Tensors of a frozen base, still without an adapter, read one after the other. `rounds` has all values rounded to bf16; `dtype` is how
    /// the matrices are held.
    pub(crate) fn frozen(
        device: &Device,
        base: NamedTensors,
        rounds: bool,
        dtype: BaseFormat,
    ) -> Self {
        Self(match device {
            Device::Cpu(at) => Box::new(Tensors::frozen(at.clone(), base, rounds, dtype)),
            #[cfg(test)]
            Device::Composed(at) => Box::new(Tensors::frozen(at.clone(), base, rounds, dtype)),
            #[cfg(feature = "gpu")]
            Device::Gpu(at) => Box::new(Tensors::frozen(at.clone(), base, rounds, dtype)),
        })
    }

    /// Takes new values of the trained adapter, keeping the frozen base's tensors.
    pub(crate) fn with_adapter(self, adapter: &[Param], bf16_weights: bool) -> Self {
        Self(self.0.with_adapter(adapter, bf16_weights))
    }

    /// The same values on a new tape.
    pub(crate) fn fork(&self) -> Self {
        Self(self.0.fork())
    }
}

/// Adds the gradient of the micro-batch's weighted loss to `sums` (one vector per trained tensor), and returns
/// that loss.
///
/// # Errors
/// [`TrainError::Device`] if the device fails, as without memory; never on the CPU.
pub(crate) fn accumulate(
    pass: &Pass<'_>,
    leaves: &Leaves,
    batch: &MicroBatch,
    sums: &mut [Vec<f32>],
) -> Result<f64, TrainError> {
    leaves.0.accumulate(pass, batch, sums)
}

/// The weighted loss only.
///
/// # Errors
/// As [`accumulate`].
pub(crate) fn evaluate(
    pass: &Pass<'_>,
    leaves: &Leaves,
    batch: &MicroBatch,
) -> Result<f64, TrainError> {
    leaves.0.evaluate(pass, batch)
}

/// Log-probability and entropy of each target with a weight, in order.
///
/// # Errors
/// As [`accumulate`].
pub(crate) fn score(
    pass: &Pass<'_>,
    leaves: &Leaves,
    batch: &MicroBatch,
) -> Result<Vec<Score>, TrainError> {
    leaves.0.score(pass, batch)
}

/// The head's logits `[T, V]`.
#[cfg(test)]
pub(crate) fn logits(pass: &Pass<'_>, leaves: &Leaves, batch: &MicroBatch) -> Vec<f32> {
    leaves.0.logits(pass, batch).expect("the device works")
}
