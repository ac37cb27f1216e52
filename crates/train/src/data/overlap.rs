//! Decontamination: rows of training files that share an n-gram of words with a benchmark are found, counted, and left out.
//!
//! Words are runs of letters and digits in lower case, so neither spaces nor punctuation nor LaTeX's braces hide a copy. All texts of a
//! training row are compared, each by itself. A benchmark text of fewer than n words counts as one gram of its own length, unless it is
//! too short to say anything. In memory are the benchmarks and a few megabytes of rows, and the result does not depend on the threads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::rows::{self, Raw};
use crate::{
    error::TrainError,
    run::{Event, Progress},
};

/// Words below which a benchmark text is not compared.
pub const FEWEST_WORDS: usize = 6;
/// Examples kept for each benchmark.
const EXAMPLES: usize = 5;
/// Bytes of rows that are compared at a time, on all threads.
const BATCH_BYTES: usize = 8 << 20;

/// A benchmark's questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Benchmark {
    /// What the report calls it.
    pub name: String,
    /// The text of each row.
    pub rows: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// Words of a gram.
    pub ngram: usize,
    /// Rows of the training files.
    pub rows: u64,
    /// Rows that share a gram with a benchmark.
    pub contaminated: u64,
    /// Each benchmark in turn.
    pub benchmarks: Vec<BenchmarkOverlap>,
}

/// What was found of one benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BenchmarkOverlap {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: usize,
    /// Rows too short to be compared.
    pub too_short: usize,
    /// Training rows that share a gram with it.
    pub contaminated: u64,
    /// Its rows that were found, from 1, with the number of training rows that share a gram with each.
    pub found: BTreeMap<usize, u64>,
    /// The first of them.
    pub examples: Vec<Shared>,
}

/// One gram that a training row shares with a benchmark's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// The training file.
    pub file: PathBuf,
    /// Its line or row, from 1.
    pub row: usize,
    /// The benchmark's row, from 1.
    pub benchmark_row: usize,
    /// The words.
    pub words: String,
}

/// Where a gram of a benchmark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    benchmark: u32,
    row: u32,
    word: u32,
}

/// All grams of the benchmarks.
struct Index<'a> {
    /// Lengths of the grams: n, and those of shorter texts.
    lengths: BTreeSet<usize>,
    grams: HashMap<u64, Vec<Place>>,
    words: Vec<Vec<Vec<u64>>>,
    benchmarks: &'a [Benchmark],
}

