//! `edgethink data` and `edgethink train plan`: what they print, what they write, and what they refuse.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Model, edgethink, json, stderr, stdout};

const QUESTION: &str =
    "A train leaves at nine and goes sixty miles an hour for two hours. How far does it go?";

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")
}

#[test]
fn rows_that_share_words_with_a_benchmark_are_left_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let clean = format!(
        "{{\"prompt\":\"What is  2 + 2?\",\"completion\":\"{}\"}}",
        "4 ".repeat(30)
    );
    let copy = format!(
        "{{\"problem\":\"{}\",\"solution\":\"120\"}}",
        QUESTION.to_uppercase()
    );
    fs::write(at("train.jsonl"), format!("{clean}\n{copy}\n")).expect("written");
    let test = format!(
        "[{{\"question\": \"{QUESTION}\", \"answer\": \"120\"}}, {{\"question\": \"Why?\", \"answer\": \"x\"}}]"
    );
    fs::write(at("test.json"), test).expect("written");
    let run = |extra: &[&str]| {
        let mut command = edgethink();
        command.current_dir(dir.path());
        command.args(["data", "decontaminate", "train.jsonl"]);
        command
            .args(["--against", "test.json", "--offline"])
            .args(extra);
        command.output().expect("it runs")
    };
    let text = stdout(&run(&["--out", "clean.jsonl", "--report", "report.json"]));
    assert!(
        text.starts_with("1 of 2 rows (50.000 %) share 13 words"),
        "{text}"
    );
    assert!(
        text.contains("train.jsonl row 2 and test.json row 1: a train leaves"),
        "{text}"
    );
    assert_eq!(
        fs::read_to_string(at("clean.jsonl")).expect("read"),
        format!("{clean}\n")
    );
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(at("report.json")).expect("read")).expect("JSON");
    assert_eq!(report["benchmarks"][0]["found"]["1"], 1);
    assert_eq!(report["benchmarks"][0]["too_short"], 1);
    // The same by a task with its file, whose questions have another name there.
    let task = edgethink()
        .current_dir(dir.path())
        .args(["data", "decontaminate", "train.jsonl", "--offline"])
        .args(["--against", "amc23=test.json"])
        .output()
        .expect("it runs");
    assert!(
        stdout(&task).starts_with("1 of 2 rows"),
        "{}",
        stdout(&task)
    );
    let refused = run(&["--out", "train.jsonl"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("one of the files that are read"));
}

#[test]
fn lengths_are_counted_by_the_models_own_tokenizer() {
    let model = Model::new();
    let dir = tempfile::tempdir().expect("a directory");
    let rows = dir.path().join("rows.jsonl");
    let row = r#"{"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "<think>\nhm\n</think>\n\nworld"}]}"#;
    fs::write(&rows, format!("{row}\n{row}\n")).expect("written");
    let svg = dir.path().join("lengths.svg");
    let run = |extra: &[&str]| {
        let mut command = edgethink();
        command.args(["data", "stats"]).arg(&rows);
        command
            .args(["--model", model.path(), "--max-length", "8"])
            .args(extra);
        command.output().expect("it runs")
    };
    let found = json(&run(&["--json", "--svg", svg.to_str().expect("UTF-8")]));
    assert_eq!((&found["rows"], &found["longer"]), (&2.into(), &2.into()));
    let mean = |part: &str| found["parts"][part]["mean"].as_f64().expect("a number");
    assert!(mean("prompt") > mean("answer") && mean("thought") > 0.0);
    let sum = mean("prompt") + mean("thought") + mean("answer");
    assert!((mean("whole") - sum).abs() < 1e-9);
    assert!(fs::read_to_string(svg).expect("a picture").contains("<svg"));
    let text = stdout(&run(&[]));
    assert!(
        text.contains("2 rows (100.00 %) are longer than 8 tokens"),
        "{text}"
    );
    assert!(text.contains("####"), "{text}");
}

#[test]
fn every_recipe_of_the_papers_models_is_planned_from_its_config() {
    for size in ["qwen2.5-7b", "qwen2.5-3b"] {
        let dir = recipes().join(size);
        for name in ["sft", "grpo", "grpo-beta1e-4", "switcher", "verifier"] {
            let output = edgethink()
                .args(["train", "plan", "--no-times", "--json", "--memory", "1000"])
                .arg(dir.join(format!("{name}.toml")))
                .arg("--model-config")
                .arg(dir.join("config.json"))
                .output()
                .expect("it runs");
            let plan = json(&output);
            assert_eq!(plan["kind"], name.trim_end_matches("-beta1e-4"), "{size}");
            assert!(plan["peak_bytes"].as_u64() > Some(1 << 30), "{size} {name}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_settings_that_help() {
    let dir = recipes().join("qwen2.5-7b");
    let with = |more: &[&str]| {
        edgethink()
            .args(["train", "plan", "--no-times"])
            .args(more)
            .arg(dir.join("sft.toml"))
            .arg("--model-config")
            .arg(dir.join("config.json"))
            .output()
            .expect("it runs")
    };
    let run = |memory: &str| with(&["--memory", memory]);
    let output = run("1000");
    let text = stdout(&output);
    assert!(text.contains("322,961,408 values are trained"), "{text}");
    assert!(text.contains("layers 0 to 27, each"), "{text}");
    let refused = run("24");
    assert_eq!(refused.status.code(), Some(1));
    let error = stderr(&refused);
    assert!(
        error.contains("this needs") && error.contains("[data] max_length = 8192"),
        "{error}"
    );

    // A GPU has memory of its own; the host's, which is enough here, is not held against it.
    let gpu = ["--memory", "1000", "--device", "cuda:1", "--device-memory"];
    let output = with(&[&gpu[..], &["1000"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("On the GPU (cuda:1):"));
    let refused = with(&[&gpu[..], &["8"]].concat());
    assert_eq!(refused.status.code(), Some(1));
    let error = stderr(&refused);
    assert!(
        error.contains("of the GPU, and there are 8.0 GiB") && error.contains("max_length = 8192"),
        "{error}"
    );
    // What is said of a GPU needs one to be named.
    let error = stderr(&with(&["--device-memory", "8"]));
    assert!(error.contains("--device"), "{error}");
}

#[test]
fn a_dry_run_writes_nothing() {
    let model = Model::new();
    let dir = tempfile::tempdir().expect("a directory");
    let recipe = dir.path().join("sft.toml");
    let text = format!(
        "output_dir = \"{}\"\nseed = 1\n[model]\nbase = \"{}\"\n[data]\ntrain = [\"missing.jsonl\"]\nmax_length = 64\n\
         [lora]\nr = 4\nalpha = 8.0\nmasked = true\n[optimizer]\nlr = 1e-3\nbetas = [0.9, 0.999]\nweight_decay = 0.0\n\
         schedule = \"cosine\"\nwarmup_ratio = 0.1\nmax_grad_norm = 1.0\n[run]\nmax_tokens = 1000\nbatch_tokens = 128\n\
         micro_batch_tokens = 64\nlog_every = 1\nsave_every = 0\n",
        dir.path().join("out").display(),
        model.path()
    );
    fs::write(&recipe, text).expect("written");
    let output = edgethink()
        .args(["train", "sft", "--dry-run", "--config"])
        .arg(&recipe)
        .output()
        .expect("it runs");
    let text = stdout(&output);
    assert!(
        text.contains("peak of the whole") && text.contains("(estimate)"),
        "{text}"
    );
    assert!(text.contains("for 8 steps"), "{text}");
    assert!(!dir.path().join("out").exists());
}
