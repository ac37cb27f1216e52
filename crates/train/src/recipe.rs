//! Training recipes: TOML files, unknown keys refused, all problems reported at once before anything is loaded.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{data::Schema, device::DeviceChoice, error::TrainError, net::LINEARS};

/// A full training: every parameter of a network, from scratch or from an existing model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRecipe {
    /// Where the model, the checkpoints and the logs go.
    pub output_dir: PathBuf,
    /// Seed of the initialisation and of the data order.
    pub seed: u64,
    /// The network to train.
    pub model: ModelRecipe,
    /// What to train on.
    pub data: DataRecipe,
    /// AdamW and its schedule.
    pub optimizer: OptimizerRecipe,
    /// Length, batch and saving.
    pub run: RunRecipe,
}

/// A fine-tuning of a LoRA adapter on a frozen base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftRecipe {
    /// Where the adapter, the checkpoints and the logs go.
    pub output_dir: PathBuf,
    /// Seed of the initialisation, of dropout and of the data order.
    pub seed: u64,
    /// The frozen base.
    pub model: ModelRecipe,
    /// What to train on.
    pub data: DataRecipe,
    /// The adapter.
    pub lora: LoraRecipe,
    /// AdamW and its schedule.
    pub optimizer: OptimizerRecipe,
    /// Length, batch and saving.
    pub run: RunRecipe,
}

/// Either `config` and `tokenizer` (a new network) or `base` (an existing one).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecipe {
    /// A Hugging Face `config.json` for a new network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// A directory with `tokenizer.json` and its companions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// A Hugging Face model directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// Standard deviation of new weights; 0.02 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_std: Option<f32>,
}

/// The training and validation files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// `.jsonl` or `.parquet` files, or directories of them, whose files are read by name.
    pub train: Vec<PathBuf>,
    /// Files of the validation loss; their tokens are held in memory.
    #[serde(default)]
    pub valid: Vec<PathBuf>,
    /// Directory for the tokens of the training files, which are encoded once and found there again. If absent, tokens are held in
    /// memory, or in `tokens` of the output directory for files of more than 512 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// The published data set whose fields the rows have; by the fields of each row if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// Longest example, in tokens.
    pub max_length: usize,
    /// What happens to a longer one.
    #[serde(default)]
    pub overlong: Overlong,
    /// Which tokens are learnt; `all` for a base, `completion` for a fine-tuning if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossOn>,
    /// Ends a `text` row and a string completion with the end-of-sequence token.
    #[serde(default = "yes")]
    pub append_eos: bool,
    /// A new order in each epoch, by the seed.
    #[serde(default = "yes")]
    pub shuffle: bool,
}

/// What happens to an example longer than `max_length`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlong {
    /// It is left out, and counted.
    #[default]
    Drop,
    /// Its end is cut off, and it is counted.
    Truncate,
}

/// Which tokens carry loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossOn {
    /// Every token.
    All,
    /// The completion, or the last assistant turn.
    Completion,
    /// Every assistant turn, the completion, and the whole of a plain text.
    Assistant,
}

/// The low-rank adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraRecipe {
    /// Rank.
    pub r: usize,
    /// The adapter's output is scaled by `alpha / r` (by `alpha / sqrt(r)` with `rslora`).
    pub alpha: f32,
    /// Share of the adapter's inputs set to zero in training.
    #[serde(default)]
    pub dropout: f32,
    /// Linear layers with an adapter; all seven if absent.
    #[serde(default = "all_targets")]
    pub targets: Vec<String>,
    /// Off before the invocation sequence, on from its first token.
    pub masked: bool,
    /// The invocation sequence; the template's generation prompt if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// Scale by the square root of the rank.
    #[serde(default)]
    pub rslora: bool,
}

/// AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// Highest learning rate.
    pub lr: f64,
    /// Decay of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// On matrices only.
    pub weight_decay: f64,
    /// Course of the learning rate.
    pub schedule: Schedule,
    /// Share of the run with a rising rate.
    pub warmup_ratio: f64,
    /// Last rate as a share of `lr`.
    #[serde(default)]
    pub min_lr_ratio: f64,
    /// `wsd`: last share of the run, with a falling rate.
    #[serde(default = "default_decay")]
    pub decay_ratio: f64,
    /// Gradients are scaled down to this global norm.
    pub max_grad_norm: f64,
}

