//! safetensors files: one, or several with an index. The tensors stay where they are, in the mapped file.
//!
//! The `safetensors` crate checks the header: its length against the file and against 100 MB, every range against its
//! shape, no overlaps and no holes. We add: no name twice, dtypes that we can use, and an index that tells the truth.
//! A matrix or vector in 8-bit codes with a scale per row (`lora::int8`) is one I8 tensor; a matrix in 4-bit codes with scales per group
//! (`lora::int4`) is read as F32.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::json::parse_object_bytes;
use crate::lora::{int4, int8};
use crate::{Bytes, Dtype, Folder, LoadError, MappedFile, SafetensorsError, Tensor, TensorError};

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Opens one file.
///
/// # Errors
/// [`LoadError::Io`] or [`LoadError::Safetensors`].
pub fn open(path: &Path) -> Result<Tensors, LoadError> {
    let file = MappedFile::open(path).map_err(LoadError::io(path))?;
    tensors_of(&Bytes::whole(&file)).map_err(damaged(path))
}

/// Opens one file of a folder.
///
/// # Errors
/// As [`open`].
pub fn open_in(folder: &Folder, name: &str) -> Result<Tensors, LoadError> {
    let path = folder.path_of(name);
    let file = folder.map(name).map_err(LoadError::io(&path))?;
    tensors_of(&file).map_err(damaged(&path))
}

/// Opens all files that `name`, such as `model.safetensors.index.json`, names.
///
/// # Errors
/// [`LoadError`], also when a tensor is not in the shard that the index says.
pub fn open_sharded(folder: &Folder, name: &str) -> Result<Tensors, LoadError> {
    let index = &folder.path_of(name);
    let text = folder.read(name).map_err(LoadError::io(index))?;
    let map = parse_object_bytes(&text).map_err(|source| LoadError::Json {
        path: index.to_path_buf(),
        source,
    })?;
    let field = |field: String, expected| LoadError::Field {
        path: index.to_path_buf(),
        field,
        expected,
    };
    let Some(Value::Object(weight_map)) = map.get("weight_map") else {
        return Err(field(
            "weight_map".to_owned(),
            "an object of tensor names and files",
        ));
    };
    let mut places = Vec::new();
    for (name, file) in weight_map {
        let Some(file) = file.as_str() else {
            return Err(field(format!("weight_map.{name}"), "a file name"));
        };
        if file.contains(['/', '\\', '\0']) || !file.ends_with(".safetensors") {
            let (name, file) = (name.clone(), file.to_owned());
            return Err(damaged(index)(SafetensorsError::ShardName { name, file }));
        }
        places.push((name, file));
    }
    let files: BTreeSet<&str> = places.iter().map(|&(_, file)| file).collect();
    let mut all = Tensors::new();
    let mut names_in = BTreeMap::new();
    for &file in &files {
        if !folder.has(file) {
            return Err(LoadError::MissingFile {
                dir: folder.path(),
                file: file.to_owned(),
            });
        }
        let tensors = open_in(folder, file)?;
        names_in.insert(file, tensors.keys().cloned().collect::<BTreeSet<_>>());
        for (name, tensor) in tensors {
            if all.contains_key(&name) {
                return Err(damaged(index)(SafetensorsError::Twice { name }));
            }
            all.insert(name, tensor);
        }
    }
    match places
        .into_iter()
        .find(|(name, file)| !names_in[file].contains(*name))
    {
        Some((name, file)) => {
            let (name, file) = (name.clone(), file.to_owned());
            Err(damaged(index)(SafetensorsError::NotInShard { name, file }))
        }
        None => Ok(all),
    }
}

/// The tensors of a mapped file.
///
/// # Errors
/// [`SafetensorsError`] for a damaged header or a dtype that we cannot use.
pub fn tensors_of(file: &Bytes) -> Result<Tensors, SafetensorsError> {
    let (header_len, metadata) = SafeTensors::read_metadata(file.as_slice())
        .map_err(|e| SafetensorsError::Header(Box::new(e)))?;
    // The crate keeps the last of two equal names; a header that has them is refused.
    parse_object_bytes(&file.as_slice()[8..8 + header_len]).map_err(SafetensorsError::Json)?;
    let data = 8 + header_len;
    let mut tensors = Tensors::new();
    let mut codes = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let bytes = file
            .slice(data + start..data + end)
            .expect("read_metadata compared it with the file");
        let dtype = match info.dtype {
            safetensors::Dtype::I8 if name.ends_with(int8::CODES) => {
                codes.insert(name, (info.shape.clone(), bytes));
                continue;
            }
            safetensors::Dtype::U8 if name.ends_with(int4::SUFFIX) => {
                codes.insert(name, (info.shape.clone(), bytes));
                continue;
            }
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::BF16,
            other => {
                return Err(SafetensorsError::Dtype {
                    name,
                    dtype: format!("{other:?}"),
                });
            }
        };
        let tensor = Tensor::new(dtype, info.shape.clone(), bytes);
        let tensor = tensor.map_err(|source| SafetensorsError::Tensor {
            name: name.clone(),
            source,
        })?;
        tensors.insert(name, tensor);
    }
    for (name, (shape, codes)) in codes {
        let (base, tensor) = match name.strip_suffix(int8::CODES) {
            Some(base) => (base, from_int8(base, shape, &codes, &mut tensors)?),
            None => {
                let base = name.strip_suffix(int4::SUFFIX).unwrap_or(&name);
                (base, from_int4(base, &shape, &codes)?)
            }
        };
        if tensors.insert(base.to_owned(), tensor).is_some() {
            return Err(SafetensorsError::Twice {
                name: base.to_owned(),
            });
        }
    }
    Ok(tensors)
}

/// The matrix, or the vector, which is one row, of 8-bit codes, with the scales that are among `tensors`.
fn from_int8(
    name: &str,
    shape: Vec<usize>,
    codes: &Bytes,
    tensors: &mut Tensors,
) -> Result<Tensor, SafetensorsError> {
    let name = name.to_owned();
    let scales = tensors.remove(&format!("{name}{}", int8::SCALES));
    let Some(scales) = scales.as_ref().and_then(Tensor::as_f32) else {
        return Err(SafetensorsError::Scales { name });
    };
    Tensor::int8(shape, codes.clone(), scales).map_err(|source| match source {
        TensorError::Scales { .. } => SafetensorsError::Scales { name },
        source => SafetensorsError::Tensor { name, source },
    })
}

/// The matrix that groups of 4-bit codes stand for.
fn from_int4(name: &str, shape: &[usize], stored: &Bytes) -> Result<Tensor, SafetensorsError> {
    let size = match *shape {
        [rows, width] => int4::cols(width).map(|cols| (rows, width, cols)),
        _ => None,
    };
    let (rows, width, cols) = size.ok_or_else(|| SafetensorsError::Int4 {
        name: name.to_owned(),
        shape: shape.to_vec(),
    })?;
    let values = int4::dequantize(stored.as_slice(), width);
    Tensor::from_f32(vec![rows, cols], &values).map_err(|source| SafetensorsError::Tensor {
        name: name.to_owned(),
        source,
    })
}

fn damaged(path: &Path) -> impl Fn(SafetensorsError) -> LoadError {
    let path = path.to_path_buf();
    move |source| LoadError::Safetensors {
        path: path.clone(),
        source,
    }
}
