//! Where a network is trained: the CPU with fused operations, or a GPU through the tensor library's own backend.

mod choice;
mod compute;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "vulkan")]
mod graphics;
#[cfg(any(test, feature = "gpu"))]
mod on_backend;

pub use choice::DeviceChoice;
pub(crate) use compute::{Compute, Cpu, rounded};

#[cfg(any(test, feature = "gpu"))]
use on_backend::OnBackend;

use edgethink_model::{Dtype, Tensor};

use crate::{
    error::TrainError,
    recipe::{BaseFormat, Checkpointing, FloatType},
    run::{Event, Progress},
};

/// A device that is ready.
#[derive(Debug, Clone)]
pub(crate) enum Device {
    /// The CPU.
    Cpu(Cpu),
    /// The operations of a GPU on the CPU's tensors: what can be tested of them everywhere.
    #[cfg(test)]
    Composed(OnBackend<burn_flex::Flex>),
    /// A GPU: the library has one type for those of all drivers.
    #[cfg(feature = "gpu")]
    Gpu(OnBackend<burn_cubecl::CubeBackend>),
}

impl Device {
    /// The CPU.
    pub(crate) const CPU: Self = Self::Cpu(Cpu);

    /// Makes the device of a recipe ready.
    ///
    /// # Errors
    /// [`TrainError::Device`] if this build has no such device, or the machine, or if it cannot keep what a pass needs where the recipe says.
    pub(crate) fn open(
        choice: &DeviceChoice,
        checkpointing: Checkpointing,
    ) -> Result<Self, TrainError> {
        choice.check_checkpointing(checkpointing)?;
        #[cfg(feature = "vulkan")]
        let graphics = |api, number| graphics::open(api, number).map(Self::Gpu);
        match *choice {
            DeviceChoice::Cpu => Ok(Self::CPU),
            #[cfg(feature = "vulkan")]
            DeviceChoice::Vulkan(number) => graphics(graphics::Api::Vulkan, number),
            #[cfg(feature = "vulkan")]
            DeviceChoice::Metal(number) => graphics(graphics::Api::Metal, number),
            #[cfg(feature = "cuda")]
            DeviceChoice::Cuda(number) => cuda::open(number.unwrap_or(0)).map(Self::Gpu),
            #[cfg(not(feature = "vulkan"))]
            DeviceChoice::Vulkan(_) | DeviceChoice::Metal(_) => Err(not_built(choice, "vulkan")),
            #[cfg(not(feature = "cuda"))]
            DeviceChoice::Cuda(_) => Err(not_built(choice, "cuda")),
        }
    }

    /// Refuses a frozen base that it cannot hold in a format, or multiply with.
    ///
    /// # Errors
    /// [`TrainError::Device`].
    pub(crate) fn check_base(
        &self,
        base: &[(String, Tensor)],
        format: BaseFormat,
        compute: FloatType,
    ) -> Result<(), TrainError> {
        if !compute.is_f32() && !self.holds(Dtype::BF16) {
            return Err(choice::no_bf16(self.name()));
        }
        for (name, tensor) in base {
            match format.of(name, &tensor.shape) {
                BaseFormat::Bf16 if !self.holds(Dtype::BF16) => {
                    return Err(choice::no_bf16(self.name()));
                }
                BaseFormat::Stored if !self.holds(tensor.dtype) => {
                    return Err(choice::not_as_stored(self.name(), name, tensor.dtype));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn holds(&self, dtype: Dtype) -> bool {
        match self {
            Self::Cpu(at) => at.holds(dtype),
            #[cfg(test)]
            Self::Composed(at) => at.holds(dtype),
            #[cfg(feature = "gpu")]
            Self::Gpu(at) => at.holds(dtype),
        }
    }

    /// Its name, for people and records.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Cpu(_) => "cpu",
            #[cfg(test)]
            Self::Composed(at) => at.name(),
            #[cfg(feature = "gpu")]
            Self::Gpu(at) => at.name(),
        }
    }

    /// Says on which device a run is; of the CPU nothing.
    pub(crate) fn tell(&self, progress: &mut dyn Progress) {
        if !self.is_cpu() {
            progress.event(&Event::Device {
                name: self.name().to_owned(),
            });
        }
    }

    /// Whether micro-batches run side by side. A GPU takes one at a time and fills itself with it.
    pub(crate) fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu(_))
    }

    /// Every device that the tests of gradients are run on.
    #[cfg(test)]
    pub(crate) fn tested() -> Vec<Self> {
        let composed = OnBackend::new(burn_flex::FlexDevice, "composed");
        vec![
            Self::CPU,
            Self::Composed(composed),
            #[cfg(feature = "vulkan")]
            Self::open(&DeviceChoice::Vulkan(None), Checkpointing::Off)
                .expect("a Vulkan driver, as tests/vulkan/run.sh installs"),
        ]
    }
}

/// The problem of a device that was left out of the build.
#[cfg(not(all(feature = "vulkan", feature = "cuda")))]
fn not_built(choice: &DeviceChoice, feature: &str) -> TrainError {
    TrainError::Device {
        device: choice.to_string(),
        problem: format!(
            "this build has no code for it; build with `cargo build --release --features {feature}`"
        ),
    }
}
