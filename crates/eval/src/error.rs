//! What can go wrong in an evaluation.

use std::path::PathBuf;

use edgethink_model::hub::HubError;
use edgethink_reason::ReasonError;
use thiserror::Error;

/// An evaluation could not be done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// No task has this name.
    #[error("there is no task `{name}`; the tasks are {known}, or give a task file (.toml)")]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A task file is wrong.
    #[error("task {name} is refused: {problem}")]
    Task {
        /// Its name or path.
        name: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A task has no data of its own.
    #[error("task {name} names no data; give a file: {name}=FILE")]
    NoData {
        /// The task.
        name: String,
    },
    /// A data set cannot be had from the hub.
    #[error("cannot get the data of task {task}; give a local file: {task}=FILE")]
    Hub {
        /// The task.
        task: String,
        /// Why.
        #[source]
        source: Box<HubError>,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A data set is not as its name says.
    #[error("{} is damaged, or its pages are not plain or snappy: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        problem: String,
    },
    /// The file's name ends in something that is no data set.
    #[error("{} is no .jsonl, .json, .csv or .parquet file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A row lacks something, or has it in a wrong form.
    #[error("row {row} of {}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// From 1.
        row: usize,
        /// What is wrong.
        problem: String,
    },
    /// There is nothing to ask.
    #[error("{} has no rows", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds another run.
    #[error(
        "{} holds the records of another run: {what} was {was} and is {is}; name another folder, or begin anew with --fresh",
        dir.display()
    )]
    OtherRun {
        /// The folder.
        dir: PathBuf,
        /// The setting that differs.
        what: String,
        /// Its value there.
        was: String,
        /// Its value now.
        is: String,
    },
    /// Records cannot be understood.
    #[error("the records in {} are damaged: {problem}", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The model under test failed.
    #[error("question {question} cannot be answered")]
    Answer {
        /// From 1.
        question: usize,
        /// Why.
        source: ReasonError,
    },
    /// The engine failed.
    #[error(transparent)]
    Reason(#[from] ReasonError),
    /// An endpoint failed after all retries.
    #[error("{url} gives no answer to question {question} after {tries} tries: {problem}")]
    Endpoint {
        /// The address.
        url: String,
        /// From 1.
        question: usize,
        /// How often it was asked.
        tries: usize,
        /// The last failure.
        problem: String,
    },
    /// Generated code may not be run.
    #[error("{0}")]
    Code(String),
    /// A report recipe is wrong; all its problems.
    #[error("recipe {} is refused:\n{problems}", path.display())]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// One per line.
        problems: String,
    },
    /// A chart cannot be drawn.
    #[error("cannot draw {what}: {problem}")]
    Chart {
        /// Its title.
        what: String,
        /// Why.
        problem: String,
    },
}
