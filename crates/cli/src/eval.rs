//! `edgethink eval jsonl`: accuracy and length on a data set, many problems at once through one engine.
//!
//! Rows are taken in order and kept `--batch` at a time in flight; the engine batches their streams. A row's draws depend on the
//! seed and its place in the file, not on what runs beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use edgethink_eval::local::{each_answer, input};
use edgethink_model::Message;
use edgethink_reason::{Answer, Choice, FinishReason, Input, Query, Reasoner, ThoughtEnd};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::args::vote::VoteArg;
use crate::args::{EvalArgs, VoteArgs};
use crate::interrupt::{self, Running};
use crate::open::{self, Need};
use crate::show::rate;
use crate::table::table;

/// One line of the data set.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Row {
    prompt: Prompt,
    answer: Option<Expected>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Messages(Vec<Message>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Expected {
    Text(String),
    Number(serde_json::Number),
}

impl Row {
    /// The conversation to answer.
    pub(crate) fn input(&self, system: Option<&str>) -> Input {
        match &self.prompt {
            Prompt::Text(text) => input(&[Message::new("user", text)], system),
            Prompt::Messages(messages) => input(messages, system),
        }
    }

    /// The right answer; empty where none was asked for.
    pub(crate) fn expected(&self) -> String {
        self.answer
            .as_ref()
            .map_or_else(String::new, Expected::text)
    }
}

impl Expected {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// One line of `--out`.
#[derive(Debug, Serialize)]
struct Sample<'a> {
    row: usize,
    sample: usize,
    correct: bool,
    expected: &'a str,
    text: &'a str,
    reasoning: &'a str,
    completion_tokens: usize,
    reasoning_tokens: usize,
    finish_reason: &'static str,
    thought_closed: Option<&'static str>,
    budget_forced: bool,
    continued: usize,
    score: Option<f32>,
    /// The vote chose it; `null` without a vote.
    chosen: Option<bool>,
    #[serde(flatten)]
    other: &'a Map<String, Value>,
}

/// The result. Lengths are tokens per answer.
#[derive(Debug, Clone, Serialize)]
struct Summary {
    rows: usize,
    samples: usize,
    accuracy: f64,
    /// Standard error of the accuracy over the rows.
    accuracy_stderr: f64,
    /// Share of rows with at least one right answer.
    any_correct: f64,
    mean_completion_tokens: f64,
    max_completion_tokens: usize,
    mean_reasoning_tokens: f64,
    /// Share of answers that ran into a limit.
    length_share: f64,
    /// Share of answers whose thought did not end.
    unfinished_share: f64,
    /// Share of answers that the budget forced.
    forced_share: f64,
    /// Share of answers whose thought was cut because it repeated itself.
    loop_share: f64,
    /// Share of rows whose vote chose a right answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    vote_accuracy: Option<f64>,
    /// Share of rows that the switcher gave a thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    thought_share: Option<f64>,
    /// Streams begun per row, and tokens of all of them: what a row costs.
    streams_per_row: f64,
    tokens_per_row: f64,
    /// Tokens computed to score answers, per row.
    verifier_tokens_per_row: f64,
    seconds: f64,
    tokens_per_second: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    by: BTreeMap<String, Group>,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Group {
    samples: usize,
    accuracy: f64,
    mean_completion_tokens: f64,
}

/// What is added up while answers come in.
#[derive(Debug, Default)]
struct Tally {
    rows: usize,
    samples: usize,
    correct: usize,
    any: usize,
    /// Sum of squares of each row's share of right answers.
    squares: f64,
    completion: usize,
    longest: usize,
    reasoning: usize,
    length: usize,
    unfinished: usize,
    forced: usize,
    loops: usize,
    streams: usize,
    tokens: usize,
    verifier: usize,
    /// Rows that voted, and those that voted right.
    votes: [usize; 2],
    /// Rows that the switcher judged, and those that it gave a thought.
    decisions: [usize; 2],
    by: BTreeMap<String, Group>,
}

/// Runs the command.
pub(crate) fn run(args: &EvalArgs) -> Result<ExitCode> {
    let mut rows = read_rows(&args.file, true)?;
    rows.truncate(args.limit.unwrap_or(rows.len()));
    if let Some(key) = &args.by
        && !rows.iter().any(|row| row.other.contains_key(key))
    {
        bail!(
            "no row of {} has the key {key:?} of --by",
            args.file.display()
        );
    }
    let opened = open::open(&args.asked.model)?;
    let n = usize::from(args.vote.n);
    let batch = args.asked.batch.min(rows.len());
    let need = Need {
        streams: batch * n,
        prompts: batch,
        ..Need::one(&args.asked.thinking)
    };
    let mut reasoner = open::reasoner(opened, &args.asked.engine, &args.asked.thinking, &need)?;
    let mut out = match &args.out {
        Some(path) => {
            Some(BufWriter::new(File::create(path).with_context(|| {
                format!("cannot write {}", path.display())
            })?))
        }
        None => None,
    };
    let bar = ProgressBar::new(rows.len() as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} rows, {msg}, {elapsed} of {duration}",
    )?);
    let started = Instant::now();
    let mut tally = Tally::default();
    let running = Running::start();
    let query = |reasoner: &Reasoner, index: usize| row_query(reasoner, &rows[index], index, args);
    let take = |index: usize, answer: &Answer| -> Result<bool> {
        let row = &rows[index];
        let expected = row.expected();
        let right: Vec<bool> = answer
            .choices
            .iter()
            .map(|choice| is_correct(choice, &expected))
            .collect();
        if let Some(out) = &mut out {
            let winner = answer.vote.as_ref().map(|vote| vote.winner());
            for (choice, &correct) in answer.choices.iter().zip(&right) {
                let sample = Sample {
                    chosen: winner.map(|winner| winner == Some(choice.index)),
                    ..sample(index, row, &expected, choice, correct)
                };
                serde_json::to_writer(&mut *out, &sample)?;
                writeln!(out)?;
            }
        }
        tally.add(
            answer,
            &right,
            args.by.as_ref().and_then(|key| row.other.get(key)),
        );
        bar.set_message(format!("{:.1} % right", 100.0 * tally.accuracy()));
        bar.inc(1);
        Ok(true)
    };
    let pressed = interrupt::pressed;
    let done = each_answer(&mut reasoner, rows.len(), batch, query, pressed, take);
    drop(running);
    bar.finish_and_clear();
    if let Some(out) = &mut out {
        out.flush()?;
    }
    let finished = done?;
    let summary = tally.summary(started.elapsed().as_secs_f64());
    if args.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&summary)?)?;
    } else {
        write!(std::io::stdout(), "{}", summary.text(args.by.as_deref()))?;
    }
    if !finished {
        eprintln!("stopped after {} of {} rows", summary.rows, rows.len());
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    Ok(ExitCode::SUCCESS)
}

