//! What N answers and a vote are worth (Table 9 of the paper), from a pool of samples.
//!
//! A draw takes N of a question's samples without replacement, for every question; its accuracy is the share of questions whose winner
//! is right. N answers of a draw are the first N of one shuffle, so numbers of answers and ways to vote are compared on the same samples.

use edgethink_engine::rng::Draws;
use edgethink_reason::vote::{Aggregate, Ballot, tally};
use serde::{Deserialize, Serialize};

/// A sample as it votes.
#[derive(Debug, Clone, PartialEq)]
pub struct Voter {
    /// `None`: it has no answer and does not vote.
    pub answer: Option<String>,
    /// What the verifier gave it.
    pub score: Option<f32>,
    /// It is right.
    pub correct: bool,
}

/// Accuracy over the draws.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation over the draws.
    pub std: f64,
    /// The worst draw.
    pub min: f64,
    /// The best.
    pub max: f64,
}

/// What one number of answers gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Answers.
    pub n: usize,
    /// The answer of most.
    pub majority: Spread,
    /// The answer with the highest sum of scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weighted: Option<Spread>,
    /// The answer with the highest score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_of_n: Option<Spread>,
    /// Share of the draws in which the weighted vote is at least as often right as the majority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weighted_not_below: Option<f64>,
}

/// The whole table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Votes {
    /// Questions.
    pub questions: usize,
    /// Samples of all questions.
    pub samples: usize,
    /// Share of right samples.
    pub one_sample: f64,
    /// Share of questions with at least one right sample: what no vote can beat.
    pub any_correct: f64,
    /// Draws of each number of answers.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// By the number of answers.
    pub by_n: Vec<Entry>,
}

/// The first `n` of a shuffle of `0..of`; a function of the draws' seed, the question, and the number of the draw.
fn shuffle(draws: &Draws, resample: usize, of: usize, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..of).collect();
    for at in 0..n.min(of) {
        let left = of - at;
        let other = (draws.uniform(resample * of + at) * left as f64) as usize;
        order.swap(at, at + other.min(left - 1));
    }
    order.truncate(n);
    order
}

/// Whether the winner of a vote is right. Nobody answered: it is not.
fn wins(samples: &[Voter], drawn: &[usize], aggregate: Aggregate) -> bool {
    let ballots: Vec<Ballot<'_>> = drawn
        .iter()
        .filter_map(|&at| {
            let weight = match aggregate {
                Aggregate::Majority => 1.0,
                Aggregate::Weighted | Aggregate::BestOfN => samples[at].score.unwrap_or(0.0),
            };
            Some(Ballot {
                stream: at,
                answer: samples[at].answer.as_deref()?,
                score: weight,
            })
        })
        .collect();
    let winner = tally(aggregate, &ballots).winner();
    winner.is_some_and(|at| samples[at].correct)
}

