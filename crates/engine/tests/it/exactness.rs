//! Token for token and bit for bit: chunks, batches, forks, the cache, threads and preemption change nothing.

use std::sync::Arc;

use crate::support::*;
use edgethink_engine::{
    AdapterId, AdapterSpan, Engine, EngineOptions, FinishReason, KvFormat, Request, Sampling,
    WeightFormat,
};
use edgethink_model::{Config, Family, Model};
use edgethink_testkit::tiny_config;

/// Base, plain LoRA and masked LoRA requests of different lengths, seeds and settings, some with several streams.
fn mixture(a: AdapterId, b: AdapterId) -> Vec<Request> {
    let top_p = Sampling {
        top_p: 0.9,
        top_k: 40,
        repetition_penalty: 1.1,
        ..Sampling::temperature(0.8)
    };
    vec![
        sampled(prompt(1, 50), 20, 1),
        with_adapter(sampled(prompt(1, 50), 20, 1), a, 45),
        with_adapter(sampled(prompt(2, 33), 12, 2), b, 0),
        Request {
            n: 3,
            ..with_adapter(sampled(prompt(1, 40), 15, 3), b, 40)
        },
        Request {
            sampling: top_p,
            ..sampled(prompt(3, 7), 25, 4)
        },
        Request {
            n: 2,
            ignore_eos: true,
            ..Request::greedy(prompt(4, 64), 9)
        },
        // The base reads what the adapter wrote, and goes on.
        Request {
            adapter: Some(AdapterSpan {
                id: a,
                from: 45,
                until: 58,
            }),
            ..sampled(prompt(1, 66), 8, 6)
        },
    ]
}

fn with_adapters(model: &Arc<Model>, options: &EngineOptions) -> (Engine, AdapterId, AdapterId) {
    let mut engine = engine(model, options);
    let a = engine
        .load_adapter(&adapter(&model.config, 11, 4))
        .expect("it fits");
    let b = engine
        .load_adapter(&adapter(&model.config, 12, 7))
        .expect("it fits");
    (engine, a, b)
}

/// Each request of the mixture alone, on a fresh engine.
fn alone(model: &Arc<Model>, options: &EngineOptions) -> Vec<Answer> {
    let (_, a, b) = with_adapters(model, options);
    let one = |request: &Request| {
        let (mut engine, ..) = with_adapters(model, options);
        let answer = run_one(&mut engine, request);
        assert_all_free(&mut engine);
        answer
    };
    mixture(a, b).iter().map(one).collect()
}

fn assert_same(got: &[Answer], want: &[Answer], what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            w.error.is_none() && !w.streams.is_empty(),
            "request {i} ran: {:?}",
            w.error
        );
        assert_eq!(g.said(), w.said(), "{what}: request {i}");
    }
}

#[test]
fn prefill_in_chunks_is_prefill_as_a_whole() {
    for family in Family::ALL {
        let model = model(family, 20);
        for options in formats() {
            let tokens = prompt(9, 130);
            let logits = |max_batch_tokens: usize| -> Vec<u32> {
                let options = EngineOptions {
                    max_batch_tokens,
                    max_sequences: 1,
                    ..options.clone()
                };
                let (mut engine, a, _) = with_adapters(&model, &options);
                let logits = engine
                    .logits(&tokens, Some(AdapterSpan::starting(a, 100)))
                    .expect("finite logits");
                logits.iter().map(|x| x.to_bits()).collect()
            };
            let whole = logits(256);
            for chunk in [1, 7, 32, 61] {
                assert!(
                    logits(chunk) == whole,
                    "{family:?}: chunks of {chunk} differ from the whole"
                );
            }
        }
    }
}

/// Sequences so long that attention goes through them in parts, beside shorter ones on the same prompt.
#[test]
fn long_sequences_do_not_depend_on_threads_chunks_or_the_batch() {
    for family in [Family::Qwen2, Family::Mistral] {
        let model = model(family, 28);
        for options in formats() {
            let tokens = prompt(9, 600);
            let with = |threads: usize, max_batch_tokens: usize| {
                let options = EngineOptions {
                    threads,
                    max_batch_tokens,
                    kv_tokens: 4096,
                    ..options.clone()
                };
                engine(&model, &options)
            };
            let logits = |mut engine: Engine| -> Vec<u32> {
                let logits = engine.logits(&tokens, None).expect("finite logits");
                logits.iter().map(|x| x.to_bits()).collect()
            };
            let want = logits(with(1, 600));
            for (threads, chunk) in [(4, 600), (3, 64), (1, 33)] {
                assert!(
                    logits(with(threads, chunk)) == want,
                    "{family:?}: {threads} threads, chunks of {chunk}"
                );
            }
            let requests: Vec<Request> = [600, 250, 300, 520]
                .map(|len| Request {
                    ignore_eos: true,
                    ..Request::greedy(tokens[..len].to_vec(), 12)
                })
                .to_vec();
            let alone = requests.iter().map(|one| run_one(&mut with(1, 64), one));
            let alone: Vec<Answer> = alone.collect();
            let together = run(&mut with(4, 64), &requests);
            assert_same(&together, &alone, "long and short");
        }
    }
}

