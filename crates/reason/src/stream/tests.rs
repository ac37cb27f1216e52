//! Streams without an engine: tokens in, text and counts out.

use super::*;
use crate::format::DEFAULT_CLOSING;

fn rules(stops: &[&str], budget: Option<BudgetPlan>) -> StreamRules {
    StreamRules {
        tags: Some(Tags::default()),
        inside: false,
        stops: stops.iter().map(|s| (*s).to_owned()).collect(),
        budget,
        least: None,
        stop_loops: false,
        logprobs: false,
        closing: DEFAULT_CLOSING.to_owned(),
    }
}

fn piece(token: u32, kind: Kind, text: &str) -> Piece<'_> {
    Piece { token, kind, text }
}

/// Feeds texts as tokens 0, 1, ...; forces the closing phrase, as one token per character, when asked for.
fn run(rules: &StreamRules, tokens: &[&str]) -> Choice {
    let mut stream = Stream::new(rules);
    let mut id = 0;
    let mut queue: Vec<String> = tokens.iter().rev().map(|t| (*t).to_owned()).collect();
    loop {
        if let Some(text) = stream.wants_closing() {
            queue.extend(text.chars().rev().map(String::from));
        }
        let Some(text) = queue.pop() else { break };
        stream.token(piece(id, Kind::Text, &text), None);
        id += 1;
        if stream.stopped() {
            break;
        }
    }
    stream.finish("", FinishReason::Length);
    stream.into_choice(0, None)
}

#[test]
fn thought_tokens_are_counted_without_tags() {
    let choice = run(
        &rules(&[], None),
        &["<think>", "\n", "a", " b", "</", "think", ">", "\n\n", "4"],
    );
    assert_eq!(
        (choice.reasoning.as_str(), choice.text.as_str()),
        ("a b", "4")
    );
    assert_eq!(choice.reasoning_tokens, 3);
    assert_eq!(choice.token_ids.len(), 9);
}

#[test]
fn an_unfinished_thought_has_no_answer() {
    let choice = run(&rules(&[], None), &["<think>", "a", " b", "</th"]);
    assert_eq!(
        (choice.reasoning.as_str(), choice.text.as_str()),
        ("a b</th", "")
    );
    assert_eq!(choice.finish_reason, FinishReason::Length);
    assert_eq!(choice.reasoning_tokens, 3);
}

#[test]
fn stop_strings_end_the_answer_and_leave_the_thought_alone() {
    let choice = run(
        &rules(&["END"], None),
        &["<think>", "END", "</think>", "ok E", "ND", " more"],
    );
    assert_eq!(
        (choice.reasoning.as_str(), choice.text.as_str()),
        ("END", "ok ")
    );
    assert_eq!(choice.finish_reason, FinishReason::Stop);
    assert_eq!(choice.token_ids.len(), 5, "nothing is read after the stop");
}

#[test]
fn every_budget_cuts_the_thought_and_leaves_room_for_the_answer() {
    let closing = DEFAULT_CLOSING.chars().count();
    for budget in 0..80 {
        let plan = BudgetPlan::new(budget, 1000, closing + "<think>".len(), None).expect("room");
        let thought: Vec<String> = "<think>"
            .chars()
            .map(String::from)
            .chain((0..200).map(|i| format!("w{i} ")))
            .collect();
        let thought: Vec<&str> = thought.iter().map(String::as_str).collect();
        let mut stream = Stream::new(&rules(&[], Some(plan)));
        let mut queue: Vec<String> = thought.iter().rev().map(|t| (*t).to_owned()).collect();
        let mut id = 0;
        while id < plan.response_tokens as u32 {
            if let Some(text) = stream.wants_closing() {
                queue = "123".chars().rev().map(String::from).collect();
                queue.extend(text.chars().rev().map(String::from));
            }
            let Some(text) = queue.pop() else { break };
            stream.token(piece(id, Kind::Text, &text), None);
            id += 1;
        }
        stream.finish("", FinishReason::Length);
        let choice = stream.into_choice(0, None);
        assert!(
            choice.text.starts_with("**Final answer:** 123"),
            "{budget}: {choice:?}"
        );
        assert!(choice.budget_forced);
        assert!(choice.token_ids.len() <= plan.response_tokens);
    }
}

#[test]
fn a_budget_that_is_not_reached_changes_nothing() {
    let plan = BudgetPlan::new(1000, 5000, 10, None);
    let tokens = ["<think>", "a", "</think>", "4"];
    let with = run(&rules(&[], plan), &tokens);
    let without = run(&rules(&[], None), &tokens);
    assert_eq!(with, without);
}

#[test]
fn single_token_tags_split_and_count() {
    let mut stream = Stream::new(&rules(&[], None));
    assert_eq!(stream.token(piece(9, Kind::Open, ""), None), None);
    assert_eq!(stream.token(piece(1, Kind::Text, "a"), None), None);
    assert_eq!(stream.token(piece(10, Kind::Close, ""), None), Some(1));
    assert_eq!(stream.token(piece(2, Kind::Text, "b"), None), None);
    stream.finish("", FinishReason::Stop);
    let choice = stream.into_choice(3, None);
    assert_eq!(
        (choice.reasoning.as_str(), choice.text.as_str()),
        ("a", "b")
    );
    assert_eq!(choice.index, 3);
}

