//! `train grpo`: budget forcing by reinforcement learning (METHOD 3).
//!
//! A step draws groups of completions with our own engine ([`rollout`]), rewards them ([`reward`]), turns rewards into advantages and
//! token weights ([`objective`]), and makes an optimizer step on the adapter. The reference policy is the adapter that the run started
//! from, on the same frozen base. Every draw is a function of the seed and of the place in the stream of questions, so a resumed run is
//! equal bit by bit to one that was never stopped.

mod batch;
mod evaluate;
#[cfg(test)]
mod golden;
mod guard;
mod objective;
mod policy;
pub(crate) mod questions;
mod recipe;
mod record;
mod reward;
mod rollout;
mod step;

pub use recipe::{
    BudgetRecipe, GrpoRecipe, GrpoRunRecipe, GuardRecipe, ObjectiveRecipe, PolicyLoss,
    PolicyRecipe, QuestionsRecipe, RolloutKv, RolloutRecipe, RolloutWeights,
};
pub use reward::{Outcome, Reward, soft_barrier};

use std::{path::PathBuf, sync::Arc, time::Instant};

use edgethink_model::{ChatTemplate, Model, Tokenizer};
use serde_json::{Value, json};

use crate::{
    base::with_threads,
    base_model,
    error::TrainError,
    optimizer::{AdamW, learning_rate},
    run::{Checkpoints, Event, Position, Progress, record::Records, write_provenance},
};
use evaluate::Evaluation;
use guard::RlGuard;
use policy::Policy;
use questions::Questions;
use rollout::Sampler;
use step::Learner;

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySummary {
    /// Steps of the whole run.
    pub steps: u64,
    /// Mean reward of the last step's completions.
    pub reward: f64,
    /// Seconds of this run.
    pub seconds: f64,
}

/// Trains an adapter under token budgets as the recipe says and writes a PEFT directory.
///
/// # Errors
/// [`TrainError`]; [`TrainError::Stopped`] if `progress` asked to stop: the same call goes on from the checkpoint;
/// [`TrainError::Hopeless`] for a run that learns nothing.
pub fn grpo(recipe: &GrpoRecipe, progress: &mut dyn Progress) -> Result<PolicySummary, TrainError> {
    with_threads(recipe.run.threads, || Run::new(recipe)?.all(progress))
}

/// Everything that stays the same during a run.
struct Run<'a> {
    recipe: &'a GrpoRecipe,
    resolved: Value,
    model: Arc<Model>,
    policy: Policy,
}

impl<'a> Run<'a> {
    fn new(recipe: &'a GrpoRecipe) -> Result<Self, TrainError> {
        let model = Model::load(&recipe.model.base.to_string_lossy())?;
        if let Some(tokenizer) = &model.tokenizer {
            base_model::check_vocab(&model.config, tokenizer, &recipe.model.base)?;
        }
        let policy = Policy::load(&recipe.model.adapter, &model.config)?;
        Ok(Self {
            recipe,
            resolved: json!(recipe),
            model: Arc::new(model),
            policy,
        })
    }

    /// The text side, which questions need.
    fn text(&self) -> Result<(&Tokenizer, &ChatTemplate), TrainError> {
        let missing = |what: &str| TrainError::Unfit {
            path: self.recipe.model.base.clone(),
            problem: format!("has no {what}"),
        };
        let tokenizer = self.model.tokenizer.as_ref();
        let template = self.model.template.as_ref();
        Ok((
            tokenizer.ok_or_else(|| missing("tokenizer.json"))?,
            template.ok_or_else(|| missing("chat template, which questions are put into"))?,
        ))
    }

