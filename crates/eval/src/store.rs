//! The folder of a run: records as they come, so that a run that was stopped goes on and ends with the same table.
//!
//! `run.json` says what is measured; another run is refused. `records.jsonl` grows line by line, and a torn last line is dropped.
//! A finished run has `records.parquet`.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::columns;
use crate::error::EvalError;
use crate::record::Record;
use crate::resources::Session;

/// What is kept of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Texts and thoughts too.
    Full,
    /// Neither; the records are small, and the texts come again with the same seed.
    Compact,
}

/// `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// What is measured: everything that the answers are a function of.
    pub settings: Map<String, Value>,
    /// What it took, by session: one for each time that the run was begun or went on.
    pub sessions: Vec<Session>,
}

/// The records of a run, in a folder or in memory alone.
#[derive(Debug)]
pub struct Store {
    dir: Option<PathBuf>,
    file: Option<File>,
    run: RunFile,
    keep: Keep,
    records: Vec<Record>,
    done: BTreeSet<(String, usize, usize)>,
}

impl Store {
    /// Opens a folder, with what is there already; `None` keeps everything in memory. `fresh` forgets what is there.
    ///
    /// # Errors
    /// A folder of another run, damaged records, a path that cannot be written.
    pub fn open(
        dir: Option<&Path>,
        settings: Map<String, Value>,
        keep: Keep,
        fresh: bool,
    ) -> Result<Self, EvalError> {
        let mut store = Self {
            dir: dir.map(Path::to_owned),
            file: None,
            run: RunFile {
                settings,
                sessions: Vec::new(),
            },
            keep,
            records: Vec::new(),
            done: BTreeSet::new(),
        };
        let Some(dir) = dir else { return Ok(store) };
        fs::create_dir_all(dir).map_err(|e| cannot_write(dir, e))?;
        let lines = dir.join("records.jsonl");
        let table = dir.join("records.parquet");
        if fresh {
            for path in [&lines, &table, &dir.join("run.json")] {
                match fs::remove_file(path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(cannot_write(path, e));
                    }
                    _ => {}
                }
            }
        }
        if let Some(found) = run_file(dir)? {
            store.check(dir, &found)?;
            store.run.sessions = found.sessions;
            if lines.is_file() {
                store.records = read_lines(&lines)?;
            } else if table.is_file() {
                store.records = columns::read(&table)?;
            }
        }
        store.records = whole_queries(store.records);
        store.done = store.records.iter().map(key).collect();
        store.write_run()?;
        Ok(store)
    }

    /// Refuses the folder of another run, naming the first setting that differs.
    fn check(&self, dir: &Path, found: &RunFile) -> Result<(), EvalError> {
        let (was, is) = (&found.settings, &self.run.settings);
        let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        let absent = Value::Null;
        for name in names {
            let (was, is) = (
                was.get(name).unwrap_or(&absent),
                is.get(name).unwrap_or(&absent),
            );
            if was != is {
                return Err(EvalError::OtherRun {
                    dir: dir.to_owned(),
                    what: name.clone(),
                    was: was.to_string(),
                    is: is.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Whether a query has its records.
    pub fn has(&self, task: &str, question: usize, repeat: usize) -> bool {
        self.done.contains(&(task.to_owned(), question, repeat))
    }

    /// Adds the records of one query.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(&mut self, records: Vec<Record>) -> Result<(), EvalError> {
        let keep = |record: Record| match self.keep {
            Keep::Full => record,
            Keep::Compact => record.compact(),
        };
        let records: Vec<Record> = records.into_iter().map(keep).collect();
        if let Some(dir) = &self.dir {
            let path = dir.join("records.jsonl");
            let failed = |e| cannot_write(&path, e);
            // Made from what was read, so that torn lines and finished tables go on alike.
            if self.file.is_none() {
                let mut file = File::create(&path).map_err(failed)?;
                file.write_all(&lines(&self.records)).map_err(failed)?;
                self.file = Some(
                    OpenOptions::new()
                        .append(true)
                        .open(&path)
                        .map_err(failed)?,
                );
            }
            if let Some(file) = &mut self.file {
                file.write_all(&lines(&records)).map_err(failed)?;
            }
        }
        self.done.extend(records.iter().map(key));
        self.records.extend(records);
        Ok(())
    }

    /// Notes what a session took.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn end_session(&mut self, session: Session) -> Result<(), EvalError> {
        if session.queries > 0 {
            self.run.sessions.push(session);
        }
        self.write_run()
    }

    /// Writes the table of a finished run. Compact records keep no lines beside it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish(&mut self) -> Result<(), EvalError> {
        let order = |r: &Record| (r.task.clone(), r.question, r.repeat, r.stream);
        self.records.sort_by_key(order);
        let Some(dir) = &self.dir else { return Ok(()) };
        columns::write(&dir.join("records.parquet"), &self.records)?;
        let path = dir.join("records.jsonl");
        if self.keep == Keep::Compact && path.is_file() {
            self.file = None;
            fs::remove_file(&path).map_err(|e| cannot_write(&path, e))?;
        }
        Ok(())
    }

    /// All records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// What is measured, and what it took so far.
    pub fn run(&self) -> &RunFile {
        &self.run
    }

    fn write_run(&self) -> Result<(), EvalError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join("run.json");
        let aside = dir.join("run.json.part");
        let text = serde_json::to_string_pretty(&self.run).unwrap_or_default();
        fs::write(&aside, format!("{text}\n")).map_err(|e| cannot_write(&path, e))?;
        fs::rename(&aside, &path).map_err(|e| cannot_write(&path, e))
    }
}

