//! `train switcher`: which queries need a thought, learnt from the hidden states of the deployed base (METHOD 4).
//!
//! Two labelled sets are encoded by our own engine ([`queries`]), with the weights and the KV cache in the formats that will be deployed;
//! the averages are standardised and a small network is fitted ([`fit`]). What comes out is a head's directory. Encoding is nearly all of
//! the time.

mod fit;
mod queries;
mod recipe;
mod turns;

pub use recipe::{
    AverageRecipe, HeadRecipe, LabelledRecipe, SetRecipe, StatesRecipe, SwitcherRecipe,
    SwitcherRunRecipe, TurnSetRecipe, TurnsRecipe,
};

use std::{path::Path, sync::Arc, time::Instant};

use edgethink_engine::{Engine, EngineOptions};
use edgethink_model::{HeadFile, Model};
use edgethink_reason::switcher::{Averaging, KIND, LAYER, Mlp, Switcher, averages, routing::auroc};
use rand::seq::SliceRandom;
use serde_json::{Map, Value, json};

use crate::{
    error::TrainError,
    params::{Param, generator},
    run::{
        Event, Progress, add_provenance,
        plot::{self, Panel},
        record::Records,
        write_provenance,
    },
};
use fit::{Epoch, Examples, Standard, fit};
use queries::{Encoder, Queries};
use turns::Turns;

/// Until `edgethink calibrate` sets it.
const THRESHOLD: f64 = 0.5;

/// A trained switcher.
#[derive(Debug, Clone, PartialEq)]
pub struct SwitcherSummary {
    /// The chance that a hard query of the held-out share scores above an easy one.
    pub auroc: f64,
    /// Queries that were learnt from.
    pub learnt: usize,
    /// Queries held out.
    pub held_out: usize,
    /// Seconds of encoding and training.
    pub seconds: f64,
}

/// Trains a switcher as the recipe says and writes the directory of the head.
///
/// # Errors
/// [`TrainError`]; [`TrainError::Cancelled`] if `progress` asked to stop: nothing is written then.
pub fn switcher(
    recipe: &SwitcherRecipe,
    progress: &mut dyn Progress,
) -> Result<SwitcherSummary, TrainError> {
    let begun = Instant::now();
    let model = Arc::new(Model::load(&recipe.model.base.to_string_lossy())?);
    let base = model.hash().map_err(|source| TrainError::Read {
        path: recipe.model.base.clone(),
        source,
    })?;
    let encoder = Encoder::new(&recipe.model, &model)?;
    let turns = recipe.data.turns.as_ref().map(Turns::load).transpose()?;
    let load = |set: &SetRecipe, label: &str| {
        let rng = generator(recipe.seed, &format!("turns before {label}"));
        encoder.load(set, &recipe.data, turns.as_ref().map(|turns| (turns, rng)))
    };
    let easy = load(&recipe.data.easy, "easy")?;
    let hard = load(&recipe.data.hard, "hard")?;
    let width = model.config.hidden_size;
    progress.event(&Event::StatesStarted {
        easy: easy.prompts.len(),
        hard: hard.prompts.len(),
        repeated: easy.repeated + hard.repeated,
        dropped: easy.too_long + hard.too_long,
        parameters: recipe.head.hidden * (width + 2) + 1,
    });
    let states = encode(recipe, &model, &easy, &hard, progress)?;
    let (learn, held_out) = split(recipe, &easy, states);
    let standard = Standard::of(&learn.x);

    let dir = &recipe.output_dir;
    write_provenance(dir, &json!(recipe), recipe.seed)?;
    let mut records = Records::open(dir, 0)?;
    let params = fit(recipe, &standard, &learn, &held_out, |epoch| {
        note(&mut records, &epoch)?;
        Ok::<_, TrainError>(!progress.stop())
    })?;
    let params = params.ok_or(TrainError::Cancelled)?;

    let mut file = HeadFile {
        kind: KIND.to_owned(),
        base: base.to_string(),
        hidden_size: width,
        settings: settings(recipe, &encoder.invocation),
        tensors: mlp(standard, &params).tensors(),
    };
    // From here on it is judged by the code that will run it.
    let trained = Switcher::new(&file, &base, width).map_err(TrainError::engine)?;
    let score = |label: f32| -> Result<Vec<f32>, TrainError> {
        let rows = held_out.x.iter().zip(&held_out.y);
        let rows = rows.filter(|(_, y)| **y == label);
        rows.map(|(x, _)| trained.score(x).map_err(TrainError::engine))
            .collect()
    };
    let (low, high) = (score(0.0)?, score(1.0)?);
    let summary = SwitcherSummary {
        auroc: auroc(&low, &high).unwrap_or(f64::NAN),
        learnt: learn.x.len(),
        held_out: held_out.x.len(),
        seconds: begun.elapsed().as_secs_f64(),
    };
    let results = json!({
        "auroc_held_out": summary.auroc,
        "easy": easy.prompts.len(),
        "hard": hard.prompts.len(),
        "held_out": summary.held_out,
    });
    file.settings.insert("trained".to_owned(), results.clone());
    file.save(dir).map_err(TrainError::engine)?;
    add_provenance(dir, "results", results)?;
    draw(dir, &low, &high)?;
    progress.event(&Event::HeadFinished {
        path: dir.clone(),
        auroc: summary.auroc,
        seconds: summary.seconds,
    });
    Ok(summary)
}

