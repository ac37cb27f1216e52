//! The switcher on an engine: the same average and score however the prompt comes, and with what an earlier turn has left.

use std::sync::Arc;

use edgethink_engine::{Engine, EngineOptions, Event, HiddenStates, KvFormat, Request};
use edgethink_model::{Family, HeadFile, Model};
use edgethink_reason::switcher::{
    Averages, Averaging, KIND, Mlp, Reading, Running, Switcher, averages, score,
};
use edgethink_testkit::{tiny_config, tiny_model};
use serde_json::json;

const WIDTH: usize = 64;
const CHUNK: usize = 8;

fn load() -> Arc<Model> {
    let dir = tiny_model(Family::Qwen2, 11);
    Arc::new(Model::load(dir.path().to_str().unwrap()).unwrap())
}

fn engine(model: &Arc<Model>, max_batch_tokens: usize) -> Engine {
    let options = EngineOptions {
        threads: 1,
        kv: KvFormat::Int8,
        kv_tokens: 4096,
        max_batch_tokens,
        max_sequences: 8,
        ..EngineOptions::for_model(&tiny_config(Family::Qwen2))
    };
    Engine::new(Arc::clone(model), options).unwrap()
}

fn switcher(model: &Model) -> Switcher {
    let wave = |n: usize, step: f32| (0..n).map(|i| (i as f32 * step).sin()).collect();
    let mlp = Mlp {
        mean: wave(WIDTH, 0.7),
        std: vec![0.8; WIDTH],
        fc1_weight: wave(8 * WIDTH, 1.3),
        fc1_bias: wave(8, 0.1),
        fc2_weight: wave(8, 2.1),
        fc2_bias: 0.125,
    };
    let settings = json!({
        "layer": "final_norm", "chunk_tokens": CHUNK, "alpha": 0.5, "threshold": 0.5, "invocation": [300, 301],
    });
    let base = model.hash().unwrap();
    let file = HeadFile {
        kind: KIND.to_owned(),
        base: base.to_string(),
        hidden_size: WIDTH,
        settings: settings.as_object().cloned().unwrap(),
        tensors: mlp.tensors(),
    };
    Switcher::new(&file, &base, WIDTH).unwrap()
}

fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens).map(|i| (i * 37 % 250) as u32).collect()
}

