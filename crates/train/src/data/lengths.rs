//! How long the rows of a data set are, in tokens of prompt, thought and answer, before anything is trained.

use std::path::{Path, PathBuf};

use edgethink_model::{ChatTemplate, LoadOptions, Message, Model, RenderOptions, Tokenizer};
use rayon::prelude::*;

use super::{Row, Schema, encode, rows};
use crate::{
    error::TrainError,
    run::{Event, Progress, plot},
};

/// Bytes of text that are encoded at a time, on all threads.
const BATCH_BYTES: usize = 8 << 20;
const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Tokens of every row, part by part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Up to the answer, the generation prompt included.
    pub prompt: Vec<u32>,
    /// From `<think>` to `</think>`; 0 where there is none.
    pub thought: Vec<u32>,
    /// What follows.
    pub answer: Vec<u32>,
    /// All of it.
    pub whole: Vec<u32>,
}

/// One part in a few numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Rows.
    pub rows: usize,
    /// Sum of their tokens.
    pub sum: u64,
    /// Mean.
    pub mean: f64,
    /// The middle one.
    pub median: u32,
    /// As long as 95 % are at most.
    pub p95: u32,
    /// The longest.
    pub max: u32,
}

impl Spread {
    /// Of the lengths of rows; zeros without rows.
    pub fn of(lengths: &[u32]) -> Self {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable();
        let rank = |share: f64| {
            let at = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(at.saturating_sub(1)).copied().unwrap_or(0)
        };
        let sum: u64 = sorted.iter().map(|&n| u64::from(n)).sum();
        Self {
            rows: sorted.len(),
            sum,
            mean: sum as f64 / sorted.len().max(1) as f64,
            median: rank(0.5),
            p95: rank(0.95),
            max: sorted.last().copied().unwrap_or(0),
        }
    }
}

impl Lengths {
    /// The parts with their names.
    pub fn parts(&self) -> [(&'static str, &[u32]); 4] {
        [
            ("prompt", &self.prompt),
            ("thought", &self.thought),
            ("answer", &self.answer),
            ("whole", &self.whole),
        ]
    }

    /// Rows longer than a limit.
    pub fn longer_than(&self, limit: usize) -> usize {
        let longer = self.whole.iter().filter(|&&n| n as usize > limit);
        longer.count()
    }

    /// Draws the parts as curves: rows whose length is from 2^k to 2^(k+1) - 1, over 2^k.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub fn draw(&self, path: &Path) -> Result<(), TrainError> {
        let most = self.whole.iter().copied().max().unwrap_or(0);
        let last = bin(most);
        let series: Vec<(&str, Vec<(f64, f64)>)> = self.parts()[..3]
            .iter()
            .map(|(name, lengths)| {
                let counts = histogram(lengths, last);
                let points = counts.iter().enumerate();
                (*name, points.map(|(k, &n)| (k as f64, n as f64)).collect())
            })
            .collect();
        let axes = plot::Axes {
            title: "Lengths of rows",
            x: "tokens, as a power of 2",
            y: "rows",
        };
        plot::lines(path, &axes, &series)
    }
}

/// The bin of a length: 0 for none and one token, k for 2^k to 2^(k+1) - 1.
pub fn bin(length: u32) -> usize {
    length.max(1).ilog2() as usize
}

/// Rows in each bin up to `last`.
pub fn histogram(lengths: &[u32], last: usize) -> Vec<usize> {
    let mut counts = vec![0; last + 1];
    for &length in lengths {
        counts[bin(length).min(last)] += 1;
    }
    counts
}

/// Counts the tokens of all rows of files, by the tokenizer and chat template of `model`; its weights are not read.
///
/// # Errors
/// Those of reading files and model, and [`TrainError::DataRow`] for a row that cannot be encoded.
pub fn lengths(
    files: &[PathBuf],
    schema: Option<Schema>,
    model: &str,
    options: LoadOptions,
    progress: &mut dyn Progress,
) -> Result<Lengths, TrainError> {
    let model_dir = PathBuf::from(model);
    let model = Model::load_with(model, options)?;
    let missing = |what: &str| TrainError::Unfit {
        path: model_dir.clone(),
        problem: format!("has no {what}"),
    };
    let text = Text {
        tokenizer: model
            .tokenizer
            .as_ref()
            .ok_or_else(|| missing("tokenizer.json"))?,
        template: model.template.as_ref(),
    };
    let mut all = Lengths::default();
    let mut tokens = 0;
    for file in encode::data_files(files)? {
        let wrong = |row: usize, problem: String| TrainError::DataRow {
            path: file.clone(),
            row,
            problem,
        };
        let mut count = |batch: &mut Vec<(usize, Row)>| -> Result<(), TrainError> {
            let counted: Vec<Result<[u32; 3], String>> =
                batch.par_iter().map(|(_, row)| text.count(row)).collect();
            for ((number, _), counted) in batch.drain(..).zip(counted) {
                let [prompt, thought, answer] = counted.map_err(|e| wrong(number, e))?;
                let whole = prompt + thought + answer;
                all.prompt.push(prompt);
                all.thought.push(thought);
                all.answer.push(answer);
                all.whole.push(whole);
                tokens += u64::from(whole);
            }
            if progress.stop() {
                return Err(TrainError::Cancelled);
            }
            progress.event(&Event::Encoded {
                rows: all.whole.len() as u64,
                tokens,
            });
            Ok(())
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        rows::each(&file, &[], |number, value| {
            let row = rows::row(value, schema).map_err(|e| wrong(number, e))?;
            bytes += row.bytes();
            batch.push((number, row));
            if bytes >= BATCH_BYTES {
                bytes = 0;
                count(&mut batch)?;
            }
            Ok(())
        })?;
        count(&mut batch)?;
    }
    Ok(all)
}

/// The text side of the model.
struct Text<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
}

