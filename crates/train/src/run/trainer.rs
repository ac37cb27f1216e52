//! The training loop, for a whole network or an adapter.
//!
//! A step takes examples until `batch_tokens` are reached, adds the gradients of its micro-batches, divides by the
//! number of learnt tokens of the whole step (so that no micro-batch split changes the gradient), clips, and lets
//! AdamW move the parameters.

use std::{ops::Range, path::Path, sync::Arc, time::Instant};

use serde_json::{Value, json};

use super::{
    Checkpoints, Event, FromLeader, Position, Progress, guard::Guard, lanes::Lanes, record,
};
use crate::{
    base_model::NamedTensors,
    data::{Dataset, Order},
    device::Device,
    error::TrainError,
    gradient::{self, AdapterSide, Leaves, Pass, Teacher},
    net::{MicroBatch, Slots, Spec},
    ops::{AdapterRows, AttentionPlan, Targets},
    optimizer::{self, AdamW},
    params::Param,
    process_group::ProcessGroup,
    quantize::Rounded,
    recipe::{BaseFormat, Checkpointing, FloatType, OptimizerRecipe, RunRecipe},
};

/// Where an adapter's tensors stand, and how it acts.
#[derive(Debug, Clone)]
pub(crate) struct LoraLayout {
    pub slots: Vec<[Option<(usize, usize)>; 7]>,
    pub scale: f32,
    pub dropout: f32,
}

/// What is trained.
#[derive(Debug)]
pub(crate) enum Learns {
    /// All parameters of the network.
    Network(Vec<Param>),
    /// An adapter on a frozen network.
    Adapter {
        base: NamedTensors,
        params: Vec<Param>,
        layout: LoraLayout,
    },
}

/// A training to be run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub output_dir: &'a Path,
    pub seed: u64,
    /// The recipe with all defaults, for the records and the resume check.
    pub resolved: Value,
    pub shuffle: bool,
    pub optimizer: &'a OptimizerRecipe,
    pub run: &'a RunRecipe,
    pub spec: &'a Spec,
    pub learns: Learns,
    /// What trained parameters are turned into before the network runs, if they are not its weights themselves.
    pub rounded: Option<&'a Rounded>,
    /// Whose distributions are learnt instead of the next tokens.
    pub teacher: Option<&'a Teacher>,
    pub train: Dataset,
    pub valid: Option<Dataset>,
    /// Where the network runs.
    pub device: &'a Device,
    /// The processes that share the work.
    pub group: &'a mut ProcessGroup,
}

/// What a run leaves.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The trained parameters.
    pub params: Vec<Param>,
    /// Smoothed training loss at the end.
    pub loss: f64,
    pub steps: u64,
    pub seconds: f64,
}

