//! The request's object `edgethink`: what no other API has a word for.

use edgethink_reason::{Aggregate, EarlyStop, Scoring, Think};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// Everything may be left out; other keys are refused.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extension {
    /// Think or not; `auto` lets the switcher decide.
    pub(crate) think: Option<ThinkWord>,
    /// Hard limit on the whole response in tokens, named in the prompt too; -1 for none.
    #[schema(minimum = -1)]
    pub(crate) budget: Option<i64>,
    /// With `auto`: `n` is the most, and the switcher's score chooses.
    pub(crate) scale_n: Option<bool>,
    /// What scores the answers.
    pub(crate) scoring: Option<ScoringWord>,
    /// How the choices' answers become one.
    pub(crate) vote: Option<VoteWord>,
    /// Ends the streams that still run: `certain` when nothing can change the vote, or a confidence above 0.5 and below 1.
    #[schema(value_type = Option<String>, example = "certain")]
    pub(crate) early_stop: Option<StopRule>,
    /// Begins only as many streams as can decide the vote.
    pub(crate) waves: Option<bool>,
    /// A thought that ends before so many tokens goes on.
    #[schema(minimum = 0)]
    pub(crate) min_think: Option<i64>,
    /// Closes a thought that repeats itself.
    pub(crate) stop_loops: Option<bool>,
    /// The adapter that thinks.
    pub(crate) adapter: Option<String>,
}

impl Extension {
    /// Refuses what needs several answers, for an API that has one.
    pub(crate) fn of_one_answer(&self) -> Result<(), ApiError> {
        if self.vote.is_some() {
            let message = "this API has one answer, so nothing can be voted on";
            return Err(ApiError::unsupported("edgethink.vote", message));
        }
        Ok(())
    }
}

/// `auto`, `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThinkWord {
    Auto,
    On,
    Off,
}

/// `off`, `verifier` or `genrm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ScoringWord {
    Off,
    Verifier,
    Genrm,
}

/// `majority`, `weighted`, `best` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VoteWord {
    Majority,
    Weighted,
    Best,
    None,
}

/// A word or a number.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected \"certain\", \"off\" or a number")]
pub(crate) enum StopRule {
    Confidence(f64),
    Word(String),
}

impl StopRule {
    /// The rule, if it is one.
    pub(crate) fn rule(&self) -> Result<Option<EarlyStop>, ApiError> {
        match self {
            Self::Confidence(wanted) if *wanted > 0.5 && *wanted < 1.0 => {
                Ok(Some(EarlyStop::Confidence(*wanted)))
            }
            Self::Word(word) if word == "certain" || word == "exact" => Ok(Some(EarlyStop::Exact)),
            Self::Word(word) if word == "off" => Ok(None),
            _ => Err(ApiError::bad(
                "edgethink.early_stop",
                "must be \"certain\", \"off\", or a confidence above 0.5 and below 1",
            )),
        }
    }
}

impl From<ThinkWord> for Think {
    fn from(word: ThinkWord) -> Self {
        match word {
            ThinkWord::Auto => Self::Auto,
            ThinkWord::On => Self::On,
            ThinkWord::Off => Self::Off,
        }
    }
}

impl From<ScoringWord> for Scoring {
    fn from(word: ScoringWord) -> Self {
        match word {
            ScoringWord::Off => Self::Off,
            ScoringWord::Verifier => Self::Verifier,
            ScoringWord::Genrm => Self::GenRm,
        }
    }
}

impl VoteWord {
    /// The vote, if there is to be one.
    pub(crate) fn aggregate(self) -> Option<Aggregate> {
        match self {
            Self::Majority => Some(Aggregate::Majority),
            Self::Weighted => Some(Aggregate::Weighted),
            Self::Best => Some(Aggregate::BestOfN),
            Self::None => None,
        }
    }
}