/// Course of the learning rate after warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine down to `min_lr_ratio`.
    Cosine,
    /// A straight line down to `min_lr_ratio`.
    Linear,
    /// No change.
    Constant,
    /// Warmup, stable, decay: constant, then a straight line in the last `decay_ratio`.
    Wsd,
}

/// Length, batch and saving of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecipe {
    /// Passes over the data; either this or `max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Tokens seen, prompts included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Tokens of one optimizer step.
    pub batch_tokens: usize,
    /// Tokens of one forward and backward pass; any value gives the same gradient.
    pub micro_batch_tokens: usize,
    /// `bf16` rounds the weights to bf16 for every forward pass; sums and the master weights stay f32.
    #[serde(default)]
    pub dtype: FloatType,
    /// How the matrices of a frozen base are held; sums stay f32.
    #[serde(default, skip_serializing_if = "BaseFormat::is_f32")]
    pub base_dtype: BaseFormat,
    /// Of the products with the linear layers of a frozen base, forward and backward: `bf16` rounds what they multiply and their results.
    /// Everything else stays f32.
    #[serde(default, skip_serializing_if = "FloatType::is_f32")]
    pub compute_dtype: FloatType,
    /// Of the written model or adapter.
    #[serde(default = "default_save")]
    pub save_dtype: FloatType,
    /// Whether only the inputs of the layers are kept, and each layer is run again in the backward pass.
    #[serde(default)]
    pub gradient_checkpointing: Checkpointing,
    /// Optimizer steps between two lines of the log.
    pub log_every: u64,
    /// Optimizer steps between two validation losses; 0 for only at the end.
    #[serde(default)]
    pub eval_every: u64,
    /// Optimizer steps between two checkpoints; 0 for none.
    pub save_every: u64,
    /// Checkpoints kept.
    #[serde(default = "default_limit")]
    pub save_total_limit: usize,
    /// Steps in a row with a non-finite gradient before the run stops.
    #[serde(default = "default_skipped")]
    pub max_skipped: u64,
    /// Where the network runs: `cpu`, `vulkan`, `cuda` or `metal`, and `vulkan:N` for one of several GPUs.
    #[serde(default, skip_serializing_if = "DeviceChoice::is_cpu")]
    pub device: DeviceChoice,
    /// Threads; 0 for all cores.
    #[serde(default)]
    pub threads: usize,
    /// `auto` (the newest checkpoint of `output_dir`, if any), `none`, or a checkpoint.
    #[serde(default = "default_resume")]
    pub resume: String,
}

/// A floating-point format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with f32's range.
    Bf16,
}

impl FloatType {
    /// Whether it is f32: what a recipe says that names none.
    pub fn is_f32(&self) -> bool {
        *self == Self::F32
    }
}

/// What a forward pass keeps for the backward pass, from most memory on the device to least: in a recipe `false`, `true` or `"offload"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "CheckpointingValue", into = "CheckpointingValue")]
pub enum Checkpointing {
    /// All that it needs.
    #[default]
    Off,
    /// The inputs of the layers, on the device.
    On,
    /// The inputs of the layers, on the host of a GPU.
    Offload,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false or \"offload\"")]
