//! GPUs that a graphics driver offers, Vulkan's or on a Mac Metal's, and Mesa's software driver: which there are, and which is taken.

use std::sync::{Mutex, PoisonError};

use burn_backend::read_sync;
use burn_cubecl::{CubeBackend, CubeDevice};
use burn_wgpu::{
    RuntimeOptions, WgpuBackend, WgpuDevice,
    graphics::{Metal, Vulkan},
    try_init_setup, wgpu,
};
use cubecl::device::WgpuDeviceKind;

use super::{DeviceChoice, OnBackend};
use crate::error::TrainError;

/// How a program speaks with the driver.
#[derive(Debug, Clone, Copy)]
pub(super) enum Api {
    Vulkan,
    /// Where there is no macOS, no driver speaks it.
    Metal,
}

impl Api {
    fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "Vulkan",
            Self::Metal => "Metal",
        }
    }

    fn backends(self) -> wgpu::Backends {
        match self {
            Self::Vulkan => wgpu::Backends::VULKAN,
            Self::Metal => wgpu::Backends::METAL,
        }
    }

    /// The library's device of a kind.
    fn device(self, kind: WgpuDeviceKind) -> WgpuDevice {
        WgpuDevice::new(kind).on(match self {
            Self::Vulkan => WgpuBackend::Vulkan,
            Self::Metal => WgpuBackend::Metal,
        })
    }

    fn choice(self, number: Option<usize>) -> DeviceChoice {
        match self {
            Self::Vulkan => DeviceChoice::Vulkan(number),
            Self::Metal => DeviceChoice::Metal(number),
        }
    }

    /// What is missing where no driver offers a device.
    fn remedy(self) -> &'static str {
        match self {
            Self::Vulkan => {
                "install the driver of your GPU, or mesa-vulkan-drivers for one in software"
            }
            Self::Metal => "only macOS has them; on another system take vulkan",
        }
    }
}

/// Devices of this process: the library makes each ready once, and keeps it to the end.
static READY: Mutex<Vec<WgpuDevice>> = Mutex::new(Vec::new());

/// One of the drivers' devices.
struct Adapter {
    name: String,
    kind: WgpuDeviceKind,
}

impl Adapter {
    /// All of them, in the drivers' order.
    fn all(api: Api) -> Vec<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: api.backends(),
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let mut all: Vec<Self> = Vec::new();
        for adapter in read_sync(instance.enumerate_adapters(api.backends())) {
            let info = adapter.get_info();
            // The library numbers the devices of a kind.
            let number = |of: fn(usize) -> WgpuDeviceKind| {
                of((0..)
                    .find(|&n| all.iter().all(|a| a.kind != of(n)))
                    .unwrap_or(0))
            };
            let kind = match info.device_type {
                wgpu::DeviceType::DiscreteGpu => number(WgpuDeviceKind::DiscreteGpu),
                wgpu::DeviceType::IntegratedGpu => number(WgpuDeviceKind::IntegratedGpu),
                wgpu::DeviceType::VirtualGpu => number(WgpuDeviceKind::VirtualGpu),
                wgpu::DeviceType::Other => number(WgpuDeviceKind::Other),
                wgpu::DeviceType::Cpu => WgpuDeviceKind::Cpu,
            };
            all.push(Self {
                name: info.name,
                kind,
            });
        }
        all
    }

    /// How little it is to be preferred.
    fn rank(&self) -> usize {
        match self.kind {
            WgpuDeviceKind::DiscreteGpu(_) => 0,
            WgpuDeviceKind::IntegratedGpu(_) => 1,
            WgpuDeviceKind::VirtualGpu(_) => 2,
            WgpuDeviceKind::Cpu => 4,
            _ => 3,
        }
    }

    /// Its name, and whether it is one in name only.
    fn told(&self, api: Api) -> String {
        let told = format!("{} through {}", self.name, api.name());
        match self.kind {
            WgpuDeviceKind::Cpu => format!("{told}: software, slower than --device cpu"),
            _ => told,
        }
    }
}

/// Makes ready the device with the number in the drivers' list, or the best.
///
/// # Errors
/// [`TrainError::Device`] with the devices that were found.
pub(super) fn open(api: Api, number: Option<usize>) -> Result<OnBackend<CubeBackend>, TrainError> {
    // One at a time: Vulkan loaders crash when instances come and go on several threads.
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    let all = Adapter::all(api);
    let adapter = match number {
        Some(number) => all.get(number),
        None => all.iter().min_by_key(|a| a.rank()),
    };
    let failed = |problem: String| TrainError::Device {
        device: api.choice(number).to_string(),
        problem,
    };
    let adapter = adapter.ok_or_else(|| {
        let list = all.iter().enumerate();
        let list: Vec<String> = list.map(|(i, a)| format!("\n  {i}: {}", a.name)).collect();
        let name = api.name();
        failed(if list.is_empty() {
            format!("no {name} driver offers a device; {}", api.remedy())
        } else {
            format!(
                "the {name} drivers offer no such device, but{}",
                list.concat()
            )
        })
    })?;
    let device = api.device(adapter.kind.clone());
    if !ready.contains(&device) {
        RuntimeOptions::try_default()
            .and_then(|options| match api {
                Api::Vulkan => try_init_setup::<Vulkan>(&device, options),
                Api::Metal => try_init_setup::<Metal>(&device, options),
            })
            .map_err(|e| failed(e.to_string()))?;
        ready.push(device.clone());
    }
    Ok(OnBackend::new(CubeDevice::Wgpu(device), &adapter.told(api)))
}
