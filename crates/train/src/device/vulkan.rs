//! GPUs with a Vulkan driver, and Mesa's software driver: which there are, and which is taken.

use std::sync::{Mutex, PoisonError};

use burn_backend::{BackendTypes, read_sync};
use burn_wgpu::{
    RuntimeOptions, Wgpu, WgpuBackend, WgpuDevice, graphics::Vulkan, try_init_setup, wgpu,
};
use cubecl::device::WgpuDeviceKind;

use super::OnBackend;
use crate::error::TrainError;

type Device = <Wgpu as BackendTypes>::Device;

/// Devices of this process: the library makes each ready once, and keeps it to the end.
static READY: Mutex<Vec<WgpuDevice>> = Mutex::new(Vec::new());

/// One of the drivers' devices.
struct Adapter {
    name: String,
    kind: WgpuDeviceKind,
}

impl Adapter {
    /// All of them, in the drivers' order.
    fn all() -> Vec<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let mut all: Vec<Self> = Vec::new();
        for adapter in read_sync(instance.enumerate_adapters(wgpu::Backends::VULKAN)) {
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
    fn told(&self) -> String {
        match self.kind {
            WgpuDeviceKind::Cpu => format!(
                "{} through Vulkan: software, slower than --device cpu",
                self.name
            ),
            _ => format!("{} through Vulkan", self.name),
        }
    }
}

/// Makes ready the device with the number in the drivers' list, or the best.
///
/// # Errors
/// [`TrainError::Device`] with the devices that were found.
pub(super) fn open(number: Option<usize>) -> Result<OnBackend<Wgpu>, TrainError> {
    // One at a time: Vulkan loaders crash when instances come and go on several threads.
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    let all = Adapter::all();
    let adapter = match number {
        Some(number) => all.get(number),
        None => all.iter().min_by_key(|a| a.rank()),
    };
    let failed = |problem: String| TrainError::Device {
        device: super::DeviceChoice::Vulkan(number).to_string(),
        problem,
    };
    let adapter = adapter.ok_or_else(|| {
        let list = all.iter().enumerate();
        let list: Vec<String> = list.map(|(i, a)| format!("\n  {i}: {}", a.name)).collect();
        failed(if list.is_empty() {
            "no Vulkan driver offers a device; install the driver of your GPU, or mesa-vulkan-drivers for one in software".to_owned()
        } else {
            format!("the Vulkan drivers offer no such device, but{}", list.concat())
        })
    })?;
    let device = WgpuDevice::new(adapter.kind.clone()).on(WgpuBackend::Vulkan);
    if !ready.contains(&device) {
        RuntimeOptions::try_default()
            .and_then(|options| try_init_setup::<Vulkan>(&device, options))
            .map_err(|e| failed(e.to_string()))?;
        ready.push(device.clone());
    }
    Ok(OnBackend::new(Device::Wgpu(device), &adapter.told()))
}
