//! The memory that `plan` says is the memory that a run takes, and the shapes of the paper's models are planned without their weights.
//!
//! Each run is a process of its own, whose peak of resident memory the system reports: this program again, with [`CHILD`] set.

use std::{fs, io::Write, path::Path, process::Command};

use edgethink_model::{Config, Dtype, Family};
use edgethink_testkit::{Extras, tiny_config, write_random_model};
use edgethink_train::{BaseRecipe, PlanOptions, SftRecipe, Silent, base, plan, sft};

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
    let lora = if kind == "sft" {
        "[lora]\nr = 16\nalpha = 32.0\nmasked = true\n"
    } else {
        ""
    };
    let text = format!(
        "output_dir = \"{}\"\nseed = 1\n[model]\nbase = \"{}\"\n[data]\ntrain = [\"{}\"]\nmax_length = 512\nloss = \"completion\"\n{lora}\
         [optimizer]\nlr = 1e-4\nbetas = [0.9, 0.999]\nweight_decay = 0.0\nschedule = \"constant\"\nwarmup_ratio = 0.0\nmax_grad_norm = 1.0\n\
         [run]\nmax_tokens = 500\nbatch_tokens = 512\nmicro_batch_tokens = 512\ngradient_checkpointing = {checkpointing}\nlog_every = 1\n\
         save_every = 0\nthreads = 2\nresume = \"none\"\n",
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
        // The gradients of a whole network are partly freed before all of them are there: such a plan is on the safe side.
        let least = if kind == "sft" { 1.0 / FACTOR } else { 0.6 };
        assert!(
            (least..=FACTOR).contains(&ratio),
            "{kind}, checkpointing {checkpointing}: planned {planned_bytes}, measured {measured}"
        );
        // Checkpointing is not worth mentioning when it is on, and helps when it is off.
        let named = |r: &edgethink_train::Remedy| r.setting.contains("gradient_checkpointing");
        assert_eq!(planned.remedies.iter().any(named), !checkpointing);
    }
}
