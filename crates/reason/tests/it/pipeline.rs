//! The switcher, the verifier and the vote around the streams, on tiny random models with hand-made heads.

use std::collections::BTreeMap;

use crate::support::{adapter, ask, chat, endless, load, raw, reasoner};
use edgethink_engine::Sampling;
use edgethink_model::{HeadFile, HeadTensor, Message};
use edgethink_reason::switcher::Mlp;
use edgethink_reason::{
    AdapterUse, Aggregate, Answer, EarlyStop, Event, FinishReason, Input, Query, ReasonError,
    Reasoner, Scoring, Switcher, Think, VerifierHead,
};
use serde_json::{Map, json};

/// A switcher that says `score` to everything, or follows the states where `follow` is set.
fn switcher(bias: f32, follow: bool) -> Switcher {
    let model = load();
    let e = model.config.hidden_size;
    let weights = |n: usize| (0..n).map(|i| (i * 37 % 11) as f32 / 11.0 - 0.4).collect();
    let mlp = Mlp {
        mean: vec![0.0; e],
        std: vec![1.0; e],
        fc1_weight: weights(8 * e),
        fc1_bias: vec![0.1; 8],
        fc2_weight: if follow { weights(8) } else { vec![0.0; 8] },
        fc2_bias: bias,
    };
    let hash = model.hash().expect("the weights");
    let invocation = adapter(true).invocation;
    let settings = json!({"layer": "final_norm", "chunk_tokens": 128, "alpha": 0.5, "threshold": 0.5, "invocation": invocation});
    let file = HeadFile {
        kind: "switcher".to_owned(),
        base: hash.to_string(),
        hidden_size: e,
        settings: settings.as_object().expect("an object").clone(),
        tensors: mlp.tensors(),
    };
    Switcher::new(&file, &hash, e).expect("a switcher")
}

/// A verifier whose scores differ from answer to answer.
fn verifier() -> VerifierHead {
    let model = load();
    let e = model.config.hidden_size;
    let weight = (0..e).map(|i| (i * 53 % 17) as f32 / 17.0 - 0.5).collect();
    let file =
        VerifierHead::file(&model, "\nright?", weight, 2.0, Some(0.3), Map::new()).expect("a file");
    VerifierHead::new(&file, &model).expect("a verifier")
}

/// One of three digits, drawn anew by each stream.
fn digit(n: usize, seed: u64) -> Query {
    let tokenizer = load().tokenizer.expect("a tokenizer");
    let digits = ["1", "2", "3"].map(|text| tokenizer.token_id(text).expect("a token"));
    let others = (0..load().config.vocab_size as u32).filter(|id| !digits.contains(id));
    Query {
        n,
        max_tokens: Some(1),
        sampling: Sampling {
            logit_bias: others.map(|id| (id, f32::NEG_INFINITY)).collect(),
            ..Sampling::temperature(1.5)
        },
        seed,
        vote: Some(Aggregate::Majority),
        ..Query::greedy(raw("one two three"), Think::Off)
    }
}

fn said(answer: &Answer) -> Vec<&[u32]> {
    let choices = answer.choices.iter();
    choices.map(|choice| choice.token_ids.as_slice()).collect()
}

#[test]
fn the_switcher_chooses_the_mode_and_nothing_else() {
    for (bias, thinks) in [(9.0, true), (-9.0, false)] {
        let mut auto = reasoner(Some(adapter(true))).with_switcher(switcher(bias, false));
        assert_eq!(auto.default_think(), Think::Auto);
        let query = |think| Query {
            n: 3,
            ..endless(chat("hello"), think, 12)
        };
        let mut decided = Vec::new();
        let answer = auto
            .answer(
                &query(Think::Auto),
                |event| {
                    if let Event::Decided(decision) = event {
                        decided.push(*decision);
                    }
                },
                || false,
            )
            .expect("an answer");
        let decision = answer.decision.expect("a decision");
        assert_eq!(decided, [decision]);
        assert_eq!((decision.thinks, decision.threshold), (thinks, 0.5));
        let mode = if thinks { Think::On } else { Think::Off };
        let mut plain = reasoner(Some(adapter(true)));
        let expected = ask(&mut plain, &query(mode));
        assert_eq!(said(&answer), said(&expected));
        assert_eq!(answer.adapter, expected.adapter);
        assert_eq!(expected.decision, None);
        // The prompt is encoded once; for a thought, what the other mode has behind the shared part was in vain.
        let computed = |r: &Reasoner| r.engine().stats().counters.computed_tokens as usize;
        let more = computed(&auto) - computed(&plain);
        let vain = match expected.adapter {
            AdapterUse::Masked { shared_tokens } => {
                let off = ask(&mut plain, &query(Think::Off)).usage.prompt_tokens;
                off - shared_tokens
            }
            _ => 0,
        };
        assert_eq!(more, vain);
    }
}

