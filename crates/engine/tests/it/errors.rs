//! What is wrong with a request is found before any work, and what goes wrong in one request stays in it.

use std::sync::Arc;

use crate::support::*;
use edgethink_engine::{
    AdapterId, AdapterSpan, Engine, EngineError, EngineOptions, FinishReason, KvFormat, Place,
    Request, RequestError, RequestId, Sampling, WeightFormat,
};
use edgethink_model::{Config, Family, Model, Tensor};
use edgethink_testkit::tiny_config;

fn refused(engine: &mut Engine, request: Request) -> RequestError {
    let error = engine.submit(request).expect_err("a bad request");
    assert!(engine.idle(), "nothing was begun");
    error
}

#[test]
fn bad_requests_are_refused_by_name() {
    let model = model(Family::Qwen2, 1);
    let mut engine = engine(
        &model,
        &EngineOptions {
            kv_tokens: 100,
            ..options()
        },
    );
    let good = || Request::greedy(vec![1, 2, 3], 4);
    assert_eq!(
        refused(
            &mut engine,
            Request {
                prompt: vec![],
                ..good()
            }
        ),
        RequestError::EmptyPrompt
    );
    let overflow = refused(
        &mut engine,
        Request {
            prompt: vec![1; 100],
            ..good()
        },
    );
    assert_eq!(
        overflow,
        RequestError::ContextOverflow {
            prompt: 100,
            context: 100
        }
    );
    assert!(overflow.to_string().contains("shorten"), "{overflow}");
    let token = refused(
        &mut engine,
        Request {
            prompt: vec![1, 320],
            ..good()
        },
    );
    assert_eq!(
        token,
        RequestError::Token {
            index: 1,
            token: 320,
            vocab_size: 320
        }
    );
    assert!(matches!(
        refused(&mut engine, Request { n: 0, ..good() }),
        RequestError::Streams { n: 0, .. }
    ));
    assert!(matches!(
        refused(
            &mut engine,
            Request {
                n: usize::MAX,
                ..good()
            }
        ),
        RequestError::Streams { .. }
    ));
    let hot = Request {
        sampling: Sampling::temperature(f32::INFINITY),
        ..good()
    };
    assert!(matches!(
        refused(&mut engine, hot),
        RequestError::Sampling {
            name: "temperature",
            ..
        }
    ));
    let id = AdapterId(5);
    let unknown = Request {
        adapter: Some(AdapterSpan::starting(id, 0)),
        ..good()
    };
    assert_eq!(
        refused(&mut engine, unknown),
        RequestError::UnknownAdapter { id }
    );
    let nobody = RequestId(99);
    assert_eq!(
        engine.cancel(nobody),
        Err(RequestError::UnknownRequest { id: nobody })
    );
    let id = engine.submit(good()).expect("a good request");
    assert_eq!(
        engine.force(id, 1, &[1]),
        Err(RequestError::UnknownStream { id, stream: 1 })
    );
    assert!(matches!(
        engine.force(id, 0, &[320]),
        Err(RequestError::Token { .. })
    ));
    finish(&mut engine);
    // Exactly what fits.
    let answer = run_one(
        &mut engine,
        &Request {
            max_tokens: 0,
            prompt: vec![1; 100],
            ..good()
        },
    );
    assert_eq!(answer.streams[&0].reason, Some(FinishReason::Length));
}

