//! Helpers of the engine's tests: tiny models and adapters, and a loop that runs requests to their end.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgethink_engine::{
    AdapterFormat, AdapterId, AdapterSpan, Engine, EngineOptions, Event, FinishReason, Isa,
    KvFormat, Request, RequestError, RequestId, Sampling, WeightFormat,
};
use edgethink_model::{Adapter, Config, ContentHash, Family, Linear, LoraPair, Model, Tensor};
use edgethink_testkit::{formula, tiny_config, tiny_model_of};

/// A tiny random model.
pub(crate) fn model(family: Family, seed: u64) -> Arc<Model> {
    model_of(&tiny_config(family), seed)
}

/// A random model of a config.
pub(crate) fn model_of(config: &Config, seed: u64) -> Arc<Model> {
    let dir = tiny_model_of(config, seed);
    Arc::new(Model::load(dir.path().to_str().expect("a UTF-8 path")).expect("a tiny model loads"))
}

/// A random adapter on all linear layers, strong enough to change what is said.
pub(crate) fn adapter(config: &Config, seed: u64, rank: usize) -> Adapter {
    let tensor = |name: &str, rows: usize, cols: usize| {
        let scale = (3.0 / cols as f32).sqrt();
        let values: Vec<f32> = formula(seed, name, rows * cols)
            .iter()
            .map(|x| x * scale)
            .collect();
        Tensor::from_f32(vec![rows, cols], &values).expect("a valid shape")
    };
    let pair = |layer: usize, linear: Linear| {
        let (out, inner) = config.linear_shape(linear);
        let name = format!("{layer}.{}", linear.hf_name());
        Some(LoraPair {
            a: tensor(&format!("{name}.A"), rank, inner),
            b: tensor(&format!("{name}.B"), out, rank),
            scale: 0.5,
        })
    };
    let layers = (0..config.num_hidden_layers)
        .map(|layer| Linear::ALL.map(|linear| pair(layer, linear)))
        .collect();
    adapter_of(layers)
}

/// An adapter of given pairs.
pub(crate) fn adapter_of(layers: Vec<[Option<LoraPair>; 7]>) -> Adapter {
    let mut tensors = Vec::new();
    for (index, pair) in layers.iter().flatten().enumerate() {
        let Some(pair) = pair else { continue };
        tensors.push((format!("{index}.A"), &pair.a));
        tensors.push((format!("{index}.B"), &pair.b));
    }
    let matched = tensors.len() / 2;
    let hash = ContentHash::of("test adapter", tensors).expect("memory can be read");
    Adapter {
        name: "test".to_owned(),
        invocation: None,
        layers,
        hash,
        rank_max: 8,
        matched,
    }
}

/// One thread, f32 KV, room for 1,024 tokens.
pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        threads: 1,
        isa: Isa::detect(),
        weights: WeightFormat::Stored,
        adapters: AdapterFormat::Stored,
        kv: KvFormat::F32,
        kv_tokens: 1024,
        max_batch_tokens: 64,
        max_sequences: 16,
        prefix_cache: true,
    }
}

/// The two ends of the range of formats: floats, and everything quantized.
pub(crate) fn formats() -> [EngineOptions; 2] {
    [
        options(),
        EngineOptions {
            weights: WeightFormat::Q4,
            adapters: AdapterFormat::Q8,
            kv: KvFormat::Int8,
            ..options()
        },
    ]
}

pub(crate) fn engine(model: &Arc<Model>, options: &EngineOptions) -> Engine {
    Engine::new(Arc::clone(model), options.clone()).expect("a tiny model fits")
}

/// Tokens that look random but never end a text.
pub(crate) fn prompt(seed: u64, len: usize) -> Vec<u32> {
    formula(seed, "prompt", len)
        .iter()
        .map(|x| ((x + 1.0) * 120.0) as u32)
        .collect()
}

/// A sampled request.
pub(crate) fn sampled(prompt: Vec<u32>, max_tokens: usize, seed: u64) -> Request {
    Request {
        sampling: Sampling::temperature(1.0),
        seed,
        ignore_eos: true,
        ..Request::greedy(prompt, max_tokens)
    }
}