/// Runs a job to its end, or until the caller stops it. Only the process that leads the group writes and tells what happens.
///
/// # Errors
/// [`TrainError::Diverged`], [`TrainError::Stopped`], [`TrainError::Group`], or a failure to read or write.
pub(crate) fn run(job: Job<'_>, progress: &mut dyn Progress) -> Result<Outcome, TrainError> {
    let leads = job.group.leads();
    let progress: &mut dyn Progress = &mut FromLeader { leads, progress };
    let recipe = job.run;
    let (frozen, mut params, layout) = match job.learns {
        Learns::Network(params) => (Vec::new(), params, None),
        Learns::Adapter {
            base,
            params,
            layout,
        } => (base, params, Some(layout)),
    };
    let line = &mut job.group.learning;
    let slots = job.spec.numbered_slots();
    let longest = [Some(&job.train), job.valid.as_ref()]
        .into_iter()
        .flatten()
        .flat_map(|set| set.examples.iter().map(|e| e.len))
        .max()
        .unwrap_or(0);
    let batcher = Batcher::new(job.spec, longest);

    let mut adamw = AdamW::new(&params);
    let mut order = Order::new(
        &job.train,
        job.seed,
        job.shuffle,
        recipe.epochs,
        recipe.max_tokens,
    );
    let (total_steps, total_tokens) = order.totals(recipe.batch_tokens);
    let mut at = Position::default();
    let mut guard = Guard::new();
    let checkpoints = Checkpoints {
        output_dir: job.output_dir,
        recipe: &job.resolved,
        resume: &recipe.resume,
        keep: recipe.save_total_limit,
        writes: leads,
    };
    let resumed = checkpoints.resume(&mut params, &mut adamw, &mut guard)?;
    if let Some((place, _)) = &resumed {
        at = *place;
    }
    let trainable = params.iter().map(|p| p.values.len()).sum::<usize>();
    job.device.tell(progress);
    progress.event(&Event::Started {
        trainable,
        parameters: trainable + frozen.iter().map(|(_, tensor)| tensor.len()).sum::<usize>(),
        examples: job.train.examples.len(),
        dropped: job.train.dropped,
        truncated: job.train.truncated,
        steps: total_steps,
        tokens: total_tokens,
        resumed: resumed.map(|(at, path)| (at.step, path)),
    });
    let about = json!({
        "recipe": job.resolved, "step": at.step, "cursor": at.cursor, "steps": total_steps, "tokens": total_tokens,
        "examples": job.train.examples.len(),
    });
    line.agree(&about)?;
    let mut records = None;
    if leads {
        record::write_provenance(job.output_dir, &job.resolved, job.seed)?;
        record::add_provenance(job.output_dir, "device", json!(job.device.name()))?;
        records = Some(record::Records::open(job.output_dir, at.step)?);
    }

    let begun = Instant::now();
    let tokens_before = at.tokens;
    let bf16 = recipe.dtype == FloatType::Bf16;
    let mut side = Side {
        device: job.device,
        spec: job.spec,
        slots: &slots,
        layout: layout.as_ref(),
        checkpointing: recipe.gradient_checkpointing,
        compute: recipe.compute_dtype,
        bf16,
        frozen: (!frozen.is_empty())
            .then(|| Leaves::frozen(job.device, frozen, bf16, recipe.base_dtype)),
        teacher: job.teacher,
    };
    let weights = |params: &[Param]| job.rounded.map(|rounded| rounded.weights(params));
    let mut lanes = Lanes::new(job.device, weights(&params).as_deref().unwrap_or(&params))?;
    let mut window = Window::default();

    while let Some(step) = order.step(at.cursor, recipe.batch_tokens) {
        if line.any(progress.stop())? {
            draw(&records)?;
            return Err(checkpoints.stop(at, &params, &adamw, &guard, progress));
        }
        let step_begun = Instant::now();
        let leaves = side.leaves(weights(&params).as_deref().unwrap_or(&params));
        let pass = side.pass(job.seed, at.step, true);
        let (held, examples) = job.train.hold(&step.examples)?;
        let targets: usize = examples
            .iter()
            .map(|&e| held.targets_of(&held.examples[e]))
            .sum();
        let micros = held.learnt_batches(&examples, recipe.micro_batch_tokens);
        let mine = &micros[line.share(micros.len())];
        let (mut loss, sums) = lanes.accumulate(&pass, &leaves, &batcher, &held, mine)?;
        line.sum(&mut loss, sums)?;
        side.keep(leaves);
        let pulled = job.rounded.map(|rounded| rounded.pull_back(&params, sums));
        let sums = pulled.as_deref().unwrap_or(&*sums);
        let per_token = 1.0 / targets.max(1) as f64;
        let loss = loss * per_token;
        let norm = optimizer::global_norm(sums) * per_token;
        let lr = optimizer::learning_rate(job.optimizer, at.step, total_steps);
        let apply = guard
            .check(loss, norm, recipe.max_skipped)
            .map_err(|problem| TrainError::Diverged {
                step: at.step + 1,
                problem,
                output_dir: job.output_dir.to_owned(),
            })?;
        if apply {
            let clip = (job.optimizer.max_grad_norm / (norm + 1e-6)).min(1.0);
            adamw.step(
                job.optimizer,
                lr,
                &mut params,
                sums,
                (per_token * clip) as f32,
            );
        } else {
            progress.event(&Event::Skipped { step: at.step + 1 });
        }
        at = Position {
            step: at.step + 1,
            cursor: step.next,
            tokens: at.tokens + step.tokens as u64,
        };
        let speed = (at.tokens - tokens_before) as f64 / begun.elapsed().as_secs_f64();
        progress.event(&Event::Step {
            step: at.step,
            loss,
            tokens: at.tokens,
            tokens_per_second: speed,
            eta_seconds: (total_tokens.saturating_sub(at.tokens)) as f64 / speed.max(1e-9),
            learning_rate: lr,
            grad_norm: norm,
        });
        if apply {
            window.add(loss, norm, step_begun.elapsed().as_secs_f64());
        }
        let last = at.step == total_steps;
        if (at.step % recipe.log_every == 0 || last) && window.steps > 0 {
            let [loss, norm, seconds] = window.take();
            let values = [
                ("loss", loss),
                ("grad_norm", norm),
                ("learning_rate", lr),
                ("num_tokens", at.tokens as f64),
                ("epoch", order.epoch_at(at.cursor)),
                ("step_time", seconds),
                ("tokens_per_second", speed),
                ("skipped_steps", guard.skipped as f64),
            ];
            if let Some(records) = &mut records {
                records.note(at.step, &values)?;
            }
        }
        if let (Some(valid), Some(records)) = (&job.valid, &mut records)
            && (last || (recipe.eval_every > 0 && at.step % recipe.eval_every == 0))
        {
            let leaves = side.leaves(weights(&params).as_deref().unwrap_or(&params));
            let pass = side.pass(job.seed, at.step, false);
            let loss = evaluate(
                &pass,
                &leaves,
                &lanes,
                &batcher,
                valid,
                recipe.micro_batch_tokens,
            )?;
            side.keep(leaves);
            records.note(at.step, &[("eval_loss", loss)])?;
            records.draw()?;
            progress.event(&Event::Evaluated {
                step: at.step,
                loss,
            });
        }
        if recipe.save_every > 0 && at.step % recipe.save_every == 0 && !last {
            checkpoints.save(at, &params, &adamw, &guard, progress)?;
        }
    }
    draw(&records)?;
    Ok(Outcome {
        params,
        loss: guard.smoothed,
        steps: at.step,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// The curves, by the process that keeps the records.
fn draw(records: &Option<record::Records>) -> Result<(), TrainError> {
    records.as_ref().map_or(Ok(()), record::Records::draw)
}

/// Means over the steps since the last line of the log.
#[derive(Debug, Default)]
struct Window {
    sums: [f64; 3],
    steps: u64,
}

impl Window {
    fn add(&mut self, loss: f64, norm: f64, seconds: f64) {
        for (sum, value) in self.sums.iter_mut().zip([loss, norm, seconds]) {
            *sum += value;
        }
        self.steps += 1;
    }

    fn take(&mut self) -> [f64; 3] {
        let means = self.sums.map(|s| s / self.steps.max(1) as f64);
        *self = Self::default();
        means
    }
}

/// What stays the same in all passes; it keeps the frozen base's tensors between steps.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    device: &'a Device,
    spec: &'a Spec,
    slots: &'a Slots,
    layout: Option<&'a LoraLayout>,
    checkpointing: Checkpointing,
    compute: FloatType,
    bf16: bool,
    frozen: Option<Leaves>,
    teacher: Option<&'a Teacher>,
}

impl<'a> Side<'a> {
    /// An adapter on a frozen base, whose matrices are held in `dtype` and multiplied with in `compute`.
    pub(crate) fn frozen(
        device: &'a Device,
        spec: &'a Spec,
        slots: &'a Slots,
        layout: &'a LoraLayout,
        base: NamedTensors,
        (dtype, compute): (BaseFormat, FloatType),
        checkpointing: Checkpointing,
    ) -> Self {
        Self {
            device,
            spec,
            slots,
            layout: Some(layout),
            checkpointing,
            compute,
            bf16: false,
            frozen: Some(Leaves::frozen(device, base, false, dtype)),
            teacher: None,
        }
    }

    /// The parameters as tensors; give them back with [`Side::keep`].
    pub(crate) fn leaves(&mut self, params: &[Param]) -> Leaves {
        match self.frozen.take() {
            Some(leaves) => leaves.with_adapter(params, self.bf16),
            None => Leaves::base(self.device, params, self.bf16),
        }
    }

    /// Keeps the frozen base's tensors for the next pass.
    pub(crate) fn keep(&mut self, leaves: Leaves) {
        if self.layout.is_some() {
            self.frozen = Some(leaves);
        }
    }

    /// A pass, with dropout in training.
    pub(crate) fn pass(&self, seed: u64, step: u64, training: bool) -> Pass<'a> {
        Pass {
            spec: self.spec,
            slots: self.slots,
            checkpointing: self.checkpointing,
            adapter: self.layout.map(|l| AdapterSide {
                slots: &l.slots,
                scale: l.scale,
                compute: self.compute,
                dropout: (training && l.dropout > 0.0).then(|| {
                    (
                        l.dropout,
                        seed ^ (step + 1).wrapping_mul(0xD1B5_4A32_D192_ED03),
                    )
                }),
            }),
            teacher: self.teacher,
        }
    }
}

/// Turns examples into micro-batches.
#[derive(Debug)]
pub(crate) struct Batcher<'a> {
    spec: &'a Spec,
    temperature: f32,
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

impl<'a> Batcher<'a> {
    /// For examples of at most `longest` tokens, predicted at temperature 1.
    pub(crate) fn new(spec: &'a Spec, longest: usize) -> Self {
        Self::at_temperature(spec, longest, 1.0)
    }

    /// For completions drawn at a temperature.
    pub(crate) fn at_temperature(spec: &'a Spec, longest: usize, temperature: f32) -> Self {
        let (cos, sin) = spec.rope_tables(longest);
        Self {
            spec,
            temperature,
            cos,
            sin,
        }
    }

    /// The micro-batch of `examples`, one document after the other.
    pub(crate) fn batch(&self, set: &Dataset, examples: &[usize]) -> MicroBatch {
        let mut ids = Vec::new();
        let mut targets = Targets {
            ids: Vec::new(),
            weights: Vec::new(),
            temperature: self.temperature,
        };
        let mut bounds = vec![0];
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut keys = Vec::new();
        for &example in examples {
            let e = &set.examples[example];
            let (tokens, weights) = (set.tokens_of(e), set.weights_of(e));
            let start = ids.len();
            ids.extend_from_slice(tokens);
            // Row i predicts token i + 1 of the same document; its last row predicts nothing.
            for i in 0..e.len {
                targets.ids.push(tokens.get(i + 1).copied().unwrap_or(0));
                targets
                    .weights
                    .push(weights.get(i + 1).copied().unwrap_or(0.0));
            }
            if e.adapter_from < e.len {
                ranges.push(start + e.adapter_from..start + e.len);
                keys.extend((e.adapter_from..e.len).map(|i| e.place + i as u64));
            }
            bounds.push(ids.len());
        }
        let total = ids.len();
        MicroBatch {
            ids: ids.into(),
            attention: Arc::new(AttentionPlan {
                heads: self.spec.heads,
                kv_heads: self.spec.kv_heads,
                head_dim: self.spec.head_dim,
                bounds,
                window: self.spec.window,
                cos: Arc::clone(&self.cos),
                sin: Arc::clone(&self.sin),
            }),
            targets: Arc::new(targets),
            adapter_rows: Arc::new(AdapterRows {
                ranges,
                total,
                keys,
            }),
        }
    }
}

/// Loss of a whole data set, nats per learnt token.
fn evaluate(
    pass: &Pass<'_>,
    leaves: &Leaves,
    lanes: &Lanes,
    batcher: &Batcher<'_>,
    set: &Dataset,
    micro_batch_tokens: usize,
) -> Result<f64, TrainError> {
    let all: Vec<usize> = (0..set.examples.len()).collect();
    let learnt = |range: &Range<usize>| -> usize {
        let examples = range.clone().map(|e| &set.examples[e]);
        examples.map(|e| set.targets_of(e)).sum()
    };
    let micros: Vec<Range<usize>> = set
        .micro_batches(&all, micro_batch_tokens)
        .into_iter()
        .filter(|range| learnt(range) > 0)
        .collect();
    let losses = lanes.map(&micros, |range| {
        gradient::evaluate(pass, leaves, &batcher.batch(set, &all[range.clone()]))
    });
    let targets: usize = micros.iter().map(learnt).sum();
    let losses = losses.into_iter().collect::<Result<Vec<f64>, _>>()?;
    Ok(losses.iter().sum::<f64>() / targets.max(1) as f64)
}
