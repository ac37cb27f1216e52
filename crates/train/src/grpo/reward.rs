//! Rewards of a completion (METHOD 3 and its neighbours). Each is a function of whether the answer is right and of the length of the
//! **whole response**: where only the thought was charged, a policy closed it early and went on thinking in the answer.

use serde::{Deserialize, Serialize};

/// A completion as rewards see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The final answer equals the expected one.
    pub correct: bool,
    /// Tokens of the whole response, thought and answer.
    pub tokens: usize,
    /// The budget of the prompt, tokens.
    pub budget: usize,
    /// The longest response allowed, tokens.
    pub cap: usize,
}

/// One reward and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reward {
    /// `R_acc * R_budget` (Eq. 2 and 3): 1 up to `(1 - margin) B`, `floor` beyond `(1 + margin) B`, linear between.
    SoftBarrier {
        /// m.
        #[serde(default = "margin")]
        margin: f64,
        /// p, the value of a right answer beyond the barrier.
        #[serde(default)]
        floor: f64,
        /// Share of this reward in the sum.
        #[serde(default = "one")]
        weight: f64,
    },
    /// 1 for the right answer, whatever its length.
    Accuracy {
        /// Share of this reward in the sum.
        #[serde(default = "one")]
        weight: f64,
    },
    /// L1-Exact: `R_acc - alpha |B - L|` (<https://arxiv.org/abs/2503.04697>).
    L1Exact {
        /// Loss per token off the budget.
        #[serde(default = "l1_alpha")]
        alpha: f64,
        /// Share of this reward in the sum.
        #[serde(default = "one")]
        weight: f64,
    },
    /// L1-Max: `R_acc * clip(alpha (B - L) + delta, 0, 1)`.
    L1Max {
        /// Gain per token below the budget.
        #[serde(default = "l1_alpha")]
        alpha: f64,
        /// Reward of a right answer exactly at the budget.
        #[serde(default = "half")]
        delta: f64,
        /// Share of this reward in the sum.
        #[serde(default = "one")]
        weight: f64,
    },
    /// ThinkPrune: 1 for the right answer within the budget (<https://arxiv.org/abs/2504.01296>).
    ThinkPrune {
        /// Share of this reward in the sum.
        #[serde(default = "one")]
        weight: f64,
    },
    /// DAPO's soft overlong punishment: 0 up to `cap - cache`, falling to -1 at the cap (<https://arxiv.org/abs/2503.14476>). Added to an
    /// accuracy reward.
    DapoOverlong {
        /// Length of the fall, tokens.
        cache: usize,
        /// Share of this reward in the sum.
        #[serde(default = "one")]
        weight: f64,
    },
}

fn margin() -> f64 {
    0.25
}
fn one() -> f64 {
    1.0
}
fn half() -> f64 {
    0.5
}
fn l1_alpha() -> f64 {
    3e-4
}

/// `R_budget` of Eq. 2 for a response of `tokens` tokens.
pub fn soft_barrier(tokens: usize, budget: usize, margin: f64, floor: f64) -> f64 {
    let (length, budget) = (tokens as f64, budget as f64);
    let (low, high) = ((1.0 - margin) * budget, (1.0 + margin) * budget);
    if length <= low {
        1.0
    } else if length > high {
        floor
    } else {
        1.0 - (1.0 - floor) * (length - low) / (high - low)
    }
}

