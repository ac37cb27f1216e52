//! `train grpo`: budget forcing by reinforcement learning (METHOD 3).
//!
//! A step draws groups of completions with our own engine or by servers ([`rollout`], [`ahead`]), rewards them ([`reward`]), turns rewards into advantages and
//! token weights ([`objective`]), and makes an optimizer step on the adapter. The reference policy is the adapter that the run started
//! from, on the same frozen base. Every draw is a function of the seed and of the place in the stream of questions, so a resumed run is
//! equal bit by bit to one that was never stopped.
//!
//! Several processes draw a share of the completions each, and send them to all. Each then holds the whole step, so rewards, advantages,
//! normalisers, what is logged and what the guard decides are those of one process. The passes of the network are shared again, by
//! micro-batches: scores are sent to all, and gradients are summed. Only the process that leads writes.

mod ahead;
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
pub use rollout::{BackendRecipe, ServersRecipe};

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use edgethink_model::{ChatTemplate, Model, Tokenizer};
use serde_json::{Value, json};

use crate::{
    base::with_threads,
    base_model,
    device::Device,
    error::TrainError,
    optimizer::{AdamW, learning_rate},
    params::Param,
    process_group::{Line, ProcessGroup},
    run::{
        Checkpoints, Event, FromLeader, Position, Progress, add_provenance, record::Records,
        write_provenance,
    },
};
use ahead::{Drawer, Sources, Version};
use evaluate::Evaluation;
use guard::RlGuard;
use policy::Policy;
use questions::Questions;
use rollout::{Fleet, Place, RolloutBackend, Sampler, Shared};
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
    grpo_in(recipe, &mut ProcessGroup::alone(), progress)
}

/// The same by several processes together; the one that leads the group writes.
///
/// # Errors
/// As [`grpo`], and [`TrainError::Group`].
pub fn grpo_in(
    recipe: &GrpoRecipe,
    group: &mut ProcessGroup,
    progress: &mut dyn Progress,
) -> Result<PolicySummary, TrainError> {
    let leads = group.leads();
    let progress = &mut FromLeader { leads, progress };
    with_threads(recipe.run.threads, || {
        Run::new(recipe, leads)?.all(group, progress)
    })
}

/// Everything that stays the same during a run.
struct Run<'a> {
    recipe: &'a GrpoRecipe,
    resolved: Value,
    device: Device,
    model: Arc<Model>,
    policy: Policy,
    /// This process writes.
    leads: bool,
}

