//! From queries to answers on tiny random models: events, streams, stop strings, adapters, errors.
//!
//! A random model writes noise and never closes a thought by itself. Logit biases steer it where a test needs that.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::support::{adapter, ask, chat, endless, load, raw, reasoner, token};
use edgethink_engine::Sampling;
use edgethink_model::Message;
use edgethink_reason::{AdapterUse, Event, FinishReason, Input, Query, ReasonError, Think};

#[test]
fn events_add_up_to_the_answer() {
    let mut reasoner = reasoner(None);
    let query = Query {
        n: 3,
        ..endless(raw("hello <think>\n"), Think::On, 40)
    };
    let mut reasoning = vec![String::new(); 3];
    let mut content = vec![String::new(); 3];
    let mut finished = [None; 3];
    let mut prefilled = 0;
    let answer = reasoner
        .answer(
            &query,
            |event| match event {
                Event::Prefilled { prompt_tokens, .. } => {
                    prefilled += 1;
                    assert!(*prompt_tokens > 0);
                }
                Event::Reasoning { stream, text } => reasoning[*stream].push_str(text),
                Event::Content { stream, text } => content[*stream].push_str(text),
                Event::StreamFinished { stream, reason } => finished[*stream] = Some(*reason),
                Event::ThoughtEnded { .. }
                | Event::Decided(_)
                | Event::Logprob { .. }
                | Event::Scored { .. }
                | Event::Answered(_)
                | Event::Failed(_) => {}
            },
            || false,
        )
        .expect("an answer");
    assert_eq!(prefilled, 1);
    for (i, choice) in answer.choices.iter().enumerate() {
        assert_eq!(
            (choice.index, &choice.reasoning, &choice.text),
            (i, &reasoning[i], &content[i])
        );
        assert_eq!(Some(choice.finish_reason), finished[i]);
        assert_eq!(choice.finish_reason, FinishReason::Length);
        assert_eq!(choice.text, "", "the thought did not end");
        assert!(!choice.reasoning.is_empty());
        assert_eq!(choice.token_ids.len(), 40);
    }
    assert_eq!(answer.usage.completion_tokens, 120);
    assert_eq!(answer.usage.reasoning_tokens, 120);
    assert!(answer.timings.ttft_ms > 0.0 && answer.timings.decode_tps > 0.0);
}

#[test]
fn streams_differ_and_repeat_by_seed() {
    let mut reasoner = reasoner(None);
    let three = Query {
        n: 3,
        ..endless(chat("hello"), Think::Off, 24)
    };
    let first = ask(&mut reasoner, &three);
    let ids: Vec<&Vec<u32>> = first.choices.iter().map(|c| &c.token_ids).collect();
    assert!(
        ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2],
        "streams have draws of their own"
    );
    assert_eq!(
        ask(&mut reasoner, &three).choices,
        first.choices,
        "the same seed, a warm cache"
    );
    let one = Query {
        n: 1,
        ..three.clone()
    };
    assert_eq!(
        ask(&mut reasoner, &one).choices[0],
        first.choices[0],
        "alone as in a batch"
    );
    let other = Query { seed: 6, ..one };
    assert_ne!(ask(&mut reasoner, &other).choices[0], first.choices[0]);
}

#[test]
fn queries_side_by_side_give_what_they_give_alone() {
    let queries: Vec<Query> = ["hello", "one two", "is it so"]
        .into_iter()
        .enumerate()
        .map(|(i, text)| Query {
            n: 1 + i,
            ..endless(chat(text), Think::Off, 10 + 7 * i)
        })
        .collect();
    let mut batch = reasoner(None);
    let ids: Vec<_> = queries
        .iter()
        .map(|q| batch.submit(q).expect("accepted"))
        .collect();
    let mut answers = BTreeMap::new();
    while batch.in_flight() > 0 {
        for (id, event) in batch.step().expect("a step") {
            if let Event::Answered(answer) = event {
                answers.insert(id, answer);
            }
        }
    }
    for (query, id) in queries.iter().zip(ids) {
        let alone = ask(&mut reasoner(None), query);
        assert_eq!(answers[&id].choices, alone.choices);
    }
}