fn row_query(reasoner: &Reasoner, row: &Row, index: usize, args: &EvalArgs) -> Query {
    let input = row.input(args.asked.system.as_deref());
    let query = open::query(reasoner, input, &args.asked.thinking, &args.asked.sampling);
    // Streams stand side by side unless a vote is asked for.
    let vote = VoteArgs {
        vote: args.vote.vote.or(Some(VoteArg::None)),
        ..args.vote.clone()
    };
    let query = open::with_vote(query, &vote);
    Query {
        seed: query.seed.wrapping_add(index as u64),
        ..query
    }
}

pub(crate) fn is_correct(choice: &Choice, expected: &str) -> bool {
    edgethink_grader::is_correct(&choice.text, expected)
}

/// The thought began and did not end.
fn is_unfinished(choice: &Choice) -> bool {
    choice.text.is_empty() && !choice.reasoning.is_empty()
}

fn sample<'a>(
    index: usize,
    row: &'a Row,
    expected: &'a str,
    choice: &'a Choice,
    correct: bool,
) -> Sample<'a> {
    Sample {
        row: index,
        sample: choice.index,
        correct,
        expected,
        text: &choice.text,
        reasoning: &choice.reasoning,
        completion_tokens: choice.token_ids.len(),
        reasoning_tokens: choice.reasoning_tokens,
        finish_reason: choice.finish_reason.as_str(),
        thought_closed: choice.thought_closed.map(ThoughtEnd::as_str),
        budget_forced: choice.budget_forced,
        continued: choice.continued,
        score: choice.score,
        chosen: None,
        other: &row.other,
    }
}

/// The rows of a file; `answers` says whether each must have one.
pub(crate) fn read_rows(path: &Path, answers: bool) -> Result<Vec<Row>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut rows = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let parsed: Result<Row, _> = serde_json::from_str(&line);
        let wanted = if answers {
            "{\"prompt\", \"answer\"}"
        } else {
            "{\"prompt\"}"
        };
        let place = || format!("line {} of {} is not {wanted}", index + 1, path.display());
        let row = parsed.with_context(place)?;
        if answers && row.answer.is_none() {
            bail!(place());
        }
        rows.push(row);
    }
    if rows.is_empty() {
        bail!("{} has no rows", path.display());
    }
    Ok(rows)
}

