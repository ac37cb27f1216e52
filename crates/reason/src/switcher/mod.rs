//! The switcher: reads the base's hidden states while the prompt is encoded, and says whether the query needs a thought (METHOD 4).
//!
//! - [`average`]: the running average of the states
//! - [`mlp`]: from the average to a score
//! - [`cache`]: averages of prompts that begin alike
//! - [`read`]: a prompt's way through all of these, in a pipeline or on its own
//! - [`routing`]: AUROC, the curve of accuracy and tokens along the share of thoughts, and the threshold that a wish needs
//!
//! It reads the tokens before the generation prompt: the part of the prompt that the base encodes in both modes, so nothing is computed
//! twice.

pub mod average;
pub mod cache;
mod error;
pub mod mlp;
pub mod read;
pub mod routing;

use edgethink_model::{ContentHash, HeadFile};
use serde_json::{Map, Value};

pub use average::{Averaging, Running};
pub use cache::Averages;
pub use error::SwitcherError;
pub use mlp::Mlp;
pub use read::{Reading, averages, score};

/// The word for it in a head's file.
pub const KIND: &str = "switcher";
/// The only states that a switcher reads: those that the lm_head reads.
pub const LAYER: &str = "final_norm";

/// A trained switcher on its base.
#[derive(Debug, Clone, PartialEq)]
pub struct Switcher {
    averaging: Averaging,
    mlp: Mlp,
    threshold: f32,
    invocation: Vec<u32>,
}

impl Switcher {
    /// From a head's file that is already in memory.
    ///
    /// # Errors
    /// [`SwitcherError::Head`] for a head of another kind or base, [`SwitcherError::Setting`], [`SwitcherError::Std`].
    pub fn new(
        file: &HeadFile,
        base: &ContentHash,
        hidden_size: usize,
    ) -> Result<Self, SwitcherError> {
        file.expect(KIND, base, hidden_size)?;
        let settings = Settings(&file.settings);
        settings.layer()?;
        Ok(Self {
            averaging: settings.averaging()?,
            mlp: Mlp::read(file)?,
            threshold: settings.threshold()?,
            invocation: settings.invocation()?,
        })
    }

    /// How it averages.
    pub fn averaging(&self) -> Averaging {
        self.averaging
    }

    /// The least score that asks for a thought.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// E of its base.
    pub fn hidden_size(&self) -> usize {
        self.mlp.mean.len()
    }

    /// How many of a prompt's first tokens it reads: those before the last generation prompt, or all if there is none.
    pub fn reads(&self, prompt: &[u32]) -> usize {
        read_tokens(&self.invocation, prompt)
    }

    /// The score of an average, from 0 (answer at once) to 1 (think).
    ///
    /// # Errors
    /// [`SwitcherError::NotFinite`], or [`SwitcherError::Rows`] for another width.
    pub fn score(&self, average: &[f32]) -> Result<f32, SwitcherError> {
        self.mlp.score(average)
    }

    /// Whether a query with this score gets a thought.
    pub fn thinks(&self, score: f32) -> bool {
        score >= self.threshold
    }
}

/// Tokens of `prompt` before the last occurrence of `invocation`; all of them where it does not occur or is empty.
pub fn read_tokens(invocation: &[u32], prompt: &[u32]) -> usize {
    if invocation.is_empty() {
        return prompt.len();
    }
    let mut windows = prompt.windows(invocation.len());
    windows
        .rposition(|window| window == invocation)
        .unwrap_or(prompt.len())
}

/// The settings of a switcher's file.
struct Settings<'a>(&'a Map<String, Value>);

impl Settings<'_> {
    fn layer(&self) -> Result<(), SwitcherError> {
        if self.0.get("layer").and_then(Value::as_str) == Some(LAYER) {
            Ok(())
        } else {
            Err(wrong("layer", "\"final_norm\""))
        }
    }

    fn averaging(&self) -> Result<Averaging, SwitcherError> {
        let chunk_tokens = self.0.get("chunk_tokens").and_then(Value::as_u64);
        let chunk_tokens = chunk_tokens.and_then(|n| usize::try_from(n).ok());
        let alpha = self.0.get("alpha").and_then(Value::as_f64);
        Ok(Averaging {
            chunk_tokens: chunk_tokens
                .filter(|&n| n > 0)
                .ok_or_else(|| wrong("chunk_tokens", "a whole number above 0"))?,
            alpha: alpha
                .filter(|&alpha| alpha > 0.0 && alpha <= 1.0)
                .ok_or_else(|| wrong("alpha", "a number above 0 and at most 1"))?,
        })
    }

    fn threshold(&self) -> Result<f32, SwitcherError> {
        let threshold = self.0.get("threshold").and_then(Value::as_f64);
        threshold
            .filter(|threshold| (0.0..=1.0).contains(threshold))
            .map(|threshold| threshold as f32)
            .ok_or_else(|| wrong("threshold", "a number from 0 to 1"))
    }

    fn invocation(&self) -> Result<Vec<u32>, SwitcherError> {
        let list = self.0.get("invocation").and_then(Value::as_array);
        let tokens = list.and_then(|list| {
            let tokens = list.iter().map(|token| u32::try_from(token.as_u64()?).ok());
            tokens.collect()
        });
        tokens.ok_or_else(|| wrong("invocation", "a list of token ids"))
    }
}

fn wrong(name: &'static str, expected: &'static str) -> SwitcherError {
    SwitcherError::Setting { name, expected }
}

#[cfg(test)]
mod tests;