impl<'a> Run<'a> {
    fn new(recipe: &'a GrpoRecipe, leads: bool) -> Result<Self, TrainError> {
        let run = &recipe.run;
        let device = Device::open(&run.device, run.gradient_checkpointing)?;
        let model = Model::load(&recipe.model.base.to_string_lossy())?;
        let weights = base_model::network(&model).1;
        device.check_base(&weights, run.base_dtype, run.compute_dtype)?;
        if let Some(tokenizer) = &model.tokenizer {
            base_model::check_vocab(&model.config, tokenizer, &recipe.model.base)?;
        }
        let policy = Policy::load(&recipe.model.adapter, &model.config)?;
        Ok(Self {
            recipe,
            resolved: json!(recipe),
            device,
            model: Arc::new(model),
            policy,
            leads,
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

    fn all(
        &self,
        group: &mut ProcessGroup,
        progress: &mut dyn Progress,
    ) -> Result<PolicySummary, TrainError> {
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
        let mut params = self.policy.params.clone();
        let mut adamw = AdamW::new(&params);
        let mut guard = RlGuard::default();
        let mut at = Position::default();
        let checkpoints = self.checkpoints();
        let resumed = checkpoints.resume(&mut params, &mut adamw, &mut guard)?;
        if let Some((place, _)) = &resumed {
            at = *place;
        }
        let ProcessGroup { learning, drawing } = group;
        learning.agree(&self.about(at, &params, &train)?)?;
        let over = Arc::new(AtomicBool::new(false));
        let backend = Box::new(Shared {
            own: self.backend(at.step, &params, &over)?,
            each: recipe.rollout.backend.is_engine(),
            line: drawing,
        });
        self.device.tell(progress);
        progress.event(&Event::PolicyStarted {
            trainable: params.iter().map(|p| p.values.len()).sum(),
            questions: train.list.len(),
            dropped: train.dropped,
            steps: recipe.run.steps,
            resumed: resumed.map(|(at, path)| (at.step, path)),
            rollouts: backend.told(),
        });
        if self.leads {
            write_provenance(&recipe.output_dir, &self.resolved, recipe.seed)?;
            add_provenance(&recipe.output_dir, "device", json!(self.device.name()))?;
        }
        let evaluation = Evaluation::new(recipe, tokenizer, valid.as_ref())?;
        let sources = Sources {
            recipe,
            tokenizer,
            questions: &train,
        };
        let state = State {
            at,
            params,
            adamw,
            guard,
        };
        // The thread that draws ends with the scope.
        std::thread::scope(|scope| {
            let drawer = Drawer::start(scope, sources, backend, at.cursor, over);
            self.train(state, sources, drawer, evaluation, learning, progress)
        })
    }

    /// What all processes must be about to do.
    fn about(
        &self,
        at: Position,
        params: &[Param],
        questions: &Questions<'_>,
    ) -> Result<Value, TrainError> {
        Ok(json!({
            "recipe": self.resolved, "step": at.step, "cursor": at.cursor, "questions": questions.list.len(),
            "adapter": self.policy.adapter(params)?.hash.to_string(),
        }))
    }

    fn checkpoints(&self) -> Checkpoints<'_> {
        Checkpoints {
            output_dir: &self.recipe.output_dir,
            recipe: &self.resolved,
            resume: &self.recipe.run.resume,
            keep: self.recipe.run.save_total_limit,
            writes: self.leads,
        }
    }

    /// Who draws in this process, if it does, with a first version of the policy. Nothing is tried again once `over` is set.
    fn backend(
        &self,
        step: u64,
        params: &[Param],
        over: &Arc<AtomicBool>,
    ) -> Result<Option<Box<dyn RolloutBackend + '_>>, TrainError> {
        let recipe = self.recipe;
        Ok(match &recipe.rollout.backend {
            BackendRecipe::Engine {} => Some(Box::new(Sampler::new(
                Arc::clone(&self.model),
                &recipe.model.base,
                &self.policy,
                (step, params),
                &recipe.rollout,
                recipe.data.max_prompt_tokens,
                rayon::current_num_threads(),
            )?)),
            BackendRecipe::Servers(_) if !self.leads => None,
            BackendRecipe::Servers(servers) => {
                let place = Place {
                    recipe,
                    policy: &self.policy,
                    model: &self.model,
                };
                Some(Box::new(Fleet::new(place, servers, Arc::clone(over))?))
            }
        })
    }

    /// Draws and learns, step by step.
    fn train(
        &self,
        mut state: State,
        sources: Sources<'_>,
        mut drawer: Drawer,
        mut evaluation: Evaluation<'_>,
        line: &mut Line,
        progress: &mut dyn Progress,
    ) -> Result<PolicySummary, TrainError> {
        let recipe = self.recipe;
        let checkpoints = self.checkpoints();
        let (spec, base) = base_model::network(&self.model);
        let slots = spec.numbered_slots();
        let opened = self
            .leads
            .then(|| Records::open(&recipe.output_dir, state.at.step));
        let mut records = opened.transpose()?;
        let mut learner = Learner::new(recipe, &self.device, &self.policy, &spec, &slots, base)?;
        let mut window = record::Window::default();
        if state.at.step == 0 {
            evaluation.run(state.version(), &mut drawer, records.as_mut(), progress)?;
        }
        let (first, begun) = (state.at.step, Instant::now());
        let mut reward = f64::NAN;
        // Steps whose completions were asked for.
        let mut asked = first;
        while state.at.step < recipe.run.steps {
            let step = state.at.step;
            if line.any(progress.stop())? {
                let State {
                    at,
                    params,
                    adamw,
                    guard,
                } = &state;
                return Err(checkpoints.stop(*at, params, adamw, guard, progress));
            }
            let step_begun = Instant::now();
            let wanted = (step + recipe.rollout.max_staleness + 1).min(recipe.run.steps);
            if asked < wanted {
                let version = state.version();
                for _ in asked..wanted {
                    drawer.ask(Arc::clone(&version));
                }
                asked = wanted;
            }
            let drawn = drawer.step()?;
            let every = recipe.run.completions_every;
            if self.leads && every > 0 && step.is_multiple_of(every) {
                let Sources {
                    tokenizer,
                    questions,
                    ..
                } = sources;
                record::completions(&recipe.output_dir, step + 1, &drawn, questions, tokenizer)?;
            }
            let lr = learning_rate(&recipe.optimizer, step, recipe.run.steps);
            let mut learnt = learner.step(
                &drawn,
                &self.policy,
                &mut state.params,
                &mut state.adamw,
                lr,
                line,
            )?;
            learnt.staleness = step.saturating_sub(drawn.version) as f64;
            state.at = Position {
                step: step + 1,
                cursor: drawn.next,
                tokens: state.at.tokens + learnt.tokens as u64,
            };
            let at = state.at;
            let seconds = step_begun.elapsed().as_secs_f64();
            let metrics = drawn.metrics(&learnt, lr, at.tokens, seconds);
            reward = metrics.get("reward").copied().unwrap_or(f64::NAN);
            state
                .guard
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
                servers: drawn.servers.map(|count| (count.live, count.all)),
            });
            window.add(&metrics);
            let last = at.step == recipe.run.steps;
            if let Some(records) = &mut records
                && (at.step.is_multiple_of(recipe.run.log_every) || last)
            {
                window.note(records, at.step)?;
            }
            let every = recipe.run.eval_every;
            if last || (every > 0 && at.step.is_multiple_of(every)) {
                evaluation.run(state.version(), &mut drawer, records.as_mut(), progress)?;
                if self.leads {
                    record::draw(&recipe.output_dir)?;
                }
            }
            if recipe.run.save_every > 0 && at.step.is_multiple_of(recipe.run.save_every) && !last {
                checkpoints.save(at, &state.params, &state.adamw, &state.guard, progress)?;
            }
        }
        let (dir, seconds) = (&recipe.output_dir, begun.elapsed().as_secs_f64());
        if self.leads {
            self.policy.write(
                &recipe.model.adapter,
                dir,
                &state.params,
                recipe.run.save_dtype,
                &recipe.budget,
            )?;
        }
        progress.event(&Event::PolicyFinished {
            path: dir.clone(),
            reward,
            seconds,
        });
        Ok(PolicySummary {
            steps: state.at.step,
            reward,
            seconds,
        })
    }
}

/// What a step changes, and a checkpoint holds.
struct State {
    at: Position,
    params: Vec<Param>,
    adamw: AdamW,
    guard: RlGuard,
}

impl State {
    /// The policy as it is now.
    fn version(&self) -> Arc<Version> {
        Arc::new(Version {
            number: self.at.step,
            params: self.params.clone(),
        })
    }
}
