//! GenRM, the verifier without training: the probability that the model answers "Yes" (arXiv 2408.15240).
//!
//! The model is asked whether the answer is correct, the tokens of "Yes" are forced, and the score is the product of their
//! probabilities before temperature: p(Yes) = exp(sum of log p).

use edgethink_model::Model;

use super::{VerifierError, head::encode};

/// The question of the paper.
pub const DEFAULT_QUESTION: &str = "\nIs the answer correct (Yes/No)?";
/// What is forced.
pub const DEFAULT_YES: &str = " Yes";

/// A question and its affirmative answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenRm {
    question: Vec<u32>,
    yes: Vec<u32>,
}

impl GenRm {
    /// The usual question.
    ///
    /// # Errors
    /// As [`GenRm::with`].
    pub fn new(model: &Model) -> Result<Self, VerifierError> {
        Self::with(model, DEFAULT_QUESTION, DEFAULT_YES)
    }

    /// Another question, or another answer to it.
    ///
    /// # Errors
    /// A model without tokenizer, or texts without tokens.
    pub fn with(model: &Model, question: &str, yes: &str) -> Result<Self, VerifierError> {
        Ok(Self {
            question: encode(model, question, "question")?,
            yes: encode(model, yes, "answer")?,
        })
    }

    /// Tokens of the question, `[Q]`.
    pub fn question(&self) -> &[u32] {
        &self.question
    }

    /// Tokens of the affirmative answer, at least one.
    pub fn yes(&self) -> &[u32] {
        &self.yes
    }

    /// The score from the log-probabilities of the forced tokens, nats.
    ///
    /// # Errors
    /// [`VerifierError::Length`] unless there is one for each, [`VerifierError::NotANumber`].
    pub fn score(&self, logprobs: &[f32]) -> Result<f32, VerifierError> {
        if logprobs.len() != self.yes.len() {
            return Err(VerifierError::Length {
                expected: self.yes.len(),
                found: logprobs.len(),
            });
        }
        let sum: f64 = logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
        if sum.is_nan() {
            return Err(VerifierError::NotANumber);
        }
        // A probability a rounding error above 1 is 1.
        Ok(sum.exp().min(1.0) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_the_product_of_probabilities() {
        let genrm = GenRm {
            question: vec![1],
            yes: vec![2, 3],
        };
        let score = |logprobs: &[f32]| genrm.score(logprobs);
        // exp(-2.5)
        let p = score(&[-2.0, -0.5]).expect("a score");
        assert!((p - 0.082_085).abs() < 1e-7);
        assert_eq!(score(&[f32::NEG_INFINITY, 0.0]).expect("a score"), 0.0);
        assert_eq!(score(&[1e-6, 0.0]).expect("a score"), 1.0);
        let short = score(&[0.0]);
        assert!(
            matches!(short, Err(VerifierError::Length { .. })),
            "{short:?}"
        );
        let nan = score(&[f32::NAN, 0.0]);
        assert!(matches!(nan, Err(VerifierError::NotANumber)), "{nan:?}");
    }
}
