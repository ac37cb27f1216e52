//! Budgets through the whole program, and 1,000 requests on the shipped pocket model: no overrun, always an answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::support::{Model, edgethink, json, stderr};
use edgethink_engine::{Engine, EngineOptions, Sampling, WeightFormat};
use edgethink_model::{Adapter, Message, Model as Weights};
use edgethink_pocket::{HardSpec, Split, hard_questions};
use edgethink_reason::{Event, Input, Query, Reasoner, Think, ThoughtFormat};

#[test]
fn a_budget_always_gives_an_answer() {
    let model = Model::new();
    for budget in ["0", "1", "60", "100000"] {
        let args = [
            "--raw",
            "--think",
            "on",
            "--budget",
            budget,
            "--ignore-eos",
            "--json",
            "hello <think>\n",
        ];
        let answer = json(&model.ask(&args).output().expect("it runs"));
        let text = answer["text"].as_str().unwrap_or_default();
        // A random model may close its thought by chance; if it does not, the budget does.
        assert!(!text.is_empty(), "{budget}: {answer}");
        if answer["budget_forced"] == true {
            assert!(text.starts_with("**Final answer:**"), "{budget}: {text:?}");
        }
    }
    let args = [
        "--raw",
        "--think",
        "on",
        "--budget",
        "0",
        "--answer-phrase",
        "</think>\\nSo: ",
        "--json",
        "hello <think>",
    ];
    let answer = json(&model.ask(&args).output().expect("it runs"));
    assert!(
        answer["text"]
            .as_str()
            .is_some_and(|t| t.starts_with("So:")),
        "{answer}"
    );
}

fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket")
}

/// Every budget at three temperatures; at the highest the thoughts are long and strange.
#[test]
fn a_thousand_requests_never_run_over_and_always_answer() {
    const BUDGETS: [usize; 10] = [0, 1, 5, 20, 40, 64, 96, 128, 1000, 100_000];
    const REQUESTS: usize = 1000;
    const AT_ONCE: usize = 64;
    let text = |dir: &str| pocket().join(dir).to_str().expect("UTF-8").to_owned();
    let model = Arc::new(Weights::load(&text("base")).expect("the shipped base"));
    let adapter = Adapter::load(text("adapter"), &model.config).expect("the shipped adapter");
    let options = EngineOptions {
        weights: WeightFormat::Q8,
        max_sequences: AT_ONCE,
        kv_tokens: AT_ONCE * model.config.max_position_embeddings,
        ..EngineOptions::for_model(&model.config)
    };
    let engine = Engine::new(Arc::clone(&model), options).expect("an engine");
    let format = ThoughtFormat {
        budget_line: Some("Use at most {B} tokens.".to_owned()),
        ..ThoughtFormat::default()
    };
    let mut reasoner = Reasoner::new(model, engine, Some(adapter), format).expect("a reasoner");
    let started = Instant::now();
    // The shortest hard problems: the budgets decide how long the thoughts are.
    let problems = HardSpec {
        steps: vec![1.0, 1.0],
        distractors: 0,
        ..HardSpec::even()
    };
    let mut queries = hard_questions(11, Split::Test, problems)
        .take(REQUESTS)
        .enumerate()
        .map(|(i, question)| Query {
            sampling: Sampling::temperature([0.0, 1.0, 1.5][i % 3]),
            seed: i as u64,
            ..Query::greedy(
                Input::Messages(
                    question
                        .prompt
                        .into_iter()
                        .map(|turn| Message::new(turn.role, turn.content))
                        .collect(),
                ),
                Think::On,
            )
            .with_budget(BUDGETS[i / 3 % BUDGETS.len()])
        });
    let (mut answered, mut tokens, mut forced) = (0, 0, 0);
    while answered < REQUESTS {
        while reasoner.in_flight() < AT_ONCE
            && let Some(query) = queries.next()
        {
            reasoner.submit(&query).expect("accepted");
        }
        for (_, event) in reasoner.step().expect("a step") {
            let answer = match event {
                Event::Answered(answer) => answer,
                Event::Failed(error) => panic!("{error}"),
                _ => continue,
            };
            let budget = answer.budget.expect("a budget");
            let asked = budget.hard.expect("a hard one");
            let choice = &answer.choices[0];
            // The phrase, its opening tag and the least reserve are at most 64 tokens.
            assert!(budget.response_tokens <= asked.max(64), "{budget:?}");
            assert!(budget.response_tokens + answer.usage.prompt_tokens <= 1024);
            assert!(
                choice.token_ids.len() <= budget.response_tokens,
                "{choice:?}"
            );
            assert!(!choice.text.trim().is_empty(), "{budget:?}: {choice:?}");
            answered += 1;
            tokens += choice.token_ids.len();
            forced += usize::from(choice.budget_forced);
        }
    }
    eprintln!(
        "{answered} requests, {tokens} tokens, {forced} forced, {:.1} s",
        started.elapsed().as_secs_f64()
    );
    assert!(
        forced > REQUESTS / 4,
        "{forced} forced: the test must cut thoughts"
    );
    assert!(forced < REQUESTS, "and let some end by themselves");
}