enum CheckpointingValue {
    IsOn(bool),
    On(CheckpointingPlace),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CheckpointingPlace {
    Offload,
}

impl Checkpointing {
    /// Whether each layer is run again.
    pub fn is_on(self) -> bool {
        self != Self::Off
    }
}

impl From<CheckpointingValue> for Checkpointing {
    fn from(value: CheckpointingValue) -> Self {
        match value {
            CheckpointingValue::IsOn(false) => Self::Off,
            CheckpointingValue::IsOn(true) => Self::On,
            CheckpointingValue::On(CheckpointingPlace::Offload) => Self::Offload,
        }
    }
}

impl From<Checkpointing> for CheckpointingValue {
    fn from(checkpointing: Checkpointing) -> Self {
        match checkpointing {
            Checkpointing::Off => Self::IsOn(false),
            Checkpointing::On => Self::IsOn(true),
            Checkpointing::Offload => Self::On(CheckpointingPlace::Offload),
        }
    }
}

/// How the matrices of a frozen base are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseFormat {
    /// 32 bits.
    #[default]
    F32,
    /// Rounded to bf16; on a GPU they take two bytes for each value.
    Bf16,
    /// Those of the linear layers as their file has them, in 16 bits or in quantized blocks; one at a time is made f32. The values are
    /// those of `f32`; `dtype` does not round them. A GPU holds some formats only.
    Stored,
}

impl BaseFormat {
    /// Whether it is f32: what a recipe says that names none.
    pub fn is_f32(&self) -> bool {
        matches!(self, Self::F32)
    }

    /// How one tensor of the base is held: norms and biases are f32 always.
    pub(crate) fn of(self, name: &str, shape: &[usize]) -> Self {
        let is_linear = || {
            let module = name.strip_suffix(".weight");
            module.is_some_and(|module| LINEARS.iter().any(|linear| module.ends_with(linear)))
        };
        match self {
            Self::Bf16 if shape.len() == 2 => self,
            Self::Stored if is_linear() => self,
            _ => Self::F32,
        }
    }
}

/// Finds what has a meaning for a frozen base alone.
pub(crate) fn none_frozen(run: &RunRecipe, problems: &mut Vec<String>) {
    for (setting, is_f32) in [
        ("base_dtype", run.base_dtype.is_f32()),
        ("compute_dtype", run.compute_dtype.is_f32()),
    ] {
        if !is_f32 {
            problems.push(format!(
                "[run] {setting} is of a frozen base, and here the base is trained"
            ));
        }
    }
}

fn yes() -> bool {
    true
}
fn all_targets() -> Vec<String> {
    LINEARS
        .iter()
        .filter_map(|name| name.rsplit('.').next())
        .map(str::to_owned)
        .collect()
}
fn default_eps() -> f64 {
    1e-8
}
fn default_decay() -> f64 {
    0.2
}
pub(crate) fn default_limit() -> usize {
    2
}
pub(crate) fn default_skipped() -> u64 {
    8
}
fn default_save() -> FloatType {
    FloatType::Bf16
}
pub(crate) fn default_resume() -> String {
    "auto".to_owned()
}

impl BaseRecipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with every problem found.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let recipe: Self = parse(path)?;
        let mut problems = Vec::new();
        let m = &recipe.model;
        match (&m.config, &m.tokenizer, &m.base) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => {}
            _ => problems.push("[model] needs either config and tokenizer, or base".to_owned()),
        }
        if m.base.is_some() && m.init_std.is_some() {
            problems.push("[model] init_std has no meaning with base".to_owned());
        }
        if m.init_std.is_some_and(|s| !(s > 0.0 && s.is_finite())) {
            problems.push("[model] init_std must be positive".to_owned());
        }
        none_frozen(&recipe.run, &mut problems);
        shared(&recipe.data, &recipe.optimizer, &recipe.run, &mut problems);
        finish(recipe, path, problems)
    }
}

impl SftRecipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with every problem found.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let recipe: Self = parse(path)?;
        let mut problems = Vec::new();
        let m = &recipe.model;
        if m.base.is_none() || m.config.is_some() || m.tokenizer.is_some() || m.init_std.is_some() {
            problems.push("[model] of a fine-tuning takes base, and nothing else".to_owned());
        }
        let l = &recipe.lora;
        if l.r == 0 {
            problems.push("[lora] r must be at least 1".to_owned());
        }
        if !(l.alpha > 0.0 && l.alpha.is_finite()) {
            problems.push("[lora] alpha must be positive".to_owned());
        }
        if !(0.0..1.0).contains(&l.dropout) {
            problems.push("[lora] dropout must be in [0, 1)".to_owned());
        }
        if l.targets.is_empty() {
            problems.push("[lora] targets is empty".to_owned());
        }
        let known = all_targets();
        for target in l.targets.iter().filter(|t| !known.contains(t)) {
            problems.push(format!(
                "[lora] target {target:?} is none of {}",
                known.join(", ")
            ));
        }
        if !l.masked && l.invocation.is_some() {
            problems.push("[lora] invocation has no meaning with masked = false".to_owned());
        }
        shared(&recipe.data, &recipe.optimizer, &recipe.run, &mut problems);
        finish(recipe, path, problems)
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let text = std::fs::read_to_string(path).map_err(|source| TrainError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|e| TrainError::Recipe {
        path: path.to_owned(),
        problems: vec![e.to_string()],
    })
}

