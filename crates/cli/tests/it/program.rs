//! The whole program on tiny random models: text and JSON, exit codes, errors, pipes. No network, no terminal.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Model, edgethink, json, stderr, stdout};
use serde_json::Value;

#[test]
fn ask_writes_the_answer_to_stdout_and_the_cost_to_stderr() {
    let model = Model::new();
    let output = model
        .ask(&["--max-tokens", "12", "--ignore-eos", "hello"])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("12 tokens"), "{}", stderr(&output));
    assert!(!stdout(&output).contains('\x1b'), "plain in a pipe");
    assert!(stdout(&output).ends_with('\n'));
    let quiet = model
        .ask(&["--quiet", "--max-tokens", "12", "--ignore-eos", "hello"])
        .output()
        .expect("it runs");
    assert_eq!(stderr(&quiet), "");
    assert_eq!(stdout(&quiet), stdout(&output), "the same again");
}

#[test]
fn json_has_every_field_and_agrees_with_the_text() {
    let model = Model::new();
    let args = [
        "--raw",
        "--think",
        "off",
        "--max-tokens",
        "9",
        "--ignore-eos",
        "hello",
    ];
    let text = stdout(&model.ask(&args).output().expect("it runs"));
    let one = json(
        &model
            .ask(&args)
            .args(["--json", "--logprobs", "2"])
            .output()
            .expect("it runs"),
    );
    assert_eq!(
        one["text"].as_str().map(str::trim_end),
        Some(text.trim_end())
    );
    assert_eq!(one["reasoning"], "");
    assert_eq!(one["token_ids"].as_array().map(Vec::len), Some(9));
    assert_eq!(one["logprobs"].as_array().map(Vec::len), Some(9));
    assert_eq!(one["logprobs"][0]["top"].as_array().map(Vec::len), Some(2));
    assert_eq!(one["finish_reason"], "length");
    assert_eq!(one["usage"]["completion_tokens"], 9);
    for key in ["ttft_ms", "prefill_tps", "decode_tps"] {
        assert!(
            one["timings"][key].as_f64().is_some_and(|x| x > 0.0),
            "{key}: {one}"
        );
    }
    assert!(one.get("choices").is_none());
}

#[test]
fn several_answers_are_under_choices_and_repeat_by_seed() {
    let model = Model::new();
    let args = [
        "--n",
        "3",
        "--vote",
        "none",
        "--temperature",
        "1",
        "--max-tokens",
        "8",
        "--ignore-eos",
        "--json",
        "hello",
    ];
    let three = json(
        &model
            .ask(&args)
            .args(["--seed", "4"])
            .output()
            .expect("it runs"),
    );
    let choices = three["choices"].as_array().expect("choices").clone();
    assert_eq!(choices.len(), 3);
    assert_ne!(choices[0]["token_ids"], choices[1]["token_ids"]);
    assert!(three.get("text").is_none());
    let again = json(
        &model
            .ask(&args)
            .args(["--seed", "4", "--threads", "2"])
            .output()
            .expect("it runs"),
    );
    assert_eq!(again["choices"], three["choices"]);
    let text = stdout(
        &model
            .ask(&args[..args.len() - 2])
            .args(["--seed", "4", "hello"])
            .output()
            .expect("it runs"),
    );
    for heading in ["[1 of 3]", "[2 of 3]", "[3 of 3]"] {
        assert!(text.contains(heading), "{text}");
    }
}

#[test]
fn the_thought_is_left_out_of_a_pipe_unless_asked_for() {
    let model = Model::new();
    let args = [
        "--raw",
        "--think",
        "on",
        "--budget",
        "40",
        "--ignore-eos",
        "--quiet",
        "hello <think>\n",
    ];
    let hidden = stdout(&model.ask(&args).output().expect("it runs"));
    let full = stdout(
        &model
            .ask(&args)
            .args(["--show-thought", "full"])
            .output()
            .expect("it runs"),
    );
    assert!(
        full.len() > hidden.len() && full.ends_with(&hidden),
        "{full:?} against {hidden:?}"
    );
}

