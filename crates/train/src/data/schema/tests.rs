//! Rows of each data set as it is published, and what is made of them.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::data::rows::{self, Row, understood};

fn sample(row: &Value) -> Result<Sample, String> {
    let row = row.as_object().expect("an object");
    Schema::of(row).expect("recognised").sample(row)
}

#[test]
fn every_data_set_is_recognised_by_its_fields() {
    for (row, want) in [
        (
            json!({"conversations": [], "source": "x"}),
            Some(Schema::OpenThoughts3),
        ),
        (
            json!({"problem": "p", "answer": "1", "solution": ""}),
            Some(Schema::DeepScaleR),
        ),
        (
            json!({"problem": "p", "level": "Level 5", "solution": "s"}),
            Some(Schema::Math),
        ),
        (
            json!({"question": "q", "solution": "s", "thinking_trajectories": ["t"]}),
            Some(Schema::S1k),
        ),
        (
            json!({"question": "q", "deepseek_thinking_trajectory": "t"}),
            Some(Schema::S1k),
        ),
        (
            json!({"context": "c", "question": "q", "answers": {"text": []}}),
            Some(Schema::Squad2),
        ),
        (
            json!({"question": "q", "choices": ["a"], "answer": 0}),
            Some(Schema::Mmlu),
        ),
        (
            json!({"question": "q", "answer": true, "facts": "f"}),
            Some(Schema::StrategyQa),
        ),
        (json!({"question": "q", "answer": "42"}), None),
        (json!({"prompt": "p"}), None),
    ] {
        assert_eq!(
            Schema::of(row.as_object().expect("an object")),
            want,
            "{row}"
        );
    }
}

#[test]
fn names_in_a_recipe_are_those_of_the_data_sets() {
    for (name, schema) in [
        ("openthoughts3", Schema::OpenThoughts3),
        ("mixture-of-thoughts", Schema::MixtureOfThoughts),
        ("deepscaler", Schema::DeepScaleR),
        ("math", Schema::Math),
        ("s1k", Schema::S1k),
        ("squad2", Schema::Squad2),
        ("mmlu", Schema::Mmlu),
        ("strategyqa", Schema::StrategyQa),
    ] {
        assert_eq!(
            serde_json::from_value::<Schema>(json!(name)).expect(name),
            schema
        );
    }
}

#[test]
fn a_missing_part_is_named() {
    for (row, want) in [
        (json!({"conversations": "x"}), "no list"),
        (json!({"conversations": [{"from": "human"}]}), "`value`"),
        (
            json!({"conversations": [{"from": "tool", "value": "x"}]}),
            "\"tool\"",
        ),
        (
            json!({"conversations": [{"from": "human", "value": "x"}]}),
            "assistant's turn",
        ),
        (
            json!({"conversations": [{"from": "gpt", "value": "x"}]}),
            "user's turn",
        ),
        (
            json!({"question": "q", "choices": ["a", "b"], "answer": 2}),
            "none of 2 choices",
        ),
        (
            json!({"question": "q", "choices": "a", "answer": 0}),
            "no list",
        ),
        (
            json!({"question": "q", "context": "c", "answers": ["a"]}),
            "`text`",
        ),
        (
            json!({"problem": 3, "solution": "s"}),
            "`problem` is not a text",
        ),
    ] {
        let error = sample(&row).expect_err("refused");
        assert!(error.contains(want), "{row}: {error}");
    }
    let no_box = sample(&json!({"problem": "p", "solution": "so it is 3"})).expect("a row");
    assert!(no_box.answer.expect_err("no box").contains("boxed"));
    let empty = json!({"problem": "p", "answer": "3", "solution": " "});
    assert!(sample(&empty).expect("a row").response.is_err());
    let half = json!({"question": "q", "deepseek_thinking_trajectory": "t"});
    let error = sample(&half)
        .expect("a row")
        .response
        .expect_err("no attempt");
    assert!(error.contains("`deepseek_attempt`"), "{error}");
}

/// The rows of a file of `golden/parquet.py`.
fn golden(name: &str, ending: &str) -> Vec<Map<String, Value>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden/parquet")
        .join(format!("{name}.{ending}"));
    let rows = understood(&path, &[], |row| match row {
        Value::Object(map) => Ok(map),
        other => Err(format!("{other} is no object")),
    });
    let rows = rows.expect(name);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// What a file of a published data set gives: question, response, answer of each of its two rows.
type Expected = (&'static str, Option<Schema>, [[&'static str; 3]; 2]);

