//! What ends a thought, on tiny random models: budgets, the least thought, loops, and how a budget is named.

use crate::support::{adapter, ask, chat, endless, load, raw, reasoner, reasoner_with, token};
use edgethink_engine::Sampling;
use edgethink_reason::{
    Answer, Choice, Event, FinishReason, MinThink, Query, ReasonError, Think, ThoughtEnd,
    ThoughtFormat,
};

#[test]
fn every_budget_gives_an_answer_within_its_limit() {
    let mut reasoner = reasoner(None);
    let tokenizer = load().tokenizer.expect("a tokenizer");
    let closing = tokenizer
        .encode("\n</think>\n\n**Final answer:** ", false)
        .expect("tokens")
        .len();
    for budget in [0, 1, 2, 17, 50, 51, 64, 100, 300, usize::MAX] {
        for input in [raw("hello <think>\n"), raw("hello <think>")] {
            let query = Query {
                budget: Some(budget),
                max_tokens: None,
                n: 2,
                ..endless(input, Think::On, 1)
            };
            let answer = ask(&mut reasoner, &query);
            for choice in &answer.choices {
                assert!(choice.budget_forced, "{budget}");
                assert!(
                    choice.text.starts_with("**Final answer:**"),
                    "{budget}: {:?}",
                    choice.text
                );
                assert!(
                    choice.text.len() > "**Final answer:** ".len(),
                    "{budget}: {:?}",
                    choice.text
                );
                let least = closing + 16;
                assert!(
                    choice.token_ids.len() <= budget.max(least),
                    "{budget}: {}",
                    choice.token_ids.len()
                );
                let thought_limit = budget.saturating_sub(least);
                assert!(
                    choice.reasoning_tokens <= thought_limit,
                    "{budget}: {}",
                    choice.reasoning_tokens
                );
            }
        }
    }
}

#[test]
fn a_budget_opens_and_closes_a_thought_that_has_not_begun() {
    let query = Query {
        budget: Some(0),
        max_tokens: None,
        ..endless(chat("hello"), Think::On, 1)
    };
    let answer = ask(&mut reasoner(None), &query);
    let choice = &answer.choices[0];
    assert!(
        choice.text.starts_with("**Final answer:**"),
        "{:?}",
        choice.text
    );
    assert_eq!(
        (choice.reasoning.as_str(), choice.reasoning_tokens),
        ("", 0)
    );
    assert_eq!(choice.token_ids[0], token("<think>"));
}

#[test]
fn with_a_budget_a_turn_that_ends_inside_the_thought_still_answers() {
    let end = token("<|im_end|>");
    let query = |budget| Query {
        budget,
        sampling: Sampling {
            logit_bias: vec![(end, 1e4)],
            ..Sampling::greedy()
        },
        ..Query::greedy(raw("hello <think>\n"), Think::On)
    };
    let mut reasoner = reasoner(None);
    let with = ask(&mut reasoner, &query(Some(100)));
    assert_eq!(with.choices[0].text.trim_end(), "**Final answer:**");
    assert_eq!(with.choices[0].finish_reason, FinishReason::Stop);
    assert_eq!(with.choices[0].token_ids.last(), Some(&end));
    let without = ask(&mut reasoner, &query(None));
    assert_eq!(
        (
            without.choices[0].text.as_str(),
            without.choices[0].finish_reason
        ),
        ("", FinishReason::Stop)
    );
}

/// A format that names budgets.
fn naming() -> ThoughtFormat {
    ThoughtFormat {
        budget_line: Some("use {B} only.".to_owned()),
        ..ThoughtFormat::default()
    }
}

#[test]
fn a_named_budget_is_text_of_the_prompt_and_limits_nothing() {
    let mut plain = reasoner(None);
    let mut naming = reasoner_with(None, naming());
    let named = Query {
        named_budget: Some(7),
        ..endless(chat("hello"), Think::On, 30)
    };
    let written = endless(chat("hello\nuse 7 only."), Think::On, 30);
    let answer = ask(&mut naming, &named);
    assert_eq!(answer.choices, ask(&mut plain, &written).choices);
    assert_eq!(answer.choices[0].token_ids.len(), 30);
    let budget = answer.budget.expect("a budget");
    assert_eq!(budget.line.as_deref(), Some("use 7 only."));
    assert_eq!((budget.hard, budget.thought_tokens), (None, None));
    assert_eq!(budget.response_tokens, 30);

    let without = endless(chat("hello"), Think::On, 30);
    let answer = ask(&mut plain, &named);
    assert_eq!(answer.budget, None, "a model that knows no line gets none");
    assert_eq!(answer.choices, ask(&mut plain, &without).choices);
    let off = Query {
        think: Think::Off,
        ..named.clone()
    };
    assert_eq!(ask(&mut naming, &off).budget, None);
    let text = Query {
        input: raw("hello"),
        ..named
    };
    assert_eq!(ask(&mut naming, &text).budget, None);
}

