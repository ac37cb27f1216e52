//! `edgethink quantize` and `edgethink eval ppl`: the file that is written runs, and its perplexity can be told.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Model, edgethink, json, stderr, stdout};
use edgethink_model::{Config, Dtype, Family};
use edgethink_testkit::{Extras, tiny_config, write_random_model};
use serde_json::Value;

const TEXT: &str = "hello there, the world and 12345 things; then hello again. ";

/// The scheme of a recipe.
fn recipe(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quantize");
    root.join(format!("{name}.toml"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// `edgethink quantize` of a model by a scheme.
fn quantize<'a>(model: &'a str, scheme: &'a Path, out: &'a Path) -> [&'a str; 7] {
    let (scheme, out) = (text(scheme), text(out));
    [
        "quantize", "--model", model, "--scheme", scheme, "--out", out,
    ]
}

fn ppl(model: &str, file: &Path, flag: &str) -> Value {
    let args = [
        "eval",
        "ppl",
        flag,
        text(file),
        "--model",
        model,
        "--ctx",
        "32",
        "--json",
    ];
    json(&edgethink().args(args).output().expect("it runs"))
}

#[test]
fn every_recipe_makes_a_model_that_runs() {
    let model = Model::new();
    let dir = tempfile::tempdir().expect("a directory");
    let corpus = dir.path().join("text.txt");
    std::fs::write(&corpus, TEXT.repeat(800)).expect("written");
    let before = ppl(model.path(), &corpus, "--text");
    let recipes = std::fs::read_dir(recipe("q8").parent().expect("a directory")).expect("recipes");
    let mut count = 0;
    for entry in recipes {
        let scheme = entry.expect("an entry").path();
        let out = dir
            .path()
            .join(scheme.with_extension("gguf").file_name().expect("a name"));
        let output = edgethink()
            .args(quantize(model.path(), &scheme, &out))
            .args(["--calibration", text(&corpus), "--json"])
            .output()
            .expect("it runs");
        let said = stderr(&output);
        if scheme.ends_with("q4_g128.toml") {
            // The tiny model's rows have 64 elements.
            assert!(said.contains("no whole number of groups of 128"), "{said}");
            continue;
        }
        assert!(output.status.success(), "{}: {said}", scheme.display());
        let report = json(&output);
        // The tiny model is stored in f32.
        assert!(
            report["share"].as_f64().is_some_and(|x| x < 0.35),
            "{report}"
        );
        assert!(
            report["bits_per_weight"]
                .as_f64()
                .is_some_and(|x| (4.5..11.0).contains(&x)),
            "{report}"
        );
        let after = ppl(text(&out), &corpus, "--text");
        let nats = |value: &Value| value["nll"].as_f64().expect("a number");
        assert!(
            (nats(&after) - nats(&before)).abs() < 1.5,
            "{}: {after} after {before}",
            scheme.display()
        );
        let ask = [
            "ask",
            "--model",
            text(&out),
            "--max-tokens",
            "4",
            "--ignore-eos",
            "hello",
        ];
        assert!(!stdout(&edgethink().args(ask).output().expect("it runs")).is_empty());
        count += 1;
    }
    assert!(count >= 4, "{count} recipes");
}

#[test]
fn perplexity_scores_the_second_half_or_the_completion() {
    let model = Model::new();
    let dir = tempfile::tempdir().expect("a directory");
    let corpus = dir.path().join("text.txt");
    std::fs::write(&corpus, TEXT.repeat(20)).expect("written");
    let whole = ppl(model.path(), &corpus, "--text");
    let chunks = whole["chunks"].as_u64().expect("a count");
    assert_eq!(whole["scored_tokens"], chunks * 15, "{whole}");
    let rows = dir.path().join("rows.jsonl");
    let row = r#"{"prompt": "hello there", "completion": " world"}
{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]}
"#;
    std::fs::write(&rows, row).expect("written");
    let scored = ppl(model.path(), &rows, "--jsonl");
    assert_eq!(scored["chunks"], 2, "{scored}");
    assert!(scored["ppl"].as_f64().is_some_and(|x| x > 1.0), "{scored}");
}

#[test]
fn mistakes_are_named() {
    let model = Model::new();
    let dir = tempfile::tempdir().expect("a directory");
    let scheme = dir.path().join("scheme.toml");
    let out = dir.path().join("out.gguf");
    let fails = |args: &[&str]| {
        let output = edgethink().args(args).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stderr(&output)
    };
    let known = std::fs::read_to_string(recipe("q8")).expect("a recipe");
    std::fs::write(&scheme, known.replacen("bits = 8", "bits = 8\nspin = 1", 1)).expect("written");
    let args = quantize(model.path(), &scheme, &out);
    assert!(fails(&args).contains("spin"));
    std::fs::write(&scheme, format!("{known}\n[transforms]\nresidual = true\n")).expect("written");
    assert!(
        fails(&args).contains("untie = true"),
        "a tied model is refused with the remedy"
    );
    assert!(!out.exists());
    let short = dir.path().join("short.txt");
    std::fs::write(&short, "hello").expect("written");
    let args = [
        "eval",
        "ppl",
        "--text",
        text(&short),
        "--model",
        model.path(),
    ];
    assert!(fails(&args).contains("do not fill one chunk"));
}

/// A killed run leaves whole parts behind, and the same command makes the same bytes of them.
#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = dir.path().join("model");
    let config = Config {
        hidden_size: 256,
        head_dim: 64,
        intermediate_size: 1024,
        num_hidden_layers: 12,
        ..tiny_config(Family::Qwen2)
    };
    write_random_model(&model, &config, 3, Dtype::BF16, Extras::Tokenizer);
    let start = |out: &Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_edgethink"));
        command
            .args(quantize(text(&model), &recipe("q4_g32"), out))
            .args(["--threads", "1"])
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        command.spawn().expect("it starts")
    };
    let whole = dir.path().join("whole.gguf");
    assert!(start(&whole).wait().expect("it ends").success());
    let out = dir.path().join("killed.gguf");
    let work = dir.path().join("killed.gguf.work");
    for part in ["layer-0001.gguf", "layer-0005.gguf"] {
        let mut child = start(&out);
        while !work.join(part).exists() {
            let ended = child.try_wait().expect("it can be asked");
            assert!(
                ended.is_none(),
                "it ended before it could be killed at {part}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        // SIGKILL on Unix: nothing can be tidied up.
        child.kill().expect("it can be killed");
        assert!(!child.wait().expect("it ends").success(), "it was killed");
        assert!(!out.exists(), "nothing half-written");
    }
    assert!(start(&out).wait().expect("it ends").success());
    let read = |path: &Path| std::fs::read(path).expect("it was written");
    assert!(read(&out) == read(&whole), "other bytes after two kills");
    assert!(!work.exists(), "the work is cleared away");
}