#[test]
fn stop_strings_end_the_text_before_them_wherever_tokens_end() {
    let mut reasoner = reasoner(None);
    let query = endless(raw("hello"), Think::Off, 60);
    let whole = ask(&mut reasoner, &query).choices.remove(0).text;
    let chars: Vec<char> = whole.chars().collect();
    for (start, len) in [(3, 1), (5, 4), (11, 7), (20, 2)] {
        let stop: String = chars[start..start + len].iter().collect();
        let before = &whole[..whole.find(&stop).expect("it is there")];
        let stopped = Query {
            stop: vec!["never written".to_owned(), stop.clone()],
            ..query.clone()
        };
        let mut shown = String::new();
        let on_event = |event: &Event| {
            if let Event::Content { text, .. } = event {
                shown.push_str(text);
            }
        };
        let answer = reasoner
            .answer(&stopped, on_event, || false)
            .expect("an answer");
        assert_eq!(answer.choices[0].text, before);
        assert_eq!(shown, before);
        assert_eq!(answer.choices[0].finish_reason, FinishReason::Stop);
    }
}

#[test]
fn the_end_of_the_turn_is_no_text() {
    let end = token("<|im_end|>");
    let query = |ignore_eos| Query {
        ignore_eos,
        max_tokens: Some(5),
        sampling: Sampling {
            logit_bias: vec![(end, 1e4)],
            ..Sampling::greedy()
        },
        ..Query::greedy(chat("hello"), Think::Off)
    };
    let mut reasoner = reasoner(None);
    let answer = ask(&mut reasoner, &query(false));
    assert_eq!(answer.choices[0].token_ids, [end]);
    assert_eq!(
        (
            answer.choices[0].text.as_str(),
            answer.choices[0].finish_reason
        ),
        ("", FinishReason::Stop)
    );
    let answer = ask(&mut reasoner, &query(true));
    assert_eq!(answer.choices[0].token_ids, [end; 5]);
    assert_eq!(answer.choices[0].finish_reason, FinishReason::Length);
}

#[test]
fn logprobs_come_for_every_token() {
    let query = Query {
        top_logprobs: Some(3),
        sampling: Sampling::greedy(),
        ..endless(chat("hello"), Think::Off, 12)
    };
    let answer = ask(&mut reasoner(None), &query);
    let choice = &answer.choices[0];
    let logprobs = choice.logprobs.as_ref().expect("log-probabilities");
    assert_eq!(logprobs.len(), choice.token_ids.len());
    for (one, &id) in logprobs.iter().zip(&choice.token_ids) {
        assert_eq!(one.token, id);
        assert_eq!(one.top.len(), 3);
        assert_eq!(one.top[0].0, id, "greedy takes the best");
        assert!(one.logp < 0.0 && one.top[0].2 == one.logp && one.top[1].2 <= one.logp);
    }
}

#[test]
fn cancelling_keeps_what_is_there() {
    let mut reasoner = reasoner(None);
    let tokens = Cell::new(0);
    let answer = reasoner
        .answer(
            &endless(raw("hello"), Think::Off, 500),
            |event| {
                if matches!(event, Event::Content { .. }) {
                    tokens.set(tokens.get() + 1);
                }
            },
            || tokens.get() >= 5,
        )
        .expect("an answer");
    assert_eq!(answer.choices[0].finish_reason, FinishReason::Cancelled);
    assert!(!answer.choices[0].text.is_empty() && answer.choices[0].token_ids.len() < 500);
    assert_eq!(reasoner.in_flight(), 0);
    ask(&mut reasoner, &endless(raw("hello"), Think::Off, 5));
}

