//! The model that ships, through the program without `--model`: what it must be able to do on questions it has never seen.

use std::path::{Path, PathBuf};

use crate::support::{edgethink, json, stdout};
use edgethink_model::Bundle;
use edgethink_pocket::{HardSpec, Question, Split, easy_questions, hard_questions};
use serde_json::Value;

/// Accuracy in percent and mean tokens of `edgethink eval jsonl` on some questions.
fn eval(questions: impl Iterator<Item = Question>, args: &[&str]) -> (f64, f64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("questions.jsonl");
    let lines: Vec<String> = questions
        .map(|q| serde_json::to_string(&q).expect("JSON"))
        .collect();
    std::fs::write(&path, lines.join("\n")).expect("written");
    let path = path.to_str().expect("a UTF-8 path");
    let mut command = edgethink();
    command.args(["eval", "jsonl", path, "--json"]).args(args);
    let summary = json(&command.output().expect("it runs"));
    let number = |name: &str| {
        summary[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{name}: {summary}"))
    };
    (100.0 * number("accuracy"), number("mean_completion_tokens"))
}

/// A path in the repository's models/.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models")
        .join(name)
}

/// What ships is the bundle; the folders are what training left, and what it is packed from.
#[test]
fn the_shipped_bundle_is_what_packing_the_folders_gives() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let again = dir.path().join("pocket.edgethink");
    let bundle = shipped("pocket.edgethink");
    let mut command = edgethink();
    command.args(["bundle", "pack"]);
    command.arg(shipped("pocket")).arg("-o").arg(&again);
    command.args(["--licence", "MIT OR Apache-2.0"]);
    stdout(&command.output().expect("it runs"));
    let [found, made] = [&bundle, &again].map(|path| std::fs::read(path).expect("read"));
    assert!(
        found == made,
        "models/pocket.edgethink is not models/pocket; pack it again: \
         edgethink bundle pack models/pocket -o models/pocket.edgethink --licence \"MIT OR Apache-2.0\""
    );
    let bundle = Bundle::open(&bundle).expect("a bundle");
    bundle.verify(&mut |_, _| {}).expect("whole");
    let manifest = bundle.manifest();
    let heads: Vec<&str> = manifest
        .heads
        .iter()
        .map(|head| head.kind.as_str())
        .collect();
    assert_eq!(
        (manifest.adapters.len(), heads),
        (1, vec!["switcher", "verifier"])
    );
}

#[test]
fn the_folder_the_bundle_and_no_model_named_answer_alike() {
    let question = "Tom has 14 apples. Anna has 5 more than Tom. Ben has twice as many as Anna. How many apples does Ben have?";
    let ask = |model: Option<PathBuf>| {
        let mut command = edgethink();
        command.args([
            "ask",
            "--json",
            "--n",
            "2",
            "--temperature",
            "0.7",
            "--verify",
        ]);
        if let Some(path) = model {
            command.arg("--model").arg(path);
        }
        let answer = json(&command.arg(question).output().expect("it runs"));
        let all = answer["choices"].as_array().cloned().unwrap_or_default();
        assert_eq!(all.len(), 2, "{answer}");
        all
    };
    let [built_in, bundle, folder] =
        [None, Some("pocket.edgethink"), Some("pocket")].map(|name| ask(name.map(shipped)));
    let texts = |all: &[Value]| -> Vec<(Value, Value, Value)> {
        let one = |c: &Value| {
            (
                c["text"].clone(),
                c["reasoning"].clone(),
                c["score"].clone(),
            )
        };
        all.iter().map(one).collect()
    };
    assert_eq!(texts(&built_in), texts(&bundle));
    assert_eq!(texts(&built_in), texts(&folder));
}

fn hard(count: usize) -> impl Iterator<Item = Question> {
    hard_questions(1, Split::Test, HardSpec::even()).take(count)
}

/// The marks of the model are 95, 40 and 85 %; the tests leave room for a sample of 200: three standard deviations.
#[test]
fn easy_questions_at_once_hard_ones_by_thinking() {
    let (easy, _) = eval(
        easy_questions(1, Split::Test).take(200),
        &["--think", "off"],
    );
    assert!(easy >= 92.0, "easy questions: {easy} %");
    let (direct, _) = eval(hard(200), &["--think", "off"]);
    assert!(
        direct <= 40.0,
        "hard questions without thinking: {direct} %"
    );
    let (thought, tokens) = eval(hard(200), &["--think", "on"]);
    assert!(thought >= 85.0, "hard questions: {thought} %");
    // Before reinforcement learning the same questions took more than twice as many.
    let sft = shipped("pocket/sft");
    let sft = sft.to_str().expect("a UTF-8 path");
    let (before, long) = eval(hard(200), &["--think", "on", "--adapter", sft]);
    assert!(before >= 85.0, "hard questions before: {before} %");
    assert!(long >= 2.38 * tokens, "from {long} to {tokens} tokens");
    assert!(thought >= before - 3.0, "from {before} to {thought} %");
}

#[test]
fn the_readme_s_question_is_answered() {
    let question = "Tom has 14 apples. Anna has 5 more than Tom. Ben has twice as many as Anna. How many apples does Ben have?";
    let answer: Value = json(
        &edgethink()
            .args(["ask", "--json", question])
            .output()
            .expect("it runs"),
    );
    let text = answer["text"].as_str().unwrap_or_default();
    assert!(text.contains("38"), "{answer}");
    assert!(
        answer["reasoning"]
            .as_str()
            .is_some_and(|r| r.contains("19")),
        "{answer}"
    );
}

#[test]
fn an_answer_is_json_after_a_schema_and_its_thought_is_free() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("schema.json");
    let ask = |schema: &str| {
        std::fs::write(&path, schema).expect("written");
        let path = path.to_str().expect("a UTF-8 path");
        let question = "Tom has 14 apples. Anna has 5 more than Tom. Ben has twice as many as Anna. How many apples does Ben have?";
        let args = [
            "ask",
            "--think",
            "on",
            "--json",
            "--json-schema",
            path,
            question,
        ];
        edgethink().args(args).output().expect("it runs")
    };
    let answer = json(&ask(
        r#"{"type": "object", "properties": {"apples": {"type": "integer", "minimum": 0, "maximum": 999}}, "required": ["apples"], "additionalProperties": false}"#,
    ));
    let text = answer["text"].as_str().expect("a text");
    let value: Value = serde_json::from_str(text).expect("JSON");
    assert!(value["apples"].as_u64().is_some_and(|n| n <= 999), "{text}");
    let thought = answer["reasoning"].as_str().expect("a thought");
    assert!(thought.contains("38"), "{thought}");
    for (schema, says) in [("[1]", "a JSON schema is an object"), ("{", "is no JSON")] {
        let output = ask(schema);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(says), "{said}");
    }
}
