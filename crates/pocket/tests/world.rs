//! The promises of the world: same seed same bytes, splits disjoint, every solution right by the grader.

use std::collections::HashSet;

use edgethink_grader::is_correct;
use edgethink_pocket::{
    BaseMix, BaseStage, DatasetSpec, Document, HardSpec, Kind, SftMix, Split, Worked, documents,
    easy_questions, hard_questions, worked, write_dataset,
};

fn base_mix() -> BaseMix {
    BaseMix {
        repeat: 0.05,
        pairs: 0.05,
        worked: 0.5,
        worked_easy: 0.1,
        reading: 0.1,
        drill: 0.1,
        facts: 0.1,
        easy_chat: 0.2,
        hard_chat: 0.1,
        concise: 0.6,
        shorthand: 0.1,
        max_chars: 1100,
        hard: HardSpec::even(),
    }
}

fn sft_mix() -> SftMix {
    SftMix {
        easy: 0.2,
        concise: 0.1,
        shorthand: 0.0,
        usual_opener: 0.0,
        max_chars: 1850,
        hard: HardSpec::even(),
    }
}

/// Every "a + b = c" of a text; the number of calculations seen.
fn check_arithmetic(text: &str) -> usize {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut seen = 0;
    for w in words.windows(5).filter(|w| w[3] == "=") {
        // In "Anna = Tom + 5 = 14 + 5 = 19" only the last part is a calculation.
        let (Ok(left), Ok(right)) = (w[0].parse::<i64>(), w[2].parse::<i64>()) else {
            continue;
        };
        let result: i64 = w[4].trim_end_matches('.').parse().expect("a number");
        let want = match w[1] {
            "+" => left + right,
            "-" => left - right,
            "*" => left * right,
            "/" => {
                assert_eq!(left % right, 0, "{left} / {right} leaves a rest");
                left / right
            }
            other => panic!("unknown sign {other:?} in {text:?}"),
        };
        assert_eq!(result, want, "wrong calculation in {text:?}");
        assert!(
            (0..=999).contains(&result) && (0..=999).contains(&left),
            "number out of range in {text:?}"
        );
        seen += 1;
    }
    seen
}

#[test]
fn solutions_calculate_right_and_end_in_the_answer() {
    let mut calculations = 0;
    for w in worked(3, Split::Train, sft_mix()).take(2000) {
        let text = &w.completion[0].content;
        calculations += check_arithmetic(text);
        assert!(
            is_correct(text, &w.answer),
            "{text:?} does not answer {:?}",
            w.answer
        );
        if w.kind == Kind::Hard {
            assert!((2..=8).contains(&w.steps));
            let thought = text.split("</think>").next().expect("a thought");
            assert!(
                thought.contains(&format!("= {}", w.answer)),
                "the thought does not reach the answer: {text:?}"
            );
        }
    }
    assert!(
        calculations > 10_000,
        "only {calculations} calculations seen"
    );
    for d in documents(3, Split::Train, 0, base_mix()).take(1000) {
        match d {
            Document::Text { text } => _ = check_arithmetic(&text),
            Document::Worked { completion, .. } => _ = check_arithmetic(&completion),
            Document::Chat { messages } => assert_eq!(messages.len() % 2, 0),
        }
    }
}

#[test]
fn one_seed_gives_one_text_and_another_another() {
    let a: Vec<_> = worked(7, Split::Test, sft_mix()).take(50).collect();
    let b: Vec<_> = worked(7, Split::Test, sft_mix()).take(50).collect();
    let c: Vec<_> = worked(8, Split::Test, sft_mix()).take(50).collect();
    assert_eq!(a, b);
    assert_ne!(a, c);
}

#[test]
fn the_stream_can_be_entered_anywhere() {
    let from_20: Vec<_> = hard_questions(5, Split::Train, HardSpec::even())
        .skip(20)
        .take(5)
        .collect();
    let first_25: Vec<_> = hard_questions(5, Split::Train, HardSpec::even())
        .take(25)
        .collect();
    assert_eq!(from_20, first_25[20..]);
}

#[test]
fn easy_questions_of_the_splits_are_disjoint() {
    let ask = |split| -> HashSet<String> {
        easy_questions(1, split)
            .take(3000)
            .filter(|q| q.task != "greeting")
            .map(|q| q.prompt[0].content.clone())
            .collect()
    };
    let (train, valid, test) = (ask(Split::Train), ask(Split::Valid), ask(Split::Test));
    assert!(train.is_disjoint(&test) && train.is_disjoint(&valid) && valid.is_disjoint(&test));
    assert!(test.len() > 300);
}

