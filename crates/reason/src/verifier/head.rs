//! The trained verifier: score = sigmoid(w . h + c l + b).
//!
//! h `[E]` is the final hidden state of the question's last token (METHOD 5). The term c l is ours and may be absent: l is the
//! [`confidence`] of the response, which decoding gives for nothing.
//!
//! Its file is a [`HeadFile`] of the kind `verifier` with the tensors `weight` w `[E]`, `bias` b `[1]` and perhaps `confidence` c `[1]`,
//! and the setting `question`, the text that follows the response. Training standardises its inputs; the file holds the weights for plain
//! ones.

use edgethink_model::{HeadFile, HeadTensor, Model};
use serde_json::{Map, Value};

use super::VerifierError;

/// The kind in a head's file.
pub const KIND: &str = "verifier";
/// The setting with the verification question.
pub const QUESTION: &str = "question";
/// The wording where nothing else was measured to be better (METHOD 5).
pub const DEFAULT_QUESTION: &str = "\nIs this answer correct?";

/// Surprise below which responses are equally sure, nats per token.
const SURE: f64 = 1e-3;

/// How sure the model was of a response: -ln of its mean surprise, from the mean log-probability of its tokens, nats.
///
/// The logarithm makes scores calibrated: a surprise of 0.4 says little more than one of 0.2, one of 0.004 much more than 0.02.
pub fn confidence(mean_logprob: f32) -> f64 {
    -(SURE - f64::from(mean_logprob)).ln()
}

/// A linear layer on a hidden state, and the question that the state answers.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifierHead {
    question: Vec<u32>,
    /// `[E]`
    weight: Vec<f32>,
    bias: f32,
    confidence: Option<f32>,
}

impl VerifierHead {
    /// The head in `file`, if it was trained on `model`.
    ///
    /// # Errors
    /// [`VerifierError`] for another kind or base, missing tensors or settings, a question without tokens.
    pub fn new(file: &HeadFile, model: &Model) -> Result<Self, VerifierError> {
        let hash = model.hash().map_err(VerifierError::Base)?;
        let width = model.config.hidden_size;
        file.expect(KIND, &hash, width)?;
        let question = file.settings.get(QUESTION).and_then(Value::as_str);
        let question = question.ok_or(VerifierError::Setting {
            name: QUESTION,
            expected: "a text",
        })?;
        let question = encode(model, question, "question")?;
        Ok(Self {
            question,
            weight: file.tensor("weight", &[width])?.to_vec(),
            bias: file.tensor("bias", &[1])?[0],
            confidence: match file.tensors.contains_key("confidence") {
                true => Some(file.tensor("confidence", &[1])?[0]),
                false => None,
            },
        })
    }

    /// The file of a head with these weights, for `model`. `settings` are kept beside the question.
    ///
    /// # Errors
    /// [`VerifierError::Base`].
    pub fn file(
        model: &Model,
        question: &str,
        weight: Vec<f32>,
        bias: f32,
        confidence: Option<f32>,
        mut settings: Map<String, Value>,
    ) -> Result<HeadFile, VerifierError> {
        settings.insert(QUESTION.to_owned(), question.into());
        let tensor = |shape, data| HeadTensor { shape, data };
        let mut tensors = vec![
            ("weight", tensor(vec![weight.len()], weight)),
            ("bias", tensor(vec![1], vec![bias])),
        ];
        tensors.extend(confidence.map(|c| ("confidence", tensor(vec![1], vec![c]))));
        Ok(HeadFile {
            kind: KIND.to_owned(),
            base: model.hash().map_err(VerifierError::Base)?.to_string(),
            hidden_size: model.config.hidden_size,
            settings,
            tensors: tensors
                .into_iter()
                .map(|(name, t)| (name.to_owned(), t))
                .collect(),
        })
    }

    /// Tokens of the question, `[Q]`.
    pub fn question(&self) -> &[u32] {
        &self.question
    }

    /// Whether the score needs the mean log-probability of the response.
    pub fn reads_confidence(&self) -> bool {
        self.confidence.is_some()
    }