#[test]
fn a_later_turn_is_judged_as_if_it_were_the_first() {
    let turn = |text: &str, repeats: usize| text.repeat(repeats);
    let mut messages = vec![Message::new("user", turn("tell me more about it ", 9))];
    let mut warm = reasoner(Some(adapter(true))).with_switcher(switcher(0.3, true));
    for round in 0..3 {
        let query = endless(Input::Messages(messages.clone()), Think::Auto, 4);
        let answer = ask(&mut warm, &query);
        let mut cold = reasoner(Some(adapter(true))).with_switcher(switcher(0.3, true));
        let alone = ask(&mut cold, &query);
        assert_eq!(answer.decision, alone.decision, "turn {round}");
        assert_eq!(said(&answer), said(&alone));
        if round > 0 {
            let known = answer.usage.cached_tokens;
            assert!(
                known >= 128,
                "{known} of the earlier turns' tokens were known"
            );
        }
        messages.push(Message::new("assistant", turn("so it is ", 20)));
        messages.push(Message::new("user", turn("and then what else ", 5)));
    }
}

#[test]
fn a_higher_score_gets_more_streams() {
    for (bias, begun) in [(9.0, 8), (0.0, 1), (-9.0, 1)] {
        let mut reasoner = reasoner(Some(adapter(true))).with_switcher(switcher(bias, false));
        let query = Query {
            n: 8,
            scale_n: true,
            ..endless(chat("hello"), Think::Auto, 5)
        };
        let answer = ask(&mut reasoner, &query);
        assert_eq!(answer.choices.len(), begun, "bias {bias}");
    }
}

#[test]
fn a_vote_that_stops_early_gives_the_same_answer_with_fewer_tokens() {
    let (mut streams, mut stopped) = (0, 0);
    let mut reasoner = reasoner(None).with_verifier(verifier());
    for seed in 0..60 {
        for aggregate in [Aggregate::Majority, Aggregate::Weighted] {
            let whole = Query {
                vote: Some(aggregate),
                scoring: match aggregate {
                    Aggregate::Majority => Scoring::Off,
                    _ => Scoring::Verifier,
                },
                ..digit(8, seed)
            };
            let all = ask(&mut reasoner, &whole);
            assert_eq!(all.choices.len(), 8);
            let early = Query {
                early_stop: Some(EarlyStop::Exact),
                waves: true,
                ..whole
            };
            let few = ask(&mut reasoner, &early);
            let winner = |answer: &Answer| {
                let vote = answer.vote.as_ref().expect("a vote");
                vote.groups[0].answer.clone()
            };
            assert_eq!(winner(&few), winner(&all), "seed {seed}");
            assert_eq!(few.chosen().expect("a choice").text, winner(&few));
            streams += all.choices.len();
            stopped += few.choices.len();
            for (few, all) in few.choices.iter().zip(&all.choices) {
                assert_eq!(few.token_ids, all.token_ids, "its draws are its own");
            }
        }
    }
    assert!(stopped * 10 < streams * 9, "{stopped} of {streams} streams");
}

#[test]
fn streams_of_a_decided_vote_end_at_once() {
    let mut reasoner = reasoner(None);
    // Streams of very different length: those that end first decide.
    let query = |early_stop| Query {
        n: 9,
        early_stop,
        max_tokens: Some(60),
        stop: vec!["3".to_owned()],
        ..digit(9, 4)
    };
    let (mut cut, mut tokens) = (0, [0, 0]);
    for seed in 0..20 {
        let [all, few] = [None, Some(EarlyStop::Confidence(0.8))].map(|stop| Query {
            seed,
            ..query(stop)
        });
        for (sum, query) in tokens.iter_mut().zip([&all, &few]) {
            let answer = ask(&mut reasoner, query);
            *sum += answer.usage.completion_tokens;
            let decided = |c: &&edgethink_reason::Choice| c.finish_reason == FinishReason::Decided;
            cut += answer.choices.iter().filter(decided).count();
            reasoner.engine().check_invariants();
        }
    }
    assert!(cut > 0, "no stream was cut");
    assert!(tokens[1] < tokens[0], "{tokens:?}");
}

