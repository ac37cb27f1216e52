//! The name of a device in a recipe and on the command line: `cpu`, `vulkan`, `cuda`, `metal`, or `vulkan:N` for one of several GPUs.

use std::{fmt, str::FromStr};

use edgethink_model::Dtype;
use serde::{Deserialize, Serialize};

use crate::{
    error::TrainError,
    ops::frozen::packing,
    recipe::{BaseFormat, Checkpointing, FloatType},
};

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

    /// Refuses a format of the frozen base that the library knows on no such device. `linears` are the types of its linear layers.
    ///
    /// # Errors
    /// [`TrainError::Device`].
    pub(crate) fn check_base(
        &self,
        mut linears: impl Iterator<Item = Dtype>,
        format: BaseFormat,
        compute: FloatType,
    ) -> Result<(), TrainError> {
        let name = || self.to_string();
        if !compute.is_f32() && !self.holds(Dtype::BF16) {
            return Err(no_bf16(&name()));
        }
        match format {
            BaseFormat::F32 => Ok(()),
            BaseFormat::Bf16 if self.holds(Dtype::BF16) => Ok(()),
            BaseFormat::Bf16 => Err(no_bf16(&name())),
            BaseFormat::Stored => match linears.find(|&dtype| !self.holds(dtype)) {
                Some(dtype) => Err(not_as_stored(&name(), "a linear layer", dtype)),
                None => Ok(()),
            },
        }
    }

    /// Refuses to keep on the host what is there already.
    ///
    /// # Errors
    /// [`TrainError::Device`].
    pub(crate) fn check_checkpointing(
        self,
        checkpointing: Checkpointing,
    ) -> Result<(), TrainError> {
        match checkpointing {
            Checkpointing::Offload if self.is_cpu() => Err(TrainError::Device {
                device: self.to_string(),
                problem: "[run] gradient_checkpointing = \"offload\" keeps on the host what fills a GPU, and the CPU is the host; set it to true"
                    .to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the library's code for it holds matrices of a type as they are; a driver may know less.
    fn holds(self, dtype: Dtype) -> bool {
        match dtype {
            Dtype::F32 | Dtype::F16 => true,
            Dtype::BF16 => matches!(self, Self::Cpu | Self::Cuda(_)),
            blocks => self.is_cpu() || packing(blocks).is_some(),
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
        problem: "it has no numbers in bf16 (the language of its programs may be WGSL, which has none); leave [run] base_dtype = \"bf16\" and \
                  compute_dtype = \"bf16\" out, or take cuda"
            .to_owned(),
    }
}

/// The problem of a device that does not hold a matrix as its file has it.
pub(super) fn not_as_stored(device: &str, matrix: &str, dtype: Dtype) -> TrainError {
    TrainError::Device {
        device: device.to_owned(),
        problem: format!(
            "{matrix} is {dtype} in its file, which it does not hold; leave [run] base_dtype out, take the cpu, or a base in Q8_0, Q5_0 or Q4_0"
        ),
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
        let bf16 = [Dtype::BF16, Dtype::F32];
        for (device, format, linears, known) in [
            (DeviceChoice::Cpu, BaseFormat::Stored, [Dtype::Q4K; 2], true),
            (DeviceChoice::Cpu, BaseFormat::Bf16, bf16, true),
            (cuda, BaseFormat::Bf16, bf16, true),
            (cuda, BaseFormat::Stored, bf16, true),
            (cuda, BaseFormat::Stored, [Dtype::Q4_0, Dtype::Q4K], false),
            (vulkan, BaseFormat::F32, bf16, true),
            (vulkan, BaseFormat::Bf16, bf16, false),
            (vulkan, BaseFormat::Stored, [Dtype::Q4_0, Dtype::Q8_0], true),
            (metal, BaseFormat::Stored, bf16, false),
        ] {
            let held = device.check_base(linears.into_iter(), format, FloatType::F32);
            assert_eq!(held.is_ok(), known, "{device}, {format:?}: {held:?}");
        }
        for (device, known) in [
            (DeviceChoice::Cpu, true),
            (cuda, true),
            (vulkan, false),
            (metal, false),
        ] {
            let computed = device.check_base(bf16.into_iter(), BaseFormat::F32, FloatType::Bf16);
            assert_eq!(computed.is_ok(), known, "{device}: {computed:?}");
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
