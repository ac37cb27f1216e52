//! A small GGUF writer: metadata, then aligned tensors, in the order they were added.
//!
//! What it writes, [`Gguf::parse`](super::Gguf::parse) accepts: duplicates, empty tensors and too many dimensions are refused here
//! as well. A tensor may be made while it is written ([`GgufWriter::tensor_made`]), so that a model larger than memory can be.

use std::collections::HashSet;
use std::fmt;
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
pub struct GgufWriter<'a> {
    keys: HashSet<String>,
    /// The encoded key entries.
    metadata: Vec<u8>,
    names: HashSet<String>,
    tensors: Vec<Planned<'a>>,
}

/// A tensor that will be written.
#[derive(Debug)]
struct Planned<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    size: u64,
    content: Content<'a>,
}

/// Where its bytes come from.
enum Content<'a> {
    Stored(Tensor),
    Made(Box<Make<'a>>),
}

/// Writes the bytes of one tensor.
type Make<'a> = dyn Fn(&mut dyn Write) -> io::Result<()> + 'a;

impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Stored(tensor) => tensor.storage().fmt(f),
            Content::Made(_) => f.write_str("made when it is written"),
        }
    }
}

/// A scalar or array that can be written; see [`GgufWriter::key`].
#[derive(Debug, Clone, PartialEq)]
#[expect(
    missing_docs,
    reason = "each variant is the GGUF type of the same name"
)]
pub enum Entry<'a> {
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Strings(&'a [&'a str]),
    U32s(&'a [u32]),
    I32s(&'a [i32]),
    F32s(&'a [f32]),
}

impl<'a> GgufWriter<'a> {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
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
            Entry::I32(v) => put_scalar(out, ValueType::I32, &v.to_le_bytes()),
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

    /// Adds a tensor (its bytes are shared, not copied). One of dtype I8 is written as the F32 that it stands for.
    ///
    /// # Errors
    /// A duplicate name, no or more than four dimensions, or an empty tensor.
    pub fn tensor(&mut self, name: &str, tensor: Tensor) -> Result<(), GgufError> {
        let (dtype, shape) = (tensor.written_dtype(), tensor.shape.clone());
        self.plan(name, dtype, shape, Content::Stored(tensor))
    }

    /// Adds a tensor whose bytes `make` writes when the file is written: exactly as many as dtype and shape need.
    ///
    /// # Errors
    /// As [`GgufWriter::tensor`], and rows that are no whole number of blocks.
    pub fn tensor_made(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: Vec<usize>,
        make: impl Fn(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> Result<(), GgufError> {
        self.plan(name, dtype, shape, Content::Made(Box::new(make)))
    }

    fn plan(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: Vec<usize>,
        content: Content<'a>,
    ) -> Result<(), GgufError> {
        let unwritable = |reason: String| GgufError::Unwritable {
            what: format!("tensor {name:?}"),
            reason,
        };
        if shape.is_empty() || shape.len() > 4 {
            return Err(unwritable("it needs 1 to 4 dimensions".to_owned()));
        }
        let size = match dtype.tensor_bytes(&shape) {
            Some(0) => return Err(unwritable("it is empty".to_owned())),
            Some(size) => size as u64,
            None => {
                return Err(unwritable(format!(
                    "rows of {shape:?} are no whole blocks of {dtype}"
                )));
            }
        };
        if !self.names.insert(name.to_owned()) {
            return Err(GgufError::DuplicateTensor {
                name: name.to_owned(),
            });
        }
        self.tensors.push(Planned {
            name: name.to_owned(),
            dtype,
            shape,
            size,
            content,
        });
        Ok(())
    }

    /// Writes the file to `out`.
    ///
    /// # Errors
    /// The system's error for a failed write, and what a tensor's maker says.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        self.write_with(out, &mut |_, _| {})
    }

    /// As [`GgufWriter::write`]; after each tensor `progress` is told the bytes that are written and the bytes of the whole file.
    ///
    /// # Errors
    /// As [`GgufWriter::write`].
    pub fn write_with(
        &self,
        out: impl Write,
        progress: &mut dyn FnMut(u64, u64),
    ) -> io::Result<()> {
        let mut out = Counted { out, written: 0 };
        let header = self.header()?;
        let padded = |bytes: u64| bytes.next_multiple_of(DEFAULT_ALIGNMENT);
        let total =
            padded(header.len() as u64) + self.tensors.iter().map(|t| padded(t.size)).sum::<u64>();
        out.write_all(&header)?;
        for tensor in &self.tensors {
            out.pad()?;
            let start = out.written;
            match &tensor.content {
                Content::Made(make) => make(&mut out)?,
                Content::Stored(stored) => stored.read_runs(&mut |run| out.write_all(run))?,
            }
            if out.written - start != tensor.size {
                let (name, made) = (&tensor.name, out.written - start);
                let text = format!("`{name}` gave {made} bytes instead of {}", tensor.size);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            progress(out.written, total);
        }
        out.pad()?;
        out.flush()
    }

    fn header(&self) -> io::Result<Vec<u8>> {
        let mut header = Vec::from(*b"GGUF");
        put_u32(&mut header, 3);
        put_u64(&mut header, self.tensors.len() as u64);
        put_u64(&mut header, self.keys.len() as u64);
        header.extend_from_slice(&self.metadata);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_text(&mut header, &tensor.name);
            let dims = u32::try_from(tensor.shape.len()).map_err(io::Error::other)?;
            put_u32(&mut header, dims);
            let dims = tensor.shape.iter().rev();
            dims.for_each(|&dim| put_u64(&mut header, dim as u64));
            put_u32(&mut header, types::id_of(tensor.dtype));
            put_u64(&mut header, offset);
            offset += tensor.size.next_multiple_of(DEFAULT_ALIGNMENT);
        }
        Ok(header)
    }

    /// Writes the file at `path`, replacing what is there only when all of it is written.
    ///
    /// # Errors
    /// [`GgufError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), GgufError> {
        self.save_with(path, &mut |_, _| {})
    }

    /// As [`GgufWriter::save`], with the progress of [`GgufWriter::write_with`].
    ///
    /// # Errors
    /// [`GgufError::Write`].
    pub fn save_with(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), GgufError> {
        write_atomic(path, |file| self.write_with(file, progress)).map_err(|source| {
            GgufError::Write {
                what: path.display().to_string(),
                source,
            }
        })
    }

    /// Key `general.file_type` for a model whose linear weights have this dtype (`enum llama_ftype`).
    pub fn file_type(dtype: Dtype) -> u32 {
        match dtype {
            Dtype::F32 | Dtype::I8 => 0,
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

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Counted<W> {
    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(DEFAULT_ALIGNMENT) - self.written;
        self.write_all(&[0; DEFAULT_ALIGNMENT as usize][..missing as usize])
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