#[test]
fn scores_are_those_of_a_fresh_engine_and_cost_the_question_alone() {
    for scoring in [Scoring::Verifier, Scoring::GenRm] {
        let fresh = || reasoner(Some(adapter(true))).with_verifier(verifier());
        let mut reasoner = fresh();
        let query = Query {
            n: 4,
            scoring,
            vote: Some(Aggregate::Weighted),
            budget: Some(40),
            ..endless(chat("hello"), Think::On, 60)
        };
        let mut events = BTreeMap::new();
        let answer = reasoner
            .answer(
                &query,
                |event| {
                    if let Event::Scored { stream, score } = event {
                        events.insert(*stream, *score);
                    }
                },
                || false,
            )
            .expect("an answer");
        let scores: Vec<f32> = answer
            .choices
            .iter()
            .map(|choice| choice.score.expect("a score"))
            .collect();
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)));
        assert!(
            scores.windows(2).any(|pair| pair[0] != pair[1]),
            "{scores:?}"
        );
        assert_eq!(events.values().copied().collect::<Vec<_>>(), scores);
        assert_eq!(ask(&mut reasoner, &query).choices, answer.choices, "warm");
        for (stream, choice) in answer.choices.iter().enumerate() {
            // Without the streams beside it.
            let alone = ask(
                &mut fresh(),
                &Query {
                    n: stream + 1,
                    ..query.clone()
                },
            );
            assert_eq!(alone.choices[stream], *choice);
        }
        let tokenizer = load().tokenizer.expect("a tokenizer");
        let len = |text| tokenizer.encode(text, false).expect("tokens").len();
        let each = match scoring {
            Scoring::GenRm => len("\nIs the answer correct (Yes/No)?") + len(" Yes") - 1,
            _ => len("\nright?"),
        };
        // The last token of a response was chosen, not computed.
        let most = 4 * (each + 1);
        let cost = answer.usage.verifier_tokens;
        assert!((4 * each..=most).contains(&cost), "{cost} tokens");
    }
}

#[test]
fn a_query_can_be_cancelled_at_any_moment() {
    let query = Query {
        n: 6,
        scoring: Scoring::Verifier,
        vote: Some(Aggregate::Weighted),
        early_stop: Some(EarlyStop::Exact),
        waves: true,
        budget: Some(30),
        ..endless(chat("hello"), Think::Auto, 40)
    };
    let mut reasoner = reasoner(Some(adapter(true)))
        .with_switcher(switcher(9.0, false))
        .with_verifier(verifier());
    for steps in 0..45 {
        let id = reasoner.submit(&query).expect("accepted");
        let mut answered = false;
        for step in 0.. {
            assert!(
                step < 500,
                "cancelled after {steps} steps and never answered"
            );
            if step == steps {
                reasoner.cancel(id);
            }
            let events = reasoner.step().expect("a step");
            answered |= events
                .iter()
                .any(|(_, event)| matches!(event, Event::Answered(_)));
            if answered {
                break;
            }
        }
        assert_eq!(reasoner.in_flight(), 0);
        let stats = reasoner.engine().stats();
        assert_eq!(
            (stats.running, stats.waiting),
            (0, 0),
            "after {steps} steps"
        );
        reasoner.engine().check_invariants();
    }
}

#[test]
fn what_a_model_cannot_do_is_refused_by_name() {
    let mut reasoner = reasoner(Some(adapter(true)));
    let base = || Query::greedy(chat("hello"), Think::On);
    let vote = |aggregate| Query {
        vote: Some(aggregate),
        ..base()
    };
    let cases: Vec<(Query, &str)> = vec![
        (
            Query::greedy(chat("hello"), Think::Auto),
            "needs a switcher",
        ),
        (
            Query {
                scoring: Scoring::Verifier,
                ..base()
            },
            "needs a verifier",
        ),
        (vote(Aggregate::Weighted), "a weighted vote needs scores"),
        (vote(Aggregate::BestOfN), "a best_of_n vote needs scores"),
        (
            Query {
                early_stop: Some(EarlyStop::Exact),
                ..base()
            },
            "needs a vote",
        ),
        (
            Query {
                waves: true,
                ..vote(Aggregate::Majority)
            },
            "may stop early",
        ),
        (
            Query {
                early_stop: Some(EarlyStop::Confidence(1.5)),
                ..vote(Aggregate::Majority)
            },
            "1.5 must be above 0.5",
        ),
        (
            Query {
                scale_n: true,
                ..base()
            },
            "think auto only",
        ),
    ];
    for (query, says) in cases {
        let error: ReasonError = reasoner.submit(&query).expect_err("refused");
        assert!(error.to_string().contains(says), "{error}");
    }
    let other = HeadTensor {
        shape: vec![1],
        data: vec![0.0],
    };
    let file = HeadFile {
        kind: "verifier".to_owned(),
        base: "00".repeat(32),
        hidden_size: load().config.hidden_size,
        settings: Map::new(),
        tensors: [("bias".to_owned(), other)].into(),
    };
    VerifierHead::new(&file, &load()).expect_err("a head for another base");
}