#[test]
fn a_masked_adapter_shares_the_prompt_and_leaves_the_base_alone() {
    let mut reasoner = reasoner(Some(adapter(true)));
    assert_eq!(reasoner.default_think(), Think::On);
    let query = |think| Query {
        sampling: Sampling::greedy(),
        ..endless(
            chat("hello is it the one or the other that is in the house"),
            think,
            20,
        )
    };
    let base = ask(&mut reasoner, &query(Think::Off));
    assert_eq!(base.adapter, AdapterUse::Base);
    let thinking = ask(&mut reasoner, &query(Think::On));
    let AdapterUse::Masked { shared_tokens } = thinking.adapter else {
        panic!("masked, not {:?}", thinking.adapter)
    };
    let generation = load()
        .tokenizer
        .expect("one")
        .encode("<|im_start|>assistant\n", false)
        .expect("tokens");
    assert_eq!(
        shared_tokens,
        thinking.usage.prompt_tokens - generation.len()
    );
    assert_eq!(
        thinking.usage.cached_tokens, shared_tokens,
        "the base's KV is used up to the adapter"
    );
    assert_ne!(thinking.choices[0].token_ids, base.choices[0].token_ids);
    assert_eq!(
        ask(&mut reasoner, &query(Think::Off)).choices,
        base.choices,
        "base, adapter, base"
    );
}

#[test]
fn a_plain_adapter_shares_nothing_and_a_missing_invocation_is_the_base() {
    let mut plain = reasoner(Some(adapter(false)));
    let query = endless(chat("hello"), Think::On, 5);
    ask(
        &mut plain,
        &Query {
            think: Think::Off,
            ..query.clone()
        },
    );
    let answer = ask(&mut plain, &query);
    assert_eq!(
        (answer.adapter, answer.usage.cached_tokens),
        (AdapterUse::Plain, 0)
    );
    let mut masked = reasoner(Some(adapter(true)));
    let answer = ask(&mut masked, &endless(raw("hello"), Think::On, 5));
    assert_eq!(answer.adapter, AdapterUse::NotInvoked);
}

#[test]
fn a_second_turn_uses_the_first_ones_kv() {
    let mut reasoner = reasoner(Some(adapter(true)));
    let first = ask(&mut reasoner, &endless(chat("hello"), Think::On, 10));
    let turns = vec![
        Message::new("user", "hello"),
        Message::new("assistant", first.choices[0].text.clone()),
        Message::new("user", "and then"),
    ];
    let second = ask(
        &mut reasoner,
        &endless(Input::Messages(turns), Think::On, 10),
    );
    let AdapterUse::Masked { shared_tokens } = first.adapter else {
        panic!("masked")
    };
    assert!(
        second.usage.cached_tokens >= shared_tokens,
        "{:?}",
        second.usage
    );
}

#[test]
fn impossible_queries_are_refused_and_nothing_breaks() {
    let mut reasoner = reasoner(None);
    let good = endless(chat("hello"), Think::Off, 4);
    let with = |change: fn(&mut Query)| {
        let mut query = good.clone();
        change(&mut query);
        query
    };
    type Expected = fn(&ReasonError) -> bool;
    let cases: [(Query, Expected); 8] = [
        (with(|q| q.n = 0), |e| matches!(e, ReasonError::NoStreams)),
        (with(|q| q.max_tokens = Some(0)), |e| {
            matches!(e, ReasonError::NoTokens)
        }),
        (with(|q| q.stop = vec![String::new()]), |e| {
            matches!(e, ReasonError::EmptyStop)
        }),
        (with(|q| q.input = Input::Raw(String::new())), |e| {
            matches!(e, ReasonError::EmptyPrompt)
        }),
        (with(|q| q.input = Input::Messages(Vec::new())), |e| {
            matches!(e, ReasonError::EmptyPrompt)
        }),
        (with(|q| q.input = Input::Raw("x".repeat(2048))), |e| {
            matches!(e, ReasonError::NoRoom { .. })
        }),
        (with(|q| q.sampling.temperature = f32::NAN), |e| {
            matches!(e, ReasonError::Request(_))
        }),
        (
            with(|q| {
                q.input = Input::Raw("x".repeat(2045));
                q.think = Think::On;
                q.budget = Some(100);
            }),
            |e| matches!(e, ReasonError::NoRoom { needed, .. } if *needed > 3),
        ),
    ];
    for (query, expected) in cases {
        let error = reasoner.submit(&query).expect_err("refused");
        assert!(expected(&error), "{error}");
    }
    assert_eq!(ask(&mut reasoner, &good).choices[0].token_ids.len(), 4);
}