#[test]
fn a_budget_may_be_hard_or_named_or_both() {
    let mut reasoner = reasoner_with(None, naming());
    let query = endless(raw("x"), Think::On, 200);
    let query = Query {
        input: chat("hello"),
        ..query
    };
    let hard = ask(
        &mut reasoner,
        &Query {
            budget: Some(60),
            ..query.clone()
        },
    );
    let both = ask(&mut reasoner, &query.with_budget(60));
    let line = |answer: &Answer| answer.budget.as_ref().and_then(|b| b.line.clone());
    assert_eq!(line(&hard), None);
    assert_eq!(line(&both).as_deref(), Some("use 60 only."));
    for answer in [&hard, &both] {
        let budget = answer.budget.as_ref().expect("a budget");
        assert_eq!((budget.hard, budget.response_tokens), (Some(60), 60));
        assert!(budget.thought_tokens.is_some_and(|n| n < 44));
        assert_eq!(answer.choices[0].token_ids.len(), 60);
    }
    assert!(both.usage.prompt_tokens > hard.usage.prompt_tokens);
}

#[test]
fn a_named_budget_leaves_the_prompt_shared() {
    let mut reasoner = reasoner_with(Some(adapter(true)), naming());
    let question = "hello is it the one or the other that is in the house";
    let query = |think, named| Query {
        named_budget: named,
        ..endless(chat(question), think, 5)
    };
    let off = ask(&mut reasoner, &query(Think::Off, None));
    let unnamed = load()
        .tokenizer
        .expect("one")
        .encode(question, false)
        .expect("tokens")
        .len();
    let first = ask(&mut reasoner, &query(Think::On, Some(64)));
    assert!(
        first.usage.cached_tokens >= unnamed,
        "the question as the base encoded it: {:?} after {:?}",
        first.usage,
        off.usage
    );
    let second = ask(&mut reasoner, &query(Think::On, Some(65)));
    assert!(
        second.usage.cached_tokens > first.usage.cached_tokens,
        "the line up to its number: {:?} after {:?}",
        second.usage,
        first.usage
    );
}

/// A query whose model ends its thought at once, every time.
fn hasty(min: MinThink, max_tokens: usize) -> Query {
    Query {
        min_think: Some(min),
        max_tokens: Some(max_tokens),
        sampling: Sampling {
            logit_bias: vec![(token("</think>"), 1e4)],
            ..Sampling::greedy()
        },
        ..Query::greedy(raw("hello <think>\n"), Think::On)
    }
}

fn closings(choice: &Choice) -> usize {
    let close = token("</think>");
    choice.token_ids.iter().filter(|&&t| t == close).count()
}

#[test]
fn a_short_thought_goes_on_in_every_stream() {
    let mut reasoner = reasoner(None);
    let wait = load()
        .tokenizer
        .expect("one")
        .encode("Wait", false)
        .expect("tokens");
    for times in [0, 1, 6] {
        let min = MinThink {
            times,
            ..MinThink::new(1000)
        };
        let query = Query {
            n: 3,
            top_logprobs: Some(0),
            ..hasty(min, 80)
        };
        let mut thoughts = 0;
        let answer = reasoner
            .answer(
                &query,
                |event| {
                    if let Event::ThoughtEnded { tokens, end, .. } = event {
                        assert_eq!((*tokens, *end), (times * wait.len(), ThoughtEnd::Model));
                        thoughts += 1;
                    }
                },
                || false,
            )
            .expect("an answer");
        assert_eq!(thoughts, 3);
        for choice in &answer.choices {
            assert_eq!(choice.continued, times);
            assert_eq!(choice.reasoning, "Wait".repeat(times));
            assert_eq!(choice.reasoning_tokens, times * wait.len());
            assert_eq!(choice.thought_closed, Some(ThoughtEnd::Model));
            let thought: Vec<u32> = wait.repeat(times);
            assert!(choice.token_ids.starts_with(&thought));
            assert_eq!(choice.token_ids[thought.len()], token("</think>"));
            assert_eq!(
                choice.token_ids.len(),
                80,
                "the limit is the whole answer's"
            );
            let logprobs = choice.logprobs.as_ref().map(Vec::len);
            assert_eq!(logprobs, Some(80), "forced tokens have theirs");
        }
        assert_eq!(answer.usage.completion_tokens, 240);
    }
}

#[test]
fn a_thought_that_is_long_enough_is_left_alone() {
    let mut reasoner = reasoner(None);
    let endless = endless(raw("hello <think>\n"), Think::On, 40);
    let least = Query {
        min_think: Some(MinThink::new(20)),
        ..endless.clone()
    };
    assert_eq!(
        ask(&mut reasoner, &least).choices,
        ask(&mut reasoner, &endless).choices
    );
}

