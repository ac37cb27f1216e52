//! The recipe of `train switcher`: everything that is refused is refused here, before anything is loaded, all problems at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use edgethink_model::Message;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    data::Schema,
    error::TrainError,
    grpo::{RolloutKv, RolloutWeights},
    recipe::{OptimizerRecipe, load, optimizer_problems},
};

/// Training of a switcher: which queries need a thought (METHOD 4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitcherRecipe {
    /// Where the head and the logs go.
    pub output_dir: PathBuf,
    /// Seed of the split, the initialisation, the order and the noise.
    pub seed: u64,
    /// The base whose hidden states are read.
    pub model: StatesRecipe,
    /// The two labelled sets.
    pub data: LabelledRecipe,
    /// How states are averaged.
    #[serde(default)]
    pub average: AverageRecipe,
    /// The network.
    #[serde(default)]
    pub head: HeadRecipe,
    /// AdamW and its schedule.
    pub optimizer: OptimizerRecipe,
    /// Length and batch.
    pub run: SwitcherRunRecipe,
}

/// The base, in the number formats that will be deployed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatesRecipe {
    /// A model directory, a `.gguf` file or a hub id.
    pub base: PathBuf,
    /// How the engine holds the weights.
    pub weights: RolloutWeights,
    /// How the engine holds the KV cache.
    pub kv: RolloutKv,
    /// Where the switcher stops reading; the template's generation prompt if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// Threads of the engine; 0 for all cores.
    #[serde(default)]
    pub threads: usize,
}

/// Queries to answer at once, and queries to think about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledRecipe {
    /// Label 0.
    pub easy: SetRecipe,
    /// Label 1.
    pub hard: SetRecipe,
    /// Texts of system messages, of which each query gets one in turn; an empty text is none. None at all if absent.
    #[serde(default)]
    pub systems: Vec<String>,
    /// Earlier turns, of which each query gets one list in turn; an empty list is none. None at all if absent.
    #[serde(default)]
    pub histories: Vec<Vec<Message>>,
    /// Earlier turns by lot, instead of `histories`. None if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<TurnsRecipe>,
    /// Longer prompts are left out, and counted.
    pub max_prompt_tokens: usize,
    /// Share of each set that is not learnt from.
    pub held_out: f64,
}

/// Rows with a `prompt`, a text or messages, or of a published data set: then what it asks, without instructions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRecipe {
    /// `.jsonl` or `.parquet` files.
    pub files: Vec<PathBuf>,
    /// The published data set whose fields the rows have; by the fields of each row if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// Only rows with these values, such as `{ kind = "easy" }`.
    #[serde(default, rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    pub only: BTreeMap<String, Value>,
    /// The first so many distinct prompts; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Whether a row has these values.
pub(super) fn has(row: &Value, only: &BTreeMap<String, Value>) -> bool {
    only.iter().all(|(key, value)| row.get(key) == Some(value))
}

/// Questions and what was said to them, in front of a share of the queries: a conversation that has gone on for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnsRecipe {
    /// Share of the queries that stand behind such turns, above 0.
    pub share: f64,
    /// Such a query stands behind one to so many turns; the oldest are left off where `max_prompt_tokens` are too few.
    pub most: usize,
    /// Where the turns are from; each of these with the same chance, however many rows it has.
    pub sets: Vec<TurnSetRecipe>,
}

/// Rows with a `prompt` and a reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnSetRecipe {
    /// `.jsonl` or `.parquet` files.
    pub files: Vec<PathBuf>,
    /// Only rows with these values.
    #[serde(default, rename = "where", skip_serializing_if = "BTreeMap::is_empty")]
    pub only: BTreeMap<String, Value>,
    /// The field that holds the reply, a text or messages of which the last one counts; a thought in front of it is left out.
    #[serde(default = "completion")]
    pub reply: String,
}

fn completion() -> String {
    "completion".to_owned()
}

/// How states are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AverageRecipe {
    /// Tokens of a chunk.
    pub chunk_tokens: usize,
    /// Weight of a new chunk.
    pub alpha: f64,
}

impl Default for AverageRecipe {
    fn default() -> Self {
        let paper = edgethink_reason::switcher::Averaging::default();
        Self {
            chunk_tokens: paper.chunk_tokens,
            alpha: paper.alpha,
        }
    }
}

/// The network between the average and the score; the paper's by default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadRecipe {
    /// Units of the hidden layer.
    pub hidden: usize,
    /// Standard deviation of the noise on the standardised average.
    pub noise: f32,
    /// Share of the hidden units set to zero in training.
    pub dropout: f32,
}

impl Default for HeadRecipe {
    fn default() -> Self {
        Self {
            hidden: 8,
            noise: 0.5,
            dropout: 0.2,
        }
    }
}

/// Length and batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitcherRunRecipe {
    /// Passes over the queries.
    pub epochs: u64,
    /// Queries of one optimizer step.
    pub batch_size: usize,
}

impl SwitcherRecipe {
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
        let (data, average, head) = (&self.data, &self.average, &self.head);
        for (name, set) in [("easy", &data.easy), ("hard", &data.hard)] {
            require(
                !set.files.is_empty(),
                &format!("[data] {name} names no file"),
            );
            require(
                set.limit.is_none_or(|limit| limit >= 2),
                &format!("[data] {name} limit must be at least 2: one to learn, one held out"),
            );
        }
        if let Some(turns) = &data.turns {
            require(
                data.histories.is_empty(),
                "[data] has histories and turns; leave one of them out",
            );
            require(
                turns.share > 0.0 && turns.share <= 1.0,
                "[data.turns] share must be above 0 and at most 1; leave turns out for none",
            );
            require(
                (1..=16).contains(&turns.most),
                "[data.turns] most must be from 1 to 16",
            );
            require(!turns.sets.is_empty(), "[data.turns] names no sets");
            for set in &turns.sets {
                require(!set.files.is_empty(), "[data.turns] a set names no file");
            }
        }
        require(
            data.max_prompt_tokens > 0,
            "[data] max_prompt_tokens must be at least 1",
        );
        require(
            data.held_out > 0.0 && data.held_out <= 0.5,
            "[data] held_out must be above 0 and at most 0.5",
        );
        require(
            average.chunk_tokens > 0,
            "[average] chunk_tokens must be at least 1",
        );
        require(
            average.alpha > 0.0 && average.alpha <= 1.0,
            "[average] alpha must be above 0 and at most 1",
        );
        require(
            (1..=1024).contains(&head.hidden),
            "[head] hidden must be from 1 to 1024",
        );
        require(
            head.noise >= 0.0 && head.noise.is_finite(),
            "[head] noise must not be negative",
        );
        require(
            (0.0..1.0).contains(&head.dropout),
            "[head] dropout must be in [0, 1)",
        );
        require(self.run.epochs > 0, "[run] epochs must be at least 1");
        require(
            self.run.batch_size > 0,
            "[run] batch_size must be at least 1",
        );
        optimizer_problems(&self.optimizer, &mut found);
        found
    }
}
