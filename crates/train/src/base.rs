//! `train base`: every parameter of a network, from scratch or from an existing model.

use std::borrow::Cow;

use edgethink_engine::map_large_buffers;
use edgethink_model::{Dtype, SaveOptions, Stored};
use half::bf16;

use crate::{
    base_model,
    data::{Encoder, Encoding},
    device::Device,
    error::TrainError,
    params::Param,
    process_group::ProcessGroup,
    recipe::{BaseRecipe, FloatType, LossOn},
    run::{self, Event, Job, Learns, Progress},
};

/// A finished training.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Smoothed training loss at the end, nats per learnt token.
    pub loss: f64,
    /// Seconds of this run.
    pub seconds: f64,
}

impl Summary {
    pub(crate) fn of(outcome: &run::Outcome) -> Self {
        Self {
            steps: outcome.steps,
            loss: outcome.loss,
            seconds: outcome.seconds,
        }
    }
}

/// Trains a network as the recipe says and writes a Hugging Face model directory.
///
/// # Errors
/// [`TrainError`]; [`TrainError::Stopped`] if `progress` asked to stop: the same call goes on from the checkpoint.
pub fn base(recipe: &BaseRecipe, progress: &mut dyn Progress) -> Result<Summary, TrainError> {
    base_in(recipe, &mut ProcessGroup::alone(), progress)
}

/// The same by several processes together; the one that leads the group writes.
///
/// # Errors
/// As [`base`], and [`TrainError::Group`].
pub fn base_in(
    recipe: &BaseRecipe,
    group: &mut ProcessGroup,
    progress: &mut dyn Progress,
) -> Result<Summary, TrainError> {
    with_threads(recipe.run.threads, || {
        let run = &recipe.run;
        let device = Device::open(&run.device, run.gradient_checkpointing)?;
        let start = base_model::load(&recipe.model, recipe.seed)?;
        if !start.text.dir.is_dir() {
            return Err(TrainError::Unfit {
                path: start.text.dir,
                problem: "is no directory whose tokenizer and template could be written beside the trained weights; name a model directory"
                    .to_owned(),
            });
        }
        let encoder = Encoder {
            tokenizer: &start.text.tokenizer,
            template: start.text.template.as_ref(),
            eos: &start.text.eos,
            encoding: Encoding::new(&recipe.data, LossOn::All, None),
        };
        let (train, valid) = encoder.load_sets(&recipe.data, &recipe.output_dir, progress)?;
        let outcome = run::run(
            Job {
                output_dir: &recipe.output_dir,
                seed: recipe.seed,
                resolved: serde_json::json!(recipe),
                shuffle: recipe.data.shuffle,
                optimizer: &recipe.optimizer,
                run: &recipe.run,
                spec: &start.spec,
                learns: Learns::Network(base_model::in_f32(start.weights)),
                rounded: None,
                teacher: None,
                train,
                valid,
                device: &device,
                group,
            },
            progress,
        )?;
        if !group.leads() {
            return Ok(Summary::of(&outcome));
        }
        let dir = &recipe.output_dir;
        edgethink_model::save(
            dir,
            &start.config,
            outcome
                .params
                .iter()
                .map(|p| (p.name.clone(), Saved::new(p, recipe.run.save_dtype))),
            &SaveOptions::default(),
        )?;
        base_model::copy_text_files(&start.text.dir, dir)?;
        finish(&outcome, dir, progress)
    })
}

pub(crate) fn finish(
    outcome: &run::Outcome,
    dir: &std::path::Path,
    progress: &mut dyn Progress,
) -> Result<Summary, TrainError> {
    progress.event(&Event::Finished {
        path: dir.to_owned(),
        loss: outcome.loss,
        seconds: outcome.seconds,
    });
    Ok(Summary::of(outcome))
}

/// Runs `f` on a pool of `threads` threads; 0 is one per core.
pub(crate) fn with_threads<R: Send>(
    threads: usize,
    f: impl FnOnce() -> Result<R, TrainError>,
) -> Result<R, TrainError> {
    // The tensor library's products pack their factors into buffers of their own, megabytes each where the third-level cache is large. On
    // heaps, runs of 380 and 336 MiB took up to 480 and 449 on two cores of Granite Rapids (480 MiB of that cache); apart from them 402
    // and 352 at most, in up to 1.05 times the time.
    let _ = map_large_buffers(); // only memory depends on it
    // The closure borrows the caller's progress, which need not be Send, so it stays on this thread: the global
    // pool does the parallel parts. Its size can be set once in a process.
    if threads > 0 {
        let built = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global();
        if built.is_err() && rayon::current_num_threads() != threads {
            return Err(TrainError::Threads {
                asked: threads,
                found: rayon::current_num_threads(),
            });
        }
    }
    f()
}

/// A parameter as a file holds it.
pub(crate) struct Saved<'a> {
    param: &'a Param,
    dtype: FloatType,
}

impl<'a> Saved<'a> {
    pub(crate) fn new(param: &'a Param, dtype: FloatType) -> Self {
        Self { param, dtype }
    }
}

impl Stored for Saved<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            FloatType::F32 => Dtype::F32,
            FloatType::Bf16 => Dtype::BF16,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.param.shape
    }
    fn bytes(&self) -> Cow<'_, [u8]> {
        match self.dtype {
            FloatType::F32 => Cow::Borrowed(bytemuck::cast_slice(&self.param.values)),
            FloatType::Bf16 => {
                let rounded = self
                    .param
                    .values
                    .iter()
                    .map(|&v| bf16::from_f32(v).to_le_bytes());
                Cow::Owned(rounded.flatten().collect())
            }
        }
    }
}
