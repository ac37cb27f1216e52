//! The recipe of `train grpo`: everything that is refused is refused here, before anything is loaded, all problems at once.

use std::path::{Path, PathBuf};

use edgethink_engine::{KvFormat, WeightFormat};
use serde::{Deserialize, Serialize};

use super::{reward::Reward, rollout::BackendRecipe};
use crate::{
    data::Schema,
    device::DeviceChoice,
    error::TrainError,
    recipe::{
        BaseFormat, Checkpointing, FloatType, OptimizerRecipe, default_limit, default_resume,
        default_skipped, load, optimizer_problems,
    },
};

/// Reinforcement learning of an adapter under token budgets (METHOD 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoRecipe {
    /// Where the adapter, the checkpoints and the logs go.
    pub output_dir: PathBuf,
    /// Seed of the order of questions, of the budgets and of all draws.
    pub seed: u64,
    /// What is trained.
    pub model: PolicyRecipe,
    /// What is asked.
    pub data: QuestionsRecipe,
    /// The budgets.
    pub budget: BudgetRecipe,
    /// How completions are drawn.
    pub rollout: RolloutRecipe,
    /// Rewards; their weighted sum counts.
    pub reward: Vec<Reward>,
    /// The loss.
    #[serde(default)]
    pub objective: ObjectiveRecipe,
    /// AdamW and its schedule.
    pub optimizer: OptimizerRecipe,
    /// Length and saving.
    pub run: GrpoRunRecipe,
    /// When a run is stopped as hopeless.
    #[serde(default)]
    pub guard: GuardRecipe,
}

/// The frozen base and the adapter to start from, which is also the reference policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRecipe {
    /// A Hugging Face model directory.
    pub base: PathBuf,
    /// A PEFT directory, as `train sft` writes it.
    pub adapter: PathBuf,
}

/// Questions with answers: rows of `prompt` (messages or text) and an answer, or of a published data set that has both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionsRecipe {
    /// `.jsonl` or `.parquet` files.
    pub train: Vec<PathBuf>,
    /// Files of the evaluation during the run.
    #[serde(default)]
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
    /// Longer prompts are left out, and counted.
    pub max_prompt_tokens: usize,
}

/// Budgets and how they are named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetRecipe {
    /// One is drawn for each question, evenly. Tokens of the whole response.
    pub tokens: Vec<usize>,
    /// The last line of the user's turn; `{B}` is the budget.
    #[serde(default = "default_line")]
    pub line: String,
    /// Share of the questions whose budget is not named: the largest then counts. So thoughts are short without being asked to.
    #[serde(default)]
    pub unnamed: f64,
}

/// How completions are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutRecipe {
    /// Questions of one step.
    pub questions_per_step: usize,
    /// Completions of each question, G.
    pub group: usize,
    /// Divides the logits.
    pub temperature: f32,
    /// Completions are cut here.
    pub max_completion_tokens: usize,
    /// How the engine holds the base's weights: what will be deployed.
    #[serde(default)]
    pub weights: RolloutWeights,
    /// How the engine holds the KV cache.
    #[serde(default)]
    pub kv: RolloutKv,
    /// Streams that are decoded at the same time.
    #[serde(default = "default_streams")]
    pub max_sequences: usize,
    /// Questions are drawn anew, at most so many times, while groups without signal leave the step short (DAPO's dynamic sampling). 0 is off.
    #[serde(default)]
    pub resample: usize,
    /// Who draws: the engine in this process, or servers.
    #[serde(default, skip_serializing_if = "BackendRecipe::is_engine")]
    pub backend: BackendRecipe,
    /// How many optimizer steps older than the policy that learns from it a completion may be. 0 draws and learns in turn; with 1 or more
    /// the next steps are drawn while the current one is learnt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_staleness: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Steps that rollouts may be behind at most: what is older is corrected for by hardly more than noise.
