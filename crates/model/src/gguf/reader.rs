//! The reader of the GGUF container, version 3 (and 2, which has the same layout).
//!
//! ```text
//! "GGUF"  u32 version  u64 n_tensors  u64 n_keys
//! n_keys    x { text key, u32 type, value }              text = u64 length, bytes; array = u32 type, u64 count, values
//! n_tensors x { text name, u32 n_dims, u64 dims[n_dims] (fastest first), u32 type, u64 offset }
//! padding to `general.alignment` (32), then the data section that the offsets count from
//! ```
//!
//! The file is not trusted. Every length is compared with the bytes that are left before anything is allocated or skipped, all
//! arithmetic is checked, and the result refers only to bytes inside the file: tensors lie in the data section, are aligned, and do
//! not overlap. Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::error::GgufError;
use super::types;
use super::value::{Metadata, Numbers, Value, ValueType, scalar};
use crate::Dtype;

/// Alignment of the data section when `general.alignment` is absent.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// Largest `general.alignment` accepted.
const MAX_ALIGNMENT: u64 = 1 << 20;
/// Cap on array lengths, on top of the file's size.
const MAX_ARRAY: u64 = 1 << 30;
/// Bytes of the smallest key entry: key length, type, one byte of value.
const MIN_KEY_BYTES: u64 = 8 + 4 + 1;
/// Bytes of the smallest tensor entry: name length, n_dims, one dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// A parsed GGUF file; texts borrow from its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf<'a> {
    /// Keys and values in file order.
    pub metadata: Metadata<'a>,
    /// Tensors in file order.
    pub tensors: Vec<TensorInfo<'a>>,
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Element type.
    pub dtype: Dtype,
    /// Shape with the row length **last**, as everywhere in this crate (the file has it first).
    pub shape: Vec<usize>,
    /// Its bytes, counted from the start of the file; inside the file.
    pub range: std::ops::Range<usize>,
}

impl<'a> Gguf<'a> {
    /// Parses and checks the whole header of `bytes`, which is the whole file.
    ///
    /// # Errors
    /// [`GgufError`] for anything that is not a well-formed file with supported tensor types.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>, GgufError> {
        let mut cursor = Cursor::new(bytes);
        if !bytes.starts_with(b"GGUF") {
            return Err(GgufError::Magic {
                found: bytes[..bytes.len().min(4)].to_vec(),
            });
        }
        cursor.take(4, &"the magic")?;
        let version = cursor.u32(&"the version")?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { found: version });
        }
        let n_tensors = cursor.u64(&"the tensor count")?;
        let n_keys = cursor.u64(&"the key count")?;
        let metadata = read_metadata(&mut cursor, n_keys)?;
        let alignment = alignment(&metadata)?;
        let headers = read_tensor_headers(&mut cursor, n_tensors)?;
        // A file without tensors may end before the padding.
        let data_start = cursor
            .at()
            .next_multiple_of(alignment as usize)
            .min(bytes.len());
        let tensors = place_tensors(headers, data_start, bytes.len(), alignment)?;
        Ok(Gguf { metadata, tensors })
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo<'a>> {
        self.tensors.iter().find(|t| t.name == name)
    }
}

fn read_metadata<'a>(cursor: &mut Cursor<'a>, n_keys: u64) -> Result<Metadata<'a>, GgufError> {
    let count = cursor.room(
        n_keys,
        MIN_KEY_BYTES,
        &format_args!("{n_keys} metadata keys"),
    )?;
    let mut metadata = Metadata::default();
    for i in 0..count {
        let key = cursor.name(&format_args!("metadata key {i}"))?;
        let kind = cursor.u32(&format_args!("the type of {key:?}"))?;
        let value = read_value(cursor, key, kind)?;
        if !metadata.insert(key, value) {
            return Err(GgufError::DuplicateKey {
                key: key.to_owned(),
            });
        }
    }
    Ok(metadata)
}

fn read_value<'a>(cursor: &mut Cursor<'a>, key: &str, kind: u32) -> Result<Value<'a>, GgufError> {
    let what = format_args!("the value of {key:?}");
    let unknown = |found| GgufError::ValueType {
        key: key.to_owned(),
        found,
    };
    let kind = ValueType::from_id(kind).ok_or_else(|| unknown(kind))?;
    match (kind, kind.size()) {
        (_, Some(size)) => {
            let bytes = cursor.take(size as u64, &what)?;
            check_booleans(kind, bytes, key)?;
            Ok(scalar(kind, bytes))
        }
        (ValueType::String, None) => Ok(Value::String(cursor.text(&what)?)),
        _ => {
            let id = cursor.u32(&what)?;
            let element = ValueType::from_id(id).ok_or_else(|| unknown(id))?;
            let count = cursor.u64(&what)?;
            if count > MAX_ARRAY {
                return Err(GgufError::TooLarge {
                    what: format!("the length of the array {key:?}"),
                    found: count,
                    max: MAX_ARRAY,
                });
            }
            read_array(cursor, key, element, count)
        }
    }
}

