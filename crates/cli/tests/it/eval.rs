//! `edgethink eval TASK...` on a tiny random model: records, going on, refusals.

use crate::support::{Model, edgethink, json, stderr, stdout};
use serde_json::Value;

/// A data set of short questions with GSM8K's columns.
fn data(dir: &std::path::Path, n: usize) -> String {
    let rows: Vec<String> = (0..n)
        .map(|i| {
            format!(
                "{{\"question\": \"{i} + 1?\", \"answer\": \"so\\n#### {}\"}}",
                i + 1
            )
        })
        .collect();
    let path = dir.join("sums.jsonl");
    std::fs::write(&path, rows.join("\n")).expect("written");
    format!("gsm8k={}", path.display())
}

/// What must not depend on the clock.
fn timeless(mut all: Value) -> Value {
    for task in all["tasks"].as_array_mut().into_iter().flatten() {
        for key in ["ttft_ms", "decode_tps", "seconds"] {
            task[key] = Value::Null;
        }
    }
    all["tasks"].take()
}

#[test]
fn records_are_kept_and_a_longer_run_goes_on_from_them() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    let task = data(dir.path(), 6);
    let run = |out: &str, more: &[&str]| {
        let mut command = edgethink();
        command.args([
            "eval",
            &task,
            "--model",
            model.path(),
            "--max-tokens",
            "8",
            "--repeats",
            "2",
            "--json",
        ]);
        command.arg("--out").arg(dir.path().join(out)).args(more);
        command.output().expect("it runs")
    };
    let whole = timeless(json(&run("whole", &[])));
    assert_eq!(
        (&whole[0]["questions"], &whole[0]["queries"]),
        (&Value::from(6), &Value::from(12))
    );
    assert!(
        dir.path().join("whole/records.parquet").is_file()
            && dir.path().join("whole/records.jsonl").is_file()
    );
    assert_eq!(
        timeless(json(&run("parts", &["--limit", "2"])))[0]["queries"],
        4
    );
    let parts = json(&run("parts", &["--batch", "1"]));
    let sessions: Vec<&Value> = parts["sessions"]
        .as_array()
        .expect("sessions")
        .iter()
        .map(|s| &s["queries"])
        .collect();
    assert_eq!(
        sessions,
        [&Value::from(4), &Value::from(8)],
        "only what was open was asked"
    );
    assert_eq!(timeless(parts), whole, "the same table");
    let other = run("parts", &["--seed", "1"]);
    assert!(
        !other.status.success() && stderr(&other).contains("--fresh"),
        "{}",
        stderr(&other)
    );
    let same = json(&run("parts", &["--fresh=other"]));
    assert_eq!(timeless(same), whole, "its own records stay");
    let other = run("parts", &["--seed", "1", "--fresh=other"]);
    assert!(
        other.status.success() && stderr(&other).contains("begun anew"),
        "{}",
        stderr(&other)
    );
    let sessions: Vec<Value> = json(&other)["sessions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    assert_eq!(
        (sessions.len(), &sessions[0]["queries"]),
        (1, &Value::from(12))
    );
    assert!(
        run("parts", &["--seed", "1", "--fresh", "--compact"])
            .status
            .success()
    );
    assert!(!dir.path().join("parts/records.jsonl").exists());
}

#[test]
fn tasks_are_listed_and_wrong_ones_refused() {
    let list = stdout(
        &edgethink()
            .args(["eval", "--list"])
            .output()
            .expect("it runs"),
    );
    for task in [
        "aime24",
        "math500",
        "gpqa-diamond",
        "humaneval",
        "pocket-hard",
    ] {
        assert!(list.contains(task), "{list}");
    }
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    let task = data(dir.path(), 1);
    for (args, reason) in [
        (vec!["gsm9k"], "gsm8k"),
        (vec!["pocket-hard"], "pocket-hard=FILE"),
        (vec![task.as_str(), task.as_str()], "twice"),
        (vec!["mmlu=/nowhere.jsonl"], "/nowhere.jsonl"),
        (vec![task.replace("gsm8k=", "mmlu=").leak()], "choices"),
    ] {
        let output = edgethink()
            .args(["eval", "--model", model.path()])
            .args(&args)
            .output()
            .expect("it runs");
        assert!(
            !output.status.success() && stderr(&output).contains(reason),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn generated_code_is_not_run_unasked() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    let path = dir.path().join("code.jsonl");
    std::fs::write(
        &path,
        r#"{"prompt": "def f():\n", "test": "def check(f): pass", "entry_point": "f"}"#,
    )
    .expect("written");
    let task = format!("humaneval={}", path.display());
    let output = edgethink()
        .args(["eval", &task, "--model", model.path(), "--max-tokens", "4"])
        .output()
        .expect("it runs");
    assert!(
        !output.status.success() && stderr(&output).contains("--run-code"),
        "{}",
        stderr(&output)
    );
}
