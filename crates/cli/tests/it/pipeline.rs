//! `edgethink run recipes/pocket/all.toml`: the recipes that ship, from generated text to the report, at the size of a toy.
//!
//! A toy base learns nothing in seconds, so what is trained starts from the models that ship; every step and every cell is the recipe's.

#![cfg(feature = "train")]

use std::path::{Path, PathBuf};

use crate::support::{edgethink, stderr};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A place with the recipes of pocket, made small.
struct Toy(tempfile::TempDir);

impl Toy {
    fn new() -> Self {
        let toy = Self(tempfile::tempdir().expect("a directory"));
        let recipes = toy.path("recipes/pocket");
        std::fs::create_dir_all(&recipes).expect("made");
        for entry in std::fs::read_dir(root().join("recipes/pocket")).expect("recipes") {
            let from = entry.expect("an entry").path();
            std::fs::copy(&from, recipes.join(from.file_name().expect("a name"))).expect("copied");
        }
        let shipped = root().join("models/pocket");
        // As in a clone, heads of another base and records of another model lie where the new ones go.
        let (head, cell) = (
            ["head.json", "head.safetensors"],
            ["run.json", "records.parquet"],
        );
        for (dir, files) in [
            ("models/pocket/switcher", head),
            ("models/pocket/verifier", head),
            ("reports/pocket/cells/all", cell),
        ] {
            std::fs::create_dir_all(toy.path(dir)).expect("made");
            for file in files.map(|file| Path::new(dir).join(file)) {
                std::fs::copy(root().join(&file), toy.0.path().join(&file)).expect("copied");
            }
        }
        let shipped = |part: &str| format!("\"{}\"", shipped.join(part).display());
        toy.set(
            "data.toml",
            &[
                ("tokenizer_documents", "300"),
                ("sft_examples", "80"),
                ("rl_questions", "60"),
                ("rl_easy_questions", "20"),
                ("eval_questions", "12"),
                ("documents", "40"),
            ],
        );
        for recipe in ["base.toml", "midtrain.toml", "anneal.toml"] {
            let small = [
                ("base", &*shipped("base")),
                ("max_tokens", "6_000"),
                ("lr", "1e-6"),
            ];
            toy.set(recipe, &small);
        }
        toy.set("sft.toml", &[("max_tokens", "8_000"), ("lr", "1e-6")]);
        toy.set(
            "grpo.toml",
            &[
                ("adapter", &shipped("sft")),
                ("questions_per_step", "2"),
                ("group", "4"),
                ("steps", "1"),
                ("eval_questions", "2"),
            ],
        );
        for recipe in ["switcher.toml", "switcher-w4.toml"] {
            toy.set(recipe, &[("limit", "20"), ("epochs", "4")]);
        }
        for recipe in ["verifier.toml", "verifier-w4.toml"] {
            let sizes = [
                ("train_questions", "12"),
                ("valid_questions", "6"),
                ("valid_n", "4"),
            ];
            toy.set(recipe, &sizes);
            toy.set(recipe, &[("steps", "20")]);
        }
        toy.replace("report.toml", "--limit 300", "--limit 3");
        toy.replace("report.toml", "--n 16", "--n 8");
        toy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Gives keys of a recipe, wherever they stand at the beginning of a line, other values.
    fn set(&self, recipe: &str, values: &[(&str, &str)]) {
        let path = self.path("recipes/pocket").join(recipe);
        let text = std::fs::read_to_string(&path).expect("a recipe");
        for (key, _) in values {
            let there = |line: &str| line.split('=').next().map(str::trim) == Some(*key);
            assert!(text.lines().any(there), "{recipe} has no {key}");
        }
        let line = |line: &str| {
            let key = line.split('=').next().map_or("", str::trim);
            let value = values.iter().find(|(k, _)| *k == key);
            value.map_or_else(
                || line.to_owned(),
                |(key, value)| format!("{key} = {value}"),
            )
        };
        let lines: Vec<String> = text.lines().map(line).collect();
        std::fs::write(&path, lines.join("\n") + "\n").expect("written");
    }

    fn replace(&self, recipe: &str, from: &str, to: &str) {
        let path = self.path("recipes/pocket").join(recipe);
        let text = std::fs::read_to_string(&path).expect("a recipe");
        assert!(text.contains(from), "{recipe} has no {from}");
        std::fs::write(&path, text.replace(from, to)).expect("written");
    }

    fn run(&self, args: &[&str]) -> std::process::Output {
        let mut command = edgethink();
        command.current_dir(self.0.path()).arg("run").args(args);
        command.output().expect("it runs")
    }
}

#[test]
fn one_command_goes_from_generated_text_to_the_report_and_is_done_once() {
    let toy = Toy::new();
    let output = toy.run(&["recipes/pocket/all.toml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    for made in [
        "models/pocket/base/model.safetensors",
        "models/pocket/adapter/adapter_model.safetensors",
        "models/pocket/switcher/head.json",
        "models/pocket/verifier/head.json",
        "reports/pocket/index.html",
        "reports/pocket/README.md",
        "reports/pocket/cells/all/records.parquet",
    ] {
        assert!(toy.path(made).is_file(), "{made} is missing");
    }
    let page = std::fs::read_to_string(toy.path("reports/pocket/README.md")).expect("a page");
    assert!(page.contains("Everything on"), "{page}");
    // Nothing is done twice, and what is missing alone is done again.
    let again = toy.run(&["recipes/pocket/all.toml", "--list"]);
    assert!(!stderr(&again).contains("open  "), "{}", stderr(&again));
    std::fs::remove_file(toy.path("models/pocket/verifier/head.json")).expect("removed");
    let again = stderr(&toy.run(&["recipes/pocket/all.toml", "--list"]));
    let open: Vec<&str> = again.lines().filter(|l| l.starts_with("open")).collect();
    assert!(
        open.iter().any(|l| l.contains("verifier")) && !open.iter().any(|l| l.contains("grpo")),
        "{again}"
    );
}
