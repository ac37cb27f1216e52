//! Where a network is trained: the CPU with fused operations, or a GPU through the tensor library's own backend.

mod choice;
mod compute;
#[cfg(any(test, feature = "vulkan"))]
mod on_backend;
#[cfg(feature = "vulkan")]
mod vulkan;

pub use choice::DeviceChoice;
pub(crate) use compute::{Compute, Cpu};

#[cfg(any(test, feature = "vulkan"))]
use on_backend::OnBackend;

use crate::{
    error::TrainError,
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
    /// A GPU with a Vulkan driver.
    #[cfg(feature = "vulkan")]
    Vulkan(OnBackend<burn_wgpu::Wgpu>),
}

impl Device {
    /// The CPU.
    pub(crate) const CPU: Self = Self::Cpu(Cpu);

    /// Makes the device of a recipe ready.
    ///
    /// # Errors
    /// [`TrainError::Device`] if this build has no such device, or the machine.
    pub(crate) fn open(choice: &DeviceChoice) -> Result<Self, TrainError> {
        match choice {
            DeviceChoice::Cpu => Ok(Self::CPU),
            #[cfg(feature = "vulkan")]
            DeviceChoice::Vulkan(number) => vulkan::open(*number).map(Self::Vulkan),
            #[cfg(not(feature = "vulkan"))]
            DeviceChoice::Vulkan(_) => Err(TrainError::Device {
                device: choice.to_string(),
                problem: "this build trains on the CPU only; build it with `cargo build --release --features vulkan`".to_owned(),
            }),
        }
    }

    /// Its name, for people and records.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Cpu(_) => "cpu",
            #[cfg(test)]
            Self::Composed(at) => at.name(),
            #[cfg(feature = "vulkan")]
            Self::Vulkan(at) => at.name(),
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
            Self::Vulkan(
                vulkan::open(None).expect("a Vulkan driver, as tests/vulkan/run.sh installs"),
            ),
        ]
    }
}
