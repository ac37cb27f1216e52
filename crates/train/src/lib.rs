//! Training: full training and LoRA SFT with the prompt mask, on a tensor library.
//!
//! [`base`] trains every parameter of a network, from scratch or from an existing model; [`sft`] trains a LoRA
//! adapter on a frozen base; [`grpo`] makes its thoughts short by reinforcement learning; [`switcher`] trains the
//! head that says which queries need one; [`verifier`] the head that says how likely a response is right; [`quantize`] the transforms and
//! ranges of a quantized base. Each reads a recipe ([`BaseRecipe`], [`SftRecipe`], [`GrpoRecipe`], [`SwitcherRecipe`],
//! [`VerifierRecipe`], [`QuantizeRecipe`]), tells a [`Progress`] what happens, and writes what Hugging Face tools read. Only this crate
//! knows the tensor library, and none of its types leave it.

mod base;
mod base_model;
mod data;
mod device;
mod error;
#[cfg(test)]
mod golden;
mod gradient;
mod grpo;
mod net;
mod ops;
mod optimizer;
mod params;
mod plan;
mod process_group;
mod quantize;
mod recipe;
mod run;
mod sft;
mod switcher;
mod verifier;

pub use base::{Summary, base, base_in};
pub use data::{
    Benchmark, BenchmarkOverlap, FEWEST_WORDS, Lengths, Overlap, Schema, Shared, Spread, bin,
    decontaminate, histogram, lengths,
};
pub use device::DeviceChoice;
pub use error::TrainError;
pub use grpo::{
    BackendRecipe, BudgetRecipe, GrpoRecipe, GrpoRunRecipe, GuardRecipe, ObjectiveRecipe, Outcome,
    PolicyLoss, PolicyRecipe, PolicySummary, QuestionsRecipe, Reward, RolloutKv, RolloutRecipe,
    RolloutWeights, ServersRecipe, grpo, grpo_in, soft_barrier,
};
pub use plan::{Cost, DevicePlan, LayerCost, Plan, PlanOptions, Recipe, Remedy, Speed, Work, plan};
pub use process_group::ProcessGroup;
pub use quantize::{QuantizeRecipe, quantize};
pub use recipe::{
    BaseFormat, BaseRecipe, Checkpointing, DataRecipe, FloatType, LoraRecipe, LossOn, ModelRecipe,
    OptimizerRecipe, Overlong, RunRecipe, Schedule, SftRecipe,
};
pub use run::{Event, Progress, Silent};
pub use sft::{sft, sft_in};
pub use switcher::{
    AverageRecipe, HeadRecipe, LabelledRecipe, SetRecipe, StatesRecipe, SwitcherRecipe,
    SwitcherRunRecipe, SwitcherSummary, TurnSetRecipe, TurnsRecipe, switcher,
};
pub use verifier::{
    SampleRecipe, VerifiedRecipe, VerifierDataRecipe, VerifierHeadRecipe, VerifierRecipe,
    VerifierRunRecipe, VerifierSummary, verifier,
};
