//! Training on another device than the CPU: what a recipe says, and what a run there gives.

use std::fs;

use crate::support::*;
use edgethink_train::{BaseRecipe, Checkpointing, DeviceChoice, Silent, TrainError, base};

#[test]
fn a_recipe_names_a_device_and_the_cpu_needs_no_name() {
    let dir = workspace();
    let recipe = base_recipe(dir.path(), "out");
    assert_eq!(recipe.run.device, DeviceChoice::Cpu);
    assert!(!serde_json::to_string(&recipe).unwrap().contains("device"));

    let path = dir.path().join("out.toml");
    let text = fs::read_to_string(&path).unwrap();
    let load = |device: &str| {
        fs::write(&path, format!("{text}device = {device:?}\n")).unwrap();
        BaseRecipe::load(&path)
    };
    assert_eq!(
        load("vulkan:1").unwrap().run.device,
        DeviceChoice::Vulkan(Some(1))
    );
    let error = load("opencl").unwrap_err().to_string();
    assert!(error.contains("vulkan"), "{error}");
}

#[test]
fn layers_inputs_are_kept_on_the_host_of_a_gpu_only() {
    let dir = workspace();
    base_recipe(dir.path(), "out");
    let path = dir.path().join("out.toml");
    let text = fs::read_to_string(&path).unwrap();
    let load = |kept: &str| {
        fs::write(&path, format!("{text}gradient_checkpointing = {kept}\n")).unwrap();
        BaseRecipe::load(&path)
    };
    let recipe = load("\"offload\"").unwrap();
    assert_eq!(
        load("true").unwrap().run.gradient_checkpointing,
        Checkpointing::On
    );
    assert!(
        serde_json::to_string(&recipe)
            .unwrap()
            .contains("\"offload\"")
    );
    for wrong in ["\"host\"", "1"] {
        let error = load(wrong).unwrap_err().to_string();
        assert!(error.contains("true, false or \"offload\""), "{error}");
    }
    let error = base(&recipe, &mut Silent).unwrap_err().to_string();
    assert!(
        error.contains("cpu") && error.contains("set it to true"),
        "{error}"
    );
}

/// What is said of a run on a device that is not there.
fn refused(device: DeviceChoice) -> String {
    let dir = workspace();
    let mut recipe = base_recipe(dir.path(), "out");
    recipe.run.device = device;
    let error = base(&recipe, &mut Silent).unwrap_err();
    assert!(matches!(error, TrainError::Device { .. }), "{error}");
    error.to_string()
}

#[cfg(not(feature = "vulkan"))]
#[test]
fn a_build_without_vulkan_says_how_to_make_one_with_it() {
    for device in [DeviceChoice::Vulkan(None), DeviceChoice::Metal(None)] {
        let error = refused(device);
        assert!(error.contains("--features vulkan"), "{error}");
    }
}