#[test]
fn parts_are_added_alike_however_they_are_shared_out() {
    let model = model_of(
        &Config {
            max_position_embeddings: 4096,
            ..tiny_config(Family::Qwen2)
        },
        29,
    );
    for options in formats() {
        // 11 parts and two kv heads: one task for each head, runs of two parts and a last one, and parts one by one.
        let tokens = prompt(10, 2_800);
        let requests = [2_800, 1_300].map(|len| Request {
            ignore_eos: true,
            ..Request::greedy(tokens[..len].to_vec(), 4)
        });
        let with = |threads: usize| {
            let options = EngineOptions {
                threads,
                kv_tokens: 4096,
                ..options.clone()
            };
            engine(&model, &options)
        };
        let alone = requests.each_ref().map(|one| run_one(&mut with(1), one));
        for threads in 1..4 {
            let together = run(&mut with(threads), &requests);
            assert_same(&together, &alone, &format!("{threads} threads"));
        }
    }
}

#[test]
fn a_batch_is_its_requests_alone() {
    for family in [Family::Qwen2, Family::Mistral] {
        let model = model(family, 21);
        for options in formats() {
            let want = alone(&model, &options);
            let (mut engine, a, b) = with_adapters(&model, &options);
            let got = run(&mut engine, &mixture(a, b));
            assert_same(&got, &want, "batch");
            assert_all_free(&mut engine);
        }
    }
}

#[test]
fn a_warm_cache_is_a_cold_one() {
    let model = model(Family::Qwen3, 22);
    for options in formats() {
        let want = alone(&model, &options);
        let (mut engine, a, b) = with_adapters(&model, &options);
        for round in 0..3 {
            // In another order each time, so that other prefixes are known.
            let mut requests: Vec<(usize, Request)> =
                mixture(a, b).into_iter().enumerate().collect();
            requests.rotate_left(round * 2);
            for (index, request) in requests {
                let got = run_one(&mut engine, &request);
                assert_same(
                    std::slice::from_ref(&got),
                    &want[index..=index],
                    "warm cache",
                );
                assert!(
                    round == 0 || got.cached + 1 >= request.prompt.len(),
                    "request {index} had {} cached tokens",
                    got.cached
                );
            }
        }
    }
}

#[test]
fn without_the_cache_and_with_threads_nothing_changes() {
    let model = model(Family::Llama, 23);
    for options in formats() {
        let want = alone(&model, &options);
        for (threads, prefix_cache, max_batch_tokens) in
            [(2, true, 64), (3, false, 17), (1, false, 64)]
        {
            let options = EngineOptions {
                threads,
                prefix_cache,
                max_batch_tokens,
                max_sequences: 8,
                ..options.clone()
            };
            let (mut engine, a, b) = with_adapters(&model, &options);
            assert_same(
                &run(&mut engine, &mixture(a, b)),
                &want,
                "threads and chunks",
            );
            assert_all_free(&mut engine);
        }
    }
}

#[test]
fn forked_streams_are_independent_ones() {
    let model = model(Family::Qwen2, 24);
    for options in formats() {
        let (mut engine, a, _) = with_adapters(&model, &options);
        let request = |n: usize| Request {
            n,
            ..with_adapter(sampled(prompt(5, 45), 16, 77), a, 42)
        };
        let together = run_one(&mut engine, &request(5));
        for stream in 0..5 {
            // The same stream with all others cancelled before the prompt is computed.
            let (mut engine, ..) = with_adapters(&model, &options);
            let id = engine.submit(request(stream + 1)).expect("a good request");
            for other in 0..stream {
                engine.cancel_stream(id, other).expect("it runs");
            }
            let alone = finish(&mut engine).remove(&id).expect("an answer");
            assert_eq!(
                alone.streams[&stream], together.streams[&stream],
                "stream {stream}"
            );
            assert_all_free(&mut engine);
        }
    }
}

#[test]
fn later_streams_are_those_of_one_larger_request() {
    let model = model(Family::Qwen2, 24);
    for options in formats() {
        let (mut engine, a, _) = with_adapters(&model, &options);
        let request = |first_stream: usize, n: usize| Request {
            n,
            first_stream,
            ..with_adapter(sampled(prompt(5, 45), 16, 77), a, 42)
        };
        let together = run_one(&mut engine, &request(0, 6));
        let later = run_one(&mut engine, &request(4, 2));
        assert_eq!(later.cached, 44, "the prompt is not computed again");
        for stream in 0..2 {
            assert_eq!(later.streams[&stream], together.streams[&(4 + stream)]);
        }
    }
}