const MOST_STALE: u64 = 64;
/// `[guard] max_mismatch` of servers, nats per token.
const SERVERS_MISMATCH: f64 = 0.1;

/// Weights of the engine that draws completions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutWeights {
    /// As they are in the file.
    #[default]
    Stored,
    /// 8 bits.
    Q8,
    /// 4 bits.
    Q4,
}

/// KV cache of the engine that draws completions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutKv {
    /// Not rounded.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// 8 bits.
    Int8,
}

impl From<RolloutWeights> for WeightFormat {
    fn from(weights: RolloutWeights) -> Self {
        match weights {
            RolloutWeights::Stored => Self::Stored,
            RolloutWeights::Q8 => Self::Q8,
            RolloutWeights::Q4 => Self::Q4,
        }
    }
}

impl From<RolloutKv> for KvFormat {
    fn from(kv: RolloutKv) -> Self {
        match kv {
            RolloutKv::F32 => Self::F32,
            RolloutKv::F16 => Self::F16,
            RolloutKv::Int8 => Self::Int8,
        }
    }
}

/// The loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveRecipe {
    /// How tokens are averaged.
    pub loss: PolicyLoss,
    /// The ratio is cut below 1 - epsilon ...
    pub epsilon: f32,
    /// ... and above 1 + epsilon_high; epsilon if absent (DAPO's clip-higher).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f32>,
    /// Weight of the divergence from the adapter that the run started from.
    pub beta: f32,
    /// Largest weight of a token whose log-probability differs between sampler and trainer, or between the version of the policy that drew
    /// it and the one that learns (truncated importance sampling). 0 leaves all weights 1: the difference is measured and not corrected.
    pub importance_cap: f32,
    /// Optimizer steps on each batch of completions.
    pub iterations: usize,
    /// Divide the advantage by the group's standard deviation.
    pub scale_rewards: bool,
    /// Leave out completions that were cut at the cap.
    pub mask_truncated: bool,
}

impl Default for ObjectiveRecipe {
    fn default() -> Self {
        Self {
            loss: PolicyLoss::Dapo,
            epsilon: 0.2,
            epsilon_high: None,
            beta: 1e-3,
            importance_cap: 2.0,
            iterations: 1,
            scale_rewards: true,
            mask_truncated: false,
        }
    }
}

impl ObjectiveRecipe {
    /// The upper cut.
    pub(crate) fn epsilon_high(&self) -> f32 {
        self.epsilon_high.unwrap_or(self.epsilon)
    }
}

/// How tokens are averaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyLoss {
    /// Over the tokens of each completion, then over completions.
    Grpo,
    /// Over all tokens of the step.
    #[default]
    Dapo,
    /// Sum over tokens by completions times the cap.
    DrGrpo,
}

/// Length and saving of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoRunRecipe {
    /// Batches of completions.
    pub steps: u64,
    /// Tokens of one forward and backward pass; any value gives the same gradient.
    pub micro_batch_tokens: usize,
    /// How the matrices of the base are held; sums stay f32.
    #[serde(default, skip_serializing_if = "BaseFormat::is_f32")]
    pub base_dtype: BaseFormat,
    /// Of the products with the linear layers of the base, forward and backward: `bf16` rounds what they multiply and their results.
    /// Everything else stays f32.
    #[serde(default, skip_serializing_if = "FloatType::is_f32")]
    pub compute_dtype: FloatType,
    /// Of the written adapter.
    #[serde(default = "default_save")]
    pub save_dtype: FloatType,
    /// Whether only the inputs of the layers are kept, and each layer is run again in the backward pass.
    #[serde(default)]
    pub gradient_checkpointing: Checkpointing,
    /// Steps between two lines of the log.
    pub log_every: u64,
    /// Steps between two evaluations, 0 for only before the first step and after the last.
    #[serde(default)]
    pub eval_every: u64,
    /// Questions of an evaluation.
    #[serde(default = "default_eval_questions")]
    pub eval_questions: usize,
    /// Steps between two checkpoints; 0 for none.
    pub save_every: u64,
    /// Checkpoints kept.
    #[serde(default = "default_limit")]
    pub save_total_limit: usize,
    /// Steps between two tables of completions; 0 for none.
    #[serde(default)]
    pub completions_every: u64,
    /// Where the network learns: `cpu`, `vulkan`, `cuda` or `metal`, and `vulkan:N` for one of several GPUs. Our engine draws on the CPU.
    #[serde(default, skip_serializing_if = "DeviceChoice::is_cpu")]
    pub device: DeviceChoice,
    /// Threads; 0 for all cores.
    #[serde(default)]
    pub threads: usize,
    /// `auto` (the newest checkpoint of `output_dir`, if any), `none`, or a checkpoint.
    #[serde(default = "default_resume")]
    pub resume: String,
}