#[test]
fn the_shortest_thought_is_a_third_of_the_mean() {
    let mean = |concise: f64| {
        let mix = SftMix {
            easy: 0.0,
            concise,
            shorthand: 0.0,
            usual_opener: 0.0,
            max_chars: 1850,
            hard: HardSpec::even(),
        };
        let lengths: Vec<usize> = worked(2, Split::Valid, mix)
            .take(500)
            .map(|w| w.completion[0].content.len())
            .collect();
        lengths.iter().sum::<usize>() as f64 / lengths.len() as f64
    };
    let (short, mixed) = (mean(1.0), mean(0.1));
    assert!(
        mixed >= 3.0 * short,
        "mean {mixed} characters against {short}"
    );
}

#[test]
fn shorthand_ends_at_the_answer_and_takes_three_quarters_of_the_concise_thought() {
    let thoughts = |shorthand: f64| {
        let mix = SftMix {
            easy: 0.0,
            concise: 1.0,
            shorthand,
            usual_opener: 0.0,
            max_chars: 1850,
            hard: HardSpec::even(),
        };
        worked(2, Split::Valid, mix).take(300)
    };
    let length = |w: &Worked| w.completion[0].content.len();
    let concise: usize = thoughts(0.0).map(|w| length(&w)).sum();
    let mut short = 0;
    for example in thoughts(1.0) {
        short += length(&example);
        let text = &example.completion[0].content;
        let thought = text.split("\n</think>").next().unwrap_or(text);
        let last = thought.rsplit(" =").next().unwrap_or(thought);
        assert_eq!(last, example.answer, "{text}");
    }
    assert!(
        4 * short < 3 * concise,
        "{short} characters against {concise}"
    );
}

#[test]
fn budgets_stand_in_the_last_line() {
    let spec = HardSpec {
        budgets: vec![64, 128],
        ..HardSpec::even()
    };
    for q in hard_questions(1, Split::Train, spec).take(50) {
        let last = q.prompt[0].content.lines().last().expect("a line");
        assert!(
            last == "Use at most 64 tokens." || last == "Use at most 128 tokens.",
            "{last:?}"
        );
    }
}

/// A small data set whose base text is of this mix.
fn small(mix: BaseMix) -> DatasetSpec {
    DatasetSpec {
        seed: 4,
        vocab_size: 600,
        tokenizer_documents: 300,
        sft_examples: 50,
        rl_questions: 20,
        rl_easy_questions: 20,
        eval_questions: 20,
        base: vec![BaseStage {
            documents: 100,
            mix,
        }],
        midtrain: Vec::new(),
        anneal: Vec::new(),
        sft: sft_mix(),
        rl: HardSpec::even(),
        model: None,
    }
}

#[test]
fn the_same_spec_writes_the_same_bytes() {
    let stage = BaseStage {
        documents: 40,
        mix: base_mix(),
    };
    let spec = DatasetSpec {
        midtrain: vec![stage.clone()],
        anneal: vec![stage],
        ..small(base_mix())
    };
    let dirs = [
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    ];
    for dir in &dirs {
        write_dataset(dir.path(), &spec).expect("a data set");
    }
    let files = [
        "base.jsonl",
        "midtrain.jsonl",
        "midtrain-valid.jsonl",
        "anneal.jsonl",
        "anneal-valid.jsonl",
        "sft.jsonl",
        "rl.jsonl",
        "rl-easy.jsonl",
        "hard-test.jsonl",
        "shifted-test.jsonl",
        "tokenizer/tokenizer.json",
        "tokenizer/chat_template.jinja",
    ];
    for name in files {
        let read = |i: usize| std::fs::read(dirs[i].path().join(name)).expect(name);
        assert!(!read(0).is_empty() && read(0) == read(1), "{name} differs");
    }
}

#[test]
fn a_spec_that_describes_nothing_is_refused_with_all_its_faults() {
    let mut mix = base_mix();
    mix.worked = -1.0;
    mix.hard.steps = vec![];
    let spec = DatasetSpec {
        vocab_size: 100,
        sft: SftMix {
            easy: 2.0,
            ..sft_mix()
        },
        ..small(mix)
    };
    let dir = tempfile::tempdir().expect("a folder");
    let text = write_dataset(dir.path(), &spec)
        .expect_err("it must be refused")
        .to_string();
    for part in ["vocab_size", "shares", "steps", "easy"] {
        assert!(text.contains(part), "{part} is missing in {text:?}");
    }
}