impl Tally {
    fn add(&mut self, answer: &Answer, right: &[bool], group: Option<&Value>) {
        self.rows += 1;
        self.streams += answer.choices.len();
        self.tokens += answer.usage.completion_tokens;
        self.verifier += answer.usage.verifier_tokens;
        if let Some(vote) = &answer.vote {
            let chose = vote.winner().is_some_and(|winner| right[winner]);
            self.votes = [self.votes[0] + 1, self.votes[1] + usize::from(chose)];
        }
        if let Some(decision) = answer.decision {
            let [all, thinks] = self.decisions;
            self.decisions = [all + 1, thinks + usize::from(decision.thinks)];
        }
        // A stream that the vote could do without has said nothing.
        let whole: Vec<(&Choice, bool)> = answer
            .choices
            .iter()
            .zip(right.iter().copied())
            .filter(|(choice, _)| choice.finish_reason != FinishReason::Decided)
            .collect();
        let correct = whole.iter().filter(|(_, right)| *right).count();
        self.correct += correct;
        self.any += usize::from(correct > 0);
        self.squares += (correct as f64 / whole.len().max(1) as f64).powi(2);
        for (choice, right) in whole {
            let tokens = choice.token_ids.len();
            self.samples += 1;
            self.completion += tokens;
            self.longest = self.longest.max(tokens);
            self.reasoning += choice.reasoning_tokens;
            self.length += usize::from(choice.finish_reason == FinishReason::Length);
            self.unfinished += usize::from(is_unfinished(choice));
            self.forced += usize::from(choice.budget_forced);
            self.loops += usize::from(choice.thought_closed == Some(ThoughtEnd::Loop));
            if let Some(value) = group {
                let name = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                let group = self.by.entry(name).or_default();
                // Sums until the summary divides them.
                group.samples += 1;
                group.accuracy += f64::from(u8::from(right));
                group.mean_completion_tokens += tokens as f64;
            }
        }
    }

    fn accuracy(&self) -> f64 {
        self.correct as f64 / self.samples.max(1) as f64
    }

    fn summary(self, seconds: f64) -> Summary {
        let samples = self.samples.max(1) as f64;
        let rows = self.rows.max(1) as f64;
        let accuracy = self.accuracy();
        let share = |[all, some]: [usize; 2]| (all > 0).then(|| some as f64 / all as f64);
        let variance = (self.squares / rows - accuracy * accuracy).max(0.0);
        let mut by = self.by;
        for group in by.values_mut() {
            group.accuracy /= group.samples as f64;
            group.mean_completion_tokens /= group.samples as f64;
        }
        Summary {
            rows: self.rows,
            samples: self.samples,
            accuracy,
            accuracy_stderr: (variance / rows).sqrt(),
            any_correct: self.any as f64 / rows,
            mean_completion_tokens: self.completion as f64 / samples,
            max_completion_tokens: self.longest,
            mean_reasoning_tokens: self.reasoning as f64 / samples,
            length_share: self.length as f64 / samples,
            unfinished_share: self.unfinished as f64 / samples,
            forced_share: self.forced as f64 / samples,
            loop_share: self.loops as f64 / samples,
            vote_accuracy: share(self.votes),
            thought_share: share(self.decisions),
            streams_per_row: self.streams as f64 / rows,
            tokens_per_row: self.tokens as f64 / rows,
            verifier_tokens_per_row: self.verifier as f64 / rows,
            seconds,
            tokens_per_second: self.tokens as f64 / seconds,
            by,
        }
    }
}

impl Summary {
    fn text(&self, by: Option<&str>) -> String {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let mut rows = vec![
            (
                "accuracy",
                format!(
                    "{} ± {}",
                    percent(self.accuracy),
                    percent(self.accuracy_stderr)
                ),
            ),
            ("rows, samples", format!("{}, {}", self.rows, self.samples)),
        ];
        if self.samples > self.rows {
            rows.push(("any of n right", percent(self.any_correct)));
        }
        if let Some(share) = self.vote_accuracy {
            rows.push(("vote right", percent(share)));
        }
        if let Some(share) = self.thought_share {
            rows.push(("questions thought about", percent(share)));
        }
        if self.streams_per_row > 1.0 {
            let each = format!(
                "{:.2} streams, {:.1} tokens, {:.1} to verify",
                self.streams_per_row, self.tokens_per_row, self.verifier_tokens_per_row
            );
            rows.push(("per row", each));
        }
        rows.extend([
            (
                "tokens per answer",
                format!(
                    "{:.1} (at most {})",
                    self.mean_completion_tokens, self.max_completion_tokens
                ),
            ),
            (
                "of these thought",
                format!("{:.1}", self.mean_reasoning_tokens),
            ),
            ("cut at a limit", percent(self.length_share)),
            ("thought unfinished", percent(self.unfinished_share)),
            ("forced by budget", percent(self.forced_share)),
            ("cut as a loop", percent(self.loop_share)),
            (
                "time",
                format!(
                    "{:.1} s, {} tokens/s",
                    self.seconds,
                    rate(self.tokens_per_second)
                ),
            ),
        ]);
        let mut text = String::new();
        for (name, value) in rows {
            text.push_str(&format!("{name:23}  {value}\n"));
        }
        if let Some(key) = by {
            let rows: Vec<Vec<String>> = self
                .by
                .iter()
                .map(|(name, group)| {
                    let tokens = format!("{:.1}", group.mean_completion_tokens);
                    vec![
                        name.clone(),
                        group.samples.to_string(),
                        percent(group.accuracy),
                        tokens,
                    ]
                })
                .collect();
            text.push('\n');
            text.push_str(&table(&[key, "samples", "accuracy", "tokens"], &rows));
        }
        text
    }
}
