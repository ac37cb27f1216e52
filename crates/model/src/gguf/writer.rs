//! A small GGUF writer: metadata, then aligned tensors, in the order they were added.
//!
//! What it writes, [`Gguf::parse`](super::Gguf::parse) accepts: duplicates, empty tensors and too many dimensions are refused here
//! as well.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use super::error::GgufError;
use super::reader::DEFAULT_ALIGNMENT;
use super::types;
use super::value::ValueType;
use crate::hf::write_atomic;
use crate::{Dtype, Tensor};

/// Collects keys and tensors; [`GgufWriter::write`] emits the file.
#[derive(Debug, Default)]
pub struct GgufWriter {
    keys: HashSet<String>,
    /// The encoded key entries.
    metadata: Vec<u8>,
    names: HashSet<String>,
    tensors: Vec<(String, Tensor)>,
}

/// A scalar or array that can be written; see [`GgufWriter::key`].
#[derive(Debug, Clone, PartialEq)]
#[expect(
    missing_docs,
    reason = "each variant is the GGUF type of the same name"
)]
pub enum Entry<'a> {
    U32(u32),
    U64(u64),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Strings(&'a [&'a str]),
    U32s(&'a [u32]),
    I32s(&'a [i32]),
    F32s(&'a [f32]),
}

impl GgufWriter {
    /// An empty file.
    pub fn new() -> GgufWriter {
        GgufWriter::default()
    }

    /// Adds a metadata key.
    ///
    /// # Errors
    /// [`GgufError::DuplicateKey`].
    pub fn key(&mut self, key: &str, value: &Entry<'_>) -> Result<(), GgufError> {
        if !self.keys.insert(key.to_owned()) {
            return Err(GgufError::DuplicateKey {
                key: key.to_owned(),
            });
        }
        let out = &mut self.metadata;
        put_text(out, key);
        match *value {
            Entry::U32(v) => put_scalar(out, ValueType::U32, &v.to_le_bytes()),
            Entry::U64(v) => put_scalar(out, ValueType::U64, &v.to_le_bytes()),
            Entry::F32(v) => put_scalar(out, ValueType::F32, &v.to_le_bytes()),
            Entry::Bool(v) => put_scalar(out, ValueType::Bool, &[u8::from(v)]),
            Entry::String(v) => {
                put_u32(out, ValueType::String as u32);
                put_text(out, v);
            }
            Entry::Strings(v) => {
                put_array(out, ValueType::String, v.len());
                v.iter().for_each(|text| put_text(out, text));
            }
            Entry::U32s(v) => {
                put_array(out, ValueType::U32, v.len());
                v.iter()
                    .for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
            }
            Entry::I32s(v) => {
                put_array(out, ValueType::I32, v.len());
                v.iter()
                    .for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
            }
            Entry::F32s(v) => {
                put_array(out, ValueType::F32, v.len());
                v.iter()
                    .for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
            }
        }
        Ok(())
    }

    /// Adds a tensor (its bytes are shared, not copied).
    ///
    /// # Errors
    /// A duplicate name, no or more than four dimensions, or an empty tensor.
    pub fn tensor(&mut self, name: &str, tensor: Tensor) -> Result<(), GgufError> {
        let unwritable = |reason: &str| GgufError::Unwritable {
            what: format!("tensor {name:?}"),
            reason: reason.to_owned(),
        };
        if tensor.shape.is_empty() || tensor.shape.len() > 4 {
            return Err(unwritable("it needs 1 to 4 dimensions"));
        }
        if tensor.is_empty() {
            return Err(unwritable("it is empty"));
        }
        if !self.names.insert(name.to_owned()) {
            return Err(GgufError::DuplicateTensor {
                name: name.to_owned(),
            });
        }
        self.tensors.push((name.to_owned(), tensor));
        Ok(())
    }

    /// Writes the file to `out`.
    ///
    /// # Errors
    /// The system's error for a failed write.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut out = Counted { out, written: 0 };
        let mut header = Vec::from(*b"GGUF");
        put_u32(&mut header, 3);
        put_u64(&mut header, self.tensors.len() as u64);
        put_u64(&mut header, self.keys.len() as u64);
        header.extend_from_slice(&self.metadata);
        let mut offset = 0u64;
        for (name, tensor) in &self.tensors {
            put_text(&mut header, name);
            put_u32(
                &mut header,
                u32::try_from(tensor.shape.len()).map_err(io::Error::other)?,
            );
            tensor
                .shape
                .iter()
                .rev()
                .for_each(|&dim| put_u64(&mut header, dim as u64));
            put_u32(&mut header, types::id_of(tensor.dtype));
            put_u64(&mut header, offset);
            offset += (tensor.storage().len() as u64).next_multiple_of(DEFAULT_ALIGNMENT);
        }
        out.all(&header)?;
        for (_, tensor) in &self.tensors {
            out.pad()?;
            out.all(tensor.bytes())?;
        }
        out.pad()?;
        out.out.flush()
    }

    /// Writes the file at `path`, replacing what is there only when all of it is written.
    ///
    /// # Errors
    /// [`GgufError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), GgufError> {
        write_atomic(path, |file| self.write(file)).map_err(|source| GgufError::Write {
            what: path.display().to_string(),
            source,
        })
    }

    /// Key `general.file_type` for a model whose linear weights have this dtype (`enum llama_ftype`).
    pub fn file_type(dtype: Dtype) -> u32 {
        match dtype {
            Dtype::F32 => 0,
            Dtype::F16 => 1,
            Dtype::Q4_0 => 2,
            Dtype::Q4_1 => 3,
            Dtype::Q8_0 => 7,
            Dtype::Q5_0 => 8,
            Dtype::Q5_1 => 9,
            Dtype::Q4K => 15,
            Dtype::Q5K => 17,
            Dtype::Q6K => 18,
            Dtype::BF16 => 32,
        }
    }
}

/// Counts what is written, for the padding.
struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(DEFAULT_ALIGNMENT) - self.written;
        self.all(&[0; DEFAULT_ALIGNMENT as usize][..missing as usize])
    }
}

fn put_u32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(&v.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_scalar(out: &mut Vec<u8>, kind: ValueType, bytes: &[u8]) {
    put_u32(out, kind as u32);
    out.extend_from_slice(bytes);
}

fn put_array(out: &mut Vec<u8>, element: ValueType, len: usize) {
    put_u32(out, ValueType::Array as u32);
    put_u32(out, element as u32);
    put_u64(out, len as u64);
}
