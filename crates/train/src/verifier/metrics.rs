//! How good scores are: cross-entropy, area under the ROC curve, calibration.

use serde::Serialize;

/// Bins of the calibration curve, equally wide.
pub(crate) const BINS: usize = 10;

/// A score from 0 to 1, whether the response was right, and its question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scored {
    pub question: usize,
    pub score: f64,
    pub correct: bool,
}

/// What scores are worth. A value that does not exist (one class only) is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Metrics {
    /// Responses.
    pub samples: usize,
    /// Share of right ones.
    pub correct: f64,
    /// Mean binary cross-entropy, nats.
    pub loss: f64,
    /// Chance that a right response scores above a wrong one.
    pub auroc: Option<f64>,
    /// The same among responses to one question, over all such pairs.
    pub auroc_within: Option<f64>,
    /// Expected calibration error over [`BINS`] bins.
    pub ece: f64,
}

impl Metrics {
    pub(crate) fn of(scored: &[Scored]) -> Self {
        let n = scored.len().max(1) as f64;
        let right = scored.iter().filter(|s| s.correct).count() as f64;
        Self {
            samples: scored.len(),
            correct: right / n,
            loss: scored.iter().map(cross_entropy).sum::<f64>() / n,
            auroc: auroc(scored),
            auroc_within: auroc_within(scored),
            ece: calibration(scored)
                .iter()
                .map(|bin| bin.samples as f64 / n * (bin.score - bin.correct).abs())
                .sum(),
        }
    }
}

/// -log p of what happened; a score of exactly 0 or 1 counts as the nearest f32 inside.
fn cross_entropy(s: &Scored) -> f64 {
    let p = if s.correct { s.score } else { 1.0 - s.score };
    -p.max(f64::from(f32::EPSILON)).ln()
}

/// Area under the ROC curve by ranks (Mann and Whitney): ties count half. `None` without both classes.
pub(crate) fn auroc(scored: &[Scored]) -> Option<f64> {
    let (above, pairs) = ordered_pairs(scored);
    (pairs > 0.0).then(|| above / pairs)
}

/// Pairs (right, wrong) in which the right one scores higher, ties half; and all such pairs.
fn ordered_pairs(scored: &[Scored]) -> (f64, f64) {
    let mut sorted: Vec<(f64, bool)> = scored.iter().map(|s| (s.score, s.correct)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut above) = (0.0, 0.0);
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        let right = equal.iter().filter(|s| s.1).count() as f64;
        let wrong = equal.len() as f64 - right;
        above += right * (below + wrong / 2.0);
        below += wrong;
    }
    let right = sorted.iter().filter(|s| s.1).count() as f64;
    (above, right * below)
}

/// [`auroc`] over the pairs of responses to the same question. Samples of one question must stand together.
fn auroc_within(scored: &[Scored]) -> Option<f64> {
    let (mut above, mut pairs) = (0.0, 0.0);
    for group in scored.chunk_by(|a, b| a.question == b.question) {
        let (a, p) = ordered_pairs(group);
        above += a;
        pairs += p;
    }
    (pairs > 0.0).then(|| above / pairs)
}

/// One bin of the calibration curve that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Bin {
    pub samples: usize,
    /// Mean score.
    pub score: f64,
    /// Share of right responses.
    pub correct: f64,
}

/// The bins with samples, by score.
pub(crate) fn calibration(scored: &[Scored]) -> Vec<Bin> {
    let mut sums = [(0usize, 0.0, 0.0); BINS];
    for s in scored {
        let bin = &mut sums[((s.score * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += 1;
        bin.1 += s.score;
        bin.2 += f64::from(u8::from(s.correct));
    }
    sums.iter()
        .filter(|bin| bin.0 > 0)
        .map(|&(samples, score, correct)| Bin {
            samples,
            score: score / samples as f64,
            correct: correct / samples as f64,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::generator;
    use rand::Rng;

    fn drawn(seed: u64, n: usize) -> Vec<Scored> {
        let mut rng = generator(seed, "scores");
        (0..n)
            .map(|i| Scored {
                question: i / 4,
                // Few values, so that there are ties.
                score: f64::from(rng.random_range(0..7)) / 6.0,
                correct: rng.random_bool(0.6),
            })
            .collect()
    }

    fn brute_force(scored: &[Scored], same_question: bool) -> Option<f64> {
        let (mut above, mut pairs) = (0.0, 0.0);
        for a in scored.iter().filter(|s| s.correct) {
            for b in scored.iter().filter(|s| !s.correct) {
                if same_question && a.question != b.question {
                    continue;
                }
                pairs += 1.0;
                above += f64::from(u8::from(a.score > b.score))
                    + 0.5 * f64::from(u8::from(a.score == b.score));
            }
        }
        (pairs > 0.0).then(|| above / pairs)
    }

    #[test]
    fn auroc_counts_every_pair() {
        for seed in 0..200 {
            let scored = drawn(seed, 1 + seed as usize % 40);
            assert_eq!(auroc(&scored), brute_force(&scored, false), "{scored:?}");
            assert_eq!(
                auroc_within(&scored),
                brute_force(&scored, true),
                "{scored:?}"
            );
        }
        assert_eq!(auroc(&[]), None);
    }

    #[test]
    fn calibration_is_the_distance_of_scores_from_shares() {
        let scored = |score, correct| Scored {
            question: 0,
            score,
            correct,
        };
        // Bin 0.9: mean score 0.95, half right; bin 0.2: mean 0.25, none right. ECE = 2/3 * 0.45 + 1/3 * 0.25.
        let all = [scored(0.95, true), scored(0.95, false), scored(0.25, false)];
        let metrics = Metrics::of(&all);
        assert!((metrics.ece - (0.9 / 3.0 + 0.25 / 3.0)).abs() < 1e-12);
        let loss = -(0.95f64.ln() + 0.05f64.ln() + 0.75f64.ln()) / 3.0;
        assert!((metrics.loss - loss).abs() < 1e-9);
        assert_eq!((metrics.samples, metrics.auroc), (3, Some(0.75)));
        // The ends belong to the last and the first bin, and cost no infinity.
        let ends = Metrics::of(&[scored(1.0, true), scored(1.0, false), scored(0.0, true)]);
        assert!(ends.loss.is_finite() && ends.ece.is_finite());
    }
}
