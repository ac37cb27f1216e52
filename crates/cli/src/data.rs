//! `edgethink data`: lengths of training rows, and their overlap with benchmarks.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use edgethink_eval::{question, rows, task::Task};
use edgethink_model::LoadOptions;
use edgethink_model::hub::Hub;
use edgethink_train::{
    Benchmark, FEWEST_WORDS, Lengths, Overlap, Spread, TrainError, bin, decontaminate, histogram,
    lengths,
};
use serde_json::{Value, json};

use crate::args::data::{DataCommand, DecontaminateArgs, StatsArgs};
use crate::info::count;
use crate::interrupt;
use crate::screen::Screen;
use crate::table::table;
use crate::train::View;

/// Columns that hold the question in a benchmark's file, where no task says which.
const QUESTIONS: [&str; 5] = ["question", "problem", "prompt", "question_content", "text"];
/// Characters of the longest bar of a histogram.
const BAR: usize = 40;

/// Runs the command.
pub(crate) fn run(command: &DataCommand) -> Result<ExitCode> {
    let done = match command {
        DataCommand::Stats(args) => stats(args),
        DataCommand::Decontaminate(args) => clean(args),
    };
    match done {
        Err(error) if matches!(error.downcast_ref(), Some(TrainError::Cancelled)) => {
            eprintln!("{error}");
            Ok(ExitCode::from(interrupt::EXIT_CODE))
        }
        done => done,
    }
}

