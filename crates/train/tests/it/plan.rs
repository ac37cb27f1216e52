//! The memory that `plan` says is the memory that a run takes, and the shapes of the paper's models are planned without their weights.
//!
//! Each run is a process of its own, whose peak of resident memory the system reports: this program again, with [`CHILD`] set.

use std::{fs, io::Write, path::Path, process::Command};

use edgethink_model::{
    Config, Dtype, Family, Model,
    gguf::{ExportOptions, save_model},
};
use edgethink_testkit::{Extras, tiny_config, write_random_model};
use edgethink_train::{
    BaseRecipe, DeviceChoice, LayerCost, PlanOptions, SftRecipe, Silent, base, plan, sft,
};

/// Names the recipe that a process of this test is to run.
const CHILD: &str = "EDGETHINK_TEST_PLANNED";
/// How far the measured peak may be from the planned one.
const FACTOR: f64 = 1.25;

/// About 28 million values, so that the program itself does not count for much.
fn config() -> Config {
    Config {
        hidden_size: 512,
        intermediate_size: 1536,
        num_hidden_layers: 8,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        head_dim: 64,
        vocab_size: 8192,
        ..tiny_config(Family::Qwen2)
    }
}

/// A model, and rows of about 250 tokens of which nearly all are learnt.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let model = dir.path().join("model");
    write_random_model(&model, &config(), 1, Dtype::BF16, Extras::Tokenizer);
    let mut text = String::new();
    for row in 0..16u32 {
        let words: Vec<String> = (0..60u32)
            .map(|i| format!("{:x}", (row * 977 + i * 7919) % 4096))
            .collect();
        let row = serde_json::json!({"prompt": [{"role": "user", "content": "x"}],
            "completion": [{"role": "assistant", "content": words.join(" ")}]});
        text.push_str(&format!("{row}\n"));
    }
    fs::write(dir.path().join("rows.jsonl"), text).expect("written");
    dir
}

fn recipe(dir: &Path, kind: &str, checkpointing: bool) -> std::path::PathBuf {
    let at = |name: &str| dir.join(name).display().to_string();
    let lora = if kind.starts_with("sft") {
        "[lora]\nr = 16\nalpha = 32.0\nmasked = true\n"
    } else {
        ""
    };
    let held = if kind.ends_with("stored") {
        "base_dtype = \"stored\"\n"
    } else if kind.ends_with("bf16") {
        "compute_dtype = \"bf16\"\n"
    } else {
        ""
    };
    let text = format!(
        "output_dir = \"{}\"\nseed = 1\n[model]\nbase = \"{}\"\n[data]\ntrain = [\"{}\"]\nmax_length = 512\nloss = \"completion\"\n{lora}\
         [optimizer]\nlr = 1e-4\nbetas = [0.9, 0.999]\nweight_decay = 0.0\nschedule = \"constant\"\nwarmup_ratio = 0.0\nmax_grad_norm = 1.0\n\
         [run]\nmax_tokens = 1500\nbatch_tokens = 512\nmicro_batch_tokens = 512\ngradient_checkpointing = {checkpointing}\nlog_every = 1\n\
         save_every = 0\nthreads = 2\nresume = \"none\"\n{held}",
        at(&format!("{kind}-{checkpointing}")),
        at("model"),
        at("rows.jsonl"),
    );
    let path = dir.join(format!("{kind}-{checkpointing}.toml"));
    fs::write(&path, text).expect("written");
    path
}

/// Most resident memory of this process so far, bytes.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Runs the recipe that [`CHILD`] names, and prints the peak; nothing where it is not set.
#[test]
fn planned_run() {
    let Ok(path) = std::env::var(CHILD) else {
        return;
    };
    let path = Path::new(&path);
    let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
    if name.starts_with("sft") {
        sft(&SftRecipe::load(path).expect("a recipe"), &mut Silent).expect("it runs");
    } else {
        base(&BaseRecipe::load(path).expect("a recipe"), &mut Silent).expect("it runs");
    }
    let peak = peak().expect("this system reports it");
    writeln!(std::io::stdout(), "peak {peak}").expect("written");
}

