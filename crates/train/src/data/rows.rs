//! Rows of a data file: TRL's `text`, `messages`, and `prompt` with `completion` (strings or messages).

use std::path::Path;

use edgethink_model::Message;
use serde_json::Value;

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

/// Reads a file by its extension. With each row comes its line (JSONL) or number (parquet), from 1.
///
/// # Errors
/// [`TrainError::Read`], [`TrainError::DataFormat`], [`TrainError::DataRow`], and those of a parquet file.
pub(crate) fn read(path: &Path) -> Result<Vec<(usize, Row)>, TrainError> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => read_jsonl(path),
        Some("parquet") => read_parquet(path),
        _ => Err(TrainError::DataFormat {
            path: path.to_owned(),
        }),
    }
}

fn read_jsonl(path: &Path) -> Result<Vec<(usize, Row)>, TrainError> {
    json_lines(path, row)
}

/// What `understand` makes of each JSON line of a file, with its line, from 1; empty lines are left out.
///
/// # Errors
/// [`TrainError::Read`], or [`TrainError::DataRow`] for a line that is no JSON or is not understood.
pub(crate) fn json_lines<T>(
    path: &Path,
    mut understand: impl FnMut(Value) -> Result<T, String>,
) -> Result<Vec<(usize, T)>, TrainError> {
    let text = std::fs::read_to_string(path).map_err(|source| TrainError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut rows = Vec::new();
    for (line, text) in text.lines().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(text)
            .map_err(|e| e.to_string())
            .and_then(&mut understand)
            .map_err(|problem| TrainError::DataRow {
                path: path.to_owned(),
                row: line + 1,
                problem,
            })?;
        rows.push((line + 1, row));
    }
    Ok(rows)
}

#[cfg(feature = "parquet")]
fn read_parquet(path: &Path) -> Result<Vec<(usize, Row)>, TrainError> {
    let mut rows = Vec::new();
    super::parquet::read(path, |number, value| {
        let row = row(value).map_err(|problem| TrainError::DataRow {
            path: path.to_owned(),
            row: number,
            problem,
        })?;
        rows.push((number, row));
        Ok(())
    })?;
    Ok(rows)
}

/// A build without the reader says how to get it.
#[cfg(not(feature = "parquet"))]
fn read_parquet(path: &Path) -> Result<Vec<(usize, Row)>, TrainError> {
    Err(TrainError::WithoutParquet {
        path: path.to_owned(),
    })
}

/// Understands one JSON object.
pub(crate) fn row(value: Value) -> Result<Row, String> {
    let Value::Object(mut map) = value else {
        return Err("is not a JSON object".to_owned());
    };
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
        _ => Err("has neither `text`, nor `messages`, nor `prompt` and `completion`".to_owned()),
    }
}

fn messages(value: Value, field: &str) -> Result<Vec<Message>, String> {
    let list: Vec<Message> = serde_json::from_value(value)
        .map_err(|e| format!("`{field}` is not a list of messages with role and content: {e}"))?;
    if list.is_empty() {
        return Err(format!("`{field}` is empty"));
    }
    Ok(list)
}