/// Compares training files with benchmarks, and writes the rows that share nothing to `clean` as JSONL: a line of a JSONL file as it
/// stands, a row of a parquet file with the columns that training knows.
///
/// # Errors
/// Those of reading the files, [`TrainError::Write`], and [`TrainError::Cancelled`] if `progress` asked to stop.
pub fn decontaminate(
    files: &[PathBuf],
    benchmarks: &[Benchmark],
    ngram: usize,
    clean: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<Overlap, TrainError> {
    let (index, mut report) = Index::new(benchmarks, ngram.max(1));
    let aside = clean.map(|path| path.with_extension("jsonl.part"));
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| TrainError::Write { path, source }
    };
    let mut out = match &aside {
        Some(path) => Some(BufWriter::new(File::create(path).map_err(wrong(path))?)),
        None => None,
    };
    for file in super::encode::data_files(files)? {
        let mut compare = |batch: &mut Vec<(usize, Raw)>| -> Result<(), TrainError> {
            let found: Vec<BTreeSet<Place>> = batch
                .par_iter()
                .map(|(_, raw)| index.shared(&raw.texts()))
                .collect();
            for ((row, raw), shared) in batch.drain(..).zip(found) {
                report.rows += 1;
                if shared.is_empty() {
                    if let (Some(out), Some(path)) = (&mut out, &aside) {
                        writeln!(out, "{}", raw.line()).map_err(wrong(path))?;
                    }
                } else {
                    report.add(&index, &file, row, &shared);
                }
            }
            if progress.stop() {
                return Err(TrainError::Cancelled);
            }
            progress.event(&Event::Compared {
                rows: report.rows,
                contaminated: report.contaminated,
            });
            Ok(())
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        rows::each_raw(&file, |row, raw| {
            bytes += raw.bytes();
            batch.push((row, raw));
            if bytes >= BATCH_BYTES {
                bytes = 0;
                compare(&mut batch)?;
            }
            Ok(())
        })?;
        compare(&mut batch)?;
    }
    if let (Some(out), Some(aside), Some(path)) = (&mut out, &aside, clean) {
        out.flush().map_err(wrong(aside))?;
        fs::rename(aside, path).map_err(wrong(path))?;
    }
    Ok(report)
}

impl Overlap {
    fn add(&mut self, index: &Index<'_>, file: &Path, row: usize, shared: &BTreeSet<Place>) {
        self.contaminated += 1;
        let mut last = None;
        for place in shared {
            // A benchmark's row counts once for a training row.
            if last == Some((place.benchmark, place.row)) {
                continue;
            }
            let of = &mut self.benchmarks[place.benchmark as usize];
            if last.is_none_or(|(benchmark, _)| benchmark != place.benchmark) {
                of.contaminated += 1;
            }
            last = Some((place.benchmark, place.row));
            let number = place.row as usize + 1;
            *of.found.entry(number).or_default() += 1;
            if of.examples.len() < EXAMPLES {
                of.examples.push(Shared {
                    file: file.to_owned(),
                    row,
                    benchmark_row: number,
                    words: index.text(*place, self.ngram),
                });
            }
        }
    }
}

impl<'a> Index<'a> {
    fn new(benchmarks: &'a [Benchmark], ngram: usize) -> (Self, Overlap) {
        let mut index = Self {
            lengths: BTreeSet::new(),
            grams: HashMap::new(),
            words: Vec::new(),
            benchmarks,
        };
        let mut report = Overlap {
            ngram,
            rows: 0,
            contaminated: 0,
            benchmarks: Vec::new(),
        };
        for (at, benchmark) in benchmarks.iter().enumerate() {
            let mut too_short = 0;
            let mut all = Vec::with_capacity(benchmark.rows.len());
            for (row, text) in benchmark.rows.iter().enumerate() {
                let words = hashes(text);
                let n = ngram.min(words.len());
                if n < ngram.min(FEWEST_WORDS) {
                    too_short += 1;
                } else {
                    index.lengths.insert(n);
                    for (word, gram) in grams(&words, n).enumerate() {
                        index.grams.entry(gram).or_default().push(Place {
                            benchmark: at as u32,
                            row: row as u32,
                            word: word as u32,
                        });
                    }
                }
                all.push(words);
            }
            index.words.push(all);
            report.benchmarks.push(BenchmarkOverlap {
                name: benchmark.name.clone(),
                rows: benchmark.rows.len(),
                too_short,
                contaminated: 0,
                found: BTreeMap::new(),
                examples: Vec::new(),
            });
        }
        (index, report)
    }

    /// The grams of benchmarks that stand in one of the texts.
    fn shared(&self, texts: &[&str]) -> BTreeSet<Place> {
        let mut found = BTreeSet::new();
        for text in texts {
            let words = hashes(text);
            for &n in self.lengths.range(..=words.len()) {
                for (at, gram) in grams(&words, n).enumerate() {
                    for place in self.grams.get(&gram).into_iter().flatten() {
                        let row = &self.words[place.benchmark as usize][place.row as usize];
                        let from = place.word as usize;
                        // The sum over a gram may be that of another; its words are not.
                        if row.get(from..from + n) == Some(&words[at..at + n]) {
                            found.insert(*place);
                        }
                    }
                }
            }
        }
        found
    }

    /// The words of a gram.
    fn text(&self, place: Place, ngram: usize) -> String {
        let row = &self.benchmarks[place.benchmark as usize].rows[place.row as usize];
        let words = words(row).skip(place.word as usize).take(ngram);
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Runs of letters and digits, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// A number for each word: FNV-1a, mixed.
fn hashes(text: &str) -> Vec<u64> {
    let hash = |word: String| {
        let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    };
    words(text).map(hash).collect()
}

/// A number for each run of `n` words: a polynomial that rolls on from one to the next.
fn grams(words: &[u64], n: usize) -> impl Iterator<Item = u64> + '_ {
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    let first = words.iter().take(n);
    let mut sum = first.fold(0u64, |sum, w| sum.wrapping_mul(BASE).wrapping_add(*w));
    let top = (1..n).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let count = (words.len() + 1).saturating_sub(n.max(1));
    (0..count).map(move |at| {
        if at > 0 {
            let left = words[at - 1].wrapping_mul(top);
            sum = sum.wrapping_sub(left).wrapping_mul(BASE);
            sum = sum.wrapping_add(words[at + n - 1]);
        }
        sum
    })
}

impl Raw {
    /// Bytes of it.
    fn bytes(&self) -> usize {
        match self {
            Self::Line { text, .. } => text.len(),
            Self::Row(value) => strings(value).iter().map(|s| s.len()).sum(),
        }
    }

    /// All its texts.
    fn texts(&self) -> Vec<&str> {
        match self {
            Self::Line { value, .. } | Self::Row(value) => strings(value),
        }
    }

    /// It as a line of a JSONL file.
    fn line(&self) -> String {
        match self {
            Self::Line { text, .. } => text.clone(),
            Self::Row(value) => value.to_string(),
        }
    }
}

fn strings(value: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => found.push(text.as_str()),
            Value::Array(list) => open.extend(list),
            Value::Object(map) => open.extend(map.values()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Silent;

    const QUESTION: &str =
        "Find the number of ordered pairs (a, b) of integers such that a + b = 12 and a < b.";

    fn benchmarks() -> Vec<Benchmark> {
        let text = |rows: &[&str]| rows.iter().map(|r| (*r).to_owned()).collect();
        vec![
            Benchmark {
                name: "first".to_owned(),
                rows: text(&["What is 1 + 1?", QUESTION]),
            },
            Benchmark {
                name: "second".to_owned(),
                rows: text(&["How many feet do nine cats and two birds have?"]),
            },
        ]
    }

    fn compared(rows: &[&str], ngram: usize) -> (Overlap, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let (train, clean) = (
            dir.path().join("train.jsonl"),
            dir.path().join("clean.jsonl"),
        );
        fs::write(&train, rows.join("\n")).expect("written");
        let report = decontaminate(&[train], &benchmarks(), ngram, Some(&clean), &mut Silent);
        let text = fs::read_to_string(&clean).expect("the clean file");
        (report.expect("compared"), text)
    }

    #[test]
    fn a_copy_is_found_in_whatever_form_it_stands() {
        let clean = r#"{"prompt": "Find the number of ordered pairs of primes.", "n": 1.50}"#;
        let rows = [
            clean,
            r#"{"conversations": [{"from": "human", "value": "Hint. find the Number of ordered pairs $(a,b)$ of integers such that $a+b=12$ and $a<b$"}]}"#,
            r#"{"text": "how many feet do nine cats and two birds have"}"#,
            r#"{"question": "What is 1 + 1?"}"#,
            r#"{"text": "one more thing", "other": "How many feet do nine cats"}"#,
        ];
        let (report, text) = compared(&rows, 13);
        assert_eq!((report.rows, report.contaminated), (5, 2));
        // What is clean stays as it stood.
        assert_eq!(text, format!("{clean}\n{}\n{}\n", rows[3], rows[4]));
        let [first, second] = &report.benchmarks[..] else {
            panic!("two benchmarks")
        };
        assert_eq!((first.contaminated, first.too_short), (1, 1));
        assert_eq!(first.found, BTreeMap::from([(2, 1)]));
        let shared = &first.examples[0];
        assert_eq!((shared.row, shared.benchmark_row), (2, 2));
        assert_eq!(
            shared.words,
            "find the number of ordered pairs a b of integers such that a"
        );
        // Ten words: compared as a whole.
        assert_eq!(second.found, BTreeMap::from([(1, 1)]));
        // Shorter grams find more.
        assert_eq!(compared(&rows, 6).0.contaminated, 4);
    }

    #[test]
    fn grams_roll() {
        let words: Vec<u64> = (1..40u64)
            .map(|i| i.wrapping_mul(0x1234_5678_9abc_def1))
            .collect();
        for n in [1, 2, 13, 39] {
            let rolled: Vec<u64> = grams(&words, n).collect();
            let alone: Vec<u64> = words
                .windows(n)
                .map(|w| grams(w, n).next().expect("one gram"))
                .collect();
            assert_eq!(rolled, alone, "{n}");
        }
        assert_eq!(grams(&words, 40).count(), 0);
    }

    #[test]
    fn threads_do_not_change_the_result() {
        let rows: Vec<String> = (0..3000)
            .map(|i| {
                let text = if i % 7 == 0 {
                    QUESTION
                } else {
                    "nothing that is in a benchmark"
                };
                format!("{{\"text\": \"{i} {text} {}\"}}", "x ".repeat(i % 50))
            })
            .collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads").install(|| {
                let (mut report, text) = compared(&rows, 13);
                // The directory is another.
                for benchmark in &mut report.benchmarks {
                    benchmark
                        .examples
                        .iter_mut()
                        .for_each(|e| e.file = PathBuf::new());
                }
                (report, text)
            })
        };
        let one = run(1);
        assert_eq!(one.0.contaminated, 429);
        assert_eq!(run(4), one);
    }
}