impl Reward {
    /// Name in the metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SoftBarrier { .. } => "soft_barrier",
            Self::Accuracy { .. } => "accuracy",
            Self::L1Exact { .. } => "l1_exact",
            Self::L1Max { .. } => "l1_max",
            Self::ThinkPrune { .. } => "think_prune",
            Self::DapoOverlong { .. } => "dapo_overlong",
        }
    }

    /// Its share in the sum.
    pub fn weight(&self) -> f64 {
        match *self {
            Self::SoftBarrier { weight, .. }
            | Self::Accuracy { weight }
            | Self::L1Exact { weight, .. }
            | Self::L1Max { weight, .. }
            | Self::ThinkPrune { weight }
            | Self::DapoOverlong { weight, .. } => weight,
        }
    }

    /// The reward of a completion, before its weight.
    pub fn of(&self, outcome: &Outcome) -> f64 {
        let right = f64::from(u8::from(outcome.correct));
        let left = outcome.budget as f64 - outcome.tokens as f64;
        match *self {
            Self::SoftBarrier { margin, floor, .. } => {
                right * soft_barrier(outcome.tokens, outcome.budget, margin, floor)
            }
            Self::Accuracy { .. } => right,
            Self::L1Exact { alpha, .. } => right - alpha * left.abs(),
            Self::L1Max { alpha, delta, .. } => right * (alpha * left + delta).clamp(0.0, 1.0),
            Self::ThinkPrune { .. } => right * f64::from(u8::from(left >= 0.0)),
            Self::DapoOverlong { cache, .. } => {
                let over = outcome.tokens as f64 - (outcome.cap as f64 - cache as f64);
                -(over / cache as f64).clamp(0.0, 1.0)
            }
        }
    }

    /// What is wrong with its settings, one line each.
    pub(super) fn problems(&self, budgets: &[usize], cap: usize, found: &mut Vec<String>) {
        let name = self.name();
        let mut require = |ok: bool, text: String| {
            if !ok {
                found.push(format!("[[reward]] {name}: {text}"));
            }
        };
        require(
            self.weight().is_finite() && self.weight() > 0.0,
            "weight must be positive".to_owned(),
        );
        match *self {
            Self::SoftBarrier { margin, floor, .. } => {
                require(
                    (0.0..1.0).contains(&margin),
                    "margin must be in [0, 1)".to_owned(),
                );
                require(
                    (0.0..=1.0).contains(&floor),
                    "floor must be in [0, 1]".to_owned(),
                );
                let largest = budgets.iter().copied().max().unwrap_or(0) as f64;
                let needed = ((1.0 + margin) * largest).ceil();
                require(
                    cap as f64 >= needed,
                    format!(
                        "[rollout] max_completion_tokens is {cap}, but the ramp of budget {largest} ends at {needed} and could not be reached; \
                         raise it to {needed}"
                    ),
                );
            }
            Self::L1Exact { alpha, .. } | Self::L1Max { alpha, .. } => {
                require(
                    alpha.is_finite() && alpha > 0.0,
                    "alpha must be positive".to_owned(),
                );
            }
            Self::DapoOverlong { cache, .. } => {
                require(
                    (1..=cap).contains(&cache),
                    format!("cache must be from 1 to max_completion_tokens ({cap})"),
                );
            }
            Self::Accuracy { .. } | Self::ThinkPrune { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(correct: bool, tokens: usize) -> Outcome {
        Outcome {
            correct,
            tokens,
            budget: 100,
            cap: 200,
        }
    }

    const BARRIER: Reward = Reward::SoftBarrier {
        margin: 0.25,
        floor: 0.0,
        weight: 1.0,
    };

    #[test]
    fn the_soft_barrier_is_flat_then_linear_then_its_floor() {
        for (tokens, want) in [
            (0, 1.0),
            (75, 1.0),
            (100, 0.5),
            (125, 0.0),
            (126, 0.0),
            (5000, 0.0),
        ] {
            assert!(
                (BARRIER.of(&outcome(true, tokens)) - want).abs() < 1e-12,
                "{tokens}"
            );
            assert_eq!(BARRIER.of(&outcome(false, tokens)), 0.0);
        }
        assert!((soft_barrier(100, 100, 0.25, 0.4) - 0.7).abs() < 1e-12);
        assert_eq!(soft_barrier(126, 100, 0.25, 0.4), 0.4);
        assert_eq!(
            soft_barrier(100, 100, 0.0, 0.0),
            1.0,
            "without a margin it is a step"
        );
        assert_eq!(soft_barrier(101, 100, 0.0, 0.0), 0.0);
    }

    /// A policy that closes its thought early and goes on in the answer gains nothing: the sum of both counts.
    #[test]
    fn moving_the_thought_into_the_answer_gains_nothing() {
        for (thought, answer) in [(150, 5), (5, 150), (0, 155), (75, 80)] {
            let moved = outcome(true, thought + answer);
            assert_eq!(BARRIER.of(&moved), BARRIER.of(&outcome(true, 155)));
            assert_eq!(BARRIER.of(&moved), 0.0);
        }
    }

    #[test]
    fn the_neighbours_follow_their_papers() {
        let exact = Reward::L1Exact {
            alpha: 0.01,
            weight: 1.0,
        };
        assert!((exact.of(&outcome(true, 90)) - 0.9).abs() < 1e-12);
        assert!((exact.of(&outcome(false, 110)) + 0.1).abs() < 1e-12);
        let most = Reward::L1Max {
            alpha: 0.01,
            delta: 0.5,
            weight: 1.0,
        };
        assert!((most.of(&outcome(true, 90)) - 0.6).abs() < 1e-12);
        assert_eq!(most.of(&outcome(true, 10)), 1.0);
        assert_eq!(most.of(&outcome(false, 10)), 0.0);
        let prune = Reward::ThinkPrune { weight: 1.0 };
        assert_eq!(
            (prune.of(&outcome(true, 100)), prune.of(&outcome(true, 101))),
            (1.0, 0.0)
        );
        let overlong = Reward::DapoOverlong {
            cache: 50,
            weight: 1.0,
        };
        assert_eq!(overlong.of(&outcome(false, 150)), 0.0);
        assert_eq!(overlong.of(&outcome(true, 175)), -0.5);
        assert_eq!(overlong.of(&outcome(true, 200)), -1.0);
    }

    #[test]
    fn a_cap_below_the_ramp_is_refused() {
        let mut found = Vec::new();
        BARRIER.problems(&[64, 200], 249, &mut found);
        assert!(found[0].contains("raise it to 250"), "{found:?}");
        found.clear();
        BARRIER.problems(&[64, 200], 250, &mut found);
        assert!(found.is_empty());
    }
}
