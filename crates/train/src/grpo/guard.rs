//! A run that learns nothing must never look like a run: when to stop, and what to say.

use serde::{Deserialize, Serialize};

use super::recipe::GuardRecipe;

/// What a step looked like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seen {
    /// Largest reward of a completion.
    pub best_reward: f64,
    /// Share of completions cut at the cap.
    pub clipped: f64,
    /// Share of groups without signal.
    pub no_signal: f64,
    /// Loss and gradient are finite.
    pub finite: bool,
    /// Mean divergence from the reference, nats per token.
    pub kl: f64,
    /// Mean entropy, nats per token.
    pub entropy: f64,
    /// Mean tokens of the visible answers, if a completion has one.
    pub answer_length: Option<f64>,
}

/// Steps in a row with each trouble; part of a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RlGuard {
    zero_reward: u64,
    clipped: u64,
    no_signal: u64,
    non_finite: u64,
    long_answers: u64,
    /// Mean tokens of the visible answers when the run began.
    first_answer_length: Option<f64>,
    /// Steps left out in all.
    pub skipped: u64,
}

impl RlGuard {
    /// Notes a step; an error ends the run.
    pub(crate) fn check(&mut self, seen: &Seen, limits: &GuardRecipe) -> Result<(), String> {
        let count = |count: &mut u64, happened: bool| {
            *count = if happened { *count + 1 } else { 0 };
            *count
        };
        self.skipped += u64::from(!seen.finite);
        if count(&mut self.non_finite, !seen.finite) >= limits.non_finite_steps {
            return Err(format!(
                "{} steps in a row had a gradient that is not finite; lower [optimizer] lr",
                self.non_finite
            ));
        }
        if count(&mut self.clipped, seen.clipped >= 1.0) >= limits.clipped_steps {
            return Err(format!(
                "in {} steps every completion was cut at [rollout] max_completion_tokens, so no answer was read; raise it, or start from an \
                 adapter that ends its answers",
                self.clipped
            ));
        }
        if count(&mut self.zero_reward, seen.best_reward <= 0.0) >= limits.zero_reward_steps {
            return Err(format!(
                "in {} steps no completion had a reward; the questions are too hard for the adapter, the budgets too small, or the answers are \
                 not read (look at the completions)",
                self.zero_reward
            ));
        }
        if count(&mut self.no_signal, seen.no_signal >= 1.0) >= limits.no_signal_steps {
            return Err(format!(
                "in {} steps the completions of every question had the same reward, so nothing is learnt; raise [rollout] temperature or group, \
                 or change the budgets",
                self.no_signal
            ));
        }
        if seen.kl > limits.max_kl {
            return Err(format!(
                "the policy ran away from its start: {:.2} nats per token; lower [optimizer] lr or raise [objective] beta",
                seen.kl
            ));
        }
        if seen.entropy > limits.max_entropy {
            return Err(format!(
                "the policy dissolves: entropy {:.2} nats per token; lower [optimizer] lr or raise [objective] beta",
                seen.entropy
            ));
        }
        self.answers(seen, limits)
    }

    /// Where the tokens went: a policy that is charged for its thought alone closes it early and goes on thinking in the answer.
    fn answers(&mut self, seen: &Seen, limits: &GuardRecipe) -> Result<(), String> {
        let Some(now) = seen.answer_length else {
            return Ok(());
        };
        let first = *self.first_answer_length.get_or_insert(now);
        if now <= limits.max_answer_growth * first {
            self.long_answers = 0;
            return Ok(());
        }
        self.long_answers += 1;
        if self.long_answers < limits.long_answer_steps {
            return Ok(());
        }
        Err(format!(
            "the visible answers grew from {first:.0} to {now:.0} tokens: the policy goes on thinking after its thought; take a reward that \
             counts the whole response, raise [objective] beta, or raise [guard] max_answer_growth if long answers are wanted"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Seen = Seen {
        best_reward: 1.0,
        clipped: 0.2,
        no_signal: 0.5,
        finite: true,
        kl: 0.01,
        entropy: 0.3,
        answer_length: Some(9.0),
    };

    fn stopped_after(seen: Seen) -> Option<(u64, String)> {
        let mut guard = RlGuard::default();
        (1..100).find_map(|step| {
            guard
                .check(&seen, &GuardRecipe::default())
                .err()
                .map(|why| (step, why))
        })
    }

    #[test]
    fn a_run_that_learns_goes_on() {
        assert_eq!(stopped_after(GOOD), None);
        let mut guard = RlGuard::default();
        for step in 0..200 {
            let seen = Seen {
                best_reward: f64::from(step % 19 == 0),
                ..GOOD
            };
            assert_eq!(guard.check(&seen, &GuardRecipe::default()), Ok(()));
        }
    }

    /// A policy that moves its thought into the answer is stopped; one long answer, or a first step without any, is no reason.
    #[test]
    fn answers_that_grow_stop_the_run() {
        let limits = GuardRecipe::default();
        let mut guard = RlGuard::default();
        let mut check = |answer_length| {
            guard.check(
                &Seen {
                    answer_length,
                    ..GOOD
                },
                &limits,
            )
        };
        for length in [None, Some(9.0), Some(100.0), Some(12.0)] {
            assert_eq!(check(length), Ok(()));
        }
        for _ in 1..limits.long_answer_steps {
            assert_eq!(check(Some(40.0)), Ok(()));
        }
        let why = check(Some(40.0)).unwrap_err();
        assert!(why.contains("from 9 to 40 tokens"), "{why}");
    }

    #[test]
    fn each_trouble_stops_with_its_reason() {
        for (seen, steps, word) in [
            (
                Seen {
                    best_reward: 0.0,
                    ..GOOD
                },
                20,
                "reward",
            ),
            (
                Seen {
                    clipped: 1.0,
                    ..GOOD
                },
                10,
                "max_completion_tokens",
            ),
            (
                Seen {
                    no_signal: 1.0,
                    ..GOOD
                },
                20,
                "same reward",
            ),
            (
                Seen {
                    finite: false,
                    ..GOOD
                },
                8,
                "not finite",
            ),
            (Seen { kl: 6.0, ..GOOD }, 1, "ran away"),
            (
                Seen {
                    entropy: 5.0,
                    ..GOOD
                },
                1,
                "dissolves",
            ),
        ] {
            let (step, why) = stopped_after(seen).expect(word);
            assert_eq!(step, steps, "{word}");
            assert!(why.contains(word), "{why}");
        }
    }
}
