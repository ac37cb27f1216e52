//! Verifiers on a tiny model: scores are exact whatever the cache knows, and are what the equations say.

use std::sync::Arc;

use crate::support::{adapter, load};
use edgethink_engine::{
    AdapterId, AdapterSpan, Engine, EngineOptions, Event, KvFormat, Request, Sampling, WeightFormat,
};
use edgethink_model::{Family, HeadError, HeadFile, Model};
use edgethink_reason::verifier::{GenRm, Reply, Verifier, VerifierError, VerifierHead};
use edgethink_testkit::{tiny_config, tiny_model};
use serde_json::Map;

const QUESTION: &str = "\nIs this answer correct?";

fn head_file(model: &Model) -> HeadFile {
    let weight: Vec<f32> = (0..model.config.hidden_size)
        .map(|i| (i as f32 - 31.5) / 64.0)
        .collect();
    VerifierHead::file(model, QUESTION, weight, 0.125, None, Map::new())
        .expect("the base has a hash")
}

fn head(model: &Model) -> Verifier {
    Verifier::Head(VerifierHead::new(&head_file(model), model).expect("its own base"))
}

fn engine(model: &Arc<Model>, weights: WeightFormat, kv: KvFormat) -> (Engine, AdapterId) {
    let options = EngineOptions {
        threads: 1,
        kv_tokens: 4096,
        weights,
        kv,
        ..EngineOptions::for_model(&model.config)
    };
    let mut engine = Engine::new(Arc::clone(model), options).expect("an engine");
    let id = engine.load_adapter(&adapter(true)).expect("it fits");
    (engine, id)
}

/// The score, and how many of the request's tokens the cache had.
fn score(engine: &mut Engine, verifier: &Verifier, request: Request) -> (f32, usize) {
    let id = engine.submit(request).expect("it fits");
    engine.force(id, 0, verifier.forced()).expect("it runs");
    let (mut reply, mut cached) = (Reply::default(), 0);
    while !engine.idle() {
        for event in engine.step().expect("a step") {
            if let Event::Prefilled { cached_tokens, .. } = event {
                cached = cached_tokens;
            }
            reply.take(&event);
        }
    }
    (verifier.score(&reply).expect("a score"), cached)
}

/// Streams of one prompt, each without its last token, which the engine has not computed.
fn sample(engine: &mut Engine, prompt: &[u32], span: AdapterSpan, n: usize) -> Vec<Vec<u32>> {
    let request = Request {
        adapter: Some(span),
        n,
        sampling: Sampling::temperature(1.0),
        ignore_eos: true,
        seed: 3,
        ..Request::greedy(prompt.to_vec(), 41)
    };
    engine.submit(request).expect("it fits");
    let mut streams = vec![Vec::new(); n];
    while !engine.idle() {
        for event in engine.step().expect("a step") {
            if let Event::Token { stream, token, .. } = event {
                streams[stream].push(token);
            }
        }
    }
    for stream in &mut streams {
        stream.pop();
    }
    streams
}

#[test]
fn a_warm_cache_gives_the_score_of_a_cold_one_and_pays_for_the_question_only() {
    let model = Arc::new(load());
    let verifiers = [
        head(&model),
        Verifier::GenRm(GenRm::new(&model).expect("a tokenizer")),
    ];
    let prompt: Vec<u32> = (0..75).map(|i| i * 37 % 256).collect();
    for (weights, kv) in [
        (WeightFormat::Stored, KvFormat::F32),
        (WeightFormat::Q4, KvFormat::Int8),
    ] {
        for verifier in &verifiers {
            let (mut warm, id) = engine(&model, weights, kv);
            let span = AdapterSpan::starting(id, 70);
            let streams = sample(&mut warm, &prompt, span, 3);
            let mut scores = Vec::new();
            for response in &streams {
                let request = || verifier.request(&prompt, response, Some(span));
                let (mut cold, same) = engine(&model, weights, kv);
                assert_eq!(same, id);
                let (want, none) = score(&mut cold, verifier, request());
                let (got, cached) = score(&mut warm, verifier, request());
                assert_eq!(got.to_bits(), want.to_bits());
                assert_eq!(none, 0);
                assert_eq!(cached, prompt.len() + response.len());
                scores.push(got);
            }
            assert!(scores[0] != scores[1], "the responses tell: {scores:?}");
        }
    }
}