/// The averages of all queries, easy ones first.
fn encode(
    recipe: &SwitcherRecipe,
    model: &Arc<Model>,
    easy: &Queries,
    hard: &Queries,
    progress: &mut dyn Progress,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let own = EngineOptions::for_model(&model.config);
    let threads = recipe.model.threads;
    let options = EngineOptions {
        threads: if threads == 0 { own.threads } else { threads },
        weights: recipe.model.weights.into(),
        kv: recipe.model.kv.into(),
        ..own
    };
    let mut engine = Engine::new(Arc::clone(model), options).map_err(TrainError::engine)?;
    let prompts: Vec<&[u32]> = easy
        .prompts
        .iter()
        .chain(&hard.prompts)
        .map(Vec::as_slice)
        .collect();
    let all: usize = prompts.iter().map(|prompt| prompt.len()).sum();
    let (begun, mut done, mut tokens) = (Instant::now(), 0, 0);
    let averaging = Averaging {
        chunk_tokens: recipe.average.chunk_tokens,
        alpha: recipe.average.alpha,
    };
    let states = averages(&mut engine, averaging, &prompts, |read| {
        done += 1;
        tokens += read;
        let rate = tokens as f64 / begun.elapsed().as_secs_f64().max(1e-9);
        progress.event(&Event::States {
            done,
            of: prompts.len(),
            tokens_per_second: rate,
            eta_seconds: (all - tokens) as f64 / rate,
        });
        !progress.stop()
    });
    states
        .map_err(TrainError::engine)?
        .ok_or(TrainError::Cancelled)
}

/// Holds the same share of both sets out, by the seed.
fn split(recipe: &SwitcherRecipe, easy: &Queries, states: Vec<Vec<f32>>) -> (Examples, Examples) {
    let mut sets: [Vec<Vec<f32>>; 2] = [Vec::new(), Vec::new()];
    for (i, state) in states.into_iter().enumerate() {
        sets[usize::from(i >= easy.prompts.len())].push(state);
    }
    let (mut learn, mut held_out) = (Examples::default(), Examples::default());
    for (label, mut set) in [0.0, 1.0].into_iter().zip(sets) {
        set.shuffle(&mut generator(recipe.seed, &format!("held out {label}")));
        let kept = (set.len() as f64 * recipe.data.held_out).round() as usize;
        let kept = kept.clamp(1, set.len() - 1);
        for (i, state) in set.into_iter().enumerate() {
            let side = if i < kept { &mut held_out } else { &mut learn };
            side.x.push(state);
            side.y.push(label);
        }
    }
    (learn, held_out)
}

fn mlp(standard: Standard, params: &[Param]) -> Mlp {
    let [fc1_weight, fc1_bias, fc2_weight, fc2_bias] =
        [0, 1, 2, 3].map(|i| params[i].values.clone());
    Mlp {
        mean: standard.mean,
        std: standard.std,
        fc1_weight,
        fc1_bias,
        fc2_weight,
        fc2_bias: fc2_bias[0],
    }
}

/// What the head's user must know of how its input was made.
fn settings(recipe: &SwitcherRecipe, invocation: &[u32]) -> Map<String, Value> {
    let fields = [
        ("layer", json!(LAYER)),
        ("chunk_tokens", json!(recipe.average.chunk_tokens)),
        ("alpha", json!(recipe.average.alpha)),
        ("invocation", json!(invocation)),
        ("threshold", json!(THRESHOLD)),
        ("weights", json!(recipe.model.weights)),
        ("kv", json!(recipe.model.kv)),
    ];
    let named = fields.map(|(name, value)| (name.to_owned(), value));
    named.into_iter().collect()
}

fn note(records: &mut Records, epoch: &Epoch) -> Result<(), TrainError> {
    records.note(
        epoch.epoch,
        &[
            ("loss", epoch.loss),
            ("eval_loss", epoch.eval_loss),
            ("learning_rate", epoch.learning_rate),
        ],
    )
}

/// Loss over epochs, and the scores of the held-out queries.
fn draw(dir: &Path, easy: &[f32], hard: &[f32]) -> Result<(), TrainError> {
    let loss = [("loss", "training"), ("eval_loss", "held out")];
    let panels = [Panel::new("loss over epochs, nats per query", &loss)];
    plot::curves(dir, "loss.svg", &panels)?;
    let percent =
        |scores: &[f32]| -> Vec<f64> { scores.iter().map(|&s| 100.0 * f64::from(s)).collect() };
    plot::histogram(
        &dir.join("scores.svg"),
        "scores of held-out queries, in hundredths",
        &[("easy", &percent(easy)), ("hard", &percent(hard))],
    )
}
