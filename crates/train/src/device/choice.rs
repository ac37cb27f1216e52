//! The name of a device in a recipe and on the command line: `cpu`, `vulkan`, `cuda`, `metal`, or `vulkan:N` for one of several GPUs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{error::TrainError, recipe::BaseFormat};

/// Which device trains. A number is that of the device in the driver's list; without one it is the best, or CUDA's first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// A GPU through Vulkan.
    Vulkan(Option<usize>),
    /// A GPU of a Mac.
    Metal(Option<usize>),
    /// An NVIDIA GPU through CUDA.
    Cuda(Option<usize>),
}

impl DeviceChoice {
    /// Whether it is the CPU: what a recipe says that names none.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// Refuses a format of the frozen base that the library knows on no such device.
    ///
    /// # Errors
    /// [`TrainError::Device`].
    pub(crate) fn hold(&self, base: BaseFormat) -> Result<(), TrainError> {
        match (self, base) {
            (Self::Cpu, _) => Ok(()),
            (Self::Vulkan(_) | Self::Metal(_), BaseFormat::Bf16) => Err(no_bf16(&self.to_string())),
            (_, BaseFormat::Stored) => Err(not_as_stored(&self.to_string())),
            _ => Ok(()),
        }
    }

    fn parts(self) -> (&'static str, Option<usize>) {
        match self {
            Self::Cpu => ("cpu", None),
            Self::Vulkan(number) => ("vulkan", number),
            Self::Metal(number) => ("metal", number),
            Self::Cuda(number) => ("cuda", number),
        }
    }
}

/// The problem of a device without bf16.
pub(super) fn no_bf16(device: &str) -> TrainError {
    TrainError::Device {
        device: device.to_owned(),
        problem: "it cannot hold a base in bf16, as the language of its programs (WGSL) has no such numbers; leave [run] base_dtype out, or \
                  take cuda"
            .to_owned(),
    }
}

/// The problem of a device that holds floats only.
pub(super) fn not_as_stored(device: &str) -> TrainError {
    TrainError::Device {
        device: device.to_owned(),
        problem: "it does not hold a base as its file has it; leave [run] base_dtype out, set it to \"bf16\", or take the cpu"
            .to_owned(),
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (name, None) => f.write_str(name),
            (name, Some(number)) => write!(f, "{name}:{number}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "{text:?} is no device: cpu, vulkan, cuda or metal, and vulkan:N for number N of several"
            )
        };
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        match name {
            "cpu" if number.is_none() => Ok(Self::Cpu),
            "vulkan" => Ok(Self::Vulkan(number)),
            "metal" => Ok(Self::Metal(number)),
            "cuda" => Ok(Self::Cuda(number)),
            _ => Err(unknown()),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_held_where_its_format_is_known() {
        let (vulkan, metal, cuda) = (
            DeviceChoice::Vulkan(None),
            DeviceChoice::Metal(None),
            DeviceChoice::Cuda(None),
        );
        for (device, format, known) in [
            (DeviceChoice::Cpu, BaseFormat::Stored, true),
            (DeviceChoice::Cpu, BaseFormat::Bf16, true),
            (cuda, BaseFormat::Bf16, true),
            (cuda, BaseFormat::Stored, false),
            (vulkan, BaseFormat::F32, true),
            (vulkan, BaseFormat::Bf16, false),
            (metal, BaseFormat::Stored, false),
        ] {
            let held = device.hold(format);
            assert_eq!(held.is_ok(), known, "{device}, {format:?}: {held:?}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for choice in [
            DeviceChoice::Cpu,
            DeviceChoice::Vulkan(None),
            DeviceChoice::Vulkan(Some(2)),
            DeviceChoice::Metal(None),
            DeviceChoice::Cuda(Some(1)),
        ] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for wrong in ["", "gpu", "vulkan:", "vulkan:x", "cpu:0", "cuda:-1", "CUDA"] {
            let error = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(error.contains("vulkan"), "{error}");
        }
    }
}