#[test]
fn the_base_reads_the_question() {
    let model = Arc::new(load());
    let verifier = head(&model);
    let (mut engine, id) = engine(&model, WeightFormat::Stored, KvFormat::F32);
    let (prompt, response) = (&[1, 2, 3][..], &[4, 5][..]);
    let request = verifier.request(prompt, response, Some(AdapterSpan::starting(id, 1)));
    assert_eq!(
        request.adapter,
        Some(AdapterSpan {
            id,
            from: 1,
            until: 5
        })
    );
    assert_eq!(request.prompt.len(), 5 + verifier.cost_tokens());
    let (off, _) = score(&mut engine, &verifier, request.clone());
    let on = Request {
        adapter: Some(AdapterSpan::starting(id, 1)),
        ..request
    };
    let (on, _) = score(&mut engine, &verifier, on);
    assert!(off != on, "the adapter would answer something else");
}

#[test]
fn genrm_is_the_probability_of_its_answer() {
    let model = Arc::new(load());
    let yes = "Yes, it is";
    let genrm = GenRm::with(&model, "\nCorrect?", yes).expect("texts with tokens");
    assert!(genrm.yes().len() > 1, "several tokens");
    let tokens = [&[9, 8, 7], genrm.question(), genrm.yes()].concat();
    let first = 3 + genrm.question().len();
    let verifier = Verifier::GenRm(genrm);
    let (mut engine, _) = engine(&model, WeightFormat::Stored, KvFormat::F32);
    let (got, _) = score(
        &mut engine,
        &verifier,
        verifier.request(&[9, 8], &[7], None),
    );
    let vocab = model.config.vocab_size;
    let logits = engine.logits(&tokens, None).expect("logits");
    let mut want = 0.0;
    for at in first..tokens.len() {
        let row = &logits[(at - 1) * vocab..at * vocab];
        let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        want += f64::from(row[tokens[at] as usize]) - total.ln();
    }
    let want = want.exp();
    assert!(want > 0.0 && want < 1.0);
    assert!(
        (f64::from(got) / want - 1.0).abs() < 1e-4,
        "{got} against {want}"
    );
}

#[test]
fn a_head_returns_from_its_file_and_serves_its_own_base_alone() {
    let model = load();
    let file = head_file(&model);
    let dir = tempfile::tempdir().expect("a directory");
    file.save(dir.path()).expect("written");
    let read = HeadFile::load(dir.path()).expect("read");
    let head = VerifierHead::new(&read, &model).expect("its own base");
    assert_eq!(
        head,
        VerifierHead::new(&file, &model).expect("its own base")
    );

    let other = tiny_model(Family::Qwen2, 8);
    let other = Model::load(other.path().to_str().expect("a UTF-8 path")).expect("it loads");
    let refused =
        |file: &HeadFile, model: &Model| VerifierHead::new(file, model).expect_err("refused");
    let error = refused(&file, &other);
    assert!(matches!(error, VerifierError::Head(HeadError::Base { .. })));

    let mut wrong = file.clone();
    wrong.settings.clear();
    assert!(refused(&wrong, &model).to_string().contains("`question`"));
    let mut wrong = file.clone();
    wrong.settings.insert("question".to_owned(), "".into());
    assert!(matches!(
        refused(&wrong, &model),
        VerifierError::Empty { what: "question" }
    ));
    let sure = VerifierHead::file(&model, QUESTION, vec![0.5; 64], 0.0, Some(2.0), Map::new());
    let sure = VerifierHead::new(&sure.expect("the base has a hash"), &model);
    assert!(sure.expect("its own base").reads_confidence());
    let mut wrong = file;
    wrong.tensors.remove("bias");
    assert!(refused(&wrong, &model).to_string().contains("`bias`"));
    assert_eq!(model.config, tiny_config(Family::Qwen2));
}