/// Counts votes of the `sizes`; a question with fewer samples votes with all it has.
pub fn count(pool: &[Vec<Voter>], sizes: &[usize], resamples: usize, seed: u64) -> Votes {
    let all: Vec<&Voter> = pool.iter().flatten().collect();
    // A sample without an answer has nothing to score, and no vote.
    let scored = all
        .iter()
        .all(|sample| sample.score.is_some() || sample.answer.is_none());
    let most = sizes.iter().copied().max().unwrap_or(0);
    let mut ways = vec![Aggregate::Majority];
    if scored {
        ways.extend([Aggregate::Weighted, Aggregate::BestOfN]);
    }
    // Right winners per number of answers, way and draw.
    let mut right = vec![vec![vec![0usize; resamples]; ways.len()]; sizes.len()];
    for (question, samples) in pool.iter().enumerate() {
        let draws = Draws::new(seed, question);
        for resample in 0..resamples {
            let order = shuffle(&draws, resample, samples.len(), most);
            for (right, &n) in right.iter_mut().zip(sizes) {
                for (right, &way) in right.iter_mut().zip(&ways) {
                    right[resample] +=
                        usize::from(wins(samples, &order[..n.min(order.len())], way));
                }
            }
        }
    }
    let questions = pool.len().max(1) as f64;
    let by_n = sizes.iter().zip(&right).map(|(&n, right)| {
        let spread = |way: usize| {
            let right = right.get(way)?;
            let shares: Vec<f64> = right.iter().map(|&r| r as f64 / questions).collect();
            Some(Spread::of(&shares))
        };
        let not_below = right.get(1).map(|weighted| {
            let pairs = weighted.iter().zip(&right[0]);
            pairs.filter(|(w, m)| w >= m).count() as f64 / resamples as f64
        });
        Entry {
            n,
            majority: spread(0).unwrap_or(Spread::of(&[])),
            weighted: spread(1),
            best_of_n: spread(2),
            weighted_not_below: not_below,
        }
    });
    let any = pool.iter().filter(|q| q.iter().any(|s| s.correct)).count();
    Votes {
        questions: pool.len(),
        samples: all.len(),
        one_sample: all.iter().filter(|s| s.correct).count() as f64 / all.len().max(1) as f64,
        any_correct: any as f64 / questions,
        resamples,
        seed,
        by_n: by_n.collect(),
    }
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        Self {
            mean,
            std: variance.sqrt(),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// `88.7 ± 1.1`, in percent.
    pub fn text(&self) -> String {
        format!("{:.1} ± {:.1}", 100.0 * self.mean, 100.0 * self.std)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(answer: &str, score: f32, correct: bool) -> Voter {
        Voter {
            answer: (!answer.is_empty()).then(|| answer.to_owned()),
            score: Some(score),
            correct,
        }
    }

    #[test]
    fn votes_are_counted_by_weight() {
        let samples = [
            sample("0.5", 0.9, true),
            sample("3", 0.3, false),
            sample("3", 0.4, false),
            sample("1/2", 0.1, true),
            sample("", 1.0, false),
        ];
        let wins = |drawn: &[usize], way| wins(&samples, drawn, way);
        assert!(!wins(&[0, 1, 2], Aggregate::Majority));
        assert!(wins(&[0, 1, 2], Aggregate::Weighted), "0.9 against 0.7");
        assert!(wins(&[0, 1, 2], Aggregate::BestOfN));
        assert!(!wins(&[3, 1], Aggregate::Weighted));
        assert!(wins(&[0, 3, 4, 1], Aggregate::Majority), "1/2 is 0.5");
        assert!(!wins(&[4], Aggregate::BestOfN), "nobody answered");
    }

    #[test]
    fn a_shuffle_is_fair_and_takes_nothing_twice() {
        let draws = Draws::new(3, 0);
        let mut first = [0usize; 5];
        for resample in 0..5000 {
            let order = shuffle(&draws, resample, 5, 3);
            assert_eq!(order.len(), 3);
            assert!(order[0] != order[1] && order[1] != order[2] && order[0] != order[2]);
            first[order[0]] += 1;
        }
        // 1000 expected, standard deviation 28.
        assert!(first.iter().all(|&n| (860..1140).contains(&n)), "{first:?}");
        let whole = shuffle(&draws, 1, 5, 5);
        assert_eq!(whole[..3], shuffle(&draws, 1, 5, 3));
    }

    #[test]
    fn a_pool_gives_the_table() {
        // One question where scores help, one that is always right.
        let mut pool = vec![
            vec![
                sample("1", 0.9, true),
                sample("2", 0.2, false),
                sample("2", 0.2, false),
            ],
            vec![sample("7", 0.5, true); 3],
        ];
        let votes = count(&pool, &[1, 3], 50, 0);
        let [one, three] = &votes.by_n[..] else {
            panic!("two numbers of answers")
        };
        assert_eq!(three.majority.mean, 0.5);
        assert_eq!(three.weighted.map(|s| (s.mean, s.std)), Some((1.0, 0.0)));
        assert_eq!(three.weighted_not_below, Some(1.0));
        // One answer: the same whatever is counted, right in a third of the draws of the first question.
        assert_eq!(one.weighted, Some(one.majority));
        assert!((one.majority.mean - 2.0 / 3.0).abs() < 0.1);
        assert_eq!(three.majority.text(), "50.0 ± 0.0");
        // Without scores there is only the majority.
        pool[0][0].score = None;
        assert!(count(&pool, &[1], 2, 0).by_n[0].weighted.is_none());
    }
}
