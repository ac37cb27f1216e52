//! What can go wrong in a training, each with its remedy.

use std::path::PathBuf;

/// An error of a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The recipe is refused.
    #[error("recipe {} is refused:\n  - {}", path.display(), problems.join("\n  - "))]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// Every problem found.
        problems: Vec<String>,
    },
    /// A data file of a kind that is not read.
    #[error("{} is neither .jsonl nor .parquet; convert it to one of them", path.display())]
    DataFormat {
        /// The file.
        path: PathBuf,
    },
    /// A row that cannot be used.
    #[error("{} row {row}: {problem}", path.display())]
    DataRow {
        /// The file.
        path: PathBuf,
        /// Its line (JSONL) or row (parquet), from 1.
        row: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// No token to learn from.
    #[error(
        "no token of {files:?} can be learnt ({dropped} examples were left out as too long; raise [data] max_length or set overlong = \"truncate\")"
    )]
    NoTargets {
        /// The files.
        files: Vec<PathBuf>,
        /// Examples left out.
        dropped: usize,
    },
    /// No question to ask.
    #[error(
        "{files:?} hold no question that fits ({dropped} were left out as too long; raise [data] max_prompt_tokens)"
    )]
    NoQuestions {
        /// The files.
        files: Vec<PathBuf>,
        /// Questions left out.
        dropped: usize,
    },
    /// The adapter could not be loaded, or holds values that are not finite.
    #[error("cannot use the adapter {}", path.display())]
    Adapter {
        /// The adapter.
        path: PathBuf,
        /// Why.
        source: edgethink_model::AdapterError,
    },
    /// The engine that encodes prompts or draws completions failed, or what it gave cannot be used.
    #[error("the engine failed")]
    Engine {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No server draws completions, or none that can.
    #[error("the servers of [rollout] backend cannot be used: {problem}\n  - {}", servers.join("\n  - "))]
    Servers {
        /// What is wrong with all of them.
        problem: String,
        /// Each server with its last error.
        servers: Vec<String>,
    },
    /// The variable with the servers' key is not set.
    #[error("[rollout] backend api_key_env names {name}, which is not set")]
    ApiKey {
        /// The variable.
        name: String,
    },
    /// What was drawn is not what the trainer thinks of it.
    #[error(
        "the log-probabilities of sampler and trainer differ by {mean:.3} nats per token ({largest:.1} at most), and [guard] max_mismatch is {most}. \
         The sampler has another base or adapter, applies a masked adapter to the whole prompt, or tells log-probabilities before \
         temperature (vLLM: start it with --logprobs-mode processed_logprobs)"
    )]
    Mismatch {
        /// Mean over the tokens, nats.
        mean: f64,
        /// Of one token, nats.
        largest: f64,
        /// The limit.
        most: f64,
    },
    /// Reinforcement learning that leads nowhere.
    #[error("stopped at step {step}: {problem}; the last checkpoint is in {}", output_dir.display())]
    Hopeless {
        /// Step.
        step: u64,
        /// What was seen, and what to try.
        problem: String,
        /// Where the checkpoints and the completions are.
        output_dir: PathBuf,
    },
    /// The model could not be loaded or saved.
    #[error("cannot load or save the model")]
    Model(#[from] edgethink_model::LoadError),
    /// A plan for a model that cannot be loaded.
    #[error("cannot load the model {}; to plan without it, give its config.json with --model-config", base.display())]
    Unplanned {
        /// The model.
        base: PathBuf,
        /// Why.
        source: Box<edgethink_model::LoadError>,
    },
    /// The network's config is refused.
    #[error("{} is refused", path.display())]
    Config {
        /// The config file.
        path: PathBuf,
        /// Why.
        source: edgethink_model::ConfigError,
    },
    /// The tokenizer is refused.
    #[error("{} is refused", path.display())]
    Tokenizer {
        /// The tokenizer file.
        path: PathBuf,
        /// Why.
        source: edgethink_model::TokenizerError,
    },
    /// The chat template is refused.
    #[error("{} is refused", path.display())]
    Template {
        /// Where it is written.
        path: PathBuf,
        /// Why.
        source: edgethink_model::TemplateError,
    },
    /// Parts of the model that do not fit together or are missing.
    #[error("{}: {problem}", path.display())]
    Unfit {
        /// The model or tokenizer directory.
        path: PathBuf,
        /// What does not fit, and the remedy.
        problem: String,
    },
    /// The model cannot be quantized by the scheme.
    #[error("cannot train for the scheme {}", path.display())]
    Quantize {
        /// The scheme.
        path: PathBuf,
        /// Why.
        source: Box<edgethink_quantize::QuantizeError>,
    },
    /// Training went wrong: the loss is no number or rises without end, or gradients are not finite.
    #[error("training diverged at step {step}: {problem}; the last good checkpoint is in {}", output_dir.display())]
    Diverged {
        /// Optimizer step.
        step: u64,
        /// What was seen, and what to try.
        problem: String,
        /// Where the checkpoints are.
        output_dir: PathBuf,
    },
    /// A checkpoint that does not belong to this recipe, or is damaged.
    #[error("cannot resume from {}: {problem}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// Processes that train together do not find each other, do not agree, or one has gone.
    #[error("training together failed: {problem}")]
    Group {
        /// What happened, and the remedy.
        problem: String,
    },
    /// The run was stopped by its user; the state is saved.
    #[error("stopped at step {step}; the same command goes on from {}", checkpoint.display())]
    Stopped {
        /// Optimizer steps made.
        step: u64,
        /// The checkpoint just written.
        checkpoint: PathBuf,
    },
    /// The run was stopped by its user, and is too short to be gone on with.
    #[error("stopped; nothing is written, the same command begins again")]
    Cancelled,
    /// A device that this build or this machine has not, or that failed.
    #[error("cannot train on {device}: {problem}")]
    Device {
        /// As the recipe or the driver names it.
        device: String,
        /// Why, and the remedy; or what there is instead.
        problem: String,
    },
    /// The thread pool has another size already.
    #[error(
        "[run] threads is {asked}, but this process already works with {found} threads; set it to 0"
    )]
    Threads {
        /// Threads of the recipe.
        asked: usize,
        /// Threads of the pool.
        found: usize,
    },
    /// The system gave no threads.
    #[error("cannot start the threads of the training")]
    Pool {
        /// Why.
        source: rayon::ThreadPoolBuildError,
    },
    /// A parquet file, and a build that does not read them.
    #[error("this build does not read {}: build it with `--features parquet`, or convert the file to .jsonl", path.display())]
    WithoutParquet {
        /// The file.
        path: PathBuf,
    },
    /// A parquet file that cannot be read.
    #[error("{} is damaged, or compressed with something else than snappy: write it again", path.display())]
    #[cfg(feature = "parquet")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A parquet file without a column to learn from, or with one of another type.
    #[error("{} {problem}", path.display())]
    #[cfg(feature = "parquet")]
    ParquetColumns {
        /// The file.
        path: PathBuf,
        /// What is there, and the remedy.
        problem: String,
    },
}

impl TrainError {
    /// A failure of the engine, or of what reads its states.
    pub(crate) fn engine(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Engine {
            source: Box::new(source),
        }
    }
}
