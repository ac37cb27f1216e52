//! A table of a run, for people and notebooks: a parquet file, or JSON lines in a build without the `parquet` feature.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use crate::error::TrainError;

/// The values of a column, one for each row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Column {
    Text(Vec<String>),
    Integer(Vec<i64>),
    Number(Vec<f64>),
    Flag(Vec<bool>),
}

/// Named columns of the same length.
pub(crate) type Columns = [(&'static str, Column)];

/// Writes `dir/name.parquet`, or `dir/name.jsonl`, and makes `dir` if it is missing. Returns the file.
///
/// # Errors
/// [`TrainError::Write`].
pub(crate) fn write(dir: &Path, name: &str, columns: &Columns) -> Result<PathBuf, TrainError> {
    let path = dir.join(format!("{name}.{}", format::EXTENSION));
    fs::create_dir_all(dir)
        .and_then(|()| File::create(&path))
        .map(BufWriter::new)
        .and_then(|file| format::write(file, columns))
        .map_err(|source| TrainError::Write {
            path: path.clone(),
            source,
        })?;
    Ok(path)
}

#[cfg(feature = "parquet")]
mod format {
    use std::{
        io::{Error, Write},
        sync::Arc,
    };

    use parquet::{
        basic::{Compression, LogicalType, Repetition, Type as Physical},
        data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
        errors::ParquetError,
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::types::Type,
    };

    use super::{Column, Columns};

    pub(super) const EXTENSION: &str = "parquet";

    /// One row group, no nulls, pages compressed with snappy.
    pub(super) fn write(file: impl Write + Send, columns: &Columns) -> std::io::Result<()> {
        write_columns(file, columns).map_err(Error::other)
    }

    fn write_columns(file: impl Write + Send, columns: &Columns) -> Result<(), ParquetError> {
        let fields = columns
            .iter()
            .map(|(name, column)| field(name, column).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let schema = Type::group_type_builder("table")
            .with_fields(fields)
            .build()?;
        let snappy = WriterProperties::builder().set_compression(Compression::SNAPPY);
        let mut writer =
            SerializedFileWriter::new(file, Arc::new(schema), Arc::new(snappy.build()))?;
        let mut group = writer.next_row_group()?;
        for (_, column) in columns {
            let Some(mut place) = group.next_column()? else {
                break;
            };
            match column {
                Column::Text(values) => {
                    let values: Vec<ByteArray> = values.iter().map(|v| v.as_str().into()).collect();
                    let typed = place.typed::<ByteArrayType>();
                    typed.write_batch(&values, None, None)?;
                }
                Column::Integer(values) => {
                    place.typed::<Int64Type>().write_batch(values, None, None)?;
                }
                Column::Number(values) => {
                    let typed = place.typed::<DoubleType>();
                    typed.write_batch(values, None, None)?;
                }
                Column::Flag(values) => {
                    place.typed::<BoolType>().write_batch(values, None, None)?;
                }
            }
            place.close()?;
        }
        group.close()?;
        writer.close()?;
        Ok(())
    }

    fn field(name: &str, column: &Column) -> Result<Type, ParquetError> {
        let (physical, logical) = match column {
            Column::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Column::Integer(_) => (Physical::INT64, None),
            Column::Number(_) => (Physical::DOUBLE, None),
            Column::Flag(_) => (Physical::BOOLEAN, None),
        };
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(logical)
            .build()
    }
}

#[cfg(not(feature = "parquet"))]
mod format {
    use std::io::Write;

    use serde_json::{Map, Value, json};

    use super::{Column, Columns};

    pub(super) const EXTENSION: &str = "jsonl";

    pub(super) fn write(mut file: impl Write, columns: &Columns) -> std::io::Result<()> {
        let rows = columns.iter().map(|(_, column)| match column {
            Column::Text(values) => values.len(),
            Column::Integer(values) => values.len(),
            Column::Number(values) => values.len(),
            Column::Flag(values) => values.len(),
        });
        for at in 0..rows.min().unwrap_or(0) {
            let value = |column: &Column| match column {
                Column::Text(values) => json!(values[at]),
                Column::Integer(values) => json!(values[at]),
                Column::Number(values) => json!(values[at]),
                Column::Flag(values) => json!(values[at]),
            };
            let cells = columns
                .iter()
                .map(|(name, c)| ((*name).to_owned(), value(c)));
            writeln!(file, "{}", Value::Object(cells.collect::<Map<_, _>>()))?;
        }
        file.flush()
    }
}

#[cfg(all(test, feature = "parquet"))]
mod tests {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::Field,
    };

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let columns = [
            (
                "text",
                Column::Text(
                    ["", "ä\n\"<think>", "same", "same"]
                        .map(str::to_owned)
                        .into(),
                ),
            ),
            ("integer", Column::Integer(vec![0, -1, i64::MAX, i64::MIN])),
            ("number", Column::Number(vec![0.0, -0.5, 1e300, 1.0 / 3.0])),
            ("flag", Column::Flag(vec![true, false, false, true])),
        ];
        let path = write(&dir.path().join("new"), "t", &columns).unwrap();
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        let rows = reader.get_row_iter(None).unwrap();
        let rows: Vec<_> = rows.collect::<Result<_, _>>().unwrap();
        assert_eq!(rows.len(), 4);
        for (at, row) in rows.iter().enumerate() {
            for ((name, column), (found, field)) in columns.iter().zip(row.get_column_iter()) {
                assert_eq!(name, found);
                let want = match column {
                    Column::Text(values) => Field::Str(values[at].clone()),
                    Column::Integer(values) => Field::Long(values[at]),
                    Column::Number(values) => Field::Double(values[at]),
                    Column::Flag(values) => Field::Bool(values[at]),
                };
                assert_eq!(field, &want, "row {at}, {name}");
            }
        }
    }

    #[test]
    fn columns_that_do_not_fit_together_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let columns = [
            ("long", Column::Flag(vec![true, false])),
            ("short", Column::Integer(vec![1])),
        ];
        let error = write(dir.path(), "t", &columns).unwrap_err();
        assert!(matches!(error, TrainError::Write { .. }), "{error:?}");
    }
}
