//! The life of a switcher through the program, on a tiny random model: trained, calibrated, judged, refused on another base.

#![cfg(feature = "train")]

use std::path::Path;

use crate::support::{Model, edgethink, json, stderr, stdout};
use edgethink_model::{Family, HeadFile};
use edgethink_testkit::tiny_model;
use serde_json::{Value, json};

/// Questions of two kinds, which any states tell apart.
fn write_sets(dir: &Path) {
    let rows = |text: fn(usize) -> String| -> String {
        let row = |i| json!({"prompt": text(i), "answer": "7", "kind": "of this set"});
        (0..30).map(|i| format!("{}\n", row(i))).collect()
    };
    std::fs::write(dir.join("easy.jsonl"), rows(|i| format!("hello {i}"))).expect("written");
    let hard =
        rows(|i| format!("Tom has {i} apples, and Ann has more of them than Tom. ").repeat(4));
    std::fs::write(dir.join("hard.jsonl"), hard).expect("written");
}

fn recipe(model: &str, epochs: usize, extra: &str) -> String {
    format!(
        r#"
output_dir = "switcher"
seed = 3
{extra}
[model]
base = {model:?}
weights = "stored"
kv = "int8"
threads = 1
[data]
max_prompt_tokens = 400
held_out = 0.2
systems = ["", "Answer."]
[data.easy]
files = ["easy.jsonl"]
where = {{ kind = "of this set" }}
[data.hard]
files = ["hard.jsonl"]
[optimizer]
lr = 1e-2
betas = [0.9, 0.999]
weight_decay = 0.01
schedule = "cosine"
warmup_ratio = 0.0
max_grad_norm = 1.0
[run]
epochs = {epochs}
batch_size = 16
"#
    )
}

fn run(dir: &Path, args: &[&str]) -> std::process::Output {
    let mut command = edgethink();
    command.current_dir(dir).args(args);
    command.output().expect("it runs")
}

fn train(dir: &Path, recipe: &str) -> std::process::Output {
    std::fs::write(dir.join("switcher.toml"), recipe).expect("written");
    run(dir, &["train", "switcher", "--config", "switcher.toml"])
}