#[test]
fn the_question_may_come_from_stdin() {
    let model = Model::new();
    let args = ["--max-tokens", "6", "--ignore-eos", "--quiet"];
    let given = stdout(&model.ask(&args).arg("hello").output().expect("it runs"));
    for arg in [None, Some("-")] {
        let piped = model
            .ask(&args)
            .args(arg)
            .write_stdin("hello\n")
            .output()
            .expect("it runs");
        assert_eq!(stdout(&piped), given);
    }
    let empty = model.ask(&args).write_stdin("").output().expect("it runs");
    assert_eq!(empty.status.code(), Some(1));
    assert!(stderr(&empty).contains("empty"));
}

#[test]
fn flags_win_over_the_environment() {
    let model = Model::new();
    let args = ["--ignore-eos", "--json", "hello"];
    let tokens = |output: &Value| output["token_ids"].as_array().map(Vec::len);
    let env = json(
        &model
            .ask(&args)
            .env("EDGETHINK_MAX_TOKENS", "3")
            .output()
            .expect("it runs"),
    );
    assert_eq!(tokens(&env), Some(3));
    let mut both = model.ask(&args);
    both.env("EDGETHINK_MAX_TOKENS", "3")
        .args(["--max-tokens", "5"]);
    assert_eq!(tokens(&json(&both.output().expect("it runs"))), Some(5));
}

#[test]
fn wrong_usage_is_2_and_failure_is_1() {
    let model = Model::new();
    for args in [
        &["ask", "--n", "0", "x"][..],
        &["ask", "--top-p", "2", "x"],
        &["ask", "--logit-bias", "nothing", "x"],
        &["ask", "--temperature", "nan", "x"],
        &["ask", "--logprobs", "2", "x"],
        &["nothing"],
        &[],
    ] {
        let output = edgethink().args(args).output().expect("it runs");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
    }
    let missing = edgethink()
        .args(["ask", "--model", "/no/such/model", "x"])
        .output()
        .expect("it runs");
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).starts_with("error: cannot load the model"),
        "{}",
        stderr(&missing)
    );
    assert!(
        stderr(&missing).contains("caused by"),
        "{}",
        stderr(&missing)
    );
    for (args, says) in [
        (&["--adapter", "/no/such/adapter", "x"][..], "adapter"),
        (&["--stop", "", "x"], "stop string"),
        (&["--logit-bias", "999999=1", "x"], "vocabulary"),
        (
            &["--kv-tokens", "8", "this is a long question about nothing"],
            "context",
        ),
    ] {
        let output = model.ask(args).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            stderr(&output).contains(says),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(!stderr(&output).contains("panicked"));
    }
}

