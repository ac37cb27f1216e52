//! `train verifier`: a head that scores responses (METHOD 5).
//!
//! Draws N responses to each question with our own engine, in the formats that will be deployed ([`draw`]), labels them with `grader`,
//! reads the state behind the verification question by the request that the pipeline will use, and fits a linear layer ([`fit`]). Samples
//! are kept in the output directory ([`samples`]); a stopped run goes on from them. Whole questions are held out, never single responses.

mod draw;
mod fit;
mod metrics;
mod plots;
mod recipe;
mod samples;

pub use recipe::{
    SampleRecipe, VerifiedRecipe, VerifierDataRecipe, VerifierHeadRecipe, VerifierRecipe,
    VerifierRunRecipe,
};

use std::{fs, sync::Arc, time::Instant};

use edgethink_model::{Adapter, Model, Tokenizer};
use edgethink_reason::{
    Verifier, VerifierError, VerifierHead,
    verifier::{Reply, head::confidence},
};
use serde_json::{Map, Value, json};

use crate::{
    error::TrainError,
    run::{Event, Progress, add_provenance, write_provenance},
};
use draw::{Drawer, Question};
use fit::Input;
use metrics::{Metrics, Scored};
use samples::{Sample, SampleFile};

/// A finished training, measured on the held-out questions.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifierSummary {
    /// Responses that were learnt from.
    pub samples: usize,
    /// Area under the ROC curve; `None` if all responses were right or all wrong.
    pub auroc: Option<f64>,
    /// Expected calibration error.
    pub ece: f64,
    /// Seconds of this run.
    pub seconds: f64,
}

/// Trains a verifier as the recipe says and writes the head's directory.
///
/// # Errors
/// [`TrainError`]; [`TrainError::Stopped`] if `progress` asked to stop: the same call goes on with the samples drawn so far.
pub fn verifier(
    recipe: &VerifierRecipe,
    progress: &mut dyn Progress,
) -> Result<VerifierSummary, TrainError> {
    let begun = Instant::now();
    let model = Arc::new(Model::load(&recipe.model.base.to_string_lossy())?);
    let adapter = recipe.model.adapter.as_deref();
    let adapter = adapter
        .map(|path| {
            Adapter::load(path, &model.config).map_err(|source| TrainError::Adapter {
                path: path.to_owned(),
                source,
            })
        })
        .transpose()?;
    let run = Run {
        recipe,
        tokenizer: model.tokenizer.as_ref().ok_or_else(|| TrainError::Unfit {
            path: recipe.model.base.clone(),
            problem: "has no tokenizer.json".to_owned(),
        })?,
        model: &model,
        adapter: adapter.as_ref(),
    };
    let (train, valid) = run.samples(progress)?;
    let summary = run.train(&train, valid)?;
    let summary = VerifierSummary {
        seconds: begun.elapsed().as_secs_f64(),
        ..summary
    };
    progress.event(&Event::VerifierFinished {
        path: recipe.output_dir.clone(),
        samples: summary.samples,
        auroc: summary.auroc,
        ece: summary.ece,
        seconds: summary.seconds,
    });
    Ok(summary)
}

/// What stays the same during a run.
struct Run<'a> {
    recipe: &'a VerifierRecipe,
    model: &'a Arc<Model>,
    adapter: Option<&'a Adapter>,
    tokenizer: &'a Tokenizer,
}

/// A set of questions on its way to samples.
struct Asked {
    questions: Vec<Question>,
    file: SampleFile,
    n: usize,
    seed: u64,
}