#[test]
fn a_switcher_is_trained_calibrated_and_judged() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    let dir = dir.path();
    write_sets(dir);
    let trained = train(dir, &recipe(model.path(), 30, ""));
    stdout(&trained);
    assert!(
        stderr(&trained).contains("AUROC 1.0000"),
        "{}",
        stderr(&trained)
    );
    let head = || HeadFile::load(&dir.join("switcher")).expect("a head");
    let first = head();
    assert_eq!(first.settings["trained"]["held_out"], 12);
    let record: Value =
        serde_json::from_slice(&std::fs::read(dir.join("switcher/run.json")).expect("run.json"))
            .expect("JSON");
    assert_eq!(record["results"]["auroc_held_out"], 1.0);
    for file in ["metrics.jsonl", "loss.svg", "scores.svg"] {
        assert!(dir.join("switcher").join(file).is_file(), "{file}");
    }
    // The same recipe gives the same bits.
    stdout(&train(dir, &recipe(model.path(), 30, "")));
    assert_eq!(head(), first);

    let with = [
        "--model",
        model.path(),
        "--switcher",
        "switcher",
        "--max-tokens",
        "4",
        "--json",
    ];
    let calibrate = |wish: &[&str]| {
        let sets = ["calibrate", "easy.jsonl", "hard.jsonl"];
        run(dir, &[&sets[..], wish, &with].concat())
    };
    let mut last = -1.0;
    for share in ["0", "0.25", "0.5", "1"] {
        let done = json(&calibrate(&["--share", share]));
        let wanted: f64 = share.parse().expect("a number");
        let reached = done["reached"]["share"].as_f64().expect("a share");
        assert!(
            (reached - wanted).abs() <= 0.02 && reached > last,
            "{share}: {done}"
        );
        last = reached;
        assert_eq!(head().settings["threshold"], done["reached"]["threshold"]);
        assert_eq!(head().tensors, first.tensors);
    }
    let written = head();
    // A random model gives no right answers, so no accuracy can be wished for.
    let refused = calibrate(&["--accuracy", "0.9"]);
    assert!(!refused.status.success());
    assert!(
        stderr(&refused).contains("always thinking reaches 0.0 %"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(head(), written, "a refused wish changes nothing");
    assert!(!calibrate(&["--share", "1.5"]).status.success());
    assert!(!calibrate(&[]).status.success(), "a wish is needed");

    stdout(&calibrate(&["--share", "0.5"]));
    let sets = [
        "eval",
        "switch",
        "easy.jsonl",
        "hard.jsonl",
        "--mix",
        "1:1,3:1",
        "--out",
        "out",
    ];
    let report = json(&run(dir, &[&sets[..], &with].concat()));
    assert_eq!(report["reports"].as_array().map(Vec::len), Some(2));
    let even = &report["reports"][0];
    let share = |at: usize| report["reports"][at]["own"]["share"].as_f64();
    let near = |share: Option<f64>, wanted: f64| share.is_some_and(|x| (x - wanted).abs() < 1e-9);
    assert_eq!(even["auroc"], json!(1.0));
    assert!(near(share(0), 0.5) && near(share(1), 0.25), "{report}");
    let curve = even["curve"].as_array().expect("a curve");
    assert_eq!(
        (&curve[0]["share"], &curve[curve.len() - 1]["share"]),
        (&json!(0.0), &json!(1.0))
    );
    for file in [
        "switch.json",
        "scores.jsonl",
        "switch-hard-1-1.svg",
        "switch-hard-3-1.svg",
    ] {
        assert!(dir.join("out").join(file).is_file(), "{file}");
    }
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    let dir = dir.path();
    write_sets(dir);
    let unknown = train(dir, &recipe(model.path(), 1, "speed = 3"));
    assert!(stderr(&unknown).contains("speed"), "{}", stderr(&unknown));
    let many = recipe(model.path(), 0, "").replace("held_out = 0.2", "held_out = 0.9");
    let many = stderr(&train(dir, &many));
    assert!(
        many.contains("epochs") && many.contains("held_out"),
        "{many}"
    );

    stdout(&train(dir, &recipe(model.path(), 1, "")));
    let other = tiny_model(Family::Qwen2, 99);
    let other = other.path().to_str().expect("a UTF-8 path");
    let sets = [
        "eval",
        "switch",
        "easy.jsonl",
        "hard.jsonl",
        "--model",
        other,
    ];
    let refused = run(dir, &[&sets[..], &["--switcher", "switcher"]].concat());
    assert!(
        stderr(&refused).contains("load the base it was trained on"),
        "{}",
        stderr(&refused)
    );
    let none = run(dir, &sets);
    assert!(stderr(&none).contains("--switcher"), "{}", stderr(&none));
}

/// Earlier turns of both kinds in front of half of the queries.
const TURNS: &str = r#"
[data.turns]
share = 0.5
most = 2
[[data.turns.sets]]
files = ["easy.jsonl"]
reply = "answer"
[[data.turns.sets]]
files = ["hard.jsonl"]
where = { kind = "of this set" }
reply = "answer"
[data.easy]"#;

#[test]
fn a_switcher_learns_behind_earlier_turns() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    let dir = dir.path();
    write_sets(dir);
    let plain = recipe(model.path(), 3, "");
    let with = |turns: &str| plain.replace("\n[data.easy]", turns);
    let tensors = |recipe: &str| {
        stdout(&train(dir, recipe));
        HeadFile::load(&dir.join("switcher"))
            .expect("a head")
            .tensors
    };
    let (alone, behind) = (tensors(&plain), tensors(&with(TURNS)));
    assert_ne!(alone, behind);
    assert_eq!(
        tensors(&with(TURNS)),
        behind,
        "the same recipe, the same bits"
    );
    // Turns that never fit are left off, and with them goes every difference.
    let shortest = with(
        &TURNS
            .replace("easy.jsonl", "long.jsonl")
            .replace("hard.jsonl", "long.jsonl"),
    );
    let row = json!({"prompt": "long ".repeat(500), "answer": "7", "kind": "of this set"});
    std::fs::write(dir.join("long.jsonl"), format!("{row}\n")).expect("written");
    assert_eq!(tensors(&shortest), alone);

    for (from, to, want) in [
        ("share = 0.5", "share = 0.0", "[data.turns] share"),
        ("most = 2", "most = 0", "[data.turns] most"),
        ("most = 2", "most = 2\nspeed = 3", "speed"),
        (
            "[data.turns]",
            "histories = [[]]\n[data.turns]",
            "histories and turns",
        ),
        ("reply", "replies", "replies"),
        ("\"answer\"", "\"response\"", "no `response`"),
        ("of this set", "of no set", "hard.jsonl"),
    ] {
        let refused = train(dir, &with(&TURNS.replace(from, to)));
        assert!(!refused.status.success(), "{to}");
        assert!(
            stderr(&refused).contains(want),
            "{to}: {}",
            stderr(&refused)
        );
    }
}
