//! `edgethink bench` and what is told of the machine.

use crate::support::{Model, edgethink, json, stderr, stdout};
use serde_json::Value;

#[test]
fn bench_measures_what_is_asked() {
    let model = Model::new();
    let args = [
        "bench",
        "--model",
        model.path(),
        "--threads",
        "1",
        "--streams",
        "1,2",
        "--depth",
        "0,40",
    ];
    let more = ["--prefill", "32", "--decode", "4", "--repeats", "1"];
    let report = json(
        &edgethink()
            .args(args)
            .args(more)
            .arg("--json")
            .output()
            .expect("it runs"),
    );
    let figures = report["figures"].as_array().expect("figures");
    assert_eq!(figures.len(), 2 * (1 + 2));
    assert!(
        figures
            .iter()
            .all(|f| f["tokens_per_second"].as_f64().is_some_and(|x| x > 0.0)),
        "{report}"
    );
    let table = stdout(&edgethink().args(args).args(more).output().expect("it runs"));
    assert!(
        table.contains("tokens/s") && table.contains("prefill"),
        "{table}"
    );
}

#[test]
fn bench_shows_where_the_time_goes_and_what_the_tokens_are() {
    let model = Model::new();
    let run = |more: &[&str]| {
        let args = ["bench", "--model", model.path(), "--threads", "1"];
        let small = [
            "--streams",
            "2",
            "--prefill",
            "16",
            "--decode",
            "3",
            "--repeats",
            "1",
        ];
        let mut command = edgethink();
        command.args(args).args(small).args(more);
        command.output().expect("it runs")
    };
    let report = json(&run(&["--profile", "--sample", "4", "--json"]));
    let figures = report["figures"].as_array().expect("figures");
    assert_eq!(figures.len(), 2);
    for figure in figures {
        let parts = figure["profile"].as_array().expect("a profile");
        let calls = |name: &str| {
            let part = parts.iter().find(|part| part["part"] == name);
            part.map_or(0, |part| part["calls"].as_u64().expect("a number"))
        };
        // One step of prefill, three of decode; two layers.
        let steps = if figure["what"] == "prefill" { 1 } else { 3 };
        assert_eq!(calls("lm_head"), steps, "{figure}");
        assert_eq!(calls("attention"), 2 * steps, "{figure}");
    }
    let sample = &report["sample"];
    assert_eq!(sample["tokens"].as_array().map(Vec::len), Some(4));
    assert_eq!(sample["prompt"].as_array().map(Vec::len), Some(32));
    for time in ["load_ms", "first_token_ms"] {
        assert!(report[time].as_f64().is_some_and(|ms| ms > 0.0), "{report}");
    }
    let table = stdout(&run(&["--profile"]));
    assert!(
        table.contains("ms per step") && table.contains("gate up"),
        "{table}"
    );
    let plain = json(&run(&["--json"]));
    assert_eq!(plain["figures"][0]["profile"], Value::Null);
}

#[test]
fn an_instruction_set_is_taken_if_the_machine_has_it() {
    let model = Model::new();
    let small = [
        "--prefill",
        "4",
        "--decode",
        "0",
        "--repeats",
        "1",
        "--json",
    ];
    let run = |isa: &str| {
        let mut command = edgethink();
        command.args(["bench", "--model", model.path(), "--isa", isa]);
        command.args(small).output().expect("it runs")
    };
    assert_eq!(json(&run("scalar"))["isa"], "scalar");
    let other = if cfg!(target_arch = "aarch64") {
        "avx2"
    } else {
        "neondot"
    };
    let refusal = stderr(&run(other));
    assert!(refusal.contains("this machine has scalar"), "{refusal}");
    assert!(stderr(&run("sse9")).contains("known are scalar"));
}

#[test]
fn the_machine_is_described_and_measured_without_a_model() {
    let no_model = |args: &[&str]| {
        let mut command = edgethink();
        command.args(args).args(["--model", "/nonexistent"]);
        command.output().expect("it runs")
    };
    let cpu = json(&no_model(&["info", "--cpu", "--json"]));
    let sets = cpu["instruction_sets"].as_array().expect("a list");
    assert!(sets.iter().any(|set| set["name"] == cpu["chosen"]), "{cpu}");
    let text = stdout(&no_model(&["info", "--cpu"]));
    assert!(text.contains("chosen: the best"), "{text}");
    let roofline = json(&no_model(&[
        "bench",
        "--roofline",
        "--threads",
        "1",
        "--json",
    ]));
    let reads = roofline["reads"].as_array().expect("reads");
    assert_eq!(reads.len(), 4);
    assert!(
        reads.iter().all(|read| read["gb_per_second"]
            .as_f64()
            .is_some_and(|rate| rate > 0.0)),
        "{roofline}"
    );
}

#[test]
fn bench_measures_the_switch_to_a_masked_adapter() {
    let args = ["bench", "--threads", "1", "--prefill", "0", "--decode", "0"];
    let more = ["--repeats", "1", "--switch", "100", "--json"];
    let cache = tempfile::tempdir().expect("a temporary directory");
    // The model that is built in comes with a masked adapter.
    let pocket = || {
        let mut command = edgethink();
        command.env("XDG_CACHE_HOME", cache.path());
        command
    };
    let report = json(&pocket().args(args).args(more).output().expect("it runs"));
    let switch = &report["switches"][0];
    assert_eq!(switch["tokens"], 100, "{report}");
    for time in ["switch_ms", "prefill_ms"] {
        assert!(switch[time].as_f64().is_some_and(|ms| ms > 0.0), "{report}");
    }
    let plain = pocket()
        .args(args)
        .args(more)
        .args(["--adapter", "none"])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&plain.stderr);
    assert!(
        !plain.status.success() && text.contains("invocation"),
        "{text}"
    );
}