impl Text<'_> {
    /// Tokens of prompt, thought and answer.
    fn count(&self, row: &Row) -> Result<[u32; 3], String> {
        match row {
            Row::Text(text) => Ok([0, 0, self.tokens(text)?]),
            Row::Completion { prompt, completion } => {
                let [thought, answer] = self.response(completion, None)?;
                Ok([self.tokens(prompt)?, thought, answer])
            }
            Row::Messages(messages) => {
                let (last, before) = messages
                    .split_last()
                    .filter(|(last, _)| last.role == "assistant")
                    .ok_or("does not end with an assistant's message")?;
                let [thought, answer] =
                    self.response(&last.content, last.reasoning_content.as_deref())?;
                Ok([self.prompt(before)?, thought, answer])
            }
        }
    }

    fn prompt(&self, messages: &[Message]) -> Result<u32, String> {
        let template = self
            .template
            .ok_or("has messages, but the model has no chat template")?;
        let options = RenderOptions {
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let text = template.render(messages, &options);
        self.tokens(&text.map_err(|e| e.to_string())?)
    }

    /// Tokens of thought and answer, taken apart at the closing tag.
    fn response(&self, text: &str, thought: Option<&str>) -> Result<[u32; 2], String> {
        if let Some(thought) = thought {
            return Ok([self.tokens(thought)?, self.tokens(text)?]);
        }
        let thinks = text.trim_start().starts_with(OPEN);
        match text.split_once(CLOSE).filter(|_| thinks) {
            Some((thought, answer)) => Ok([
                self.tokens(&format!("{thought}{CLOSE}"))?,
                self.tokens(answer)?,
            ]),
            None => Ok([0, self.tokens(text)?]),
        }
    }

    fn tokens(&self, text: &str) -> Result<u32, String> {
        let tokens = self.tokenizer.encode(text, false);
        let count = tokens.map_err(|e| e.to_string())?.len();
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use edgethink_model::Family;

    use super::*;
    use crate::run::Silent;

    #[test]
    fn a_spread_is_by_nearest_rank() {
        let lengths: Vec<u32> = (1..=100).rev().collect();
        let s = Spread::of(&lengths);
        assert_eq!(
            (s.rows, s.sum, s.median, s.p95, s.max),
            (100, 5050, 50, 95, 100)
        );
        assert!((s.mean - 50.5).abs() < 1e-9);
        assert_eq!(Spread::of(&[]).max, 0);
        assert_eq!(Spread::of(&[7]).p95, 7);
        assert_eq!(histogram(&[0, 1, 2, 3, 4, 7, 8, 1000], 3), [2, 2, 2, 2]);
    }

    #[test]
    fn thought_and_answer_are_told_apart() {
        let model = edgethink_testkit::tiny_model(Family::Qwen2, 1);
        let rows = model.path().join("rows.jsonl");
        let chat = |content: &str| {
            format!(
                r#"{{"messages": [{{"role": "user", "content": "abc"}}, {{"role": "assistant", "content": "{content}"}}]}}"#
            )
        };
        let lines = [
            chat(r"<think>\nxy\n</think>\n\nz"),
            chat("z"),
            r#"{"text": "abcd"}"#.to_owned(),
        ];
        std::fs::write(&rows, lines.join("\n")).expect("written");
        let dir = model.path().to_str().expect("a UTF-8 path");
        let found = lengths(&[rows], None, dir, LoadOptions::default(), &mut Silent);
        let found = found.expect("counted");
        assert_eq!(found.prompt[0], found.prompt[1]);
        assert!(
            found.prompt[0] > found.answer[1] && found.thought[0] > 3,
            "{found:?}"
        );
        assert_eq!((found.prompt[2], &found.thought[1..]), (0, &[0, 0][..]));
        // "\n\nz" and "z".
        assert!(found.answer[0] > found.answer[1], "{found:?}");
        let whole: Vec<u32> = (0..3)
            .map(|i| found.prompt[i] + found.thought[i] + found.answer[i])
            .collect();
        assert_eq!(found.whole, whole);
        assert_eq!(found.longer_than(whole[1] as usize), 1);
        let picture = model.path().join("lengths.svg");
        found.draw(&picture).expect("drawn");
        let svg = std::fs::read_to_string(picture).expect("read");
        assert!(svg.contains("thought") && svg.contains("<svg"));
    }
}
