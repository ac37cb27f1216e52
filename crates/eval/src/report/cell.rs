//! A cell that was measured: its records and what it took.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use edgethink_model::bundle::is_packed;

use crate::columns;
use crate::error::EvalError;
use crate::record::{QueryRecords, Record, queries};
use crate::report::recipe::{CellRecipe, Measure};
use crate::resources::Session;
use crate::store::run_file;
use crate::summary::{self, Summary};

/// The file with the bytes of a cell's files.
const FILES: &str = "files.json";

/// Records and costs of a cell.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Everything it was asked.
    pub records: Vec<Record>,
    /// What that took.
    pub sessions: Vec<Session>,
    /// Bytes of its files.
    pub bytes: Option<u64>,
    /// All of it in figures: each query counts the same.
    pub all: Summary,
    /// By task.
    pub tasks: Vec<Summary>,
}

impl Cell {
    /// Reads a cell back; `None` if it was not measured to the end.
    ///
    /// # Errors
    /// Damaged records.
    pub fn read(recipe: &CellRecipe, dir: &Path) -> Result<Option<Self>, EvalError> {
        let table = dir.join("records.parquet");
        let Some(run) = run_file(dir)?.filter(|_| table.is_file()) else {
            return Ok(None);
        };
        let mut records = columns::read(&table)?;
        let all = summary::of(&queries(&mut records));
        let tasks = summary::by_task(&mut records);
        let files = std::fs::read(dir.join(FILES)).ok();
        let files: Option<BTreeMap<String, u64>> =
            files.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Some(Self {
            name: recipe.name.clone(),
            about: recipe.about.clone(),
            records,
            sessions: run.sessions,
            bytes: files.map(|files| files.values().sum()),
            all,
            tasks,
        }))
    }

    /// The summary of one task.
    pub fn task(&self, name: &str) -> Option<&Summary> {
        self.tasks.iter().find(|task| task.task == name)
    }

    /// Its queries.
    pub fn queries(&self) -> impl Iterator<Item = QueryRecords<'_>> {
        // They were sorted when they were read.
        let same = |a: &Record, b: &Record| a.task == b.task && a.query() == b.query();
        self.records.chunk_by(same).map(QueryRecords)
    }

    /// One figure of it.
    pub fn measure(&self, measure: Measure) -> Option<f64> {
        match measure {
            Measure::Accuracy => Some(self.all.accuracy),
            Measure::Tokens => Some(self.all.tokens_per_query),
            Measure::Bytes => self.bytes.map(|bytes| bytes as f64),
            Measure::Seconds => Some(self.all.seconds),
        }
    }

    /// Tokens of all streams per second, from the start of queries to their ends.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let (tokens, seconds) = self.queries().fold((0.0, 0.0), |(tokens, seconds), query| {
            (
                tokens + query.any().query_tokens as f64,
                seconds + query.any().seconds,
            )
        });
        (seconds > 0.0).then(|| tokens / seconds)
    }

    /// The most resident memory of any session, bytes.
    pub fn peak_memory(&self) -> Option<u64> {
        self.sessions
            .iter()
            .filter_map(|session| session.peak_memory_bytes)
            .max()
    }

    /// Joules per query; `None` if any session had no counter.
    pub fn joules(&self) -> Option<f64> {
        let energies = self.sessions.iter().map(|session| session.energy_joules);
        let sum: f64 = energies.collect::<Option<Vec<f64>>>()?.into_iter().sum();
        let queries: usize = self.sessions.iter().map(|session| session.queries).sum();
        (queries > 0).then(|| sum / queries as f64)
    }
}

/// Notes the bytes of a cell's files beside its records. Of a directory counts what goes into a bundle, and not what a training left
/// there.
///
/// # Errors
/// Files that cannot be read, a folder that cannot be written.
pub fn note_files(files: &[PathBuf], dir: &Path) -> Result<(), EvalError> {
    let mut bytes = BTreeMap::new();
    for path in files {
        let read = |source| EvalError::Read {
            path: path.clone(),
            source,
        };
        bytes.insert(path.display().to_string(), size(path).map_err(read)?);
    }
    let path = dir.join(FILES);
    let text = serde_json::to_string_pretty(&bytes).unwrap_or_default();
    std::fs::write(&path, format!("{text}\n")).map_err(|source| EvalError::Write { path, source })
}

fn size(path: &Path) -> std::io::Result<u64> {
    if !path.is_dir() {
        return Ok(std::fs::metadata(path)?.len());
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if is_packed(&entry.file_name().to_string_lossy()) {
            bytes += std::fs::metadata(entry.path())?.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_directory_count_the_files_that_a_program_reads() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| {
            std::fs::write(dir.path().join(name), vec![b' '; bytes]).unwrap();
        };
        write("model.safetensors", 1000);
        write("config.json", 100);
        // What a training leaves.
        write("metrics.jsonl", 7);
        write("run.json", 7);
        std::fs::create_dir(dir.path().join("checkpoint-8")).unwrap();
        write("checkpoint-8/model.safetensors", 7);
        assert_eq!(size(dir.path()).unwrap(), 1100);
        assert_eq!(size(&dir.path().join("run.json")).unwrap(), 7);
        assert!(size(&dir.path().join("absent")).is_err());
    }
}