impl Run<'_> {
    fn head(
        &self,
        weights: fit::Weights,
        settings: Map<String, Value>,
    ) -> Result<Head, TrainError> {
        let file = VerifierHead::file(
            self.model,
            &self.recipe.head.question,
            weights.weight,
            weights.bias,
            weights.confidence,
            settings,
        );
        let file = file.map_err(|e| self.refused(&e))?;
        let head = VerifierHead::new(&file, self.model).map_err(|e| self.refused(&e))?;
        Ok(Head { file, head })
    }

    fn refused(&self, error: &VerifierError) -> TrainError {
        TrainError::Unfit {
            path: self.recipe.model.base.clone(),
            problem: error.to_string(),
        }
    }

    /// Training and held-out samples, drawn or found.
    fn samples(
        &self,
        progress: &mut dyn Progress,
    ) -> Result<(Vec<Sample>, Vec<Sample>), TrainError> {
        let recipe = self.recipe;
        let (data, sample, dir) = (&recipe.data, &recipe.sample, &recipe.output_dir);
        let (train, long) = draw::load(&data.train, data.train_questions, recipe, self.model)?;
        let (valid, too) = draw::load(&data.valid, data.valid_questions, recipe, self.model)?;
        fs::create_dir_all(dir).map_err(|source| TrainError::Write {
            path: dir.clone(),
            source,
        })?;
        let mut train = self.asked("train-samples.jsonl", train, sample.n, recipe.seed)?;
        // Far from the seeds of the training questions.
        let seed = recipe.seed.wrapping_add(1 << 40);
        let mut valid = self.asked("valid-samples.jsonl", valid, sample.valid_n, seed)?;
        let total = train.questions.len() * train.n + valid.questions.len() * valid.n;
        let done = |asked: &Asked| asked.file.questions.min(asked.questions.len()) * asked.n;
        progress.event(&Event::VerifierStarted {
            questions: train.questions.len(),
            held_out: valid.questions.len(),
            dropped: long + too,
            samples: total,
            found: done(&train) + done(&valid),
            replaced: train.file.replaced || valid.file.replaced,
        });
        let zero = fit::Weights {
            weight: vec![0.0; self.model.config.hidden_size],
            confidence: None,
            bias: 0.0,
        };
        let reads = Verifier::Head(self.head(zero, Map::new())?.head);
        let mut drawer = Drawer::new(recipe, self.model, self.adapter, self.tokenizer, reads)?;
        let mut speed = Speed::new(total, done(&train) + done(&valid));
        for asked in [&mut train, &mut valid] {
            self.fill(asked, &mut drawer, &mut speed, progress)?;
        }
        Ok((train.file.read()?, valid.file.read()?))
    }

    fn asked(
        &self,
        name: &str,
        questions: Vec<Question>,
        n: usize,
        seed: u64,
    ) -> Result<Asked, TrainError> {
        let settings = self.settings(&questions, n, seed)?;
        let path = self.recipe.output_dir.join(name);
        let anew = self.recipe.run.resume == "none";
        Ok(Asked {
            file: SampleFile::open(&path, &settings, n, anew)?,
            questions,
            n,
            seed,
        })
    }

    /// All that samples depend on.
    fn settings(&self, questions: &[Question], n: usize, seed: u64) -> Result<Value, TrainError> {
        let hash = self.model.hash().map_err(|source| TrainError::Read {
            path: self.recipe.model.base.clone(),
            source,
        })?;
        let texts: Vec<(&[u32], &str)> = questions
            .iter()
            .map(|q| (q.tokens.as_slice(), q.answer.as_str()))
            .collect();
        let asked = json!(texts).to_string();
        let sample = &self.recipe.sample;
        Ok(json!({
            "base": hash.to_string(),
            "adapter": self.adapter.map(|adapter| adapter.hash.to_string()),
            "weights": self.recipe.model.weights,
            "kv": self.recipe.model.kv,
            "questions": questions.len(),
            "asked": edgethink_model::ContentHash::of(&asked, []).map_or_else(|_| asked.clone(), |h| h.to_string()),
            "n": n,
            "seed": seed,
            "temperature": sample.temperature,
            "max_completion_tokens": sample.max_completion_tokens,
            "question": self.recipe.head.question,
        }))
    }

    fn fill(
        &self,
        asked: &mut Asked,
        drawer: &mut Drawer<'_>,
        speed: &mut Speed,
        progress: &mut dyn Progress,
    ) -> Result<(), TrainError> {
        let at_once = (self.recipe.sample.max_sequences / asked.n).max(1);
        while asked.file.questions < asked.questions.len() {
            if progress.stop() {
                return Err(TrainError::Stopped {
                    step: speed.done as u64,
                    checkpoint: self.recipe.output_dir.clone(),
                });
            }
            let from = asked.file.questions;
            let until = (from + at_once).min(asked.questions.len());
            let questions = &asked.questions[from..until];
            for samples in drawer.draw(questions, from, asked.n, asked.seed)? {
                asked.file.add(&samples)?;
                speed.add(&samples);
            }
            progress.event(&speed.event());
        }
        Ok(())
    }

    /// Fits the head, measures it on the held-out samples, and writes everything.
    fn train(&self, train: &[Sample], valid: Vec<Sample>) -> Result<VerifierSummary, TrainError> {
        let recipe = self.recipe;
        let inputs: Vec<Input<'_>> = train
            .iter()
            .filter_map(|s| {
                Some(Input {
                    state: s.state.as_deref()?,
                    confidence: confidence(s.mean_logprob),
                    correct: s.correct,
                })
            })
            .collect();
        let right = inputs.iter().filter(|i| i.correct).count();
        if right == 0 || right == inputs.len() {
            return Err(TrainError::Unfit {
                path: recipe.output_dir.clone(),
                problem: format!(
                    "{right} of {} responses that ended are right, and a verifier learns from both kinds; change [sample] temperature or [data] train",
                    inputs.len()
                ),
            });
        }
        let weights = fit::fit(&inputs, &recipe.head, &recipe.optimizer, recipe.run.steps);
        let Head { head, .. } = self.head(weights.clone(), Map::new())?;
        let verifier = Verifier::Head(head);
        let learnt = scored(&verifier, &mut train.to_vec()).map_err(|e| self.refused(&e))?;
        let mut valid = valid;
        let held_out = scored(&verifier, &mut valid).map_err(|e| self.refused(&e))?;
        let (on_train, on_valid) = (Metrics::of(&learnt), Metrics::of(&held_out));
        let settings = self.describe(&on_valid, &held_out, &valid, &verifier);
        let dir = &recipe.output_dir;
        let Head { file, .. } = self.head(weights, settings.clone())?;
        file.save(dir).map_err(|e| self.refused(&e.into()))?;
        write_provenance(dir, &json!(recipe), recipe.seed)?;
        add_provenance(
            dir,
            "metrics",
            json!({"train": on_train, "held_out": on_valid, "settings": settings}),
        )?;
        for sample in &mut valid {
            sample.state = None;
        }
        samples::write(&dir.join("pool.jsonl"), &valid)?;
        plots::draw(dir, &held_out)?;
        Ok(VerifierSummary {
            samples: inputs.len(),
            auroc: on_valid.auroc,
            ece: on_valid.ece,
            seconds: 0.0,
        })
    }

    /// What is worth knowing about the head, kept in its file.
    fn describe(
        &self,
        metrics: &Metrics,
        held_out: &[Scored],
        valid: &[Sample],
        verifier: &Verifier,
    ) -> Map<String, Value> {
        let ended: Vec<&Sample> = valid.iter().filter(|s| s.state.is_some()).collect();
        let alone: Vec<Scored> = ended
            .iter()
            .map(|s| Scored {
                question: s.row,
                score: f64::from(s.mean_logprob),
                correct: s.correct,
            })
            .collect();
        let tokens: usize = ended.iter().map(|s| s.completion_tokens).sum();
        let cost = (verifier.cost_tokens() * ended.len()) as f64 / tokens.max(1) as f64;
        let settings = json!({
            "temperature": self.recipe.sample.temperature,
            "held_out": metrics,
            "calibration": metrics::calibration(held_out),
            "confidence_alone_auroc": metrics::auroc(&alone),
            "cost_share": cost,
        });
        settings.as_object().cloned().unwrap_or_default()
    }
}