#[test]
fn streams_end_for_the_right_reason() {
    let model = model(Family::Qwen2, 2);
    let mut engine = engine(
        &model,
        &EngineOptions {
            kv_tokens: 64,
            ..options()
        },
    );
    let request = |max_tokens: usize| Request {
        ignore_eos: true,
        ..Request::greedy(prompt(1, 40), max_tokens)
    };
    let context = run_one(&mut engine, &request(usize::MAX));
    assert_eq!(
        (context.tokens(0).len(), context.streams[&0].reason),
        (24, Some(FinishReason::Context))
    );
    let length = run_one(&mut engine, &request(24));
    assert_eq!(
        (length.tokens(0), length.streams[&0].reason),
        (context.tokens(0), Some(FinishReason::Length))
    );
    let stop = context.tokens(0)[6];
    let first = context
        .tokens(0)
        .iter()
        .position(|&t| t == stop)
        .expect("it is there");
    let stopped = run_one(
        &mut engine,
        &Request {
            stop_tokens: vec![stop],
            ..request(24)
        },
    );
    assert_eq!(
        (stopped.tokens(0), stopped.streams[&0].reason),
        (&context.tokens(0)[..=first], Some(FinishReason::Stop))
    );
    // The model's own end counts unless told otherwise.
    let end = model.generation.eos_token_ids[0];
    let bias = Sampling {
        logit_bias: vec![(end, 1e9)],
        ..Sampling::greedy()
    };
    let ended = run_one(
        &mut engine,
        &Request {
            sampling: bias.clone(),
            ignore_eos: false,
            ..request(5)
        },
    );
    assert_eq!(
        (ended.tokens(0), ended.streams[&0].reason),
        (&[end][..], Some(FinishReason::Stop))
    );
    let ignored = run_one(
        &mut engine,
        &Request {
            sampling: bias,
            ..request(5)
        },
    );
    assert_eq!(ended.tokens(0)[0], ignored.tokens(0)[4]);
    // Forced tokens beyond the limit are dropped.
    let id = engine.submit(request(3)).expect("a good request");
    engine.force(id, 0, &[9; 50]).expect("it runs");
    let answer = finish(&mut engine).remove(&id).expect("an answer");
    assert_eq!(
        (answer.tokens(0), answer.streams[&0].reason),
        (&[9, 9, 9][..], Some(FinishReason::Length))
    );
    assert_all_free(&mut engine);
}

/// The model with one element of a matrix changed.
fn damaged(model: &Model, layer: usize, linear: usize, value: f32) -> Arc<Model> {
    let mut weights = model.weights.clone();
    let tensor = &mut weights.layers[layer].linears[linear];
    let mut values = tensor.to_f32();
    values[7] = value;
    *tensor = Tensor::from_f32(tensor.shape.clone(), &values).expect("the same shape");
    let parts = (
        model.config.clone(),
        weights,
        model.generation.clone(),
        model.source.clone(),
    );
    Arc::new(
        Model::from_parts(parts.0, parts.1, None, None, parts.2, parts.3).expect("the same parts"),
    )
}

#[test]
fn nan_weights_fail_the_request_with_the_place() {
    let model = model(Family::Qwen2, 3);
    for linear in 0..7 {
        for value in [f32::NAN, f32::INFINITY] {
            let model = damaged(&model, 1, linear, value);
            for kv in [KvFormat::Int8, KvFormat::F16, KvFormat::F32] {
                let mut engine = engine(&model, &EngineOptions { kv, ..options() });
                let answer = run_one(&mut engine, &Request::greedy(prompt(1, 40), 4));
                let error = answer.error.expect("NaN is an error");
                let in_place = matches!(
                    error,
                    RequestError::NonFinite {
                        place: Place::Layer { layer: 1, .. } | Place::FinalNorm,
                        ..
                    }
                );
                assert!(in_place, "linear {linear}: {error}");
                assert!(answer.streams.is_empty(), "no token came out");
                assert_all_free(&mut engine);
                assert!(matches!(
                    engine.logits(&[1, 2], None),
                    Err(EngineError::Request(RequestError::NonFinite { .. }))
                ));
            }
            let quantized = EngineOptions {
                weights: WeightFormat::Q4,
                ..options()
            };
            let error = Engine::new(model, quantized)
                .expect_err("NaN cannot be rounded")
                .to_string();
            assert!(error.contains("model.layers.1."), "{error}");
        }
    }
}

#[test]
fn a_damaged_adapter_fails_its_own_requests_only() {
    let model = model(Family::Qwen2, 4);
    for options in formats() {
        let mut engine = engine(&model, &options);
        let want = run_one(&mut engine, &sampled(prompt(1, 50), 12, 1));
        engine.clear_prefix_cache();
        let good = adapter(&model.config, 5, 4);
        let mut layers = good.layers.clone();
        let pair = layers[0][2].as_mut().expect("a pair per layer");
        pair.scale = f32::MAX;
        let (bad, good) = (adapter_of(layers), good);
        let bad = engine.load_adapter(&bad).expect("its shape fits");
        let good = engine.load_adapter(&good).expect("it fits");
        let answers = run(
            &mut engine,
            &[
                sampled(prompt(1, 50), 12, 1),
                with_adapter(
                    Request {
                        n: 3,
                        ..sampled(prompt(1, 50), 12, 1)
                    },
                    bad,
                    48,
                ),
                with_adapter(sampled(prompt(1, 50), 12, 1), good, 48),
            ],
        );
        assert_eq!(answers[0].said(), want.said());
        assert!(
            matches!(
                answers[1].error,
                Some(RequestError::NonFinite { position: 48.., .. })
            ),
            "{:?}",
            answers[1].error
        );
        assert!(answers[1].streams.is_empty());
        assert_eq!(answers[2].tokens(0).len(), 12);
        assert_all_free(&mut engine);
    }
}

