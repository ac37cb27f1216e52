//! `edgethink eval votes`: what N answers and a vote are worth (Table 9 of the paper), from a pool of samples.
//!
//! A draw takes N of a question's samples without replacement, for every question; its accuracy is the share of questions whose winner
//! is right. N answers of a draw are the first N of one shuffle, so numbers of answers and ways to vote are compared on the same samples.

mod picture;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use edgethink_engine::rng::Draws;
use edgethink_grader::{extract, is_correct};
use edgethink_reason::vote::{Aggregate, Ballot, tally};
use serde::{Deserialize, Serialize};

use crate::args::VotesArgs;
use crate::table::table;

/// One line of the pool; other keys are of no interest.
#[derive(Debug, Deserialize)]
struct Line {
    row: usize,
    text: String,
    expected: String,
    #[serde(default)]
    score: Option<f32>,
}

/// A sample as it votes.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    /// `None`: it has no answer and does not vote.
    answer: Option<String>,
    score: Option<f32>,
    correct: bool,
}

/// Accuracy over the draws.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Spread {
    mean: f64,
    /// Standard deviation over the draws.
    std: f64,
    min: f64,
    max: f64,
}

/// What one number of answers gives.
#[derive(Debug, Clone, Serialize)]
struct Entry {
    n: usize,
    majority: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    weighted: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    best_of_n: Option<Spread>,
    /// Share of the draws in which the weighted vote is at least as often right as the majority.
    #[serde(skip_serializing_if = "Option::is_none")]
    weighted_not_below: Option<f64>,
}

/// The whole table.
#[derive(Debug, Clone, Serialize)]
struct Votes {
    questions: usize,
    samples: usize,
    /// Share of right samples.
    one_sample: f64,
    /// Share of questions with at least one right sample: what no vote can beat.
    any_correct: f64,
    resamples: usize,
    seed: u64,
    by_n: Vec<Entry>,
}

/// Runs the command.
pub(crate) fn run(args: &VotesArgs) -> Result<ExitCode> {
    let pool = read(&args.file)?;
    let least = pool.iter().map(Vec::len).min().unwrap_or(0);
    if let Some(n) = args.n.iter().find(|&&n| n > least) {
        bail!(
            "a question of {} has {least} samples, but --n asks for {n}; write more samples, or ask for less",
            args.file.display()
        );
    }
    let votes = count(&pool, &args.n, args.resamples, args.seed);
    let json = format!("{}\n", serde_json::to_string_pretty(&votes)?);
    if let Some(dir) = &args.out {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        for (name, text) in [
            ("votes.json", &json),
            ("votes.svg", &picture::draw(&votes)?),
        ] {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let text = if args.json { json } else { votes.text() };
    write!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// The samples of each question.
fn read(path: &Path) -> Result<Vec<Vec<Sample>>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut pool: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
    for (at, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let place = || format!("line {} of {}", at + 1, path.display());
        let line: Line = serde_json::from_str(&line).with_context(|| {
            format!(
                "{} is not {{\"row\", \"text\", \"expected\", \"score\"}}",
                place()
            )
        })?;
        if line.score.is_some_and(|s| !(0.0..=1.0).contains(&s)) {
            bail!("{}: the score must be from 0 to 1", place());
        }
        pool.entry(line.row).or_default().push(Sample {
            answer: extract(&line.text).map(|found| found.text.to_owned()),
            score: line.score,
            correct: is_correct(&line.text, &line.expected),
        });
    }
    if pool.is_empty() {
        bail!("{} has no samples", path.display());
    }
    Ok(pool.into_values().collect())
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
fn wins(samples: &[Sample], drawn: &[usize], aggregate: Aggregate) -> bool {
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

fn count(pool: &[Vec<Sample>], sizes: &[usize], resamples: usize, seed: u64) -> Votes {
    let all: Vec<&Sample> = pool.iter().flatten().collect();
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
                    right[resample] += usize::from(wins(samples, &order[..n], way));
                }
            }
        }
    }
    let questions = pool.len() as f64;
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
        one_sample: all.iter().filter(|s| s.correct).count() as f64 / all.len() as f64,
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

    fn text(&self) -> String {
        format!("{:.1} ± {:.1}", 100.0 * self.mean, 100.0 * self.std)
    }
}

impl Votes {
    fn text(&self) -> String {
        let optional = |spread: &Option<Spread>| spread.map_or_else(String::new, |s| s.text());
        let rows: Vec<Vec<String>> = self
            .by_n
            .iter()
            .map(|entry| {
                let share = entry.weighted_not_below;
                vec![
                    entry.n.to_string(),
                    entry.majority.text(),
                    optional(&entry.weighted),
                    optional(&entry.best_of_n),
                    share.map_or_else(String::new, |s| format!("{:.0} %", 100.0 * s)),
                ]
            })
            .collect();
        let header = [
            "N",
            "majority",
            "weighted",
            "best of N",
            "weighted >= majority",
        ];
        format!(
            "{} questions, {} samples; {:.1} % right, any of a question's right {:.1} %\nright in %, mean ± standard deviation over {} draws\n\n{}",
            self.questions,
            self.samples,
            100.0 * self.one_sample,
            100.0 * self.any_correct,
            self.resamples,
            table(&header, &rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(answer: &str, score: f32, correct: bool) -> Sample {
        Sample {
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
        let pool = vec![
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
        assert!(votes.text().contains("100.0 ± 0.0"));
        let svg = picture::draw(&votes).expect("a picture");
        assert!(svg.contains("</svg>") && !svg.contains("NaN"));
        // Without scores there is only the majority.
        let mut plain = pool;
        plain[0][0].score = None;
        let votes = count(&plain, &[1], 2, 0);
        assert!(votes.by_n[0].weighted.is_none());
        picture::draw(&votes).expect("a picture");
    }
}