#[test]
fn the_shipped_adapter_says_whether_it_knows_a_budget() {
    let dir = tempfile::tempdir().expect("a directory");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(pocket().join("adapter").join(file), dir.path().join(file)).expect("copied");
    }
    let base = pocket().join("base");
    let ask = |more: &[&str]| {
        let mut run = edgethink();
        run.args(["ask", "--json", "--max-tokens", "40", "--model"])
            .arg(&base)
            .arg("--adapter")
            .arg(dir.path())
            .args(more)
            .arg("Tom has 3 pens. Ann has 2 more. How many has Ann?");
        run.output().expect("it runs")
    };
    let plain = json(&ask(&["--budget", "64"]));
    assert_eq!(plain["budget"]["tokens"], 64);
    assert_eq!(plain["budget"]["line"], serde_json::Value::Null);
    let refused = ask(&["--soft-budget", "64"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("--budget-line"),
        "{}",
        stderr(&refused)
    );

    let says = r#"{"budget_line": "Use at most {B} tokens."}"#;
    std::fs::write(dir.path().join("edgethink.json"), says).expect("written");
    let named = json(&ask(&["--budget", "64"]));
    assert_eq!(named["budget"]["line"], "Use at most 64 tokens.");
    assert!(
        named["usage"]["prompt_tokens"].as_u64() > plain["usage"]["prompt_tokens"].as_u64(),
        "{named}"
    );
    let soft = json(&ask(&["--soft-budget", "99"]));
    assert_eq!(soft["budget"]["line"], "Use at most 99 tokens.");
    assert_eq!(soft["budget"]["tokens"], serde_json::Value::Null);
    let other = json(&ask(&["--budget", "64", "--budget-line", "{B} tokens"]));
    assert_eq!(other["budget"]["line"], "64 tokens");
    let none = json(&ask(&["--budget", "64", "--budget-line", "none"]));
    assert_eq!(none["token_ids"], plain["token_ids"]);
    assert_eq!(json(&ask(&[]))["budget"], serde_json::Value::Null);

    for (file, says) in [(r#"{"bugdet_line": "x"}"#, "bugdet_line"), ("{", "EOF")] {
        std::fs::write(dir.path().join("edgethink.json"), file).expect("written");
        let refused = ask(&[]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(says), "{}", stderr(&refused));
    }
}

#[test]
fn a_short_thought_goes_on_and_the_json_says_so() {
    let model = Model::new();
    let args = ["--raw", "--think", "on", "--json", "--max-tokens", "60"];
    let ask = |more: &[&str]| {
        let mut run = model.ask(&args);
        run.args(more).arg("hello <think>\n");
        run.output().expect("it runs")
    };
    // A model that closes its thought at once.
    let close = edgethink_model::Model::load(model.path())
        .expect("the tiny model")
        .tokenizer
        .and_then(|tokenizer| tokenizer.token_id("</think>"))
        .expect("a token");
    let bias = format!("{close}=100000");
    let hasty = json(&ask(&["--logit-bias", &bias]));
    assert_eq!(
        (&hasty["thought_closed"], &hasty["continued"]),
        (&"model".into(), &0.into())
    );
    let held = [
        "--logit-bias",
        &bias,
        "--min-think",
        "100",
        "--continuation",
        "Hm",
    ];
    let held = json(&ask(&held));
    assert_eq!(
        (&held["thought_closed"], &held["continued"]),
        (&"model".into(), &6.into())
    );
    assert_eq!(held["reasoning"], "HmHmHmHmHmHm");
    let cut = json(&ask(&[
        "--budget",
        "40",
        "--logit-bias",
        &format!("{close}=-100000"),
    ]));
    assert_ne!(cut["thought_closed"], "model", "{cut}");
    assert_eq!(cut["budget_forced"], true, "{cut}");
}