#[test]
fn a_thought_that_repeats_itself_is_closed() {
    let mut tokens = vec!["<think>", "a"];
    tokens.extend(["so ", "b "].repeat(60));
    let rules = |stop_loops, budget| StreamRules {
        stop_loops,
        ..rules(&[], budget)
    };
    // The ids in `run` grow, so the same texts are no loop to it; here a token's id is its text's.
    let run = |rules: &StreamRules| {
        let mut stream = Stream::new(rules);
        let mut closed_at = None;
        for text in &tokens {
            let id = u32::from(text.as_bytes()[0]);
            stream.token(piece(id, Kind::Text, text), None);
            if let Some(text) = stream.wants_closing() {
                closed_at = Some(stream.token_ids.len());
                stream.token(piece(0, Kind::Text, &text), None);
                stream.token(piece(1, Kind::Text, "7"), None);
                break;
            }
        }
        stream.finish("", FinishReason::Stop);
        (closed_at, stream.into_choice(0, None))
    };
    let (at, choice) = run(&rules(true, None));
    assert_eq!(at, Some(2 + crate::loops::MIN_LOOP_TOKENS));
    assert_eq!(choice.text, "**Final answer:** 7");
    assert_eq!(choice.thought_closed, Some(ThoughtEnd::Loop));
    assert!(!choice.budget_forced);
    let (at, choice) = run(&rules(false, None));
    assert_eq!((at, choice.thought_closed), (None, None));
    let plan = BudgetPlan::new(60, 1000, 9, None);
    let (at, choice) = run(&rules(true, plan));
    assert_eq!(
        (at, choice.thought_closed, choice.budget_forced),
        (Some(60 - 9 - 16), Some(ThoughtEnd::Budget), true),
        "whichever comes first"
    );
}

#[test]
fn an_early_end_is_replaced_so_often_and_never_past_the_limit() {
    let rules = |tokens, times, limit| StreamRules {
        least: Some(LeastThought {
            tokens,
            continuation: vec![70, 71],
            times,
            limit,
        }),
        ..rules(&[], None)
    };
    // A model that closes its thought after every token.
    let run = |rules: &StreamRules| {
        let mut stream = Stream::new(rules);
        assert_eq!(stream.wants_more(), None, "no thought is open yet");
        stream.token(piece(3, Kind::Open, ""), None);
        loop {
            stream.token(piece(5, Kind::Text, "x"), None);
            let Some(more) = stream.wants_more() else {
                break;
            };
            for token in more {
                stream.token(piece(token, Kind::Text, "w"), None);
            }
        }
        stream.token(piece(4, Kind::Close, ""), None);
        stream.finish("", FinishReason::Stop);
        let choice = stream.into_choice(0, None);
        assert_eq!(choice.thought_closed, Some(ThoughtEnd::Model));
        (choice.continued, choice.reasoning_tokens)
    };
    assert_eq!(run(&rules(0, 6, 100)), (0, 1), "long enough");
    assert_eq!(run(&rules(7, 6, 100)), (2, 7), "until it is long enough");
    assert_eq!(run(&rules(100, 3, 100)), (3, 10), "so often");
    assert_eq!(run(&rules(100, 60, 11)), (3, 10), "the tag and 10 tokens");
    assert_eq!(run(&rules(100, 60, 10)), (2, 7), "one less has no room");
}

#[test]
fn a_promised_answer_comes_though_the_model_writes_none() {
    let plan = BudgetPlan::new(100, 1000, 9, None);
    let after = |tokens: &[(Kind, &str)], ends: bool, budget| {
        let mut stream = Stream::new(&rules(&[], budget));
        for &(kind, text) in tokens {
            stream.token(piece(0, kind, text), None);
        }
        if ends {
            stream.end_turn();
        }
        stream.wants_closing()
    };
    let thought = [(Kind::Open, ""), (Kind::Text, "a"), (Kind::Close, "")];
    let phrase = Some("\n\n**Final answer:** ".to_owned());
    assert_eq!(after(&thought, false, plan), None, "it may still come");
    assert_eq!(after(&thought, true, plan), phrase);
    assert_eq!(after(&thought, true, None), None, "nothing was promised");
    assert_eq!(
        after(&thought[..2], true, plan),
        Some(DEFAULT_CLOSING.to_owned())
    );
    let mut blank = thought.to_vec();
    blank.resize(90, (Kind::Text, "\n"));
    assert_eq!(after(&blank[..89], false, plan), None);
    assert_eq!(after(&blank, false, plan), phrase, "the last moment");
    blank[50].1 = "7";
    assert_eq!(after(&blank, false, plan), None, "there is an answer");
}
