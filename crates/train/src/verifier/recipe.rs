//! The recipe of `train verifier`: everything that is refused is refused here, before anything is loaded, all problems at once.

use std::path::{Path, PathBuf};

use edgethink_reason::verifier::head::DEFAULT_QUESTION;
use serde::{Deserialize, Serialize};

use crate::{
    data::Schema,
    error::TrainError,
    grpo::{RolloutKv, RolloutWeights},
    recipe::{OptimizerRecipe, load, optimizer_problems},
};

/// Training of a verifier: how likely a response is right (METHOD 5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierRecipe {
    /// Where the head, the samples and the logs go.
    pub output_dir: PathBuf,
    /// Seed of all draws.
    pub seed: u64,
    /// Whose responses are scored, and by whom.
    pub model: VerifiedRecipe,
    /// What is asked.
    pub data: VerifierDataRecipe,
    /// How responses are drawn.
    pub sample: SampleRecipe,
    /// The head and its loss.
    #[serde(default)]
    pub head: VerifierHeadRecipe,
    /// AdamW and its schedule; a step sees all samples.
    pub optimizer: OptimizerRecipe,
    /// Length of the training.
    pub run: VerifierRunRecipe,
}

/// The base and the adapter, in the number formats that will be deployed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedRecipe {
    /// A Hugging Face model directory, or a `.gguf` file.
    pub base: PathBuf,
    /// A PEFT directory; the base itself responds if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// How the engine holds the base's weights.
    #[serde(default)]
    pub weights: RolloutWeights,
    /// How the engine holds the KV cache.
    #[serde(default)]
    pub kv: RolloutKv,
}

/// Questions with answers: rows of `prompt` (messages or text) and an answer, or of a published data set that has both. Training and held-out questions must differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierDataRecipe {
    /// `.jsonl` or `.parquet` files to learn from.
    pub train: Vec<PathBuf>,
    /// Files of the held-out questions.
    pub valid: Vec<PathBuf>,
    /// The published data set whose fields the rows have; by the fields of each row if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// Field with the expected answer of rows with a `prompt`.
    #[serde(default = "default_answer")]
    pub answer: String,
    /// What follows the question of a published data set, after an empty line; as `edgethink eval` asks if absent, nothing if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// The first so many questions of `train`; 0 for all.
    #[serde(default)]
    pub train_questions: usize,
    /// The first so many questions of `valid`; 0 for all.
    #[serde(default)]
    pub valid_questions: usize,
    /// Questions with a longer prompt are left out, and counted.
    pub max_prompt_tokens: usize,
}

/// How responses are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleRecipe {
    /// Responses of each question to learn from.
    pub n: usize,
    /// Responses of each held-out question.
    pub valid_n: usize,
    /// Divides the logits.
    pub temperature: f32,
    /// Responses are cut here.
    pub max_completion_tokens: usize,
    /// Streams that are decoded at the same time.
    #[serde(default = "default_streams")]
    pub max_sequences: usize,
}

/// The head and its loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifierHeadRecipe {
    /// What follows the response; the head reads its last token's state.
    pub question: String,
    /// One more input: how sure the model was of the response's tokens. Not in the paper.
    pub confidence: bool,
    /// Weight of the squared weights of the state (standardised) in the loss.
    pub l2: f64,
    /// Right and wrong samples weigh the same in sum. Scores are then no probabilities.
    pub balance: bool,
}

impl Default for VerifierHeadRecipe {
    fn default() -> Self {
        Self {
            question: DEFAULT_QUESTION.to_owned(),
            confidence: false,
            l2: 1e-3,
            balance: false,
        }
    }
}

/// Length of the training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierRunRecipe {
    /// Optimizer steps on all samples.
    pub steps: u64,
    /// Threads of the engine; 0 for all cores.
    #[serde(default)]
    pub threads: usize,
    /// `auto`: samples that `output_dir` holds of the same settings are used; `none`: all are drawn anew.
    #[serde(default = "crate::recipe::default_resume")]
    pub resume: String,
}

fn default_answer() -> String {
    "answer".to_owned()
}
fn default_streams() -> usize {
    64
}

impl VerifierRecipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with every problem found.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        load(path, Self::problems)
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut require = |ok: bool, text: &str| {
            if !ok {
                found.push(text.to_owned());
            }
        };
        let (model, data, sample, head) = (&self.model, &self.data, &self.sample, &self.head);
        require(
            self.output_dir != model.base && Some(&self.output_dir) != model.adapter.as_ref(),
            "output_dir is [model] base or adapter: give the head a directory of its own",
        );
        require(!data.train.is_empty(), "[data] train names no file");
        require(!data.valid.is_empty(), "[data] valid names no file");
        require(
            !data.valid.iter().any(|file| data.train.contains(file)),
            "[data] valid names a file of train: held-out questions must not be learnt from",
        );
        require(
            data.max_prompt_tokens > 0,
            "[data] max_prompt_tokens must be at least 1",
        );
        let streams = 1..=edgethink_engine::MAX_STREAMS;
        require(
            streams.contains(&sample.n) && streams.contains(&sample.valid_n),
            "[sample] n and valid_n must be from 1 to 1024",
        );
        require(
            sample.temperature >= 0.0 && sample.temperature.is_finite(),
            "[sample] temperature must not be negative",
        );
        require(
            sample.temperature > 0.0 || (sample.n == 1 && sample.valid_n == 1),
            "[sample] temperature must be positive for more than one response: all would be equal",
        );
        require(
            sample.max_completion_tokens > 0,
            "[sample] max_completion_tokens must be at least 1",
        );
        require(
            sample.max_sequences > 0,
            "[sample] max_sequences must be at least 1",
        );
        require(!head.question.is_empty(), "[head] question is empty");
        require(
            head.l2 >= 0.0 && head.l2.is_finite(),
            "[head] l2 must not be negative",
        );
        require(self.run.steps > 0, "[run] steps must be at least 1");
        require(
            ["auto", "none"].contains(&self.run.resume.as_str()),
            "[run] resume must be \"auto\" or \"none\"",
        );
        optimizer_problems(&self.optimizer, &mut found);
        found
    }
}
