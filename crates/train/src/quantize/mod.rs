//! `train quantize`: transforms and ranges of a quantized model, learnt end to end (METHOD 6, the last row of the paper's Table 10).
//!
//! The network runs with the weights that an engine will read ([`rounded`]), and learns the distributions of the model as it was
//! ([`Teacher`]). What comes out is a directory for `edgethink quantize --trained`, which folds it into the file: inference is unchanged.

mod rounded;

pub(crate) use rounded::Rounded;

use std::path::{Path, PathBuf};

use edgethink_model::Model;
use edgethink_quantize::{Origin, QuantizeError, Scheme};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    base::{Summary, finish, with_threads},
    base_model,
    data::{Encoder, Encoding},
    device::Device,
    error::TrainError,
    gradient::Teacher,
    process_group::ProcessGroup,
    recipe::{self, DataRecipe, LossOn, ModelRecipe, OptimizerRecipe, RunRecipe},
    run::{self, Job, Learns, Progress},
};

/// A training of transforms and ranges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizeRecipe {
    /// Where the result, the checkpoints and the logs go.
    pub output_dir: PathBuf,
    /// Seed of the data order.
    pub seed: u64,
    /// The scheme that is trained: its transforms and its ranges are where the training starts.
    pub scheme: PathBuf,
    /// The model to quantize.
    pub model: ModelRecipe,
    /// What both models read.
    pub data: DataRecipe,
    /// AdamW and its schedule.
    pub optimizer: OptimizerRecipe,
    /// Length, batch and saving.
    pub run: RunRecipe,
}

impl QuantizeRecipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with every problem found.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        recipe::load(path, |recipe: &Self| {
            let mut problems = Vec::new();
            let m = &recipe.model;
            if m.base.is_none()
                || m.config.is_some()
                || m.tokenizer.is_some()
                || m.init_std.is_some()
            {
                problems.push("[model] of a quantization takes base, and nothing else".to_owned());
            }
            recipe::none_frozen(&recipe.run, &mut problems);
            recipe::shared(&recipe.data, &recipe.optimizer, &recipe.run, &mut problems);
            problems
        })
    }
}

/// Trains transforms and ranges as the recipe says and writes them to its directory.
///
/// # Errors
/// [`TrainError`]; [`TrainError::Stopped`] if `progress` asked to stop: the same call goes on from the checkpoint.
pub fn quantize(
    recipe: &QuantizeRecipe,
    progress: &mut dyn Progress,
) -> Result<Summary, TrainError> {
    with_threads(recipe.run.threads, || {
        let device = Device::open(&recipe.run.device, recipe.run.gradient_checkpointing)?;
        let unfit = |source: QuantizeError| TrainError::Quantize {
            path: recipe.scheme.clone(),
            source: Box::new(source),
        };
        let text = std::fs::read_to_string(&recipe.scheme).map_err(|source| TrainError::Read {
            path: recipe.scheme.clone(),
            source,
        })?;
        let scheme = Scheme::from_toml(&text).map_err(unfit)?;
        scheme.rounds_to_nearest().map_err(unfit)?;
        let start = base_model::load(&recipe.model, recipe.seed)?;
        let model = Model::load(&start.text.dir.to_string_lossy())?;
        let hash = model.hash().map_err(|source| TrainError::Read {
            path: start.text.dir.clone(),
            source,
        })?;
        let (rounded, params) = Rounded::new(&model, &scheme).map_err(unfit)?;
        let encoder = Encoder {
            tokenizer: &start.text.tokenizer,
            template: start.text.template.as_ref(),
            eos: &start.text.eos,
            encoding: Encoding::new(&recipe.data, LossOn::All, None),
        };
        let (train, valid) = encoder.load_sets(&recipe.data, &recipe.output_dir, progress)?;
        let teacher = Teacher::new(&device, start.spec, start.weights);
        let outcome = run::run(
            Job {
                output_dir: &recipe.output_dir,
                seed: recipe.seed,
                resolved: json!(recipe),
                shuffle: recipe.data.shuffle,
                optimizer: &recipe.optimizer,
                run: &recipe.run,
                spec: rounded.spec(),
                learns: Learns::Network(params),
                rounded: Some(&rounded),
                teacher: Some(&teacher),
                train,
                valid,
                device: &device,
                group: &mut ProcessGroup::alone(),
            },
            progress,
        )?;
        let origin = Origin {
            model: hash.to_string(),
            scheme,
        };
        let trained = rounded.trained(&outcome.params);
        trained.save(&recipe.output_dir, &origin).map_err(unfit)?;
        finish(&outcome, &recipe.output_dir, progress)
    })
}
