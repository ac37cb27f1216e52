//! The file of samples: one JSON line per response, and a first line that says what they were drawn with.
//!
//! A run that was stopped goes on behind the last whole question. Training always reads the file, so a resumed run and one that was
//! never stopped learn from the same numbers.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::TrainError;

/// One response to a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Place of the question among those that were asked.
    pub row: usize,
    /// Place among the responses to it.
    pub sample: usize,
    pub correct: bool,
    pub expected: String,
    /// What the user sees; empty if the thought did not end.
    pub text: String,
    pub completion_tokens: usize,
    /// Mean log-probability of its tokens before temperature, nats.
    pub mean_logprob: f32,
    /// How likely it is right; only in files that are made to be counted as votes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// What the verifier reads, `[E]`; none if the response did not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Vec<f32>>,
}

/// A file that is being filled.
#[derive(Debug)]
pub(crate) struct SampleFile {
    path: PathBuf,
    file: BufWriter<File>,
    /// Questions whose responses are all there.
    pub questions: usize,
    /// It held samples of other settings, which are gone.
    pub replaced: bool,
}

impl SampleFile {
    /// Opens a file that holds `n` responses per question, drawn with `settings`; what a broken write left is cut off. Samples of other
    /// settings are replaced, as are all with `anew`.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::Write`].
    pub(crate) fn open(
        path: &Path,
        settings: &Value,
        n: usize,
        anew: bool,
    ) -> Result<Self, TrainError> {
        let header = json!({ "settings": settings }).to_string();
        let old = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(TrainError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let (first, rest) = old.split_once('\n').unwrap_or_default();
        let same = first == header && !anew;
        let whole: Vec<&str> = rest
            .lines()
            .enumerate()
            .take_while(|&(at, line)| same && is_sample(line, at / n, at % n))
            .map(|(_, line)| line)
            .collect();
        let questions = whole.len() / n;
        let mut text = format!("{header}\n");
        for line in &whole[..questions * n] {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(path, text).map_err(wrong(path))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(wrong(path))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            questions,
            replaced: !old.is_empty() && !same,
        })
    }

    /// Adds the responses to the next question.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub(crate) fn add(&mut self, samples: &[Sample]) -> Result<(), TrainError> {
        write_lines(&mut self.file, samples)
            .and_then(|()| self.file.flush())
            .map_err(wrong(&self.path))?;
        self.questions += 1;
        Ok(())
    }

    /// All samples in it.
    ///
    /// # Errors
    /// [`TrainError::Read`] or [`TrainError::DataRow`].
    pub(crate) fn read(&self) -> Result<Vec<Sample>, TrainError> {
        let text = fs::read_to_string(&self.path).map_err(|source| TrainError::Read {
            path: self.path.clone(),
            source,
        })?;
        let lines = text.lines().enumerate().skip(1);
        lines
            .map(|(at, line)| {
                serde_json::from_str(line).map_err(|e| TrainError::DataRow {
                    path: self.path.clone(),
                    row: at + 1,
                    problem: e.to_string(),
                })
            })
            .collect()
    }
}

/// Writes a file of samples without a first line, as `eval votes` reads it.
///
/// # Errors
/// [`TrainError::Write`].
pub(crate) fn write(path: &Path, samples: &[Sample]) -> Result<(), TrainError> {
    let mut file = BufWriter::new(File::create(path).map_err(wrong(path))?);
    write_lines(&mut file, samples)
        .and_then(|()| file.flush())
        .map_err(wrong(path))
}

fn write_lines(file: &mut impl Write, samples: &[Sample]) -> std::io::Result<()> {
    for sample in samples {
        serde_json::to_writer(&mut *file, sample)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}

fn is_sample(line: &str, row: usize, sample: usize) -> bool {
    let read: Result<Sample, _> = serde_json::from_str(line);
    read.is_ok_and(|read| (read.row, read.sample) == (row, sample))
}

fn wrong(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError + use<> {
    let path = path.to_owned();
    move |source| TrainError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(row: usize) -> Vec<Sample> {
        (0..2)
            .map(|sample| Sample {
                row,
                sample,
                correct: sample == 0,
                expected: "7".to_owned(),
                text: "it is 7".to_owned(),
                completion_tokens: 3,
                mean_logprob: -0.1 / 3.0,
                score: None,
                state: (sample == 0).then(|| vec![1.0 / 3.0, f32::MIN_POSITIVE]),
            })
            .collect()
    }

    #[test]
    fn it_goes_on_behind_the_last_whole_question() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.jsonl");
        let settings = json!({"t": 1.0});
        let open = |settings: &Value| SampleFile::open(&path, settings, 2, false).unwrap();
        let mut file = open(&settings);
        assert_eq!((file.questions, file.replaced), (0, false));
        file.add(&question(0)).unwrap();
        file.add(&question(1)).unwrap();
        drop(file);
        // Half a question, cut in a line.
        let mut text = fs::read_to_string(&path).unwrap();
        let third = serde_json::to_string(&question(2)[0]).unwrap();
        text.push_str(&format!("{third}\n{}", &third[..third.len() / 2]));
        fs::write(&path, text).unwrap();
        let mut file = open(&settings);
        assert_eq!((file.questions, file.replaced), (2, false));
        file.add(&question(2)).unwrap();
        let all = file.read().unwrap();
        assert_eq!(all, [question(0), question(1), question(2)].concat());
        // Other settings: nothing is kept, and it is said.
        let file = open(&json!({"t": 0.8}));
        assert_eq!((file.questions, file.replaced), (0, true));
        assert!(file.read().unwrap().is_empty());
    }
}
