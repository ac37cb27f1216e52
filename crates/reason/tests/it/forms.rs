//! Answers in a given form, adapters by name, thoughts that the caller ends; on tiny random models, which would never do any of it by
//! themselves.

use crate::support::{adapter, ask, chat, endless, raw, reasoner, token};
use edgethink_engine::Sampling;
use edgethink_reason::{
    AdapterUse, Event, FinishReason, Grammar, Query, ReasonError, Think, ThoughtEnd, ThoughtFormat,
};
use serde_json::{Value, json};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "answer": {"type": "integer", "minimum": 0, "maximum": 999},
            "sure": {"type": "boolean"},
            "unit": {"$ref": "#/$defs/unit"},
        },
        "required": ["answer", "sure", "unit"],
        "additionalProperties": false,
        "$defs": {"unit": {"enum": ["cm", "kg"]}},
    })
}

fn in_form(query: Query, schema: Value) -> Query {
    Query {
        grammar: Some(Grammar::JsonSchema(schema)),
        ..query
    }
}

fn assert_fits(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
    let object = value.as_object().expect("an object");
    assert_eq!(object.len(), 3, "{text}");
    assert!(value["answer"].as_u64().is_some_and(|n| n <= 999), "{text}");
    assert!(value["sure"].is_boolean(), "{text}");
    assert!(["cm", "kg"].contains(&value["unit"].as_str().expect("a text")));
}

#[test]
fn every_stream_keeps_the_form_whatever_the_model_would_write() {
    let mut reasoner = reasoner(Some(adapter(true)));
    let mut texts = Vec::new();
    for think in [Think::Off, Think::On] {
        for input in [chat("hello"), raw("the answer is ")] {
            let query = Query {
                n: 4,
                sampling: Sampling::temperature(1.5),
                seed: 3,
                max_tokens: Some(400),
                budget: (think == Think::On).then_some(160),
                answer_reserve: Some(120),
                ..Query::greedy(input, think)
            };
            let answer = ask(&mut reasoner, &in_form(query, schema()));
            for choice in &answer.choices {
                assert_fits(&choice.text);
                assert_eq!(choice.finish_reason, FinishReason::Stop);
                assert_eq!(choice.reasoning_tokens > 0, think == Think::On);
                texts.push(choice.text.clone());
            }
            reasoner.engine().check_invariants();
        }
    }
    texts.sort();
    texts.dedup();
    assert!(texts.len() > 8, "sampled, not given: {texts:?}");
}

#[test]
fn a_thought_that_the_model_closes_itself_leads_to_the_form() {
    let mut reasoner = reasoner(Some(adapter(true)));
    let close = token("</think>");
    let query = Query {
        sampling: Sampling {
            logit_bias: vec![(close, 4.0)],
            ..Sampling::temperature(1.0)
        },
        seed: 11,
        ..Query::greedy(chat("hello"), Think::On)
    };
    let answer = ask(&mut reasoner, &in_form(query, schema()));
    let choice = &answer.choices[0];
    assert_eq!(choice.thought_closed, Some(ThoughtEnd::Model));
    assert_fits(&choice.text);
}

#[test]
fn a_form_costs_no_thought_its_tokens() {
    let mut reasoner = reasoner(Some(adapter(true)));
    let open = token("<think>");
    // The same thought with and without a form behind it.
    let mut free = endless(chat("hello"), Think::On, 60).with_budget(60);
    free.sampling.logit_bias.retain(|&(id, _)| id != open);
    let bound = in_form(free.clone(), json!({"type": "boolean"}));
    let bound = ask(&mut reasoner, &bound).choices.remove(0);
    assert!(
        ["true", "false"].contains(&bound.text.as_str()),
        "{}",
        bound.text
    );
    assert_eq!(bound.token_ids[0], open);
    let thought = &bound.token_ids[1..=bound.reasoning_tokens];
    assert!(thought.len() > 20 && !thought.contains(&open));
}

#[test]
fn any_object_is_json() {
    let mut reasoner = reasoner(None);
    let query = Query {
        grammar: Some(Grammar::JsonObject),
        sampling: Sampling::temperature(1.0),
        max_tokens: Some(300),
        ..Query::greedy(chat("hello"), Think::Off)
    };
    for seed in 0..8 {
        let query = Query {
            seed,
            ..query.clone()
        };
        let choice = ask(&mut reasoner, &query).choices.remove(0);
        assert!(choice.text.starts_with('{'), "{}", choice.text);
        if choice.finish_reason == FinishReason::Stop {
            let value: Value = serde_json::from_str(&choice.text).expect("JSON");
            assert!(value.is_object());
        }
    }
}

#[test]
fn forms_that_cannot_be_are_refused_with_the_reason() {
    let mut reasoner = reasoner(None);
    let query = |schema| in_form(Query::greedy(chat("hello"), Think::Off), schema);
    for (schema, why) in [
        (json!(true), "a JSON schema is an object"),
        (
            json!({"type": "number", "minimum": 5, "maximum": 1}),
            "minimum",
        ),
        (
            json!({"$ref": "https://example.com/schema.json"}),
            "schema.json",
        ),
        (json!({"type": "sort"}), "sort"),
    ] {
        let error = reasoner
            .submit(&query(schema.clone()))
            .expect_err("refused");
        let text = error.to_string();
        assert!(matches!(error, ReasonError::Grammar { .. }), "{text}");
        assert!(text.contains(why), "{schema}: {text}");
    }
    let endless = Query {
        ignore_eos: true,
        ..query(json!({"type": "object"}))
    };
    assert!(matches!(
        reasoner.submit(&endless),
        Err(ReasonError::GrammarIgnoresEos)
    ));
    assert_eq!(reasoner.in_flight(), 0);
    ask(&mut reasoner, &query(json!({"enum": ["yes", "no"]})));
}

