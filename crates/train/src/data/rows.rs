//! Rows of a data file: TRL's `text`, `messages`, and `prompt` with `completion` (strings or messages), or the fields of a published
//! data set ([`Schema`]). A file is read row by row, so that it may be larger than memory.

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use edgethink_model::Message;
use serde_json::Value;

use super::schema::Schema;
use crate::error::TrainError;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    /// `text`: a plain document.
    Text(String),
    /// `messages`, or `prompt` and `completion` as messages: the last message is what is learnt.
    Messages(Vec<Message>),
    /// `prompt` and `completion` as text.
    Completion { prompt: String, completion: String },
}

impl Row {
    /// Bytes of its texts.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Messages(list) => list.iter().map(|m| m.content.len()).sum(),
            Self::Completion { prompt, completion } => prompt.len() + completion.len(),
        }
    }
}

/// Reads a file by its extension. With each row comes its line (JSONL) or number (parquet), from 1.
///
/// # Errors
/// [`TrainError::Read`], [`TrainError::DataFormat`], [`TrainError::DataRow`], and those of a parquet file.
#[cfg(all(test, feature = "parquet"))]
pub(crate) fn read(path: &Path) -> Result<Vec<(usize, Row)>, TrainError> {
    understood(path, &[], |value| row(value, None))
}

/// What `understand` makes of each row of a file, with its line or number, from 1. Columns of a parquet file that no data set here has
/// are read if `also` names them.
///
/// # Errors
/// Those of [`each`], and [`TrainError::DataRow`] for a row that is not understood.
pub(crate) fn understood<T>(
    path: &Path,
    also: &[&str],
    mut understand: impl FnMut(Value) -> Result<T, String>,
) -> Result<Vec<(usize, T)>, TrainError> {
    let mut rows = Vec::new();
    each(path, also, |number, value| {
        let row = understand(value).map_err(|problem| TrainError::DataRow {
            path: path.to_owned(),
            row: number,
            problem,
        })?;
        rows.push((number, row));
        Ok(())
    })?;
    Ok(rows)
}

/// Calls `take` with each row of a file, one after the other, and its line (JSONL) or number (parquet), from 1; empty lines are left out.
///
/// # Errors
/// [`TrainError::Read`], [`TrainError::DataFormat`], [`TrainError::DataRow`] for a line that is no JSON, those of a parquet file, and
/// those of `take`.
pub(crate) fn each(
    path: &Path,
    also: &[&str],
    mut take: impl FnMut(usize, Value) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => each_line(path, |number, _, value| take(number, value)),
        Some("parquet") => each_in_parquet(path, also, take),
        _ => Err(TrainError::DataFormat {
            path: path.to_owned(),
        }),
    }
}

/// A row as it was read.
#[derive(Debug)]
pub(crate) enum Raw {
    /// A line of a JSONL file, and what it says.
    Line {
        /// The line.
        text: String,
        /// What it says.
        value: Value,
    },
    /// A row of a parquet file, with the columns that training knows.
    Row(Value),
}

/// As [`each`], with the line that a row stands on.
///
/// # Errors
/// Those of [`each`].
pub(super) fn each_raw(
    path: &Path,
    mut take: impl FnMut(usize, Raw) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    if path.extension().is_some_and(|e| e == "jsonl") {
        return each_line(path, |number, text, value| {
            take(number, Raw::Line { text, value })
        });
    }
    each(path, &[], |number, value| take(number, Raw::Row(value)))
}

fn each_line(
    path: &Path,
    mut take: impl FnMut(usize, String, Value) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let wrong = |source| TrainError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(wrong)?;
    for (at, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(wrong)?;
        if line.trim().is_empty() {
            continue;
        }
        let value = serde_json::from_str(&line).map_err(|e| TrainError::DataRow {
            path: path.to_owned(),
            row: at + 1,
            problem: e.to_string(),
        })?;
        take(at + 1, line, value)?;
    }
    Ok(())
}

#[cfg(feature = "parquet")]
fn each_in_parquet(
    path: &Path,
    also: &[&str],
    take: impl FnMut(usize, Value) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    super::parquet::read(path, also, take)
}

/// A build without the reader says how to get it.
#[cfg(not(feature = "parquet"))]
fn each_in_parquet(
    path: &Path,
    _: &[&str],
    _: impl FnMut(usize, Value) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    Err(TrainError::WithoutParquet {
        path: path.to_owned(),
    })
}

/// Understands one JSON object, by the fields of `schema` or by those that it has.
pub(crate) fn row(value: Value, schema: Option<Schema>) -> Result<Row, String> {
    let Value::Object(mut map) = value else {
        return Err("is not a JSON object".to_owned());
    };
    if let Some(schema) = schema {
        return own(schema, &map);
    }
    if let Some(text) = map.remove("text") {
        return match text {
            Value::String(text) => Ok(Row::Text(text)),
            _ => Err("`text` is not a string".to_owned()),
        };
    }
    if let Some(list) = map.remove("messages") {
        return Ok(Row::Messages(messages(list, "messages")?));
    }
    match (map.remove("prompt"), map.remove("completion")) {
        (Some(Value::String(prompt)), Some(Value::String(completion))) => {
            Ok(Row::Completion { prompt, completion })
        }
        (Some(prompt), Some(completion)) => {
            let mut all = messages(prompt, "prompt")?;
            all.extend(messages(completion, "completion")?);
            Ok(Row::Messages(all))
        }
        _ => match Schema::of(&map) {
            Some(schema) => own(schema, &map),
            None => {
                let has: Vec<&str> = map.keys().map(String::as_str).collect();
                Err(format!(
                    "has the fields {}: neither `text`, nor `messages`, nor `prompt` and `completion`, nor those of a data set that is \
                     known",
                    has.join(", ")
                ))
            }
        },
    }
}

/// A row of a published data set, as the conversation that is learnt.
fn own(schema: Schema, map: &serde_json::Map<String, Value>) -> Result<Row, String> {
    let sample = schema.sample(map)?;
    let mut messages = sample.asked;
    messages.push(Message::new("assistant", sample.response?));
    Ok(Row::Messages(messages))
}

fn messages(value: Value, field: &str) -> Result<Vec<Message>, String> {
    let list: Vec<Message> = serde_json::from_value(value)
        .map_err(|e| format!("`{field}` is not a list of messages with role and content: {e}"))?;
    if list.is_empty() {
        return Err(format!("`{field}` is empty"));
    }
    Ok(list)
}
