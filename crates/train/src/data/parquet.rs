//! Rows of a parquet file, as the JSON objects that a JSONL file would hold.
//!
//! Only the columns that training knows are read (`text`, `messages`, `prompt`, `completion`, and those of published data sets), and of
//! a message only its known fields, so other columns may have any type. A null is as good as an absent field. Rows come one by one, so
//! memory holds a page of each column. Pages are plain or compressed with snappy, which is what pyarrow, pandas and the `datasets`
//! package write.

use std::{panic::AssertUnwindSafe, path::Path, sync::Arc};

use parquet::{
    basic::{ConvertedType, LogicalType, Type as Physical},
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
    schema::types::Type,
};
use serde_json::{Map, Value};

use crate::error::TrainError;

/// Columns that make a row in TRL's forms; they are text, or messages.
const COLUMNS: [&str; 4] = ["text", "messages", "prompt", "completion"];
/// Fields of a message.
const FIELDS: [&str; 3] = ["role", "content", "reasoning_content"];
/// Fields of the structs that published data sets have: a turn of `conversations`, and SQuAD's `answers`.
const OWN_FIELDS: [&str; 3] = ["from", "value", "text"];

/// Calls `each` with every row's number, from 1, and its object. `also` names columns to read besides those that data sets have.
///
/// # Errors
/// [`TrainError::Read`], [`TrainError::Parquet`] for a damaged file, [`TrainError::ParquetColumns`] if no known column is there or one
/// is not text, and those of `each`.
pub(super) fn read(
    path: &Path,
    also: &[&str],
    mut each: impl FnMut(usize, Value) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let file = std::fs::File::open(path).map_err(|source| TrainError::Read {
        path: path.to_owned(),
        source,
    })?;
    let damaged = |source: ParquetError| TrainError::Parquet {
        path: path.to_owned(),
        source,
    };
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let schema = reader.metadata().file_metadata().schema();
    let columns = known_columns(schema, also).map_err(|problem| TrainError::ParquetColumns {
        path: path.to_owned(),
        problem,
    })?;
    // The `parquet` crate panics on some damaged pages.
    std::panic::catch_unwind(AssertUnwindSafe(|| {
        let rows = reader.get_row_iter(Some(columns)).map_err(damaged)?;
        for (at, row) in rows.enumerate() {
            each(at + 1, columns_of(&row.map_err(damaged)?))?;
        }
        Ok(())
    }))
    .unwrap_or_else(|_| {
        let what = "its pages do not fit together".to_owned();
        Err(damaged(ParquetError::General(what)))
    })
}

/// The schema with the known columns only.
fn known_columns(schema: &Type, also: &[&str]) -> Result<Type, String> {
    let (known, others): (Vec<_>, Vec<_>) =
        schema.get_fields().iter().cloned().partition(|column| {
            let name = column.name();
            COLUMNS.contains(&name)
                || super::schema::COLUMNS.contains(&name)
                || also.contains(&name)
        });
    if known.is_empty() {
        let names: Vec<&str> = others.iter().map(|column| column.name()).collect();
        return Err(format!(
            "has the columns {}, and none of {} or of a data set that is known; rename them",
            names.join(", "),
            COLUMNS.join(", ")
        ));
    }
    for column in known.iter().filter(|c| COLUMNS.contains(&c.name())) {
        all_text(column, column.name())?;
    }
    Type::group_type_builder(schema.name())
        .with_fields(known)
        .build()
        .map_err(|e| e.to_string())
}

/// A column and the known fields of its messages are text; a number or bytes would not be a string in a JSONL file either.
fn all_text(column: &Arc<Type>, name: &str) -> Result<(), String> {
    if column.is_group() {
        return column
            .get_fields()
            .iter()
            .filter(|field| field.is_group() || FIELDS.contains(&field.name()))
            .try_for_each(|field| all_text(field, name));
    }
    let info = column.get_basic_info();
    let text = column.get_physical_type() == Physical::BYTE_ARRAY
        && (matches!(info.logical_type_ref(), Some(LogicalType::String))
            || info.converted_type() == ConvertedType::UTF8);
    if text {
        return Ok(());
    }
    let part = if column.name() == name {
        String::new()
    } else {
        format!(" (its `{}`)", column.name())
    };
    Err(format!(
        "has the column `{name}`{part} as {}, not as text; write it as a string",
        column.get_physical_type()
    ))
}