/// After the prefill one token was once sampled and given to all streams (in another engine). Over a nearly flat distribution of 320
/// tokens, 16 equal first tokens have a probability below 1e-30.
#[test]
fn first_tokens_of_streams_differ() {
    let model = model(Family::Qwen2, 25);
    let mut engine = engine(&model, &options());
    let answer = run_one(
        &mut engine,
        &Request {
            n: 16,
            sampling: Sampling::temperature(3.0),
            ..sampled(prompt(6, 20), 2, 5)
        },
    );
    let first: std::collections::BTreeSet<u32> = (0..16).map(|s| answer.tokens(s)[0]).collect();
    assert!(first.len() > 4, "first tokens {first:?}");
}

/// Others leak here: the adapter's KV answers for the base, or the base's for the adapter.
#[test]
fn base_adapter_base_gives_the_first_answer_again() {
    let model = model(Family::Qwen2, 26);
    for options in formats() {
        let (mut engine, a, b) = with_adapters(&model, &options);
        let base = sampled(prompt(7, 70), 20, 1);
        let first = run_one(&mut engine, &base);
        let mut others = Vec::new();
        for (id, from) in [(a, 0), (a, 64), (b, 64), (a, 70), (b, 0)] {
            let answer = run_one(&mut engine, &with_adapter(base.clone(), id, from));
            assert_ne!(
                answer.said(),
                first.said(),
                "adapter {id:?} from {from} acts"
            );
            others.push((id, from, answer));
            let again = run_one(&mut engine, &base);
            assert_eq!(
                again.said(),
                first.said(),
                "after adapter {id:?} from {from}"
            );
            assert_eq!(again.cached, 69);
        }
        for (id, from, answer) in &others {
            let again = run_one(&mut engine, &with_adapter(base.clone(), *id, *from));
            assert_eq!(
                again.said(),
                answer.said(),
                "adapter {id:?} from {from} again"
            );
        }
        // The same content under another id shares its KV.
        let twin = engine
            .load_adapter(&adapter(&model.config, 11, 4))
            .expect("it fits");
        let answer = run_one(&mut engine, &with_adapter(base, twin, 64));
        assert_eq!(answer.said(), others[1].2.said());
        assert_eq!(answer.cached, 69);
    }
}

#[test]
fn preemption_loses_nothing() {
    let model = model(Family::Qwen2, 27);
    for options in formats() {
        let want = alone(&model, &options);
        for prefix_cache in [true, false] {
            // Enough for the longest stream (four blocks) and little more.
            let options = EngineOptions {
                kv_tokens: 160,
                prefix_cache,
                ..options.clone()
            };
            let (mut engine, a, b) = with_adapters(&model, &options);
            let got = run(&mut engine, &mixture(a, b));
            assert_same(&got, &want, "preemption");
            assert!(engine.stats().preemptions > 0, "blocks ran out");
            assert_all_free(&mut engine);
        }
    }
}

#[test]
fn cancelling_frees_every_block_and_disturbs_nobody() {
    let model = model(Family::Qwen2, 28);
    let options = formats()[1].clone();
    let want = alone(&model, &options);
    for steps in [0, 1, 2, 5, 9] {
        let options = EngineOptions {
            max_batch_tokens: 24,
            ..options.clone()
        };
        let (mut engine, a, b) = with_adapters(&model, &options);
        let ids: Vec<_> = mixture(a, b)
            .into_iter()
            .map(|r| engine.submit(r).expect("a good request"))
            .collect();
        let mut answers = std::collections::BTreeMap::new();
        for _ in 0..steps {
            let events = engine.step().expect("a step");
            collect(events, &mut answers, model.config.hidden_size);
        }
        for index in [1, 3, 4] {
            engine.cancel(ids[index]).expect("it runs");
            engine.check_invariants();
        }
        for (id, answer) in finish(&mut engine) {
            let known = answers.entry(id).or_default();
            for (stream, said) in answer.streams {
                let k = known.streams.entry(stream).or_default();
                k.tokens.extend(said.tokens);
                k.logprobs.extend(said.logprobs);
                k.forced.extend(said.forced);
                k.reason = said.reason;
            }
        }
        for (index, id) in ids.iter().enumerate() {
            let streams = &answers[id].streams;
            if [1, 3, 4].contains(&index) {
                assert!(
                    streams
                        .values()
                        .all(|s| s.reason == Some(FinishReason::Cancelled))
                );
            } else {
                assert_eq!(
                    streams,
                    want[index].said(),
                    "request {index} after {steps} steps"
                );
            }
        }
        assert_all_free(&mut engine);
    }
}

