//! Where completions come from: our engine in this process, or servers.
//!
//! Both draw a step's groups with one version of the policy and tell each token's log-probability under the distribution that it was drawn
//! from. The trainer computes them again, measures the difference and corrects for it, so a backend is trusted in nothing but its tokens.
//! Several processes share the prompts of a draw ([`shared`]).

mod completions;
mod engine;
mod fleet;
mod llama_server;
mod recipe;
mod server;
mod sglang;
mod shared;

pub(crate) use engine::Sampler;
pub(crate) use fleet::{Fleet, Place};
pub use recipe::{BackendRecipe, ServersRecipe};
pub(crate) use shared::Shared;

use super::questions::Prompt;
use crate::{error::TrainError, params::Param};

/// One completion.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Completion {
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the distribution that it was drawn from.
    pub logprobs: Vec<f32>,
    /// It ended by itself, not at the cap.
    pub ended: bool,
    /// Version of the policy that drew it: the optimizer steps made.
    pub version: u64,
}

/// What to draw for each prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws {
    /// Completions of each prompt.
    pub n: usize,
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Tokens of a completion at most.
    pub cap: usize,
    /// Seed of the first prompt; the others count up.
    pub seed: u64,
}

/// The servers of a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ServerCount {
    /// Those whose last request was answered.
    pub live: usize,
    /// All that are named.
    pub all: usize,
    /// Requests of the last draw that failed and were made again.
    pub retried: usize,
}

/// Draws completions with the newest version of the policy that it was given.
pub(crate) trait RolloutBackend: Send {
    /// Puts a version of the policy in place of the one before; does nothing if it is there.
    ///
    /// # Errors
    /// [`TrainError`] for an adapter that cannot be written or loaded.
    fn update(&mut self, version: u64, params: &[Param]) -> Result<(), TrainError>;

    /// Draws `draws.n` completions for each prompt, in the order of the prompts.
    ///
    /// # Errors
    /// [`TrainError::Engine`], also for numbers that are not finite; [`TrainError::Servers`] once no server answers.
    fn draw(
        &mut self,
        prompts: &[Prompt],
        draws: Draws,
    ) -> Result<Vec<Vec<Completion>>, TrainError>;

    /// What it is, in a line for people.
    fn told(&self) -> String;

    /// How many servers there are, if it has any.
    fn servers(&self) -> Option<ServerCount> {
        None
    }
}
