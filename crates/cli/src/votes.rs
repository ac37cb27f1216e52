//! `edgethink eval votes`: what N answers and a vote are worth (Table 9 of the paper), from a file of samples.

mod picture;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use edgethink_eval::votes::{Spread, Voter, Votes, count};
use edgethink_grader::{extract, is_correct};
use serde::Deserialize;

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
    let text = if args.json { json } else { text(&votes) };
    write!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// The samples of each question.
fn read(path: &Path) -> Result<Vec<Vec<Voter>>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut pool: BTreeMap<usize, Vec<Voter>> = BTreeMap::new();
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
        pool.entry(line.row).or_default().push(Voter {
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

fn text(votes: &Votes) -> String {
    let optional = |spread: &Option<Spread>| spread.map_or_else(String::new, |s| s.text());
    let rows: Vec<Vec<String>> = votes
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
        votes.questions,
        votes.samples,
        100.0 * votes.one_sample,
        100.0 * votes.any_correct,
        votes.resamples,
        table(&header, &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_the_table_and_a_picture() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pool.jsonl");
        let line = |row: usize, text: &str, score: f64| {
            format!("{{\"row\":{row},\"text\":\"{text}\",\"expected\":\"1\",\"score\":{score}}}\n")
        };
        std::fs::write(
            &path,
            [
                line(0, "1", 0.9),
                line(0, "2", 0.2),
                line(1, "1", 0.5),
                line(1, "1", 0.5),
            ]
            .concat(),
        )
        .expect("written");
        let mut pool = read(&path).expect("read");
        let votes = count(&pool, &[1, 2], 50, 0);
        assert!(text(&votes).contains("100.0 ± 0.0"), "{}", text(&votes));
        let svg = picture::draw(&votes).expect("a picture");
        assert!(svg.contains("</svg>") && !svg.contains("NaN"));
        pool[0][0].score = None;
        picture::draw(&count(&pool, &[1], 2, 0)).expect("a picture without scores");
    }
}
