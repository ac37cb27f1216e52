//! The clipped objective with its KL penalty (METHOD 3), token by token.
//!
//! For a completion with advantage A, a token with log-probability `l` now, `l_old` when it was drawn and `l_ref` under the reference:
//!
//! ```text
//! ratio = exp(l - l_old)
//! loss  = -w min(ratio A, clip(ratio, 1 - low, 1 + high) A) + beta k3,   k3 = exp(l_ref - l) - (l_ref - l) - 1
//! ```
//!
//! `w` is the truncated importance weight of the gap between sampler and trainer (<https://fengyao.notion.site/off-policy-rl>). The loss
//! depends on the parameters through `l` alone, so its gradient is that of `-weight * l` with the constant
//! `weight = -d loss / d l`: a cross-entropy with a weight per token. That is how it is computed.

use super::recipe::{ObjectiveRecipe, PolicyLoss};

/// One token of a completion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Token {
    /// Log-probability under the policy as it is now.
    pub now: f32,
    /// Under the policy that the batch was drawn from, computed by the trainer.
    pub old: f32,
    /// The same, computed by the sampler.
    pub sampled: f32,
    /// Under the reference policy.
    pub reference: f32,
}

/// What a token adds to the loss, and how it was treated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Term {
    pub loss: f32,
    /// `-d loss / d now`: the weight of the token's cross-entropy.
    pub weight: f32,
    /// The k3 estimate of the divergence from the reference, nats.
    pub kl: f32,
    /// `exp(old - sampled)`, before it is cut.
    pub importance: f32,
    /// The ratio was cut below, or above.
    pub clipped: [bool; 2],
}

/// Log-ratios beyond this change nothing any more: e^20 is 5e8.
const MOST_LOG_RATIO: f32 = 20.0;

impl Token {
    /// The term of a token whose completion has `advantage`.
    pub(crate) fn term(&self, advantage: f32, recipe: &ObjectiveRecipe) -> Term {
        let ratio = (self.now - self.old)
            .clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)
            .exp();
        let importance = (self.old - self.sampled)
            .clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)
            .exp();
        let cap = if recipe.importance_cap == 0.0 {
            1.0
        } else {
            importance.min(recipe.importance_cap)
        };
        let low = ratio < 1.0 - recipe.epsilon && advantage < 0.0;
        let high = ratio > 1.0 + recipe.epsilon_high() && advantage > 0.0;
        let (gain, slope) = if low {
            ((1.0 - recipe.epsilon) * advantage, 0.0)
        } else if high {
            ((1.0 + recipe.epsilon_high()) * advantage, 0.0)
        } else {
            (ratio * advantage, ratio * advantage)
        };
        let behind = (self.reference - self.now).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO);
        let kl = behind.exp() - behind - 1.0;
        Term {
            loss: -cap * gain + recipe.beta * kl,
            weight: cap * slope + recipe.beta * (behind.exp() - 1.0),
            kl,
            importance,
            clipped: [low, high],
        }
    }
}

/// What a token's term is multiplied with so that the terms of a whole optimizer step sum to the loss. `lengths` are the tokens of its
/// completions that are learnt; `cap` is the longest completion allowed.
pub(crate) fn normaliser(loss: PolicyLoss, lengths: &[usize], cap: usize) -> Vec<f32> {
    let completions = lengths.len().max(1) as f64;
    let tokens = lengths.iter().sum::<usize>().max(1) as f64;
    lengths
        .iter()
        .map(|&length| {
            let share = match loss {
                PolicyLoss::Grpo => 1.0 / (completions * length.max(1) as f64),
                PolicyLoss::Dapo => 1.0 / tokens,
                PolicyLoss::DrGrpo => 1.0 / (completions * cap as f64),
            };
            share as f32
        })
        .collect()
}

/// Advantages of one group: (r - mean) / (std + eps), population std; all zero without signal. With `scaled` off the division is left
/// out (Dr. GRPO, <https://arxiv.org/abs/2503.20783>).
pub(crate) fn advantages(rewards: &[f32], scaled: bool) -> Vec<f32> {
    let n = rewards.len().max(1) as f64;
    let mean = rewards.iter().map(|&r| f64::from(r)).sum::<f64>() / n;
    let std = deviation(rewards);
    rewards
        .iter()
        .map(|&r| {
            let centred = f64::from(r) - mean;
            if std < NO_SIGNAL {
                0.0
            } else if scaled {
                (centred / (std + STD_EPS)) as f32
            } else {
                centred as f32
            }
        })
        .collect()
}