#[test]
fn an_adapter_that_8_bits_cannot_hold_is_refused_by_name() {
    let model = model(Family::Qwen2, 4);
    let [floats, quantized] = formats();
    for (options, held) in [(floats, true), (quantized, false)] {
        let mut engine = engine(&model, &options);
        let mut layers = adapter(&model.config, 5, 4).layers;
        let b = &mut layers[1][2].as_mut().expect("a pair per layer").b;
        let mut values = b.to_f32();
        values[7] = f32::NAN;
        *b = Tensor::from_f32(b.shape.clone(), &values).expect("the same shape");
        match engine.load_adapter(&adapter_of(layers)) {
            Ok(_) => assert!(held),
            Err(error) => {
                let text = error.to_string();
                assert!(
                    !held && text.contains("lora_B of self_attn.v_proj in layer 1"),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn adapters_of_other_models_and_busy_ones_are_refused() {
    let model = model(Family::Qwen2, 6);
    let mut engine = engine(&model, &options());
    let other = Config {
        hidden_size: 96,
        ..tiny_config(Family::Qwen2)
    };
    let error = engine
        .load_adapter(&adapter(&other, 1, 4))
        .expect_err("another base")
        .to_string();
    assert!(error.contains("q_proj of layer 0"), "{error}");
    let deeper = Config {
        num_hidden_layers: 3,
        ..tiny_config(Family::Qwen2)
    };
    assert!(
        engine
            .load_adapter(&adapter(&deeper, 1, 4))
            .expect_err("another base")
            .to_string()
            .contains("3 layers")
    );
    let good = adapter(&model.config, 1, 4);
    let id = engine.load_adapter(&good).expect("it fits");
    let request = engine
        .submit(with_adapter(Request::greedy(vec![1; 9], 4), id, 2))
        .expect("a good request");
    assert_eq!(
        engine.replace_adapter(id, &good),
        Err(RequestError::AdapterBusy { id, request })
    );
    assert_eq!(
        engine.unload_adapter(id),
        Err(RequestError::AdapterBusy { id, request })
    );
    finish(&mut engine);
    assert_eq!(engine.unload_adapter(id), Ok(()));
    assert_eq!(
        engine.unload_adapter(id),
        Err(RequestError::UnknownAdapter { id })
    );
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let model = model(Family::Qwen2, 7);
    let bad = |change: fn(&mut EngineOptions)| {
        let mut options = options();
        change(&mut options);
        Engine::new(Arc::clone(&model), options)
            .expect_err("a bad option")
            .to_string()
    };
    assert!(bad(|o| o.threads = 0).contains("threads"));
    assert!(bad(|o| o.kv_tokens = 0).contains("kv_tokens"));
    assert!(bad(|o| o.kv_tokens = usize::MAX).contains("kv_tokens"));
    assert!(bad(|o| o.max_batch_tokens = 0).contains("max_batch_tokens"));
    assert!(bad(|o| o.max_sequences = 65).contains("max_sequences"));
    let narrow = Config {
        hidden_size: 72,
        ..tiny_config(Family::Qwen2)
    };
    let model = model_of(&narrow, 1);
    let error = Engine::new(
        model,
        EngineOptions {
            weights: WeightFormat::Q8,
            ..options()
        },
    )
    .expect_err("72 is no multiple of 32");
    assert!(error.to_string().contains("q_proj"), "{error}");
}

#[test]
fn a_ban_on_everything_is_an_error() {
    let model = model(Family::Qwen2, 8);
    let mut engine = engine(&model, &options());
    let logit_bias = (0..320).map(|t| (t, f32::NEG_INFINITY)).collect();
    let request = Request {
        sampling: Sampling {
            logit_bias,
            ..Sampling::temperature(1.0)
        },
        ..Request::greedy(vec![1; 5], 3)
    };
    assert_eq!(
        run_one(&mut engine, &request).error,
        Some(RequestError::NothingToChoose { position: 5 })
    );
    assert_all_free(&mut engine);
}