/// Encodes `prompt` for `reading` beside a generation, as a pipeline does; gives the tokens that the prefix cache had.
fn feed(engine: &mut Engine, reading: &mut Reading, prompt: &[u32]) -> usize {
    let request = Request {
        hidden: HiddenStates::PromptFrom(reading.from()),
        ..Request::greedy(prompt.to_vec(), 3)
    };
    engine.submit(request).unwrap();
    let mut cached = 0;
    while !engine.idle() {
        for event in engine.step().unwrap() {
            match event {
                Event::Hidden {
                    first_position,
                    data,
                    ..
                } => reading.take(first_position, &data).unwrap(),
                Event::Prefilled { cached_tokens, .. } => cached = cached_tokens,
                Event::Failed { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    }
    cached
}

#[test]
fn pieces_of_any_size_and_prompts_in_any_company_give_the_same_score() {
    let model = load();
    let switcher = switcher(&model);
    let prompts: Vec<Vec<u32>> = [1, 7, 8, 9, 30, 64, 100].map(prompt).to_vec();
    let alone: Vec<f32> = prompts
        .iter()
        .map(|p| score(&mut engine(&model, 192), &switcher, p).unwrap())
        .collect();
    let lists: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    for max_batch_tokens in [8, 13, 64] {
        let mut engine = engine(&model, max_batch_tokens);
        let mut tokens = 0;
        let all = averages(&mut engine, switcher.averaging(), &lists, |n| {
            tokens += n;
            true
        });
        let all = all.unwrap().unwrap();
        let scores: Vec<f32> = all.iter().map(|a| switcher.score(a).unwrap()).collect();
        assert_eq!(scores, alone, "pieces of {max_batch_tokens}");
        assert_eq!(tokens, prompts.iter().map(Vec::len).sum::<usize>());
    }
    let distinct: std::collections::BTreeSet<u32> = alone.iter().map(|s| s.to_bits()).collect();
    assert_eq!(distinct.len(), alone.len(), "the score looks at the prompt");
}

#[test]
fn a_later_turn_reads_from_the_last_boundary_on_and_scores_the_same() {
    let model = load();
    let switcher = switcher(&model);
    let mut known = Averages::new(switcher.averaging(), 16);
    let mut engine = engine(&model, 64);
    let mut conversation = prompt(50);
    let mut from = Vec::new();
    for turn in 0..4 {
        let mut whole = conversation.clone();
        whole.extend([300, 301]);
        let end = switcher.reads(&whole);
        assert_eq!(end, conversation.len());
        let mut reading = Reading::new(&switcher, &mut known, &whole, end);
        from.push(reading.from());
        let cached = feed(&mut engine, &mut reading, &whole);
        assert!(cached <= reading.from());
        assert!(turn == 0 || cached > 0, "turn {turn} uses the prefix cache");
        let score = reading.finish(&switcher, &mut known, &whole).unwrap();
        let mut fresh = self::engine(&model, 192);
        assert_eq!(
            score,
            edgethink_reason::switcher::score(&mut fresh, &switcher, &whole).unwrap(),
            "turn {turn}"
        );
        conversation.extend((0..21).map(|i| (i * 11 + turn) % 250));
    }
    assert_eq!(from, [0, 48, 64, 88]);
}

#[test]
fn a_prompt_that_is_known_to_its_end_needs_no_states() {
    let model = load();
    let switcher = switcher(&model);
    let mut known = Averages::new(switcher.averaging(), 16);
    let mut engine = engine(&model, 64);
    let prompt = prompt(3 * CHUNK);
    let mut first = Reading::new(&switcher, &mut known, &prompt, prompt.len());
    feed(&mut engine, &mut first, &prompt);
    let score = first.finish(&switcher, &mut known, &prompt).unwrap();
    let again = Reading::new(&switcher, &mut known, &prompt, prompt.len());
    assert_eq!((again.from(), again.end()), (24, 24));
    assert_eq!(again.finish(&switcher, &mut known, &prompt).unwrap(), score);
}

#[test]
fn states_that_are_missing_are_an_error() {
    let model = load();
    let switcher = switcher(&model);
    let mut known = Averages::new(switcher.averaging(), 16);
    let prompt = prompt(20);
    let mut reading = Reading::new(&switcher, &mut known, &prompt, 20);
    reading.take(0, &vec![0.5; 6 * WIDTH]).unwrap();
    // What was read already may come again, as after a preemption.
    reading.take(2, &vec![0.5; 6 * WIDTH]).unwrap();
    assert!(reading.take(9, &vec![0.5; WIDTH]).is_err(), "a hole");
    assert!(reading.take(8, &[0.5; 3]).is_err(), "no whole row");
    let early = reading.clone().finish(&switcher, &mut known, &prompt);
    assert_eq!(
        early.unwrap_err().to_string(),
        "the hidden states of 8 of 20 prompt tokens were given"
    );
    reading.take(8, &vec![f32::NAN; 14 * WIDTH]).unwrap();
    assert!(reading.finish(&switcher, &mut known, &prompt).is_err());
    assert!(known.is_empty(), "nothing of it is kept");
    let mut engine = engine(&model, 64);
    assert!(score(&mut engine, &switcher, &[300, 301]).is_err());
    assert!(engine.idle());
}

#[test]
fn reading_stops_when_told_and_leaves_the_engine_idle() {
    let model = load();
    let mut engine = engine(&model, 8);
    let prompts = vec![prompt(40); 5];
    let lists: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let averaging = Averaging::default();
    let stopped = averages(&mut engine, averaging, &lists, |_| false).unwrap();
    assert!(stopped.is_none() && engine.idle());
    let mut refused = lists.clone();
    let foreign = [9999];
    refused.push(&foreign);
    assert!(averages(&mut engine, averaging, &refused, |_| true).is_err());
    assert!(engine.idle());
    assert!(
        averages(&mut engine, averaging, &lists, |_| true)
            .unwrap()
            .is_some()
    );
    assert_eq!(Running::new(averaging, WIDTH).tokens(), 0);
}