/// Added to the standard deviation of a group, as TRL does.
const STD_EPS: f64 = 1e-4;
/// A group whose rewards deviate less has nothing to learn from.
pub(crate) const NO_SIGNAL: f64 = 1e-6;

/// Population standard deviation.
pub(crate) fn deviation(values: &[f32]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&r| f64::from(r)).sum::<f64>() / n;
    let squares = values.iter().map(|&r| (f64::from(r) - mean).powi(2));
    (squares.sum::<f64>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(beta: f32) -> ObjectiveRecipe {
        ObjectiveRecipe {
            beta,
            epsilon_high: Some(0.28),
            importance_cap: 2.0,
            ..ObjectiveRecipe::default()
        }
    }

    #[test]
    fn the_weight_is_the_slope_of_the_loss() {
        let h = 1e-3;
        for beta in [0.0, 0.1] {
            for advantage in [-1.5, 0.0, 0.7] {
                for shift in [-1.0, -0.3, -0.1, 0.0, 0.1, 0.2, 0.5] {
                    let at = |now: f32| Token {
                        now,
                        old: -1.0,
                        sampled: -1.1,
                        reference: -0.8,
                    };
                    let now = -1.0 + shift;
                    let loss = |x| f64::from(at(x).term(advantage, &recipe(beta)).loss);
                    let slope = (loss(now + h) - loss(now - h)) / f64::from(2.0 * h);
                    let weight = f64::from(at(now).term(advantage, &recipe(beta)).weight);
                    assert!(
                        (weight + slope).abs() < 2e-3,
                        "{advantage} {shift}: {weight} {slope}"
                    );
                }
            }
        }
    }

    #[test]
    fn ratios_are_cut_on_the_side_that_would_go_on() {
        let term = |shift: f32, advantage| {
            let token = Token {
                now: shift,
                old: 0.0,
                sampled: 0.0,
                reference: 0.0,
            };
            token.term(advantage, &recipe(0.0))
        };
        assert_eq!(term(0.3, 1.0).clipped, [false, true]);
        assert_eq!(term(0.3, 1.0).weight, 0.0);
        assert_eq!(term(0.3, -1.0).clipped, [false, false]);
        assert!(term(0.3, -1.0).weight < -1.0);
        assert_eq!(term(-0.3, -1.0).clipped, [true, false]);
        assert_eq!(term(-0.3, 1.0).clipped, [false, false]);
    }

    #[test]
    fn importance_is_cut_at_its_cap() {
        let token = Token {
            now: 0.0,
            old: 0.0,
            sampled: -3.0,
            reference: 0.0,
        };
        let term = token.term(1.0, &recipe(0.0));
        assert!((term.importance - 3.0f32.exp()).abs() < 1e-4);
        assert_eq!(term.weight, 2.0);
        let off = ObjectiveRecipe {
            importance_cap: 0.0,
            ..recipe(0.0)
        };
        let term = token.term(1.0, &off);
        assert!((term.importance - 3.0f32.exp()).abs() < 1e-4);
        assert_eq!(term.weight, 1.0, "it is measured, and corrects nothing");
    }

    #[test]
    fn normalisers_sum_to_the_mean_they_name() {
        let lengths = [10, 30];
        let sum = |loss| -> f32 {
            let factors = normaliser(loss, &lengths, 100);
            factors.iter().zip(lengths).map(|(f, n)| f * n as f32).sum()
        };
        assert!((sum(PolicyLoss::Grpo) - 1.0).abs() < 1e-6);
        assert!((sum(PolicyLoss::Dapo) - 1.0).abs() < 1e-6);
        assert!((sum(PolicyLoss::DrGrpo) - 0.2).abs() < 1e-6);
        let grpo = normaliser(PolicyLoss::Grpo, &lengths, 100);
        assert!(
            (grpo[0] - 3.0 * grpo[1]).abs() < 1e-6,
            "each completion weighs the same"
        );
    }

    #[test]
    fn groups_are_centred_and_scaled() {
        let a = advantages(&[1.0, 0.0, 0.0, 1.0], true);
        assert!(
            a.iter()
                .zip([1.0, -1.0, -1.0, 1.0])
                .all(|(a, b)| (a - b).abs() < 1e-3)
        );
        assert_eq!(advantages(&[0.5; 4], true), [0.0; 4]);
        assert_eq!(advantages(&[1.0, 0.0], false), [0.5, -0.5]);
    }
}