#[test]
fn adapters_come_and_go_by_name() {
    let mut one = reasoner(None);
    let plain = endless(chat("hello"), Think::On, 12);
    let named = |name: &str| Query {
        adapter: Some(name.to_owned()),
        ..plain.clone()
    };
    let unknown = one.submit(&named("a"));
    assert!(matches!(unknown, Err(ReasonError::UnknownAdapter { name }) if name == "a"));
    one.load_adapter("a", adapter(true), ThoughtFormat::default())
        .expect("it fits");
    let twice = one.load_adapter("a", adapter(true), ThoughtFormat::default());
    assert!(matches!(twice, Err(ReasonError::AdapterExists { .. })));
    let names: Vec<&str> = one.adapters().map(|(name, ..)| name).collect();
    assert_eq!(names, ["a"]);
    // Base, adapter and base again, as on reasoners of their own.
    let base = ask(&mut reasoner(None), &plain).choices;
    let mut own = reasoner(Some(adapter(true)));
    let with = ask(&mut own, &plain).choices;
    assert_ne!(base[0].token_ids, with[0].token_ids);
    for (query, expected) in [(&plain, &base), (&named("a"), &with), (&plain, &base)] {
        let answer = ask(&mut one, query);
        assert_eq!(answer.choices[0].token_ids, expected[0].token_ids);
        let masked = matches!(answer.adapter, AdapterUse::Masked { .. });
        assert_eq!(masked, query.adapter.is_some());
    }
    one.unload_adapter("a").expect("nobody uses it");
    assert!(matches!(
        one.unload_adapter("a"),
        Err(ReasonError::UnknownAdapter { .. })
    ));
    assert_eq!(one.adapters().count(), 0);
}

#[test]
fn queries_end_with_the_adapter_they_began_with() {
    let plain = endless(chat("hello"), Think::On, 12);
    let named = Query {
        adapter: Some("a".to_owned()),
        ..plain.clone()
    };
    let with = |adapter| {
        ask(&mut reasoner(Some(adapter)), &plain).choices[0]
            .token_ids
            .clone()
    };
    let (masked, other) = (with(adapter(true)), with(adapter(false)));
    assert_ne!(masked, other);
    let mut one = reasoner(None);
    let empty = one.engine().stats().adapters_bytes;
    let format = ThoughtFormat::default;
    one.load_adapter("a", adapter(true), format())
        .expect("it fits");
    let first = one.submit(&named).expect("a query");
    for _ in 0..4 {
        one.step().expect("a step");
    }
    one.replace_adapter("a", adapter(false), format())
        .expect("it fits");
    let second = one.submit(&named).expect("a query");
    one.unload_adapter("a").expect("a name");
    let gone = one.submit(&named);
    assert!(matches!(gone, Err(ReasonError::UnknownAdapter { .. })));
    assert!(
        one.engine().stats().adapters_bytes > empty,
        "they are still at work"
    );
    let (mut left, mut answers) = (vec![first, second], Vec::new());
    while !left.is_empty() {
        for (query, event) in one.step().expect("a step") {
            if let Event::Answered(answer) = event {
                left.retain(|&id| id != query);
                answers.push((query, answer.choices[0].token_ids.clone()));
            }
        }
    }
    answers.sort();
    assert_eq!(answers, [(first, masked.clone()), (second, other)]);
    assert_eq!(
        one.engine().stats().adapters_bytes,
        empty,
        "and then forgotten"
    );
    one.replace_adapter("a", adapter(true), format())
        .expect("it fits");
    assert_eq!(ask(&mut one, &named).choices[0].token_ids, masked);
}

#[test]
fn the_caller_can_have_the_answer_now() {
    let mut reasoner = reasoner(Some(adapter(true)));
    let open = token("<think>");
    let mut query = Query {
        n: 3,
        ..endless(chat("hello"), Think::On, 200)
    };
    query.sampling.logit_bias.retain(|&(id, _)| id != open);
    query.sampling.logit_bias.push((open, 50.0)); // each stream opens its thought at once
    query.sampling.presence_penalty = 100.0; // and once only
    let id = reasoner.submit(&query).expect("a query");
    let mut steps = 0;
    let mut ends = Vec::new();
    let answer = loop {
        steps += 1;
        if steps == 20 {
            assert_eq!(reasoner.end_thought(id, Some(1)).expect("it runs"), 1);
            assert_eq!(reasoner.end_thought(id, Some(1)).expect("it runs"), 0);
            assert_eq!(reasoner.end_thought(id, Some(7)).expect("it runs"), 0);
        }
        if steps == 40 {
            assert_eq!(reasoner.end_thought(id, None).expect("it runs"), 2);
        }
        let mut last = None;
        for (_, event) in reasoner.step().expect("a step") {
            match event {
                Event::ThoughtEnded { stream, end, .. } => ends.push((stream, end)),
                Event::Answered(answer) => last = Some(answer),
                _ => {}
            }
        }
        if let Some(answer) = last {
            break answer;
        }
    };
    assert_eq!(ends[0], (1, ThoughtEnd::Caller));
    assert_eq!(ends.len(), 3);
    for choice in &answer.choices {
        assert_eq!(choice.thought_closed, Some(ThoughtEnd::Caller));
        assert!(
            choice.text.starts_with("**Final answer:**"),
            "{}",
            choice.text
        );
        assert!(!choice.budget_forced);
    }
    assert!(matches!(
        reasoner.end_thought(id, None),
        Err(ReasonError::UnknownQuery)
    ));
}
