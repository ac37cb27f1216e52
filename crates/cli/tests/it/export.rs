//! `edgethink export` and `edgethink bundle`: files that give the same answers as what they came from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Model, edgethink, json, stderr, stdout};
use edgethink_model::{Adapter, Linear, LoraPair, Tensor};
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn run(args: &[&str]) -> std::process::Output {
    edgethink().args(args).output().expect("it runs")
}

/// A directory with an adapter for the tiny model, activated at the assistant's header or plain.
fn adapter(model: &Model, dir: &TempDir, activated: bool) -> PathBuf {
    let model = edgethink_model::Model::load(model.path()).expect("it loads");
    let tokenizer = model.tokenizer.as_ref().expect("there");
    let header = tokenizer
        .encode("<|im_start|>assistant\n", false)
        .expect("text");
    let mut layers = vec![[const { None }; 7]; model.config.num_hidden_layers];
    for pairs in &mut layers {
        for linear in [Linear::Q, Linear::Down] {
            let (out, inner) = model.config.linear_shape(linear);
            let matrix = |rows: usize, cols: usize| {
                let values: Vec<f32> = (0..rows * cols)
                    .map(|i| (i * 7 % 11) as f32 / 10.0 - 0.5)
                    .collect();
                Tensor::from_f32(vec![rows, cols], &values).expect("a matrix")
            };
            pairs[linear as usize] = Some(LoraPair {
                a: matrix(4, inner),
                b: matrix(out, 4),
                scale: 1.0,
            });
        }
    }
    let adapter = Adapter::new("think", activated.then_some(header), layers, &model.config);
    let path = dir.path().join("think");
    adapter
        .expect("valid")
        .save_peft(&path, None)
        .expect("saved");
    fs::write(
        path.join("edgethink.json"),
        r#"{"budget_line": "Use {B}."}"#,
    )
    .expect("written");
    path
}

fn tokens(model: &str, more: &[&str]) -> serde_json::Value {
    let mut args = vec![
        "ask",
        "--model",
        model,
        "--max-tokens",
        "16",
        "--ignore-eos",
        "--json",
    ];
    args.extend(["--logprobs", "0", "--threads", "1"]);
    args.extend(more);
    args.push("hello there");
    json(&run(&args))["token_ids"].clone()
}

#[test]
fn a_bundle_answers_as_its_directory() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("temp dir"));
    let think = adapter(&model, &dir, true);
    let file = dir.path().join("tiny.edgethink");
    let (think, file) = (text(&think), text(&file));
    let pack = [
        "bundle",
        "pack",
        model.path(),
        "-A",
        think,
        "-o",
        file,
        "--licence",
        "MIT",
    ];
    stdout(&run(&pack));
    stdout(&run(&["bundle", "verify", file]));
    let shown = json(&run(&["bundle", "show", file, "--json"]));
    assert_eq!(shown["adapters"][0]["thinking"]["budget_line"], "Use {B}.");
    assert_eq!(shown["licence"], "MIT");
    assert!(stdout(&run(&["bundle", "show", file])).contains("base/model.safetensors"));
    let with = tokens(model.path(), &["--adapter", think, "--think", "on"]);
    assert_eq!(tokens(file, &["--think", "on"]), with);
    assert_eq!(tokens(file, &["--adapter", "think", "--think", "on"]), with);
    assert_eq!(tokens(file, &["--adapter", think, "--think", "on"]), with);
    let without = tokens(model.path(), &[]);
    assert_eq!(tokens(file, &["--adapter", "none"]), without);
    assert_ne!(with, without);
    let info = json(&run(&["info", "--model", file, "--json"]));
    assert_eq!(info["adapter"]["budget_line"], "Use {B}.");
    let out = dir.path().join("out");
    stdout(&run(&["bundle", "unpack", file, "-o", text(&out)]));
    assert_eq!(tokens(text(&out), &["--think", "on"]), with);

    let mut bytes = fs::read(file).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).expect("written");
    for args in [
        &["ask", "--model", file, "hello"][..],
        &["bundle", "verify", file],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).contains("base/model.safetensors is damaged"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn exports_are_loaded_again() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("temp dir"));
    let think = adapter(&model, &dir, true);
    let (gguf, lora, peft) = (
        dir.path().join("m.gguf"),
        dir.path().join("l.gguf"),
        dir.path().join("peft"),
    );
    let (think, gguf, lora, peft) = (text(&think), text(&gguf), text(&lora), text(&peft));
    stdout(&run(&[
        "export",
        "gguf",
        "--model",
        model.path(),
        "--dtype",
        "f32",
        "-o",
        gguf,
    ]));
    stdout(&run(&[
        "export",
        "lora",
        "--model",
        model.path(),
        "--adapter",
        think,
        "-o",
        lora,
    ]));
    stdout(&run(&[
        "export",
        "peft",
        "--model",
        gguf,
        "--adapter",
        lora,
        "-o",
        peft,
    ]));
    let want = tokens(model.path(), &["--adapter", think, "--think", "on"]);
    for adapter in [lora, peft] {
        assert_eq!(
            tokens(gguf, &["--adapter", adapter, "--think", "on"]),
            want,
            "{adapter}"
        );
    }
    assert!(Path::new(peft).join("edgethink.json").is_file());
    let none = run(&["export", "lora", "--model", model.path(), "-o", lora]);
    assert!(stderr(&none).contains("--adapter"), "{}", stderr(&none));
}

#[test]
fn only_a_plain_adapter_is_merged() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("temp dir"));
    let out = dir.path().join("merged");
    let out = text(&out);
    let activated = adapter(&model, &dir, true);
    let merge = |adapter: &Path| {
        let args = [
            "export",
            "merged",
            "--model",
            model.path(),
            "--adapter",
            text(adapter),
            "--dtype",
            "f32",
            "-o",
            out,
        ];
        run(&args)
    };
    let refused = merge(&activated);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("leaves the prompt to the base"),
        "{}",
        stderr(&refused)
    );
    assert!(!Path::new(out).exists());
    let plain = adapter(&model, &dir, false);
    stdout(&merge(&plain));
    let want = tokens(model.path(), &["--adapter", text(&plain), "--think", "on"]);
    assert_eq!(tokens(out, &["--think", "on"]), want);
}