#[test]
fn the_planned_memory_is_what_a_run_takes() {
    if peak().is_none() {
        eprintln!("skipped: this system does not report a process's peak of memory");
        return;
    }
    let dir = workspace();
    for (kind, checkpointing) in [
        ("sft", false),
        ("sft", true),
        ("sft-stored", false),
        ("sft-stored", true),
        ("base", false),
        ("base", true),
    ] {
        let path = recipe(dir.path(), kind, checkpointing);
        let planned = plan(&path, &PlanOptions::default()).expect("a plan");
        let exe = std::env::current_exe().expect("this program");
        let output = Command::new(exe)
            .args(["--exact", "plan::planned_run", "--nocapture"])
            .env(CHILD, &path)
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let measured: f64 = text
            .lines()
            .find_map(|line| line.split("peak ").nth(1)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
        let planned_bytes = planned.peak_bytes() as f64;
        let ratio = measured / planned_bytes;
        eprintln!(
            "{kind}, checkpointing {checkpointing}: planned {:.0} MiB, measured {:.0} MiB, {ratio:.3}",
            planned_bytes / 1048576.0,
            measured / 1048576.0
        );
        assert!(
            (1.0 / FACTOR..=FACTOR).contains(&ratio),
            "{kind}, checkpointing {checkpointing}: planned {planned_bytes}, measured {measured}"
        );
        // Checkpointing is not worth mentioning when it is on, and helps when it is off.
        let named = |r: &edgethink_train::Remedy| r.setting.contains("gradient_checkpointing");
        assert_eq!(planned.remedies.iter().any(named), !checkpointing);
    }
    // Less memory is all that differs.
    let adapter = |kind: &str| {
        let path = dir.path().join(kind).join("adapter_model.safetensors");
        fs::read(path).expect("written")
    };
    assert!(adapter("sft-true") == adapter("sft-stored-true"));
    assert!(adapter("sft-false") == adapter("sft-stored-false"));
}

/// Qwen2.5-0.5B with an adapter of rank 16 on a GPU, counted by hand from what each operation hands the tape: 512 tokens at a time.
#[test]
fn the_memory_of_a_gpu_is_what_the_operations_hold() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.json");
    let text = serde_json::json!({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 151_936, "hidden_size": 896,
        "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "hidden_act": "silu", "tie_word_embeddings": true});
    fs::write(&config, text.to_string()).expect("written");
    let planned = |checkpointing| {
        let options = PlanOptions {
            config: Some(config.clone()),
            device: Some(DeviceChoice::Cuda(None)),
            ..PlanOptions::default()
        };
        plan(&recipe(dir.path(), "sft", checkpointing), &options).expect("a plan")
    };
    let whole = planned(false);
    let gpu = whole.device.as_ref().expect("a GPU");
    assert_eq!(
        (whole.parameters(), whole.trainable()),
        (494_032_768, 8_798_208)
    );

    // A masked adapter: rows of its own for each of the seven products.
    let inputs = 896 + 896 + 896 + 896 + 896 + 896 + 4864;
    // Layer's input and middle; queries and attention's output; keys and values; log sums; gate, sigmoid, their product, up; low sides.
    let kept = 2 * 896 + 2 * 896 + 2 * 128 + 14 + 4 * 4864 + 7 * 16 + inputs;
    let layers = 24 * 512 * kept * 4;
    let network = 494_032_768 * 4 + 2 * 8_798_208 * 4;
    // The last layer's output, its norm and its gradient; the gradients of one layer; scores of all 512 rows; 220 rows of logits.
    let head = 3 * 512 * 896 * 4;
    let through = 512 * (4 * 4864 + 3 * 896) * 4;
    let scores = 5 * 14 * 512 * 512 * 4;
    let logits = 4 * 220 * 151_936 * 4;
    assert_eq!(
        gpu.peak_bytes(),
        network + layers + head + through + scores + logits
    );
    // The host: base, adapter, their sums and moments, and what comes back; no activations, no base of its own for the optimizer.
    let host: u64 = whole.layers.iter().map(LayerCost::total).sum();
    assert_eq!(host, 494_032_768 * 4 + 8_798_208 * (4 + 4 + 8));
    assert!(whole.rest.iter().any(|cost| cost.bytes == 8_798_208 * 4));

    // Run again, a layer keeps its input.
    let again = planned(true);
    let inputs = 24 * 512 * 896 * 4;
    let one = 512 * kept * 4 + 8_798_208 / 24 * 4;
    assert_eq!(
        again.device_peak_bytes(),
        network + inputs + head + one + through + scores + logits
    );
    let helps = |r: &edgethink_train::Remedy| {
        r.setting.contains("checkpointing") && r.device_peak_bytes == again.device_peak_bytes()
    };
    assert!(whole.remedies.iter().any(helps));
    // Or the host keeps it.
    let moved = again
        .remedies
        .iter()
        .find(|r| r.setting.contains("offload"));
    assert_eq!(
        moved.map(|r| (r.device_peak_bytes, r.peak_bytes)),
        Some((
            again.device_peak_bytes() - inputs,
            again.peak_bytes() + inputs
        ))
    );

    // Half of the matrices' bytes, and the head in f32 for the loss. Norms and biases stay.
    let vectors = 24 * (2 * 896 + 896 + 128 + 128) + 896;
    let bf16 = whole
        .remedies
        .iter()
        .find(|r| r.setting.contains("base_dtype"));
    let want = gpu.peak_bytes() - 2 * (494_032_768 - vectors) + 4 * 151_936 * 896;
    assert_eq!(bf16.map(|r| r.device_peak_bytes), Some(want));
}

/// The linear layers in blocks of 4 bits: so packed, with a scale in f32 for each 32 values. The rest, and the one that is multiplied with, is f32.
#[test]
fn a_gpu_holds_blocks_of_four_bits_as_their_file_has_them() {
    let dir = workspace();
    let config = config();
    let options = |device| PlanOptions {
        device: Some(device),
        ..PlanOptions::default()
    };
    let file = |dtype| {
        let model = Model::load(&dir.path().join("model").display().to_string()).expect("a model");
        let (name, path) = ("random", dir.path().join(format!("{dtype}.gguf")));
        let options = ExportOptions {
            name,
            dtype: Some(dtype),
        };
        save_model(&model, &path, &options, &mut |_, _| {}).expect("written");
        path
    };
    let planned = |kind: &str, base: &Path, device| {
        let path = recipe(dir.path(), kind, true);
        let text = fs::read_to_string(&path).expect("a recipe");
        let model = dir.path().join("model").display().to_string();
        fs::write(&path, text.replace(&model, &base.display().to_string())).expect("written");
        plan(&path, &options(device))
    };
    let (vulkan, cuda) = (DeviceChoice::Vulkan(None), DeviceChoice::Cuda(None));
    let four = file(Dtype::Q4_0);
    let [f32, stored] =
        ["sft", "sft-stored"].map(|kind| planned(kind, &four, vulkan).expect("a plan"));
    let (e, f, kv) = (
        config.hidden_size as u64,
        config.intermediate_size as u64,
        128,
    );
    let linears = config.num_hidden_layers as u64 * (2 * e * e + 2 * e * kv + 3 * e * f);
    assert_eq!(
        stored.device_peak_bytes(),
        f32.device_peak_bytes() - linears * (4 * 32 - (16 + 4)) / 32 + 4 * e * f
    );
    let remedy = f32.remedies.iter().find(|r| r.setting.contains("stored"));
    assert_eq!(
        remedy.map(|r| r.device_peak_bytes),
        Some(stored.device_peak_bytes())
    );

    // WGSL has no bf16, CUDA has.
    let two = file(Dtype::BF16);
    let error = planned("sft-stored", &two, vulkan)
        .expect_err("no bf16")
        .to_string();
    assert!(error.contains("BF16") && error.contains("Q4_0"), "{error}");
    let bf16 = planned("sft-stored", &two, cuda).expect("a plan");
    assert_eq!(
        bf16.device_peak_bytes(),
        f32.device_peak_bytes() - 2 * linears + 4 * e * f
    );

    // Computed in bf16: a matrix, what it multiplies and the result, each in two bytes.
    let error = planned("sft-bf16", &two, vulkan).expect_err("no bf16");
    assert!(error.to_string().contains("compute_dtype"), "{error}");
    let computed = planned("sft-bf16", &two, cuda).expect("a plan");
    assert_eq!(
        computed.device_peak_bytes(),
        f32.device_peak_bytes() + 2 * (e * f + 2 * 512 * f)
    );
}

#[test]
fn what_runs_on_the_cpu_only_is_not_planned_for_a_gpu() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/qwen2.5-7b");
    let recipe = recipes.join("verifier.toml");
    let options = PlanOptions {
        config: Some(recipes.join("config.json")),
        device: Some(DeviceChoice::Vulkan(None)),
        ..PlanOptions::default()
    };
    let error = plan(&recipe, &options).expect_err("no GPU").to_string();
    assert!(error.contains("CPU only"), "{error}");
}
