//! The divergence guard: a run that goes wrong stops and says so.
//!
//! A step whose loss or gradient is not finite changes nothing and is counted; several in a row end the run. A
//! smoothed loss that stays far above its best for a while ends it too: such a run (METHOD 1: a high rate with a
//! high rank and a small batch) does not come back.

use serde::{Deserialize, Serialize};

/// Weight of the past in the smoothed loss.
const SMOOTHING: f64 = 0.98;
/// Rise over the best smoothed loss, in nats, that counts as diverging ...
const RISE: f64 = 1.0;
/// ... and as a factor of it.
const FACTOR: f64 = 1.5;
/// Steps before the rise is looked at.
const PATIENCE: u64 = 50;

/// State of the guard; part of a checkpoint, as bits, so that its numbers come back exactly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[u64; 5]", into = "[u64; 5]")]
pub(crate) struct Guard {
    /// Smoothed loss; NaN before the first step.
    pub smoothed: f64,
    /// Lowest smoothed loss.
    pub best: f64,
    /// Steps with a finite gradient.
    pub finite: u64,
    /// Steps skipped in a row, and in all.
    pub skipped_now: u64,
    pub skipped: u64,
}

impl From<Guard> for [u64; 5] {
    fn from(guard: Guard) -> Self {
        [
            guard.smoothed.to_bits(),
            guard.best.to_bits(),
            guard.finite,
            guard.skipped_now,
            guard.skipped,
        ]
    }
}

impl From<[u64; 5]> for Guard {
    fn from([smoothed, best, finite, skipped_now, skipped]: [u64; 5]) -> Self {
        Self {
            smoothed: f64::from_bits(smoothed),
            best: f64::from_bits(best),
            finite,
            skipped_now,
            skipped,
        }
    }
}

impl Guard {
    pub(crate) fn new() -> Self {
        Self {
            smoothed: f64::NAN,
            best: f64::INFINITY,
            finite: 0,
            skipped_now: 0,
            skipped: 0,
        }
    }

    /// Notes a step. `Ok(false)` means: leave it out. An error ends the run.
    pub(crate) fn check(&mut self, loss: f64, norm: f64, most: u64) -> Result<bool, String> {
        if !(loss.is_finite() && norm.is_finite()) {
            self.skipped_now += 1;
            self.skipped += 1;
            if self.skipped_now >= most {
                return Err(format!(
                    "{most} steps in a row had a loss or gradient that is not finite (last loss {loss}, gradient \
                     norm {norm}); lower [optimizer] lr"
                ));
            }
            return Ok(false);
        }
        self.skipped_now = 0;
        self.finite += 1;
        self.smoothed = if self.smoothed.is_nan() {
            loss
        } else {
            SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * loss
        };
        self.best = self.best.min(self.smoothed);
        let limit = (self.best + RISE).max(self.best * FACTOR);
        if self.finite > PATIENCE && self.smoothed > limit {
            return Err(format!(
                "the loss rose from {:.3} to {:.3}; lower [optimizer] lr, or raise run.batch_tokens or warmup_ratio",
                self.best, self.smoothed
            ));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_passes() {
        let mut guard = Guard::new();
        for i in 0..1000 {
            let loss = 6.0 / (1.0 + f64::from(i) / 100.0) + if i % 7 == 0 { 0.3 } else { 0.0 };
            assert_eq!(guard.check(loss, 1.0, 3), Ok(true));
        }
    }

    #[test]
    fn a_collapse_stops() {
        let mut guard = Guard::new();
        for _ in 0..100 {
            assert_eq!(guard.check(1.0, 1.0, 3), Ok(true));
        }
        let stopped = (0..200).any(|_| guard.check(6.0, 1.0, 3).is_err());
        assert!(stopped);
    }

    #[test]
    fn non_finite_steps_are_skipped_then_fatal() {
        let mut guard = Guard::new();
        assert_eq!(guard.check(f64::NAN, 1.0, 3), Ok(false));
        assert_eq!(guard.check(1.0, f64::INFINITY, 3), Ok(false));
        assert_eq!(guard.check(1.0, 1.0, 3), Ok(true));
        assert_eq!(guard.check(f64::NAN, 1.0, 3), Ok(false));
        assert_eq!(guard.check(f64::NAN, 1.0, 3), Ok(false));
        assert!(guard.check(f64::NAN, 1.0, 3).is_err());
        assert_eq!(guard.skipped, 5);
    }
}