#[test]
fn the_least_thought_never_goes_past_a_budget() {
    let mut reasoner = reasoner(None);
    for budget in [0, 1, 30, 60, 200] {
        let min = MinThink {
            times: 1000,
            ..MinThink::new(1000)
        };
        let query = Query {
            budget: Some(budget),
            ..hasty(min, 2000)
        };
        let answer = ask(&mut reasoner, &query);
        let limits = answer.budget.as_ref().expect("a budget");
        let choice = &answer.choices[0];
        assert!(choice.token_ids.len() <= limits.response_tokens, "{budget}");
        assert!(
            choice.reasoning_tokens <= limits.thought_tokens.unwrap_or(0),
            "{budget}: {choice:?}"
        );
        assert!(closings(choice) > 0, "{budget}");
    }
}

#[test]
fn the_end_of_the_turn_is_taken_back_too() {
    let end = token("<|im_end|>");
    let query = Query {
        sampling: Sampling {
            logit_bias: vec![(end, 1e4)],
            ..Sampling::greedy()
        },
        ..hasty(MinThink::new(5), 80)
    };
    let answer = ask(&mut reasoner(None), &query);
    let choice = &answer.choices[0];
    assert!(choice.reasoning.starts_with("WaitWait"), "{choice:?}");
    assert!(choice.reasoning_tokens >= 5);
    assert_eq!(choice.finish_reason, FinishReason::Stop);
    let ends = choice.token_ids.iter().filter(|&&t| t == end).count();
    assert_eq!(ends, 1, "only the last one stands");
}

#[test]
fn a_loop_is_closed_with_or_without_a_budget() {
    let x = load().tokenizer.expect("one").encode("x", false);
    let x = x.expect("tokens")[0];
    let query = |stop_loops, budget| Query {
        stop_loops,
        budget,
        sampling: Sampling {
            logit_bias: vec![(x, 1e4)],
            ..Sampling::greedy()
        },
        max_tokens: Some(200),
        ..Query::greedy(raw("hello <think>\n"), Think::On)
    };
    let mut reasoner = reasoner(None);
    for budget in [None, Some(150)] {
        let answer = ask(&mut reasoner, &query(true, budget));
        let choice = &answer.choices[0];
        assert_eq!(choice.thought_closed, Some(ThoughtEnd::Loop));
        assert_eq!(choice.reasoning, "x".repeat(64));
        assert!(choice.text.starts_with("**Final answer:** x"), "{choice:?}");
        assert!(choice.token_ids.len() <= budget.unwrap_or(200));
    }
    let answer = ask(&mut reasoner, &query(false, None));
    assert_eq!(answer.choices[0].thought_closed, None);
    assert_eq!(answer.choices[0].reasoning_tokens, 200);
}

#[test]
fn the_reason_of_each_end_is_told() {
    let mut reasoner = reasoner(None);
    let end_of = |bias: Vec<(u32, f32)>, budget| Query {
        budget,
        max_tokens: Some(100),
        sampling: Sampling {
            logit_bias: bias,
            ..Sampling::greedy()
        },
        ..Query::greedy(raw("hello <think>\n"), Think::On)
    };
    let close = vec![(token("</think>"), 1e4)];
    let end = vec![(token("<|im_end|>"), 1e4)];
    let neither = vec![
        (token("</think>"), f32::NEG_INFINITY),
        (token("<|im_end|>"), f32::NEG_INFINITY),
        (token("<|endoftext|>"), f32::NEG_INFINITY),
    ];
    for (bias, budget, closed, forced) in [
        (close.clone(), None, Some(ThoughtEnd::Model), false),
        (end.clone(), Some(80), Some(ThoughtEnd::Turn), true),
        (end, None, None, false),
        (neither.clone(), Some(80), Some(ThoughtEnd::Budget), true),
        (neither, None, None, false),
    ] {
        let answer = ask(&mut reasoner, &end_of(bias, budget));
        let choice = &answer.choices[0];
        assert_eq!(
            (choice.thought_closed, choice.budget_forced),
            (closed, forced)
        );
    }
}

#[test]
fn rules_that_cannot_hold_are_refused() {
    let mut reasoner = reasoner(None);
    let min = |continuation: &str| MinThink {
        continuation: continuation.to_owned(),
        ..MinThink::new(10)
    };
    let error = reasoner.submit(&hasty(min(" "), 10));
    assert!(matches!(error, Err(ReasonError::EmptyContinuation)));
    let mut query = hasty(min("Wait"), 10);
    query.sampling.presence_penalty = 0.5;
    let error = reasoner.submit(&query);
    assert!(matches!(error, Err(ReasonError::MinThinkPenalty)));
}