/// `-` where there is none.
const EXPECTED: [Expected; 9] = [
    (
        "openthoughts3",
        None,
        [
            [
                "What is 1 + 1?",
                "<think>\nWe add.\n</think>\n\nIt is \\boxed{2}.",
                "-",
            ],
            [
                "What is 1 + 2?",
                "<think>\nWe add.\n</think>\n\nIt is \\boxed{3}.",
                "-",
            ],
        ],
    ),
    (
        "mixture_of_thoughts",
        Some(Schema::MixtureOfThoughts),
        [
            [
                "What is 2 + 1?",
                "<think>\nWe add.\n</think>\n\nIt is \\boxed{3}.",
                "-",
            ],
            [
                "What is 2 + 2?",
                "<think>\nWe add.\n</think>\n\nIt is \\boxed{4}.",
                "-",
            ],
        ],
    ),
    (
        "deepscaler",
        None,
        [
            [
                "What is half of 1?",
                "Half of 1 is $\\boxed{\\frac{1}{2}}$.",
                "\\frac{1}{2}",
            ],
            ["What is 3 + 4?", "Add: $\\boxed{7}$.", "7"],
        ],
    ),
    (
        "math",
        None,
        [
            [
                "What is half of 1?",
                "Half of 1 is $\\boxed{\\frac{1}{2}}$.",
                "\\frac{1}{2}",
            ],
            ["What is 3 + 4?", "Add: $\\boxed{7}$.", "7"],
        ],
    ),
    (
        "s1k",
        None,
        [
            [
                "What is 3 + 4?",
                "<think>\nWe add.\n</think>\n\nIt is 7.",
                "-",
            ],
            [
                "Why is 2 even?",
                "<think>\nHalve it.\n</think>\n\nIt is twice 1.",
                "-",
            ],
        ],
    ),
    (
        "s1k_1_1",
        None,
        [
            [
                "What is 3 + 4?",
                "<think>\nWe add.\n</think>\n\nIt is 7.",
                "-",
            ],
            // The other model's, where the first has none.
            [
                "Why is 2 even?",
                "<think>\nHalve.\n</think>\n\nTwice 1.",
                "-",
            ],
        ],
    ),
    (
        "squad2",
        None,
        [
            [
                "The cat sat on the mat.\n\nWhere did the cat sit?",
                "on the mat",
                "on the mat",
            ],
            [
                "The cat sat on the mat.\n\nWhat is its name?",
                "unanswerable",
                "unanswerable",
            ],
        ],
    ),
    (
        "mmlu",
        None,
        [
            ["What is 3 + 4?\n\n(A) 6\n(B) 7\n(C) 8\n(D) 9", "(B) 7", "B"],
            ["What is 2 * 2?\n\n(A) 4\n(B) 5\n(C) 6\n(D) 8", "(A) 4", "A"],
        ],
    ),
    (
        "strategyqa",
        None,
        [
            ["Do cats sit?", "yes", "yes"],
            ["Do cats drive?", "no", "no"],
        ],
    ),
];

/// The row as it is learnt, through the recipe's own path.
fn learnt(row: &Map<String, Value>, schema: Option<Schema>) -> Vec<Message> {
    match rows::row(Value::Object(row.clone()), schema).expect("a row") {
        Row::Messages(messages) => messages,
        other => panic!("{other:?} is no conversation"),
    }
}

fn check(endings: &[&str]) {
    for (name, schema, expected) in EXPECTED {
        for ending in endings {
            let rows = golden(name, ending);
            assert_eq!(rows.len(), 2, "{name}.{ending}");
            for (row, [asked, response, answer]) in rows.iter().zip(expected) {
                let schema = schema.or_else(|| Schema::of(row)).expect(name);
                let sample = schema.sample(row).expect(name);
                let found = [
                    sample.asked[0].content.as_str(),
                    sample.response.as_deref().unwrap_or("-"),
                    sample.answer.as_deref().unwrap_or("-"),
                ];
                assert_eq!(found, [asked, response, answer], "{name}.{ending}");
                // Found by its fields alone: `messages` is as good as the name of the data set.
                let learnt = learnt(row, None);
                let turns: Vec<&str> = learnt.iter().map(|m| m.content.as_str()).collect();
                assert_eq!(turns, [asked, response], "{name}.{ending}");
                assert_eq!([&*learnt[0].role, &*learnt[1].role], ["user", "assistant"]);
            }
        }
    }
}

#[test]
fn files_of_published_data_sets_are_read_as_lines() {
    check(&["jsonl"]);
}

#[cfg(feature = "parquet")]
#[test]
fn files_of_published_data_sets_are_read_by_column() {
    check(&["parquet"]);
}
