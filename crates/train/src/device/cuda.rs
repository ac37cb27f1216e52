//! NVIDIA GPUs through CUDA: the driver's library is loaded at run time, where there is one.

use std::{
    env, panic,
    path::{Path, PathBuf},
};

use burn_cubecl::{CubeBackend, CubeDevice};
use cubecl::device::{CudaDevice, DeviceUnavailable};

use super::{DeviceChoice, OnBackend};
use crate::error::TrainError;

/// Makes ready the device with the number in the driver's list.
///
/// # Errors
/// [`TrainError::Device`] with the devices that were found, and what to do where there are none.
pub(super) fn open(number: usize) -> Result<OnBackend<CubeBackend>, TrainError> {
    // Asks whether the driver's library is there before it calls it: without it a call ends the program.
    let device = CubeDevice::cuda(number).map_err(|e| {
        failed(
            number,
            match e {
                DeviceUnavailable::NoSuchDevice { available, .. } if available > 0 => {
                    format!("the NVIDIA driver offers no such device, but{}", list(available))
                }
                _ => "no NVIDIA driver with a GPU was found (its library is libcuda.so.1, nvcuda.dll on Windows): `nvidia-smi` must list the GPU; \
                      install the driver, start a container with the GPU (`docker run --gpus all`), or take vulkan or cpu"
                    .to_owned(),
            },
        )
    })?;
    if !has_libdevice(env::var_os("CUDA_PATH").map(PathBuf::from).as_deref()) {
        return Err(failed(
            number,
            format!(
                "{LIBDEVICE} was not found, which the library makes exponentials with: set CUDA_PATH to a folder that has it, of a CUDA toolkit or \
                 of the Python package nvidia-cuda-nvcc-cu12 (.../site-packages/nvidia/cuda_nvcc)"
            ),
        ));
    }
    let name = name(number)?;
    Ok(OnBackend::new(device, &format!("{name} through CUDA")))
}

/// NVIDIA's mathematical functions, as code that is linked into what runs on the GPU.
const LIBDEVICE: &str = "nvvm/libdevice/libdevice.10.bc";

/// Whether the library will find them: in `given`, or where it looks if nothing is given. It looks when the first product is made.
fn has_libdevice(given: Option<&Path>) -> bool {
    let usual = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"].map(Path::new);
    let is_in = |root: &Path| root.join(LIBDEVICE).is_file();
    given.map_or_else(|| usual.into_iter().any(is_in), is_in)
}

/// The names of the devices, a line each.
fn list(count: usize) -> String {
    let line = |n| match name(n) {
        Ok(name) => format!("\n  {n}: {name}"),
        Err(problem) => format!("\n  {n}: {problem}"),
    };
    (0..count).map(line).collect()
}

/// The device's name. The library makes it ready for that, and panics if the driver refuses, as where another program holds it alone.
fn name(number: usize) -> Result<String, TrainError> {
    let device = CubeDevice::Cuda(CudaDevice::new(number));
    panic::catch_unwind(move || device.client().properties().identity.name.clone()).map_err(|why| {
        let why = why.downcast::<String>().map_or_else(
            |why| {
                why.downcast::<&str>()
                    .map_or("of an unknown kind".to_owned(), |s| (*s).to_owned())
            },
            |s| *s,
        );
        failed(number, format!("the driver's problem is {why}"))
    })
}

fn failed(number: usize, problem: String) -> TrainError {
    TrainError::Device {
        device: DeviceChoice::Cuda(Some(number)).to_string(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libdevice_is_looked_for_in_the_given_folder_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_libdevice(Some(dir.path())));
        let file = dir.path().join(LIBDEVICE);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
        assert!(has_libdevice(Some(dir.path())));
    }
}