/// A row, without its nulls.
fn columns_of(row: &Row) -> Value {
    fields_of(row, |_| true)
}

/// A struct, without its nulls and unknown fields.
fn object(row: &Row) -> Value {
    fields_of(row, |name| {
        FIELDS.contains(&name) || OWN_FIELDS.contains(&name)
    })
}

/// The fields that are there and that `wanted` names.
fn fields_of(row: &Row, wanted: impl Fn(&str) -> bool) -> Value {
    let fields = row
        .get_column_iter()
        .filter(|(name, field)| wanted(name) && !matches!(field, Field::Null));
    let fields: Map<String, Value> = fields
        .map(|(name, field)| (name.clone(), value(field)))
        .collect();
    Value::Object(fields)
}

/// What a row can be made of; anything else (times, bytes) is no value.
fn value(field: &Field) -> Value {
    match field {
        Field::Str(text) => Value::String(text.clone()),
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
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::rows;
    use crate::error::TrainError;

    /// A file of `golden/parquet.py`.
    fn golden(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../golden/parquet")
            .join(name)
    }

    /// The error of a file with its causes, as the program prints it.
    fn refused(path: &std::path::Path) -> String {
        let error = rows::read(path).expect_err("it is refused");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    }

    #[test]
    fn rows_are_those_of_the_jsonl_file() {
        for (name, same_as, count) in [
            ("text", "text", 5),
            ("text_groups", "text", 5),
            ("text_plain", "text", 5),
            ("text_v2", "text", 5),
            ("messages", "messages", 2),
            ("messages_wide", "messages", 2),
            ("completion", "completion", 2),
            ("completion_messages", "completion_messages", 2),
        ] {
            let found = rows::read(&golden(&format!("{name}.parquet"))).expect(name);
            let want = rows::read(&golden(&format!("{same_as}.jsonl"))).expect(same_as);
            assert_eq!(found.len(), count, "{name}");
            assert!(found == want, "{name}: {found:?} is not {want:?}");
        }
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        for (name, parts) in [
            ("no_column", &["id, score", "prompt"][..]),
            ("unknown", &["row 1", "answer", "question", "prompt"]),
            ("number", &["`text`", "INT64"]),
            ("bytes", &["`text`", "BYTE_ARRAY"]),
            ("null", &["row 2"]),
            ("content", &["`messages`", "`content`", "INT64"]),
            ("list", &["row 1", "messages"]),
            ("zstd", &["snappy", "zstd"]),
        ] {
            let text = refused(&golden(&format!("bad_{name}.parquet")));
            for part in parts {
                assert!(text.contains(part), "{name}: {part} is not in: {text}");
            }
        }
        let missing = rows::read(&golden("missing.parquet")).expect_err("there is none");
        assert!(matches!(missing, TrainError::Read { .. }), "{missing}");
    }

    #[test]
    fn damaged_files_are_refused_and_never_panic() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("damaged.parquet");
        for name in ["messages.parquet", "text_groups.parquet"] {
            let whole = std::fs::read(golden(name)).expect(name);
            for len in 0..whole.len() {
                std::fs::write(&path, &whole[..len]).expect("written");
                assert!(
                    refused(&path).contains("damaged"),
                    "{name} cut to {len} bytes"
                );
            }
            // A changed byte may still make a file; it is read or refused.
            for at in (0..whole.len()).step_by(5) {
                for bits in [0xff, 0x01] {
                    let mut bytes = whole.clone();
                    bytes[at] ^= bits;
                    std::fs::write(&path, &bytes).expect("written");
                    drop(rows::read(&path));
                }
            }
        }
    }
}