fn stats(args: &StatsArgs) -> Result<ExitCode> {
    let options = LoadOptions {
        offline: args.offline,
        progress: Screen::stderr().live,
    };
    let found = View::during(|view| lengths(&args.files, args.schema, &args.model, options, view))?;
    if let Some(path) = &args.svg {
        found.draw(path)?;
    }
    let longer = args
        .max_length
        .map(|limit| (limit, found.longer_than(limit)));
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", stats_json(&found, longer))?;
    } else {
        write!(out, "{}", stats_text(&found, longer))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stats_json(found: &Lengths, longer: Option<(usize, usize)>) -> Value {
    let last = bin(found.whole.iter().copied().max().unwrap_or(0));
    let parts: serde_json::Map<String, Value> = found
        .parts()
        .iter()
        .map(|(name, lengths)| {
            let s = Spread::of(lengths);
            let value = json!({
                "tokens": s.sum, "mean": s.mean, "median": s.median, "p95": s.p95, "max": s.max,
                "histogram_by_power_of_2": histogram(lengths, last),
            });
            ((*name).to_owned(), value)
        })
        .collect();
    json!({
        "rows": found.whole.len(), "parts": parts,
        "max_length": longer.map(|(limit, _)| limit), "longer": longer.map(|(_, n)| n),
    })
}

fn stats_text(found: &Lengths, longer: Option<(usize, usize)>) -> String {
    let rows: Vec<Vec<String>> = found
        .parts()
        .iter()
        .map(|(name, lengths)| {
            let s = Spread::of(lengths);
            vec![
                (*name).to_owned(),
                count(s.sum),
                format!("{:.1}", s.mean),
                s.median.to_string(),
                s.p95.to_string(),
                s.max.to_string(),
            ]
        })
        .collect();
    let mut text = format!("{} rows\n\n", count(found.whole.len()));
    text.push_str(&table(
        &["part", "tokens", "mean", "median", "95 %", "longest"],
        &rows,
    ));
    for (name, lengths) in found.parts() {
        text.push_str(&format!("\n{name}, rows by tokens\n"));
        text.push_str(&bars(lengths));
    }
    if let Some((limit, n)) = longer {
        let share = 100.0 * n as f64 / found.whole.len().max(1) as f64;
        text.push_str(&format!(
            "\n{} rows ({share:.2} %) are longer than {limit} tokens\n",
            count(n)
        ));
    }
    text
}

/// A histogram by powers of two, the empty bins at both ends left out.
fn bars(lengths: &[u32]) -> String {
    let counts = histogram(lengths, bin(lengths.iter().copied().max().unwrap_or(0)));
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let first = counts.iter().position(|&n| n > 0).unwrap_or(0);
    let rows: Vec<Vec<String>> = counts
        .iter()
        .enumerate()
        .skip(first)
        .map(|(k, &n)| {
            let from = if k == 0 { 0 } else { 1u64 << k };
            let length = (n * BAR).div_ceil(most);
            vec![
                format!("{from} to {}", (1u64 << (k + 1)) - 1),
                n.to_string(),
                "#".repeat(length),
            ]
        })
        .collect();
    table(&["tokens", "rows", ""], &rows)
}

fn clean(args: &DecontaminateArgs) -> Result<ExitCode> {
    if let Some(out) = &args.out {
        if out.extension().is_none_or(|e| e != "jsonl") {
            bail!("--out {}: must end in .jsonl", out.display());
        }
        if args.files.contains(out) {
            bail!("--out {} is one of the files that are read", out.display());
        }
    }
    let hub = Hub::from_env(args.offline, Screen::stderr().live)?;
    let benchmarks: Vec<Benchmark> = args
        .against
        .iter()
        .map(|name| benchmark(name, &hub))
        .collect::<Result<_>>()?;
    let found = View::during(|view| {
        decontaminate(
            &args.files,
            &benchmarks,
            args.ngram,
            args.out.as_deref(),
            view,
        )
    })?;
    write!(std::io::stdout().lock(), "{}", overlap_text(&found))?;
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&found)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The questions of a task or a file.
fn benchmark(name: &str, hub: &Hub) -> Result<Benchmark> {
    let (task, file) = match name.split_once('=') {
        Some((task, file)) => (Some(task), Some(Path::new(file))),
        None if Path::new(name).is_file() => (None, Some(Path::new(name))),
        None => (Some(name), None),
    };
    let (files, columns) = match (task, file) {
        (None, Some(file)) => (vec![file.to_owned()], QUESTIONS.map(str::to_owned).to_vec()),
        (task, file) => {
            let task = Task::named(task.unwrap_or(name))?;
            (question::files(&task, file, hub)?, task.question.clone())
        }
    };
    let mut texts = Vec::new();
    for file in &files {
        for (at, row) in rows::read(file)?.iter().enumerate() {
            let asked = columns.iter().find_map(|name| rows::column(row, name));
            let asked = asked.with_context(|| {
                let names: Vec<&str> = row.keys().map(String::as_str).collect();
                format!(
                    "{} row {}: none of its columns {} is a question ({})",
                    file.display(),
                    at + 1,
                    names.join(", "),
                    columns.join(", ")
                )
            })?;
            texts.push(words(asked));
        }
    }
    Ok(Benchmark {
        name: name.to_owned(),
        rows: texts,
    })
}

/// A text, or what the user says in a conversation.
fn words(asked: &Value) -> String {
    match asked {
        Value::String(text) => text.clone(),
        Value::Array(turns) => {
            let said = turns.iter().filter(|turn| turn["role"] != "system");
            let texts = said.filter_map(|turn| turn["content"].as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}

fn overlap_text(found: &Overlap) -> String {
    let rows: Vec<Vec<String>> = found
        .benchmarks
        .iter()
        .map(|b| {
            vec![
                b.name.clone(),
                count(b.rows),
                count(b.found.len()),
                count(b.contaminated),
                count(b.too_short),
            ]
        })
        .collect();
    let share = 100.0 * found.contaminated as f64 / found.rows.max(1) as f64;
    let mut text = format!(
        "{} of {} rows ({share:.3} %) share {} words in a row with a benchmark\n\n",
        count(found.contaminated),
        count(found.rows),
        found.ngram
    );
    let header = [
        "benchmark",
        "questions",
        "found",
        "rows that share",
        "too short",
    ];
    text.push_str(&table(&header, &rows));
    if found.benchmarks.iter().any(|b| b.too_short > 0) {
        text.push_str(&format!(
            "too short: fewer than {FEWEST_WORDS} words, not compared\n"
        ));
    }
    for b in &found.benchmarks {
        for e in &b.examples {
            text.push_str(&format!(
                "\n{} row {} and {} row {}: {}\n",
                e.file.display(),
                e.row,
                b.name,
                e.benchmark_row,
                e.words
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_a_bar_for_each_bin() {
        let text = bars(&[4, 5, 9, 9, 9, 9]);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].trim_start().starts_with("4 to 7"), "{text}");
        assert_eq!(lines[0].matches('#').count(), BAR / 2);
        assert_eq!(lines[1].matches('#').count(), BAR);
    }

    #[test]
    fn a_conversation_is_what_its_user_says() {
        let turns =
            json!([{"role": "system", "content": "be short"}, {"role": "user", "content": "why?"}]);
        assert_eq!(words(&turns), "why?");
        assert_eq!(words(&json!("why?")), "why?");
    }
}