/// When a run is stopped: each limit is a number of steps in a row, or a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardRecipe {
    /// Steps in which no completion had a reward.
    pub zero_reward_steps: u64,
    /// Steps in which every completion was cut at the cap.
    pub clipped_steps: u64,
    /// Steps in which no group had a signal.
    pub no_signal_steps: u64,
    /// Steps with a gradient that is not finite.
    pub non_finite_steps: u64,
    /// Mean divergence from the reference, nats per token.
    pub max_kl: f64,
    /// Mean entropy, nats per token.
    pub max_entropy: f64,
    /// Mean tokens of the visible answers, as a multiple of those of the first step ...
    pub max_answer_growth: f64,
    /// ... and steps beyond it.
    pub long_answer_steps: u64,
    /// A step is refused before it is learnt if the log-probabilities of sampler and trainer differ by more, nats per token on average. It
    /// finds servers with another base, with an adapter that acts where it should not, or with log-probabilities of another
    /// temperature. Left out, it is 0.1 for servers and no limit for the engine in process. Stale completions differ by what was learnt
    /// since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_mismatch: Option<f64>,
}

impl Default for GuardRecipe {
    fn default() -> Self {
        Self {
            zero_reward_steps: 20,
            clipped_steps: 10,
            no_signal_steps: 20,
            non_finite_steps: default_skipped(),
            max_kl: 5.0,
            max_entropy: 4.0,
            max_answer_growth: 4.0,
            long_answer_steps: 5,
            max_mismatch: None,
        }
    }
}

fn default_answer() -> String {
    "answer".to_owned()
}
fn default_line() -> String {
    "Use at most {B} tokens.".to_owned()
}
fn default_streams() -> usize {
    64
}
fn default_eval_questions() -> usize {
    200
}
fn default_save() -> FloatType {
    FloatType::F32
}