/// Reads a recipe and refuses it if `problems` finds any.
pub(crate) fn load<T: serde::de::DeserializeOwned>(
    path: &Path,
    problems: impl FnOnce(&T) -> Vec<String>,
) -> Result<T, TrainError> {
    let recipe = parse(path)?;
    let problems = problems(&recipe);
    finish(recipe, path, problems)
}

fn finish<T>(recipe: T, path: &Path, problems: Vec<String>) -> Result<T, TrainError> {
    if problems.is_empty() {
        Ok(recipe)
    } else {
        Err(TrainError::Recipe {
            path: path.to_owned(),
            problems,
        })
    }
}

/// What is wrong with the optimizer's settings, one line each.
pub(crate) fn optimizer_problems(opt: &OptimizerRecipe, problems: &mut Vec<String>) {
    let mut require = |ok: bool, text: &str| {
        if !ok {
            problems.push(text.to_owned());
        }
    };
    require(
        opt.lr > 0.0 && opt.lr.is_finite(),
        "[optimizer] lr must be positive",
    );
    require(
        opt.betas.iter().all(|b| (0.0..1.0).contains(b)),
        "[optimizer] betas must be in [0, 1)",
    );
    require(opt.eps > 0.0, "[optimizer] eps must be positive");
    require(
        opt.weight_decay >= 0.0,
        "[optimizer] weight_decay must not be negative",
    );
    require(
        (0.0..1.0).contains(&opt.warmup_ratio),
        "[optimizer] warmup_ratio must be in [0, 1)",
    );
    require(
        (0.0..=1.0).contains(&opt.min_lr_ratio),
        "[optimizer] min_lr_ratio must be in [0, 1]",
    );
    require(
        (0.0..=1.0).contains(&opt.decay_ratio),
        "[optimizer] decay_ratio must be in [0, 1]",
    );
    require(
        opt.max_grad_norm > 0.0,
        "[optimizer] max_grad_norm must be positive",
    );
}

/// The checks that all three kinds share.
pub(crate) fn shared(
    data: &DataRecipe,
    opt: &OptimizerRecipe,
    run: &RunRecipe,
    problems: &mut Vec<String>,
) {
    optimizer_problems(opt, problems);
    let mut require = |ok: bool, text: &str| {
        if !ok {
            problems.push(text.to_owned());
        }
    };
    require(!data.train.is_empty(), "[data] train names no file");
    require(data.max_length >= 2, "[data] max_length must be at least 2");
    require(
        run.epochs.is_some() != run.max_tokens.is_some(),
        "[run] needs either epochs or max_tokens",
    );
    require(
        run.epochs.is_none_or(|e| e > 0.0 && e.is_finite()),
        "[run] epochs must be positive",
    );
    require(
        run.max_tokens != Some(0),
        "[run] max_tokens must be positive",
    );
    require(
        run.batch_tokens >= data.max_length,
        "[run] batch_tokens must be at least [data] max_length",
    );
    require(
        run.micro_batch_tokens >= data.max_length,
        "[run] micro_batch_tokens must be at least [data] max_length",
    );
    require(run.log_every > 0, "[run] log_every must be at least 1");
    require(
        run.save_total_limit > 0,
        "[run] save_total_limit must be at least 1",
    );
    require(run.max_skipped > 0, "[run] max_skipped must be at least 1");
}
