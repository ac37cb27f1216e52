//! Records as a parquet file, flat and compressed with snappy: pandas, polars and DuckDB read it as it is.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use serde_json::Value;

use crate::error::EvalError;
use crate::record::Record;
use crate::rows;

/// A column: its name and how a record fills it.
enum Column {
    Int(&'static str, fn(&Record) -> usize),
    Bool(&'static str, fn(&Record) -> bool),
    MaybeBool(&'static str, fn(&Record) -> Option<bool>),
    Double(&'static str, fn(&Record) -> f64),
    MaybeDouble(&'static str, fn(&Record) -> Option<f64>),
    MaybeFloat(&'static str, fn(&Record) -> Option<f32>),
    Text(&'static str, fn(&Record) -> &str),
    MaybeText(&'static str, fn(&Record) -> Option<&str>),
}

/// All of [`Record`], in its order.
const COLUMNS: [Column; 26] = [
    Column::Text("task", |r| &r.task),
    Column::Int("question", |r| r.question),
    Column::Int("repeat", |r| r.repeat),
    Column::Int("stream", |r| r.stream),
    Column::Text("expected", |r| &r.expected),
    Column::MaybeText("answer", |r| r.answer.as_deref()),
    Column::Bool("correct", |r| r.correct),
    Column::Bool("chosen", |r| r.chosen),
    Column::Bool("unfinished", |r| r.unfinished),
    Column::Text("text", |r| &r.text),
    Column::Text("reasoning", |r| &r.reasoning),
    Column::Int("completion_tokens", |r| r.completion_tokens),
    Column::Int("reasoning_tokens", |r| r.reasoning_tokens),
    Column::Text("finish_reason", |r| &r.finish_reason),
    Column::MaybeText("thought_closed", |r| r.thought_closed.as_deref()),
    Column::Bool("budget_forced", |r| r.budget_forced),
    Column::Int("continued", |r| r.continued),
    Column::MaybeFloat("score", |r| r.score),
    Column::MaybeFloat("switch_score", |r| r.switch_score),
    Column::MaybeBool("thinks", |r| r.thinks),
    Column::Int("prompt_tokens", |r| r.prompt_tokens),
    Column::Int("query_tokens", |r| r.query_tokens),
    Column::Int("verifier_tokens", |r| r.verifier_tokens),
    Column::Int("streams", |r| r.streams),
    Column::MaybeDouble("ttft_ms", |r| r.ttft_ms),
    Column::MaybeDouble("decode_tps", |r| r.decode_tps),
];
/// The last column.
const SECONDS: Column = Column::Double("seconds", |r| r.seconds);

fn all() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().chain(std::iter::once(&SECONDS))
}

/// Writes records aside and renames, so that a half-written file is never read.
///
/// # Errors
/// A path that cannot be written.
pub fn write(path: &Path, records: &[Record]) -> Result<(), EvalError> {
    let aside = path.with_extension("parquet.part");
    let failed = |source: std::io::Error| EvalError::Write {
        path: path.to_owned(),
        source,
    };
    let file = File::create(&aside).map_err(failed)?;
    write_to(file, records).map_err(|e| failed(std::io::Error::other(e)))?;
    std::fs::rename(&aside, path).map_err(failed)
}

fn write_to(file: File, records: &[Record]) -> Result<(), ParquetError> {
    let fields = all()
        .map(|column| column.field().map(Arc::new))
        .collect::<Result<_, _>>()?;
    let schema = Type::group_type_builder("record")
        .with_fields(fields)
        .build()?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .build();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for column in all() {
        column.write(&mut group, records)?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

impl Column {
    fn field(&self) -> Result<Type, ParquetError> {
        let (name, physical, optional) = match self {
            Self::Int(name, _) => (name, Physical::INT64, false),
            Self::Bool(name, _) => (name, Physical::BOOLEAN, false),
            Self::MaybeBool(name, _) => (name, Physical::BOOLEAN, true),
            Self::Double(name, _) => (name, Physical::DOUBLE, false),
            Self::MaybeDouble(name, _) => (name, Physical::DOUBLE, true),
            Self::MaybeFloat(name, _) => (name, Physical::FLOAT, true),
            Self::Text(name, _) => (name, Physical::BYTE_ARRAY, false),
            Self::MaybeText(name, _) => (name, Physical::BYTE_ARRAY, true),
        };
        let text = matches!(physical, Physical::BYTE_ARRAY).then_some(LogicalType::String);
        Type::primitive_type_builder(name, physical)
            .with_repetition(if optional {
                Repetition::OPTIONAL
            } else {
                Repetition::REQUIRED
            })
            .with_logical_type(text)
            .build()
    }

    fn write<W: std::io::Write + Send>(
        &self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        records: &[Record],
    ) -> Result<(), ParquetError> {
        match self {
            Self::Int(_, of) => required::<Int64Type, W>(group, records, |r| {
                i64::try_from(of(r)).unwrap_or(i64::MAX)
            }),
            Self::Bool(_, of) => required::<BoolType, W>(group, records, of),
            Self::MaybeBool(_, of) => optional::<BoolType, W>(group, records, of),
            Self::Double(_, of) => required::<DoubleType, W>(group, records, of),
            Self::MaybeDouble(_, of) => optional::<DoubleType, W>(group, records, of),
            Self::MaybeFloat(_, of) => optional::<FloatType, W>(group, records, of),
            Self::Text(_, of) => {
                required::<ByteArrayType, W>(group, records, |r| ByteArray::from(of(r)))
            }
            Self::MaybeText(_, of) => {
                optional::<ByteArrayType, W>(group, records, |r| of(r).map(ByteArray::from))
            }
        }
    }
}

fn required<T: DataType, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    records: &[Record],
    of: impl Fn(&Record) -> T::T,
) -> Result<(), ParquetError> {
    let values: Vec<T::T> = records.iter().map(of).collect();
    column::<T, W>(group, &values, None)
}

fn optional<T: DataType, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    records: &[Record],
    of: impl Fn(&Record) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let values: Vec<Option<T::T>> = records.iter().map(of).collect();
    let levels: Vec<i16> = values
        .iter()
        .map(|value| i16::from(value.is_some()))
        .collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    column::<T, W>(group, &values, Some(&levels))
}

fn column<T: DataType, W: std::io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General(
            "the schema has fewer columns".to_owned(),
        ));
    };
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

/// Reads records back.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub fn read(path: &Path) -> Result<Vec<Record>, EvalError> {
    let rows = match rows::read(path) {
        Err(EvalError::NoRows { .. }) => Vec::new(),
        rows => rows?,
    };
    let record = |row| {
        serde_json::from_value(Value::Object(row)).map_err(|error| EvalError::Records {
            path: path.to_owned(),
            problem: error.to_string(),
        })
    };
    rows.into_iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("records.parquet");
        let full = Record {
            task: "t".to_owned(),
            question: 3,
            answer: Some("½\n\"x\"".to_owned()),
            correct: true,
            chosen: true,
            text: "so \\boxed{½}".to_owned(),
            thought_closed: Some("model".to_owned()),
            score: Some(0.1),
            thinks: Some(true),
            ttft_ms: Some(1.0 / 3.0),
            seconds: 0.25,
            ..Record::default()
        };
        for records in [vec![], vec![Record::default(), full.clone(), full]] {
            write(&path, &records).expect("written");
            assert_eq!(read(&path).expect("read"), records);
        }
        // A new field of a record must become a column.
        let fields = serde_json::to_value(Record::default()).expect("JSON");
        let fields: Vec<&String> = fields.as_object().expect("an object").keys().collect();
        let columns: Vec<Type> = all().map(|c| c.field().expect("a field")).collect();
        assert_eq!(fields, columns.iter().map(|c| c.name()).collect::<Vec<_>>());
    }
}