#[test]
fn a_closed_pipe_is_silent() {
    let model = Model::new();
    let mut child = model
        .std_ask(&["--max-tokens", "1500", "--ignore-eos", "--quiet", "hello"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(stderr(&output), "");
    assert!(output.status.success(), "{:?}", output.status);
}

#[test]
fn info_says_what_is_in_a_model() {
    let model = Model::new();
    let text = stdout(
        &edgethink()
            .args(["info", "--model", model.path()])
            .output()
            .expect("it runs"),
    );
    for part in ["Qwen2ForCausalLM", "F32", "assistant", "adapter"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let info = json(
        &edgethink()
            .args(["info", "--json", "--model", model.path()])
            .output()
            .expect("it runs"),
    );
    assert_eq!(info["architecture"], "Qwen2ForCausalLM");
    assert_eq!(info["num_hidden_layers"], 2);
    assert!(info["parameters"].as_u64().is_some_and(|n| n > 10_000));
    assert_eq!(info["adapter"], Value::Null);
}

#[test]
fn chat_keeps_the_conversation_and_obeys_its_commands() {
    let model = Model::new();
    let output = edgethink()
        .args([
            "chat",
            "--model",
            model.path(),
            "--max-tokens",
            "6",
            "--think",
            "off",
        ])
        .write_stdin("hello\n/budget 5\nhello again\n/nothing\n/clear\nhello\n/exit\nnot read\n")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let costs: Vec<String> = stderr(&output)
        .lines()
        .filter(|l| l.contains("prompt"))
        .map(str::to_owned)
        .collect();
    assert_eq!(costs.len(), 3, "{}", stderr(&output));
    assert!(
        costs[1].contains("cached"),
        "the second turn uses the first one's KV: {costs:?}"
    );
    assert!(stderr(&output).contains("/nothing is no command"));
}

#[test]
fn eval_measures_a_data_set() {
    let model = Model::new();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for (prompt, kind) in [
        ("\"hello\"", "a"),
        ("[{\"role\":\"user\",\"content\":\"hello\"}]", "b"),
        ("\"x\"", "a"),
    ] {
        writeln!(
            file,
            "{{\"prompt\":{prompt},\"answer\":7,\"kind\":\"{kind}\"}}"
        )
        .expect("written");
    }
    let out = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("UTF-8");
    let args = [
        "eval",
        "jsonl",
        path,
        "--model",
        model.path(),
        "--n",
        "2",
        "--max-tokens",
        "5",
        "--temperature",
        "1",
    ];
    let mut command = edgethink();
    command
        .args(args)
        .args(["--by", "kind", "--json", "--out"])
        .arg(out.path());
    let summary = json(&command.output().expect("it runs"));
    assert_eq!(
        (&summary["rows"], &summary["samples"]),
        (&3.into(), &6.into())
    );
    assert_eq!(summary["by"]["a"]["samples"], 4);
    assert!(
        summary["mean_completion_tokens"]
            .as_f64()
            .is_some_and(|x| x > 0.0 && x <= 5.0)
    );
    let lines = std::fs::read_to_string(out.path()).expect("samples");
    assert_eq!(lines.lines().count(), 6);
    let batch_of_one = json(
        &edgethink()
            .args(args)
            .args(["--batch", "1", "--json"])
            .output()
            .expect("it runs"),
    );
    assert_eq!(
        batch_of_one["mean_completion_tokens"],
        summary["mean_completion_tokens"]
    );
    let bad = edgethink()
        .args(["eval", "jsonl", "/no/such/file"])
        .output()
        .expect("it runs");
    assert_eq!(bad.status.code(), Some(1));
}

#[test]
fn completions_and_help_come_for_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(
            &edgethink()
                .args(["completions", shell])
                .output()
                .expect("it runs"),
        );
        assert!(
            script.contains("edgethink") && script.contains("ask"),
            "{shell}"
        );
    }
    let mut commands = vec![
        &["ask"][..],
        &["chat"],
        &["info"],
        &["bench"],
        &["eval", "jsonl"],
    ];
    if cfg!(feature = "train") {
        commands.extend([
            &["train", "base"][..],
            &["train", "sft"],
            &["train", "data"],
        ]);
    }
    for command in commands {
        let help = stdout(
            &edgethink()
                .args(command)
                .arg("--help")
                .output()
                .expect("it runs"),
        );
        assert!(
            help.contains("Example"),
            "{command:?} has no example:\n{help}"
        );
    }
}

#[cfg(feature = "train")]
#[test]
fn recipes_are_refused_before_anything_is_done() {
    let dir = tempfile::tempdir().expect("a directory");
    let recipe = dir.path().join("bad.toml");
    std::fs::write(&recipe, "output_dir = \"out\"\nnonsense = 1\n").expect("written");
    for command in ["base", "sft", "data"] {
        let mut run = edgethink();
        run.args(["train", command, "--config"])
            .arg(&recipe)
            .current_dir(dir.path());
        let output = run.output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(
            stderr(&output).contains("refused"),
            "{command}: {}",
            stderr(&output)
        );
        assert!(!dir.path().join("out").exists());
    }
}

#[cfg(feature = "train")]
#[test]
fn what_one_process_does_is_refused_to_several() {
    let run = |command: &str, size: &str| {
        let mut run = edgethink();
        run.args(["train", command, "--config", "absent.toml"])
            .env("WORLD_SIZE", size);
        let output = run.output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{command}");
        stderr(&output)
    };
    for command in ["data", "quantize", "switcher", "verifier"] {
        let several = run(command, "2");
        assert!(several.contains("WORLD_SIZE is 2"), "{command}: {several}");
        let one = run(command, "1");
        assert!(one.contains("absent.toml"), "{command}: {one}");
    }
}

#[cfg(feature = "train")]
#[test]
fn heads_learn_on_the_cpu_and_say_so_to_another_device() {
    for command in ["switcher", "verifier"] {
        let run = |device: &str| {
            let args = ["train", command, "--config", "absent.toml", "--device"];
            let output = edgethink().args(args).arg(device).output();
            stderr(&output.expect("it runs"))
        };
        let refused = run("cuda");
        assert!(
            refused.contains("leave --device out"),
            "{command}: {refused}"
        );
        let taken = run("cpu");
        assert!(taken.contains("absent.toml"), "{command}: {taken}");
    }
}