/// `run.json` of a folder, if there is one.
///
/// # Errors
/// A file that is damaged.
pub fn run_file(dir: &Path) -> Result<Option<RunFile>, EvalError> {
    let path = dir.join("run.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(EvalError::Read { path, source }),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| EvalError::Records {
            path,
            problem: error.to_string(),
        })
}

fn cannot_write(path: &Path, source: std::io::Error) -> EvalError {
    EvalError::Write {
        path: path.to_owned(),
        source,
    }
}

fn key(record: &Record) -> (String, usize, usize) {
    (record.task.clone(), record.question, record.repeat)
}

fn lines(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        // A record has no map with other keys than text: it can always be written.
        bytes.extend(serde_json::to_vec(record).unwrap_or_default());
        bytes.push(b'\n');
    }
    bytes
}

/// The lines of a file; the last one may be torn.
fn read_lines(path: &Path) -> Result<Vec<Record>, EvalError> {
    let text = fs::read(path).map_err(|source| EvalError::Read {
        path: path.to_owned(),
        source,
    })?;
    let text = String::from_utf8_lossy(&text);
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| EvalError::Records {
            path: path.to_owned(),
            problem: format!("line {}: {error}", at + 1),
        })
    };
    whole.lines().enumerate().map(parse).collect()
}

/// Without queries of which not all streams were written.
fn whole_queries(records: Vec<Record>) -> Vec<Record> {
    let mut seen: std::collections::BTreeMap<_, usize> = std::collections::BTreeMap::new();
    for record in &records {
        *seen.entry(key(record)).or_default() += 1;
    }
    let whole = |record: &Record| seen.get(&key(record)).copied() == Some(record.streams.max(1));
    records.into_iter().filter(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(seed: u64) -> Map<String, Value> {
        let Value::Object(map) = json!({"model": "m", "seed": seed}) else {
            panic!("an object")
        };
        map
    }

    fn query(question: usize, streams: usize) -> Vec<Record> {
        let record = |stream| Record {
            task: "t".to_owned(),
            question,
            stream,
            streams,
            text: "so 4".to_owned(),
            ..Record::default()
        };
        (0..streams).map(record).collect()
    }

    #[test]
    fn a_stopped_run_goes_on_and_another_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = |seed, fresh| Store::open(Some(dir.path()), settings(seed), Keep::Full, fresh);
        let mut store = open(0, false).expect("new");
        store.add(query(0, 1)).expect("added");
        store.add(query(1, 2)).expect("added");
        drop(store);
        // Torn in the last line: the query of two streams is asked again.
        let path = dir.path().join("records.jsonl");
        let text = fs::read(&path).expect("read");
        fs::write(&path, &text[..text.len() - 5]).expect("written");
        let mut store = open(0, false).expect("goes on");
        assert!(store.has("t", 0, 0) && !store.has("t", 1, 0));
        store.add(query(1, 2)).expect("added");
        store.finish().expect("finished");
        assert_eq!(
            columns::read(&dir.path().join("records.parquet")).expect("read"),
            [query(0, 1), query(1, 2)].concat()
        );
        let error = open(1, false).expect_err("another seed").to_string();
        assert!(error.contains("seed was 0 and is 1"), "{error}");
        assert!(open(1, true).expect("anew").records().is_empty());
    }

    #[test]
    fn compact_records_go_on_from_the_table() {
        let dir = tempfile::tempdir().expect("a directory");
        let open =
            || Store::open(Some(dir.path()), settings(0), Keep::Compact, false).expect("open");
        let mut store = open();
        store.add(query(0, 1)).expect("added");
        store.finish().expect("finished");
        assert!(!dir.path().join("records.jsonl").exists());
        let mut store = open();
        assert!(store.has("t", 0, 0) && store.records()[0].text.is_empty());
        store.add(query(1, 1)).expect("added");
        assert_eq!(open().records().len(), 2, "one from the table, one new");
    }
}