    fn all(&self, progress: &mut dyn Progress) -> Result<PolicySummary, TrainError> {
        let recipe = self.recipe;
        let (tokenizer, template) = self.text()?;
        let load = |files: &[PathBuf]| {
            Questions::load(files, &recipe.data, &recipe.budget, tokenizer, template)
        };
        let train = load(&recipe.data.train)?;
        let valid = match recipe.data.valid.as_slice() {
            [] => None,
            files => Some(load(files)?),
        };
        let (spec, base) = base_model::network(&self.model);
        let slots = spec.numbered_slots();
        let mut params = self.policy.params.clone();
        let mut adamw = AdamW::new(&params);
        let mut guard = RlGuard::default();
        let mut at = Position::default();
        let checkpoints = Checkpoints {
            output_dir: &recipe.output_dir,
            recipe: &self.resolved,
            resume: &recipe.run.resume,
            keep: recipe.run.save_total_limit,
            writes: true,
        };
        let resumed = checkpoints.resume(&mut params, &mut adamw, &mut guard)?;
        if let Some((place, _)) = &resumed {
            at = *place;
        }
        let trainable: usize = params.iter().map(|p| p.values.len()).sum();
        progress.event(&Event::PolicyStarted {
            trainable,
            questions: train.list.len(),
            dropped: train.dropped,
            steps: recipe.run.steps,
            resumed: resumed.map(|(at, path)| (at.step, path)),
        });
        write_provenance(&recipe.output_dir, &self.resolved, recipe.seed)?;
        let mut records = Records::open(&recipe.output_dir, at.step)?;
        let mut sampler = Sampler::new(
            Arc::clone(&self.model),
            &recipe.model.base,
            &self.policy.adapter(&params)?,
            &recipe.rollout,
            recipe.data.max_prompt_tokens,
            rayon::current_num_threads(),
        )?;
        let mut learner = Learner::new(recipe, &self.policy, &spec, &slots, &base)?;
        let mut window = record::Window::default();
        let mut evaluation = Evaluation::new(recipe, &self.policy, tokenizer, valid.as_ref())?;
        if at.step == 0 {
            evaluation.run(0, &mut sampler, &mut records, progress)?;
        }
        let (first, begun) = (at.step, Instant::now());
        let mut reward = f64::NAN;
        while at.step < recipe.run.steps {
            if progress.stop() {
                return Err(checkpoints.stop(at, &params, &adamw, &guard, progress));
            }
            let step_begun = Instant::now();
            let drawn = step::draw(
                recipe,
                &self.policy,
                tokenizer,
                &train,
                &mut sampler,
                at.cursor,
            )?;
            if recipe.run.completions_every > 0 && at.step % recipe.run.completions_every == 0 {
                record::completions(&recipe.output_dir, at.step + 1, &drawn, &train, tokenizer)?;
            }
            let lr = learning_rate(&recipe.optimizer, at.step, recipe.run.steps);
            let learnt = learner.step(&drawn, &self.policy, &mut params, &mut adamw, lr)?;
            sampler.update(&self.policy.adapter(&params)?)?;
            at = Position {
                step: at.step + 1,
                cursor: drawn.next,
                tokens: at.tokens + learnt.tokens as u64,
            };
            let seconds = step_begun.elapsed().as_secs_f64();
            let metrics = drawn.metrics(&learnt, lr, at.tokens, seconds);
            reward = metrics.get("reward").copied().unwrap_or(f64::NAN);
            guard
                .check(&drawn.seen(&learnt), &recipe.guard)
                .map_err(|problem| TrainError::Hopeless {
                    step: at.step,
                    problem,
                    output_dir: recipe.output_dir.clone(),
                })?;
            if !learnt.finite {
                progress.event(&Event::Skipped { step: at.step });
            }
            let speed = (at.step - first) as f64 / begun.elapsed().as_secs_f64();
            progress.event(&Event::Policy {
                step: at.step,
                reward,
                accuracy: drawn.accuracy(),
                mean_length: drawn.mean_length(),
                kl: learnt.kl,
                eta_seconds: (recipe.run.steps - at.step) as f64 / speed.max(1e-9),
            });
            window.add(&metrics);
            let last = at.step == recipe.run.steps;
            if at.step % recipe.run.log_every == 0 || last {
                window.note(&mut records, at.step)?;
            }
            let every = recipe.run.eval_every;
            if last || (every > 0 && at.step % every == 0) {
                evaluation.run(at.step, &mut sampler, &mut records, progress)?;
                record::draw(&recipe.output_dir)?;
            }
            if recipe.run.save_every > 0 && at.step % recipe.run.save_every == 0 && !last {
                checkpoints.save(at, &params, &adamw, &guard, progress)?;
            }
        }
        let (dir, seconds) = (&recipe.output_dir, begun.elapsed().as_secs_f64());
        self.policy.write(
            &recipe.model.adapter,
            dir,
            &params,
            recipe.run.save_dtype,
            &recipe.budget,
        )?;
        progress.event(&Event::PolicyFinished {
            path: dir.clone(),
            reward,
            seconds,
        });
        Ok(PolicySummary {
            steps: at.step,
            reward,
            seconds,
        })
    }
}