fn read_array<'a>(
    cursor: &mut Cursor<'a>,
    key: &str,
    element: ValueType,
    count: u64,
) -> Result<Value<'a>, GgufError> {
    let what = format_args!("the array {key:?}");
    match (element, element.size()) {
        (_, Some(size)) => {
            // count <= 2^30 and size <= 8: no overflow.
            let bytes = cursor.take(count * size as u64, &what)?;
            check_booleans(element, bytes, key)?;
            Ok(Value::Numbers(Numbers::new(element, bytes)))
        }
        (ValueType::String, None) => {
            let count = cursor.room(count, 8, &what)?;
            let mut texts = Vec::with_capacity(count);
            for _ in 0..count {
                texts.push(cursor.text(&what)?);
            }
            Ok(Value::Strings(texts))
        }
        _ => Err(GgufError::NestedArray {
            key: key.to_owned(),
        }),
    }
}

fn check_booleans(kind: ValueType, bytes: &[u8], key: &str) -> Result<(), GgufError> {
    match bytes.iter().find(|&&b| b > 1) {
        Some(&found) if kind == ValueType::Bool => Err(GgufError::Bool {
            key: key.to_owned(),
            found,
        }),
        _ => Ok(()),
    }
}

fn alignment(metadata: &Metadata<'_>) -> Result<u64, GgufError> {
    let found = metadata
        .count("general.alignment")?
        .map_or(DEFAULT_ALIGNMENT, |n| n as u64);
    if found.is_power_of_two() && found <= MAX_ALIGNMENT {
        Ok(found)
    } else {
        Err(GgufError::Alignment {
            found,
            max: MAX_ALIGNMENT,
        })
    }
}

/// A tensor entry before its place in the file is checked.
struct Header<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: Vec<usize>,
    offset: u64,
    size: u64,
}

fn read_tensor_headers<'a>(
    cursor: &mut Cursor<'a>,
    n_tensors: u64,
) -> Result<Vec<Header<'a>>, GgufError> {
    let count = cursor.room(
        n_tensors,
        MIN_TENSOR_BYTES,
        &format_args!("{n_tensors} tensor entries"),
    )?;
    let mut headers = Vec::with_capacity(count);
    let mut names = HashSet::with_capacity(count);
    for i in 0..count {
        let name = cursor.name(&format_args!("the name of tensor {i}"))?;
        if !names.insert(name) {
            return Err(GgufError::DuplicateTensor {
                name: name.to_owned(),
            });
        }
        headers.push(read_tensor_header(cursor, name)?);
    }
    Ok(headers)
}

fn read_tensor_header<'a>(cursor: &mut Cursor<'a>, name: &'a str) -> Result<Header<'a>, GgufError> {
    let what = format_args!("the entry of tensor {name:?}");
    let n_dims = cursor.u32(&what)?;
    if !(1..=4).contains(&n_dims) {
        let (what, found) = (
            format!("the number of dimensions of tensor {name:?}"),
            u64::from(n_dims),
        );
        return if n_dims == 0 {
            Err(GgufError::Dims {
                name: name.to_owned(),
                dims: vec![],
            })
        } else {
            Err(GgufError::TooLarge {
                what,
                found,
                max: 4,
            })
        };
    }
    let mut dims = Vec::with_capacity(4);
    for _ in 0..n_dims {
        dims.push(cursor.u64(&what)?);
    }
    if dims.contains(&0) {
        return Err(GgufError::Dims {
            name: name.to_owned(),
            dims,
        });
    }
    let kind = cursor.u32(&what)?;
    let offset = cursor.u64(&what)?;
    let dtype = types::dtype_of(kind).map_err(|found| GgufError::TensorType {
        name: name.to_owned(),
        found,
        supported: types::SUPPORTED,
    })?;
    let overflow = || GgufError::Overflow {
        name: name.to_owned(),
        dims: dims.clone(),
    };
    let mut shape = Vec::with_capacity(dims.len());
    for &dim in dims.iter().rev() {
        shape.push(usize::try_from(dim).map_err(|_| overflow())?);
    }
    if !dims[0].is_multiple_of(dtype.block_len() as u64) {
        return Err(GgufError::Block {
            name: name.to_owned(),
            kind: dtype,
            row: dims[0],
            block: dtype.block_len(),
        });
    }
    let size = dtype.tensor_bytes(&shape).ok_or_else(overflow)? as u64;
    Ok(Header {
        name,
        dtype,
        shape,
        offset,
        size,
    })
}

/// Checks alignment, bounds and overlaps, and makes offsets absolute.
fn place_tensors<'a>(
    headers: Vec<Header<'a>>,
    data_start: usize,
    file_len: usize,
    alignment: u64,
) -> Result<Vec<TensorInfo<'a>>, GgufError> {
    let have = (file_len - data_start) as u64;
    let mut tensors = Vec::with_capacity(headers.len());
    for h in headers {
        if !h.offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned {
                name: h.name.to_owned(),
                offset: h.offset,
                alignment,
            });
        }
        let end = h.offset.saturating_add(h.size);
        if end > have {
            return Err(GgufError::OutOfFile {
                name: h.name.to_owned(),
                start: h.offset,
                end,
                have,
            });
        }
        // Both are at most `have`, which is a usize.
        let range = data_start + h.offset as usize..data_start + end as usize;
        tensors.push(TensorInfo {
            name: h.name,
            dtype: h.dtype,
            shape: h.shape,
            range,
        });
    }
    let mut order: Vec<&TensorInfo<'_>> = tensors.iter().collect();
    order.sort_by_key(|t| t.range.start);
    for pair in order.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            return Err(GgufError::Overlap {
                first: pair[0].name.to_owned(),
                second: pair[1].name.to_owned(),
            });
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests;