impl GrpoRecipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with every problem found.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        load(path, Self::problems)
    }

    /// The limit of `[guard] max_mismatch`, if there is one.
    pub(crate) fn max_mismatch(&self) -> Option<f64> {
        let servers = !self.rollout.backend.is_engine();
        self.guard
            .max_mismatch
            .or(servers.then_some(SERVERS_MISMATCH))
    }

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut require = |ok: bool, text: &str| {
            if !ok {
                found.push(text.to_owned());
            }
        };
        let (budget, rollout, objective, run) =
            (&self.budget, &self.rollout, &self.objective, &self.run);
        require(
            self.output_dir != self.model.adapter,
            "output_dir is [model] adapter: the result would replace what the run starts from",
        );
        require(!self.data.train.is_empty(), "[data] train names no file");
        require(
            self.data.max_prompt_tokens > 0,
            "[data] max_prompt_tokens must be at least 1",
        );
        require(!budget.tokens.is_empty(), "[budget] tokens names no budget");
        require(
            !budget.tokens.contains(&0),
            "[budget] tokens must be at least 1 each",
        );
        require(
            budget.line.contains("{B}"),
            "[budget] line must contain {B}, the place of the budget",
        );
        require(
            (0.0..=1.0).contains(&budget.unnamed),
            "[budget] unnamed must be a share in [0, 1]",
        );
        require(
            rollout.questions_per_step > 0,
            "[rollout] questions_per_step must be at least 1",
        );
        require(
            (2..=edgethink_engine::MAX_STREAMS).contains(&rollout.group),
            "[rollout] group must be from 2 to 1024: a group of one has no mean to compare with",
        );
        require(
            rollout.temperature > 0.0 && rollout.temperature.is_finite(),
            "[rollout] temperature must be positive: equal completions teach nothing",
        );
        require(
            rollout.max_completion_tokens > 0,
            "[rollout] max_completion_tokens must be at least 1",
        );
        require(
            rollout.max_sequences > 0,
            "[rollout] max_sequences must be at least 1",
        );
        require(
            !self.reward.is_empty(),
            "[[reward]] is missing: name at least one",
        );
        require(
            (0.0..1.0).contains(&objective.epsilon) && objective.epsilon > 0.0,
            "[objective] epsilon must be in (0, 1)",
        );
        require(
            objective
                .epsilon_high
                .is_none_or(|e| e.is_finite() && e >= objective.epsilon),
            "[objective] epsilon_high must not be below epsilon",
        );
        require(
            objective.beta >= 0.0 && objective.beta.is_finite(),
            "[objective] beta must not be negative",
        );
        require(
            (objective.importance_cap >= 1.0 && objective.importance_cap.is_finite())
                || objective.importance_cap == 0.0,
            "[objective] importance_cap must be at least 1, or 0 for no correction",
        );
        require(
            objective.iterations > 0,
            "[objective] iterations must be at least 1",
        );
        require(run.steps > 0, "[run] steps must be at least 1");
        let longest = self
            .data
            .max_prompt_tokens
            .saturating_add(rollout.max_completion_tokens);
        require(
            run.micro_batch_tokens >= longest,
            "[run] micro_batch_tokens must be at least [data] max_prompt_tokens plus [rollout] max_completion_tokens",
        );
        require(run.log_every > 0, "[run] log_every must be at least 1");
        require(
            run.save_total_limit > 0,
            "[run] save_total_limit must be at least 1",
        );
        let g = &self.guard;
        require(
            g.zero_reward_steps > 0
                && g.clipped_steps > 0
                && g.no_signal_steps > 0
                && g.non_finite_steps > 0
                && g.long_answer_steps > 0,
            "[guard] numbers of steps must be at least 1",
        );
        require(
            g.max_kl > 0.0 && g.max_entropy > 0.0,
            "[guard] limits must be positive",
        );
        require(
            g.max_answer_growth >= 1.0,
            "[guard] max_answer_growth must be at least 1",
        );
        require(
            g.max_mismatch.is_none_or(|most| most > 0.0),
            "[guard] max_mismatch must be positive",
        );
        require(
            rollout.max_staleness <= MOST_STALE,
            "[rollout] max_staleness must be at most 64 steps",
        );
        let engines_own = (rollout.weights, rollout.kv, rollout.max_sequences);
        require(
            rollout.backend.is_engine()
                || engines_own == (RolloutWeights::Stored, RolloutKv::F32, default_streams()),
            "[rollout] weights, kv and max_sequences are of the engine in this process; servers are told when they are started",
        );
        let kinds: Vec<&str> = self.reward.iter().map(Reward::name).collect();
        require(
            (1..kinds.len()).all(|i| !kinds[..i].contains(&kinds[i])),
            "[[reward]] names a kind twice, and each has one metric and one column; leave one out",
        );
        for reward in &self.reward {
            reward.problems(&budget.tokens, rollout.max_completion_tokens, &mut found);
        }
        rollout.backend.problems(&mut found);
        optimizer_problems(&self.optimizer, &mut found);
        found
    }
}