    /// The score of a hidden state `[E]` and the mean log-probability of the response. Sums in f64 from the first element to the last.
    ///
    /// # Errors
    /// [`VerifierError::Length`], [`VerifierError::Confidence`] or [`VerifierError::NotANumber`].
    pub fn score(&self, hidden: &[f32], mean_logprob: Option<f32>) -> Result<f32, VerifierError> {
        if hidden.len() != self.weight.len() {
            return Err(VerifierError::Length {
                expected: self.weight.len(),
                found: hidden.len(),
            });
        }
        let dot: f64 = hidden
            .iter()
            .zip(&self.weight)
            .map(|(&h, &w)| f64::from(h) * f64::from(w))
            .sum();
        let confidence = match (self.confidence, mean_logprob) {
            (Some(c), Some(l)) => f64::from(c) * confidence(l),
            (Some(_), None) => return Err(VerifierError::Confidence),
            (None, _) => 0.0,
        };
        let logit = dot + confidence + f64::from(self.bias);
        if !logit.is_finite() {
            return Err(VerifierError::NotANumber);
        }
        Ok((1.0 / (1.0 + (-logit).exp())) as f32)
    }
}

/// Tokens of a text that the base reads, at least one.
pub(super) fn encode(
    model: &Model,
    text: &str,
    what: &'static str,
) -> Result<Vec<u32>, VerifierError> {
    let tokenizer = model.tokenizer.as_ref();
    let tokens = tokenizer
        .ok_or(VerifierError::NoTokenizer)?
        .encode(text, false)?;
    if tokens.is_empty() {
        return Err(VerifierError::Empty { what });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(weight: &[f32], bias: f32) -> VerifierHead {
        VerifierHead {
            question: vec![1],
            weight: weight.to_vec(),
            bias,
            confidence: None,
        }
    }

    #[test]
    fn the_score_is_the_sigmoid_of_a_dot_product() {
        // 0.5 * 2 - 1 * 3 + 0.25 * 4 + 1.5 = 0.5; sigmoid(0.5) = 0.62245933
        let score = head(&[2.0, -1.0, 0.25], 1.5).score(&[0.5, 3.0, 4.0], None);
        assert!((score.expect("a score") - 0.622_459_3).abs() < 1e-7);
        assert_eq!(head(&[1.0], 0.0).score(&[0.0], None).expect("a score"), 0.5);
        // Far from zero it is 0 or 1, and no overflow.
        assert_eq!(head(&[1e4], 0.0).score(&[1.0], None).expect("a score"), 1.0);
        assert_eq!(
            head(&[1e4], 0.0).score(&[-1.0], None).expect("a score"),
            0.0
        );
    }

    #[test]
    fn confidence_is_one_more_term_where_the_head_has_it() {
        let sure = VerifierHead {
            confidence: Some(3.0),
            ..head(&[2.0], -0.5)
        };
        // l = -ln(0.001 + 0.999) = 0; 2 * 0.5 + 3 * 0 - 0.5 = 0.5
        let score = sure.score(&[0.5], Some(-0.999)).expect("a score");
        assert!((score - 0.622_459_3).abs() < 1e-6);
        // l = -ln(0.01)
        assert!((confidence(-0.009) - 4.605_170_2).abs() < 1e-5);
        let nan = sure.score(&[0.5], Some(f32::NAN));
        assert!(matches!(nan, Err(VerifierError::NotANumber)), "{nan:?}");
        let error = sure.score(&[0.5], None);
        assert!(matches!(error, Err(VerifierError::Confidence)), "{error:?}");
        let plain = head(&[2.0], 1.0);
        assert_eq!(
            plain.score(&[0.5], Some(-9.0)).expect("a score"),
            plain.score(&[0.5], None).expect("a score")
        );
    }

    #[test]
    fn what_is_no_number_has_no_score() {
        for bad in [f32::NAN, f32::INFINITY] {
            let score = head(&[1.0, 1.0], 0.0).score(&[bad, 0.0], None);
            assert!(matches!(score, Err(VerifierError::NotANumber)), "{score:?}");
        }
        let score = head(&[1.0, 1.0], 0.0).score(&[1.0], None);
        assert!(
            matches!(
                score,
                Err(VerifierError::Length {
                    expected: 2,
                    found: 1
                })
            ),
            "{score:?}"
        );
    }
}
