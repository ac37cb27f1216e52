//! The name of a device in a recipe and on the command line: `cpu`, `vulkan`, or `vulkan:N` for one of several GPUs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Which device trains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// A GPU through Vulkan: the one with the number in the driver's list, or the best.
    Vulkan(Option<usize>),
}

impl DeviceChoice {
    /// Whether it is the CPU: what a recipe says that names none.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu)
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Vulkan(None) => f.write_str("vulkan"),
            Self::Vulkan(Some(number)) => write!(f, "vulkan:{number}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text:?} is no device: cpu, vulkan or vulkan:N");
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "vulkan" => Ok(Self::Vulkan(None)),
            Some(("vulkan", number)) => match number.parse() {
                Ok(number) => Ok(Self::Vulkan(Some(number))),
                Err(_) => Err(unknown()),
            },
            _ => Err(match text {
                "cuda" | "metal" => format!(
                    "{text} is not built: its code could be tested on no machine of this project; a GPU with a Vulkan driver trains with vulkan"
                ),
                _ => unknown(),
            }),
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
    fn names_are_read_as_they_are_written() {
        for choice in [
            DeviceChoice::Cpu,
            DeviceChoice::Vulkan(None),
            DeviceChoice::Vulkan(Some(2)),
        ] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for wrong in [
            "", "gpu", "vulkan:", "vulkan:x", "cpu:0", "cuda", "cuda:1", "metal",
        ] {
            let error = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(error.contains("vulkan"), "{error}");
        }
    }
}