#[test]
fn a_replaced_adapter_never_reads_the_kv_of_the_old_one() {
    let model = model(Family::Qwen2, 29);
    let options = options();
    let (mut engine, a, _) = with_adapters(&model, &options);
    let request = with_adapter(sampled(prompt(8, 60), 15, 6), a, 20);
    let old = run_one(&mut engine, &request);
    engine
        .replace_adapter(a, &adapter(&model.config, 13, 4))
        .expect("nobody uses it");
    let new = run_one(&mut engine, &request);
    assert_eq!(new.cached, 20, "only the base's part is shared");
    let mut fresh = crate::support::engine(&model, &options);
    let id = fresh
        .load_adapter(&adapter(&model.config, 13, 4))
        .expect("it fits");
    assert_eq!(
        new.said(),
        run_one(&mut fresh, &with_adapter(request.clone(), id, 20)).said()
    );
    engine
        .replace_adapter(a, &adapter(&model.config, 11, 4))
        .expect("nobody uses it");
    let back = run_one(&mut engine, &request);
    assert_eq!(back.said(), old.said());
    assert_eq!(back.cached, 59, "known content is known again");
}

/// Forced tokens are the stream's own: what follows is what follows the same tokens anywhere, with the same log-probabilities.
#[test]
fn forced_tokens_continue_the_stream() {
    let model = model(Family::Qwen2, 30);
    for options in formats() {
        let (mut engine, a, _) = with_adapters(&model, &options);
        let request = with_adapter(sampled(prompt(10, 40), 20, 9), a, 36);
        let id = engine.submit(request.clone()).expect("a good request");
        let mut answers = std::collections::BTreeMap::new();
        while answers
            .get(&id)
            .is_none_or(|a: &Answer| a.streams.get(&0).is_none_or(|s| s.tokens.len() < 5))
        {
            let events = engine.step().expect("a step");
            collect(events, &mut answers, model.config.hidden_size);
        }
        let forced = [3, 1, 4, 1, 5, 258];
        engine.force(id, 0, &forced[..4]).expect("it runs");
        engine.force(id, 0, &forced[4..]).expect("it runs");
        let rest = finish(&mut engine).remove(&id).expect("an answer");
        let mut said = answers
            .remove(&id)
            .expect("an answer")
            .streams
            .remove(&0)
            .expect("one stream");
        said.tokens.extend(&rest.streams[&0].tokens);
        said.logprobs.extend(&rest.streams[&0].logprobs);
        said.forced.extend(&rest.streams[&0].forced);
        assert_eq!(said.tokens.len(), 20);
        assert_eq!(said.tokens[5..11], forced);
        assert_eq!(said.forced.iter().filter(|f| **f).count(), 6);
        // Every log-probability is that of one whole pass over the same tokens.
        let mut all = request.prompt.clone();
        all.extend(&said.tokens);
        let logits = engine.logits(&all, request.adapter).expect("finite logits");
        let v = model.config.vocab_size;
        for (i, &token) in said.tokens.iter().enumerate() {
            let row = &logits[(39 + i) * v..][..v];
            let want = edgethink_engine::sampler::score(options.isa, row, token, 0)
                .expect("finite logits")
                .logprob;
            let got = f32::from_bits(said.logprobs[i]);
            assert_eq!(
                got.to_bits(),
                want.to_bits(),
                "token {i}: {got}, the whole pass says {want}"
            );
        }
        // Forced before the prompt is computed: the first tokens.
        let id = engine
            .submit(Request { n: 2, ..request })
            .expect("a good request");
        engine.force(id, 1, &[7, 8]).expect("it runs");
        let answer = finish(&mut engine).remove(&id).expect("an answer");
        assert_eq!(answer.tokens(1)[..2], [7, 8]);
        assert_eq!(answer.streams[&0].forced[0], answer.streams[&1].forced[2]);
        assert_eq!((answer.tokens(0).len(), answer.tokens(1).len()), (20, 20));
    }
}

/// The KV of int8 and the weights of Q8 have their own exactness: one more format pair, all at once.
#[test]
fn q8_weights_with_f16_kv() {
    let model = model(Family::Qwen3, 31);
    let options = EngineOptions {
        weights: WeightFormat::Q8,
        kv: KvFormat::F16,
        ..options()
    };
    let want = alone(&model, &options);
    let options = EngineOptions {
        threads: 2,
        kv_tokens: 192,
        max_batch_tokens: 19,
        max_sequences: 5,
        ..options
    };
    let (mut engine, a, b) = with_adapters(&model, &options);
    assert_same(
        &run(&mut engine, &mixture(a, b)),
        &want,
        "everything at once",
    );
    assert_same(
        &run(&mut engine, &mixture(a, b)),
        &want,
        "everything at once, warm",
    );
}