/// A head as it works and as it is written.
struct Head {
    file: edgethink_model::HeadFile,
    head: VerifierHead,
}

/// Scores all responses that ended, and says what the scores are worth. The others get 0: they have no answer to vote for.
fn scored(verifier: &Verifier, samples: &mut [Sample]) -> Result<Vec<Scored>, VerifierError> {
    let mut scored = Vec::with_capacity(samples.len());
    for sample in samples {
        let Some(state) = &sample.state else {
            sample.score = Some(0.0);
            continue;
        };
        let score = verifier.score(&Reply {
            hidden: state.clone(),
            mean_logprob: Some(sample.mean_logprob),
            ..Reply::default()
        })?;
        sample.score = Some(score);
        scored.push(Scored {
            question: sample.row,
            score: f64::from(score),
            correct: sample.correct,
        });
    }
    Ok(scored)
}

/// How fast samples come.
struct Speed {
    begun: Instant,
    total: usize,
    /// Responses there are, and those that this run found.
    done: usize,
    found: usize,
    right: usize,
    tokens: usize,
}

impl Speed {
    fn new(total: usize, found: usize) -> Self {
        Self {
            begun: Instant::now(),
            total,
            done: found,
            found,
            right: 0,
            tokens: 0,
        }
    }

    fn add(&mut self, samples: &[Sample]) {
        self.done += samples.len();
        self.right += samples.iter().filter(|s| s.correct).count();
        self.tokens += samples.iter().map(|s| s.completion_tokens).sum::<usize>();
    }

    fn event(&self) -> Event {
        let seconds = self.begun.elapsed().as_secs_f64();
        let drawn = (self.done - self.found).max(1) as f64;
        Event::Sampled {
            done: self.done,
            total: self.total,
            accuracy: self.right as f64 / drawn,
            tokens_per_second: self.tokens as f64 / seconds,
            eta_seconds: seconds / drawn * (self.total - self.done) as f64,
        }
    }
}