pub(crate) fn with_adapter(request: Request, id: AdapterId, from: usize) -> Request {
    Request {
        adapter: Some(AdapterSpan::starting(id, from)),
        ..request
    }
}

/// What a stream gave. Log-probabilities are compared bit by bit.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Said {
    pub tokens: Vec<u32>,
    pub logprobs: Vec<u32>,
    pub forced: Vec<bool>,
    pub reason: Option<FinishReason>,
}

/// What a request gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub streams: BTreeMap<usize, Said>,
    pub cached: usize,
    pub error: Option<RequestError>,
    /// Hidden states by (stream, position).
    pub hidden: BTreeMap<(usize, usize), Vec<f32>>,
}

impl Answer {
    pub(crate) fn said(&self) -> &BTreeMap<usize, Said> {
        &self.streams
    }

    pub(crate) fn tokens(&self, stream: usize) -> &[u32] {
        &self.streams[&stream].tokens
    }
}

/// What a stream of a request has given so far.
fn said(answers: &mut BTreeMap<RequestId, Answer>, request: RequestId, stream: usize) -> &mut Said {
    let answer = answers.entry(request).or_default();
    answer.streams.entry(stream).or_default()
}

/// Takes events to their requests.
pub(crate) fn collect(
    events: Vec<Event>,
    answers: &mut BTreeMap<RequestId, Answer>,
    hidden_size: usize,
) {
    for event in events {
        match event {
            Event::Prefilled {
                request,
                cached_tokens,
                ..
            } => answers.entry(request).or_default().cached = cached_tokens,
            Event::Hidden {
                request,
                stream,
                first_position,
                data,
            } => {
                for (i, state) in data.chunks_exact(hidden_size).enumerate() {
                    let old = answers
                        .entry(request)
                        .or_default()
                        .hidden
                        .insert((stream, first_position + i), state.to_vec());
                    assert!(
                        old.is_none(),
                        "the state of position {} came twice",
                        first_position + i
                    );
                }
            }
            Event::Token {
                request,
                stream,
                token,
                logprob,
                forced,
                ..
            } => {
                let said = said(answers, request, stream);
                said.tokens.push(token);
                said.logprobs.push(logprob.to_bits());
                said.forced.push(forced);
            }
            Event::Finished {
                request,
                stream,
                reason,
            } => {
                let said = said(answers, request, stream);
                assert_eq!(said.reason.replace(reason), None, "a stream ends once");
            }
            Event::Failed { request, error } => {
                let answer = answers.entry(request).or_default();
                assert_eq!(answer.error.replace(error), None, "a request fails once");
            }
        }
    }
}

/// Steps until idle.
pub(crate) fn finish(engine: &mut Engine) -> BTreeMap<RequestId, Answer> {
    let mut answers = BTreeMap::new();
    let e = engine.model().config.hidden_size;
    let mut steps = 0;
    while !engine.idle() {
        let events = engine.step().expect("a step");
        engine.check_invariants();
        collect(events, &mut answers, e);
        steps += 1;
        assert!(steps < 20_000, "no progress");
    }
    answers
}

/// Submits all at once and runs them.
pub(crate) fn run(engine: &mut Engine, requests: &[Request]) -> Vec<Answer> {
    let ids: Vec<RequestId> = requests
        .iter()
        .map(|r| engine.submit(r.clone()).expect("a good request"))
        .collect();
    let mut answers = finish(engine);
    ids.iter()
        .map(|id| answers.remove(id).expect("an answer per request"))
        .collect()
}

/// Runs one request alone.
pub(crate) fn run_one(engine: &mut Engine, request: &Request) -> Answer {
    run(engine, std::slice::from_ref(request)).remove(0)
}

/// Asserts that no block is lost: all are free or cached, and free once the cache is emptied.
pub(crate) fn assert_all_free(engine: &mut Engine) {
    let stats = engine.stats();
    assert_eq!(stats.blocks_free + stats.blocks_cached, stats.blocks_total);
    assert_eq!((stats.running, stats.waiting), (0, 0));
    engine.clear_prefix_cache();
    assert_eq!(engine.stats().blocks_free, stats.blocks_total);
}
