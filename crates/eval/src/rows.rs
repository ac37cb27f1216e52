//! Rows of a data set: JSON objects from .jsonl, .json, .csv or .parquet files, every column of them.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Value};

use crate::error::EvalError;

/// A row: columns by name.
pub type Columns = Map<String, Value>;

/// Reads a file by its ending.
///
/// # Errors
/// A file that cannot be read, is damaged, has another ending, or has no rows.
pub fn read(path: &Path) -> Result<Vec<Columns>, EvalError> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let rows = match ending {
        "jsonl" => lines(path)?,
        "json" => array(path)?,
        "csv" => table(path)?,
        "parquet" => parquet(path)?,
        _ => {
            return Err(EvalError::Format {
                path: path.to_owned(),
            });
        }
    };
    if rows.is_empty() {
        return Err(EvalError::NoRows {
            path: path.to_owned(),
        });
    }
    Ok(rows)
}

/// The column of this name, whatever its case; an exact match comes first.
pub fn column<'a>(row: &'a Columns, name: &str) -> Option<&'a Value> {
    let like = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case(name);
    row.get(name)
        .or_else(|| row.iter().find(like).map(|(_, value)| value))
        .filter(|value| !value.is_null())
}

fn text(path: &Path) -> Result<String, EvalError> {
    std::fs::read_to_string(path).map_err(|source| EvalError::Read {
        path: path.to_owned(),
        source,
    })
}

fn lines(path: &Path) -> Result<Vec<Columns>, EvalError> {
    let text = text(path)?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| EvalError::Row {
                path: path.to_owned(),
                row: at + 1,
                problem: format!("it is no JSON object: {error}"),
            })
        })
        .collect()
}

fn array(path: &Path) -> Result<Vec<Columns>, EvalError> {
    serde_json::from_str(&text(path)?).map_err(|error| EvalError::Damaged {
        path: path.to_owned(),
        problem: format!("it is no JSON array of objects: {error}"),
    })
}

fn table(path: &Path) -> Result<Vec<Columns>, EvalError> {
    let damaged = |error: csv::Error| EvalError::Damaged {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let mut reader = csv::Reader::from_path(path).map_err(damaged)?;
    let header = reader.headers().map_err(damaged)?.clone();
    let rows = reader.records().map(|record| {
        let record = record.map_err(damaged)?;
        let cells = header.iter().zip(&record);
        Ok(cells
            .map(|(name, cell)| (name.to_owned(), Value::String(cell.to_owned())))
            .collect())
    });
    rows.collect()
}

fn parquet(path: &Path) -> Result<Vec<Columns>, EvalError> {
    let damaged = |problem: String| EvalError::Damaged {
        path: path.to_owned(),
        problem,
    };
    let file = File::open(path).map_err(|source| EvalError::Read {
        path: path.to_owned(),
        source,
    })?;
    let reader = SerializedFileReader::new(file).map_err(|e| damaged(e.to_string()))?;
    // The `parquet` crate panics on some damaged pages.
    std::panic::catch_unwind(AssertUnwindSafe(|| {
        let rows = reader
            .get_row_iter(None)
            .map_err(|e| damaged(e.to_string()))?;
        rows.map(|row| Ok(object(&row.map_err(|e| damaged(e.to_string()))?)))
            .collect()
    }))
    .unwrap_or_else(|_| Err(damaged("its pages do not fit together".to_owned())))
}

fn object(row: &Row) -> Columns {
    row.get_column_iter()
        .map(|(name, field)| (name.clone(), value(field)))
        .collect()
}

/// A parquet value as JSON; times, decimals and bytes as the text that the crate writes.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(x) => Value::from(*x),
        Field::Byte(x) => Value::from(*x),
        Field::Short(x) => Value::from(*x),
        Field::Int(x) => Value::from(*x),
        Field::Long(x) => Value::from(*x),
        Field::UByte(x) => Value::from(*x),
        Field::UShort(x) => Value::from(*x),
        Field::UInt(x) => Value::from(*x),
        Field::ULong(x) => Value::from(*x),
        Field::Float(x) => Value::from(*x),
        Field::Double(x) => Value::from(*x),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => Value::from(String::from_utf8_lossy(bytes.data()).as_ref()),
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => Value::from(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(name: &str, text: &str) -> Result<Vec<Columns>, EvalError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        read(&path)
    }

    #[test]
    fn every_format_gives_the_same_rows() {
        let want =
            json!([{"question": "2+2?", "answer": "4"}, {"question": "a,\n\"b\"", "answer": "x"}]);
        for (name, text) in [
            (
                "a.jsonl",
                "{\"question\":\"2+2?\",\"answer\":\"4\"}\n\n{\"question\":\"a,\\n\\\"b\\\"\",\"answer\":\"x\"}\n",
            ),
            (
                "a.json",
                "[{\"question\":\"2+2?\",\"answer\":\"4\"},{\"question\":\"a,\\n\\\"b\\\"\",\"answer\":\"x\"}]",
            ),
            ("a.csv", "question,answer\n2+2?,4\n\"a,\n\"\"b\"\"\",x\n"),
        ] {
            assert_eq!(json!(written(name, text).expect(name)), want, "{name}");
        }
    }

    #[test]
    fn parquet_keeps_every_type() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../golden/parquet/messages_wide.parquet");
        let rows = read(&path).expect("it is whole");
        assert_eq!(rows.len(), 2);
        assert!(rows[0]["messages"].is_array(), "{:?}", rows[0]);
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        for (name, text, reason) in [
            ("a.jsonl", "{\"a\": 1}\n[2]\n", "row 2"),
            ("a.jsonl", "\n", "no rows"),
            ("a.json", "{}", "array"),
            ("a.txt", "", ".parquet"),
            ("a.parquet", "PAR1", "damaged"),
            ("a.csv", "a,b\n1\n", "damaged"),
        ] {
            let error = written(name, text).expect_err(name).to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }

    #[test]
    fn columns_are_found_in_any_case() {
        let rows =
            written("a.jsonl", "{\"Problem\": \"p\", \"answer\": null}").expect("it is right");
        assert_eq!(column(&rows[0], "problem"), Some(&json!("p")));
        assert_eq!(column(&rows[0], "answer"), None, "a null is no value");
    }
}