#[cfg(all(feature = "vulkan", not(target_os = "macos")))]
#[test]
fn metal_is_refused_where_there_is_no_macos() {
    let error = refused(DeviceChoice::Metal(None));
    assert!(error.contains("only macOS"), "{error}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_how_to_make_one_with_it() {
    let error = refused(DeviceChoice::Cuda(None));
    assert!(error.contains("--features cuda"), "{error}");
}

/// Number 99 is there on no machine, with a driver or without one.
#[cfg(feature = "cuda")]
#[test]
fn a_missing_nvidia_gpu_is_an_error_that_says_what_to_do() {
    let error = refused(DeviceChoice::Cuda(Some(99)));
    let without = error.contains("no NVIDIA driver") && error.contains("nvidia-smi");
    assert!(without || error.contains("\n  0: "), "{error}");
}

/// Needs a Vulkan driver: `tests/vulkan/run.sh` installs one in software.
#[cfg(feature = "vulkan")]
mod vulkan {
    use std::path::Path;

    use edgethink_model::hf::safetensors;
    use edgethink_train::{Event, Progress, QuantizeRecipe, quantize, sft};
    use serde_json::Value;

    use super::*;

    /// Losses of a run, and the device that it told of.
    #[derive(Default)]
    struct Heard {
        losses: Vec<f64>,
        device: Option<String>,
    }

    impl Progress for Heard {
        fn event(&mut self, event: &Event) {
            match event {
                Event::Step { loss, .. } => self.losses.push(*loss),
                Event::Device { name } => self.device = Some(name.clone()),
                _ => {}
            }
        }
        fn stop(&mut self) -> bool {
            false
        }
    }

    /// Step by step the same loss to 1e-4 of it, and the same trained values to 2e-3 of the largest of each tensor. AdamW divides a gradient by
    /// its size, so that rounding alone moves a value that has hardly any gradient.
    fn assert_same(cpu: &Heard, gpu: &Heard, [one, other]: [&Path; 2]) {
        assert_eq!(cpu.device, None);
        assert_eq!(cpu.losses.len(), gpu.losses.len());
        assert!(cpu.losses.len() >= 5, "{:?}", cpu.losses);
        for (step, (a, b)) in cpu.losses.iter().zip(&gpu.losses).enumerate() {
            assert!((a - b).abs() <= 1e-4 * a, "step {step}: {b} is not {a}");
        }
        let (one, other) = (
            safetensors::open(one).unwrap(),
            safetensors::open(other).unwrap(),
        );
        assert_eq!(one.len(), other.len());
        for (name, tensor) in &one {
            let (a, b) = (tensor.to_f32(), other[name].to_f32());
            let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (a, b) in a.iter().zip(&b) {
                assert!((a - b).abs() <= 2e-3 * largest, "{name}: {b} is not {a}");
            }
        }
    }

    fn record(dir: &Path) -> Value {
        serde_json::from_slice(&bytes(&dir.join("run.json"))).unwrap()
    }

    #[test]
    fn a_base_trains_as_on_the_cpu() {
        let dir = workspace();
        let run = |out: &str, device, checkpointing| {
            let mut recipe = base_recipe(dir.path(), out);
            recipe.run.device = device;
            recipe.run.epochs = Some(0.75);
            recipe.run.gradient_checkpointing = checkpointing;
            let mut heard = Heard::default();
            base(&recipe, &mut heard).unwrap();
            heard
        };
        let cpu = run("cpu", DeviceChoice::Cpu, Checkpointing::Off);
        let gpu = run("gpu", DeviceChoice::Vulkan(None), Checkpointing::Offload);
        let at = |out: &str| dir.path().join(out);
        let model = |out: &str| at(out).join("model.safetensors");
        assert_same(&cpu, &gpu, [&model("cpu"), &model("gpu")]);
        let name = gpu.device.unwrap();
        println!("Vulkan: {name}");
        assert_eq!(record(&at("gpu"))["device"], name);
        assert_eq!(record(&at("cpu"))["device"], "cpu");
    }

    #[test]
    fn a_masked_adapter_with_dropout_trains_as_on_the_cpu() {
        let dir = workspace();
        let mut start = base_recipe(dir.path(), "base");
        start.run.epochs = Some(1.0);
        base(&start, &mut Silent).unwrap();
        let run = |out: &str, device| {
            let mut recipe = sft_recipe(dir.path(), "base", out, true, 0.75);
            recipe.run.device = device;
            let mut heard = Heard::default();
            sft(&recipe, &mut heard).unwrap();
            heard
        };
        let cpu = run("cpu", DeviceChoice::Cpu);
        let gpu = run("gpu", DeviceChoice::Vulkan(None));
        let adapter = |out: &str| dir.path().join(out).join("adapter_model.safetensors");
        assert_same(&cpu, &gpu, [&adapter("cpu"), &adapter("gpu")]);
    }

    #[test]
    fn ranges_and_transforms_are_learnt_as_on_the_cpu() {
        let dir = workspace_of(32);
        let d = dir.path().display();
        let mut start = base_recipe(dir.path(), "base");
        start.run.epochs = Some(4.0);
        base(&start, &mut Silent).unwrap();
        let table = "bits = 4\ngroup = 32\nrange = { lp = 2.0 }\nrounding = \"nearest\"\n";
        let tables = ["linears", "embedding", "lm_head", "tied"];
        let tables: String = tables.iter().map(|t| format!("[{t}]\n{table}")).collect();
        let scheme = dir.path().join("scheme.toml");
        fs::write(&scheme, format!("{tables}[transforms]\nnorm = true\n")).unwrap();
        let run = |out: &str, device, checkpointing| {
            let path = dir.path().join(format!("{out}.toml"));
            let text = format!(
                "output_dir = \"{d}/{out}\"\nseed = 3\nscheme = \"{d}/scheme.toml\"\n[model]\nbase = \"{d}/base\"\n\
                 [data]\ntrain = [\"{d}/train.jsonl\"]\nmax_length = 16\n{}",
                run_section(0.75)
            );
            fs::write(&path, text).unwrap();
            let mut recipe = QuantizeRecipe::load(&path).unwrap();
            recipe.run.device = device;
            recipe.run.gradient_checkpointing = checkpointing;
            let mut heard = Heard::default();
            quantize(&recipe, &mut heard).unwrap();
            heard
        };
        let cpu = run("cpu", DeviceChoice::Cpu, Checkpointing::Off);
        let gpu = run("gpu", DeviceChoice::Vulkan(None), Checkpointing::On);
        assert_eq!(cpu.losses.len(), gpu.losses.len());
        assert!(cpu.losses.len() >= 5, "{:?}", cpu.losses);
        // A divergence is a sum of differences of logarithms, each good to 1e-7. And a rounded weight jumps where a range has moved by a
        // hair: after the first step losses are near each other, not the same.
        for (step, (a, b)) in cpu.losses.iter().zip(&gpu.losses).enumerate() {
            let within = if step == 0 { 1e-4 } else { 2e-2 };
            let apart = (a - b).abs();
            assert!(apart <= within * a + 1e-6, "step {step}: {b} is not {a}");
        }
        println!("divergences {:?} and {:?}", cpu.losses, gpu.losses);
    }

    #[test]
    fn a_gpu_that_is_not_there_is_told_with_those_that_are() {
        let error = refused(DeviceChoice::Vulkan(Some(99)));
        assert!(error.contains("\n  0: "), "{error}");
    }
}
