//! The file of a head: a small network that reads a base's hidden states (METHOD 4 and 5).
//!
//! A head is a directory with `head.safetensors` (F32 tensors, in a bundle perhaps weights in 8 bits, which are read as F32) and `head.json`:
//!
//! ```json
//! {
//!   "format": 1,
//!   "kind": "switcher",
//!   "base": "hash of the base's config and weights, 64 hex digits",
//!   "hidden_size": 128,
//!   "tensors": "BLAKE3 of head.safetensors, 64 hex digits",
//!   "settings": { "layer": "final_norm", "threshold": 0.5 }
//! }
//! ```
//!
//! A head means something on its own base alone, so [`HeadFile::expect`] refuses every other. What tensors and settings mean is
//! `reason`'s to know.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::hf::{safetensors, save_tensors, write_atomic};
use crate::json::{JsonError, parse_object_bytes, shorten};
use crate::lora::int8;
use crate::{ContentHash, Dtype, Folder, LoadError, Tensor, TensorError};

const CONFIG: &str = "head.json";
const TENSORS: &str = "head.safetensors";
/// The only version of the format so far.
const FORMAT: u64 = 1;
const FIELDS: [&str; 6] = [
    "format",
    "kind",
    "base",
    "hidden_size",
    "tensors",
    "settings",
];

/// A trained head as it stands on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadFile {
    /// What it decides: `switcher` or `verifier`.
    pub kind: String,
    /// [`crate::Model::hash`] of the base that it reads, in hex.
    pub base: String,
    /// E, the width of the base's hidden states.
    pub hidden_size: usize,
    /// What else is needed to use it, and what is worth knowing about its training.
    pub settings: Map<String, Value>,
    /// Its weights by name.
    pub tensors: BTreeMap<String, HeadTensor>,
}

/// One tensor of a head.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadTensor {
    /// Dimensions, the row length last.
    pub shape: Vec<usize>,
    /// As many values as the shape says, all finite.
    pub data: Vec<f32>,
}

/// A head that cannot be read, written or used on this base.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The directory lacks one of the two files.
    #[error("{} is no head: it has no {file}; a head is a directory with {CONFIG} and {TENSORS}", dir.display())]
    NotAHead {
        /// The directory.
        dir: PathBuf,
        /// The missing file.
        file: &'static str,
    },
    /// A file cannot be read or written.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// head.json is not JSON, or has a key twice.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: JsonError,
    },
    /// A later version of the format.
    #[error("{} is written in format {found}, this program reads {FORMAT}; use a newer program", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The version that it names.
        found: String,
    },
    /// A field is missing or of the wrong kind.
    #[error("{}: the field `{field}` must be {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A field that nobody reads.
    #[error("{}: the field `{field}` is unknown; a head's own values stand under `settings`", path.display())]
    UnknownField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
    },
    /// head.safetensors is damaged.
    #[error(transparent)]
    Tensors(Box<LoadError>),
    /// The two files were not written together.
    #[error("{} is not the file that {CONFIG} was written with; copy both files of the head again", path.display())]
    Mixed {
        /// The tensors' file.
        path: PathBuf,
    },
    /// A tensor that is not F32.
    #[error("tensor `{name}` of the head is stored as {found}; heads are F32")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its dtype.
        found: String,
    },
    /// NaN or an infinity.
    #[error(
        "tensor `{name}` of the head holds {value} at element {index}; its training diverged or the file is damaged"
    )]
    NonFinite {
        /// The tensor.
        name: String,
        /// Position in it.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A tensor whose values are not as many as its shape says.
    #[error("tensor `{name}` of the head cannot be written")]
    Size {
        /// The tensor.
        name: String,
        /// Shape and length.
        source: TensorError,
    },
    /// A head of another kind.
    #[error("this head is a {found}, a {expected} is needed; give the directory of a {expected}")]
    Kind {
        /// The kind asked for.
        expected: String,
        /// The head's own.
        found: String,
    },
    /// A head of another base.
    #[error(
        "this {kind} reads the base {found:.12}, the loaded one is {expected:.12}; load the base it was trained on, or train a {kind} for this one"
    )]
    Base {
        /// The head's kind.
        kind: String,
        /// Hash of the loaded base.
        expected: String,
        /// Hash in the head.
        found: String,
    },
    /// A head of another width.
    #[error(
        "this {kind} reads hidden states of width {found}, the base's have {expected}; train a {kind} for this base"
    )]
    Width {
        /// The head's kind.
        kind: String,
        /// Width of the base.
        expected: usize,
        /// Width in the head.
        found: usize,
    },
    /// A tensor that a head of this kind must have.
    #[error("this {kind} has no tensor `{name}`; train it again")]
    Missing {
        /// The head's kind.
        kind: String,
        /// The tensor.
        name: String,
    },
    /// A tensor of another shape.
    #[error(
        "tensor `{name}` of this {kind} has the shape {found:?}, expected {expected:?}; train it again"
    )]
    Shape {
        /// The head's kind.
        kind: String,
        /// The tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the kind needs.
        expected: Vec<usize>,
    },
}

impl HeadFile {
    /// Reads the two files of `dir`.
    ///
    /// # Errors
    /// [`HeadError`], which names the file and what to do. Nothing that a file says is believed before it is checked.
    pub fn load(dir: &Path) -> Result<Self, HeadError> {
        Self::load_from(&Folder::disk(dir))
    }

    /// As [`HeadFile::load`], for a folder that may be inside a bundle.
    ///
    /// # Errors
    /// As [`HeadFile::load`].
    pub fn load_from(dir: &Folder) -> Result<Self, HeadError> {
        for file in [CONFIG, TENSORS] {
            if !dir.has(file) {
                let dir = dir.path();
                return Err(HeadError::NotAHead { dir, file });
            }
        }
        let (config, tensors) = (dir.path_of(CONFIG), dir.path_of(TENSORS));
        let text = dir.read(CONFIG).map_err(io_error(&config))?;
        let map = parse_object_bytes(&text).map_err(|source| HeadError::Json {
            path: config.clone(),
            source,
        })?;
        let fields = Fields { path: &config, map };
        let hash = fields.read()?;
        let found = blake3::hash(&dir.read(TENSORS).map_err(io_error(&tensors))?);
        if found.to_hex().as_str() != hash {
            return Err(HeadError::Mixed { path: tensors });
        }
        fields.into_head(read_tensors(dir)?)
    }

    /// Writes the two files of `dir`, which is made if it does not exist. Each is written aside and renamed; a crash between the two
    /// leaves a head that is refused, never one that is half old.
    ///
    /// # Errors
    /// [`HeadError::NonFinite`] or [`HeadError::Size`] for a tensor that no reader would take, [`HeadError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), HeadError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let mut tensors = Vec::new();
        for (name, HeadTensor { shape, data }) in &self.tensors {
            finite(name, data)?;
            let tensor =
                Tensor::from_f32(shape.clone(), data).map_err(|source| HeadError::Size {
                    name: name.clone(),
                    source,
                })?;
            tensors.push((name.clone(), tensor));
        }
        let path = dir.join(TENSORS);
        save_tensors(&path, tensors.iter().map(|(name, t)| (name.clone(), t)))
            .map_err(|e| HeadError::Tensors(Box::new(e)))?;
        let hash = blake3::hash(&fs::read(&path).map_err(io_error(&path))?);
        let config = json!({
            "format": FORMAT,
            "kind": self.kind,
            "base": self.base,
            "hidden_size": self.hidden_size,
            "tensors": hash.to_hex().as_str(),
            "settings": self.settings,
        });
        let path = dir.join(CONFIG);
        write_atomic(&path, |file| writeln!(file, "{config:#}")).map_err(io_error(&path))
    }

    /// BLAKE3 of everything that the head is: kind, base, width, settings and tensors.
    pub fn hash(&self) -> ContentHash {
        let mut hasher = blake3::Hasher::new();
        let mut put = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        put(self.kind.as_bytes());
        put(self.base.as_bytes());
        put(&(self.hidden_size as u64).to_le_bytes());
        put(Value::Object(self.settings.clone()).to_string().as_bytes());
        for (name, HeadTensor { shape, data }) in &self.tensors {
            put(name.as_bytes());
            shape.iter().for_each(|&n| put(&(n as u64).to_le_bytes()));
            data.iter().for_each(|x| put(&x.to_le_bytes()));
        }
        ContentHash(*hasher.finalize().as_bytes())
    }

    /// The bytes of the two files of the head in `dir` with its weights as INT8 per row (`lora::int8`): the tensors `weight` and
    /// `*.weight`. Everything else is kept, so that a bias or a deviation costs no accuracy.
    ///
    /// # Errors
    /// As [`HeadFile::load`].
    pub(crate) fn stored_in_int8(dir: &Path) -> Result<[Vec<u8>; 2], HeadError> {
        let is_weight = |name: &str| name == "weight" || name.ends_with(".weight");
        let tensors = int8::encode(&dir.join(TENSORS), is_weight);
        let tensors = tensors.map_err(|e| HeadError::Tensors(Box::new(e)))?;
        let path = dir.join(CONFIG);
        let text = fs::read(&path).map_err(io_error(&path))?;
        let mut config =
            parse_object_bytes(&text).map_err(|source| HeadError::Json { path, source })?;
        let hash = blake3::hash(&tensors).to_hex();
        config.insert("tensors".to_owned(), hash.as_str().into());
        let config = format!("{:#}\n", Value::Object(config));
        Ok([config.into_bytes(), tensors])
    }

    /// Checks that this is a head of `kind` for the base with this hash and width.
    ///
    /// # Errors
    /// [`HeadError::Kind`], [`HeadError::Base`] or [`HeadError::Width`].
    pub fn expect(
        &self,
        kind: &str,
        base: &ContentHash,
        hidden_size: usize,
    ) -> Result<(), HeadError> {
        if self.kind != kind {
            return Err(HeadError::Kind {
                expected: kind.to_owned(),
                found: self.kind.clone(),
            });
        }
        let kind = || self.kind.clone();
        let expected = base.to_string();
        if self.base != expected {
            return Err(HeadError::Base {
                kind: kind(),
                expected,
                found: self.base.clone(),
            });
        }
        if self.hidden_size != hidden_size {
            return Err(HeadError::Width {
                kind: kind(),
                expected: hidden_size,
                found: self.hidden_size,
            });
        }
        Ok(())
    }

    /// The values of a tensor that must have this shape.
    ///
    /// # Errors
    /// [`HeadError::Missing`] or [`HeadError::Shape`].
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&[f32], HeadError> {
        let kind = || self.kind.clone();
        match self.tensors.get(name) {
            None => Err(HeadError::Missing {
                kind: kind(),
                name: name.to_owned(),
            }),
            Some(tensor) if tensor.shape != shape => Err(HeadError::Shape {
                kind: kind(),
                name: name.to_owned(),
                found: tensor.shape.clone(),
                expected: shape.to_vec(),
            }),
            Some(tensor) => Ok(&tensor.data),
        }
    }
}

/// The fields of head.json on their way into a [`HeadFile`].
struct Fields<'a> {
    path: &'a Path,
    map: Map<String, Value>,
}

impl Fields<'_> {
    /// Checks format and names; gives the hash of the tensors' file.
    fn read(&self) -> Result<String, HeadError> {
        let format = self.map.get("format");
        if format.and_then(Value::as_u64) != Some(FORMAT) {
            return Err(HeadError::Format {
                path: self.path.to_path_buf(),
                found: format.map_or_else(|| "none".to_owned(), shorten),
            });
        }
        if let Some(field) = self.map.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            return Err(HeadError::UnknownField {
                path: self.path.to_path_buf(),
                field: field.clone(),
            });
        }
        self.hex("tensors")
    }

    fn into_head(self, tensors: BTreeMap<String, HeadTensor>) -> Result<HeadFile, HeadError> {
        let kind = self.map.get("kind").and_then(Value::as_str);
        let kind = kind.filter(|kind| !kind.is_empty()).map(str::to_owned);
        let width = self.map.get("hidden_size").and_then(Value::as_u64);
        let width = width.and_then(|width| usize::try_from(width).ok());
        let settings = self.map.get("settings").and_then(Value::as_object);
        Ok(HeadFile {
            kind: kind.ok_or_else(|| self.wrong("kind", "a word such as \"switcher\""))?,
            base: self.hex("base")?,
            hidden_size: width
                .filter(|&width| width > 0)
                .ok_or_else(|| self.wrong("hidden_size", "a whole number above 0"))?,
            settings: settings
                .cloned()
                .ok_or_else(|| self.wrong("settings", "an object"))?,
            tensors,
        })
    }

    fn hex(&self, field: &'static str) -> Result<String, HeadError> {
        let text = self.map.get(field).and_then(Value::as_str);
        let is_hash = |text: &&str| {
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        text.filter(is_hash)
            .map(str::to_owned)
            .ok_or_else(|| self.wrong(field, "a hash of 64 lower-case hex digits"))
    }

    fn wrong(&self, field: &'static str, expected: &'static str) -> HeadError {
        HeadError::Field {
            path: self.path.to_path_buf(),
            field,
            expected,
        }
    }
}

fn read_tensors(dir: &Folder) -> Result<BTreeMap<String, HeadTensor>, HeadError> {
    let read = safetensors::open_in(dir, TENSORS).map_err(|e| HeadError::Tensors(Box::new(e)))?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in read {
        if tensor.written_dtype() != Dtype::F32 {
            let found = tensor.dtype.to_string();
            return Err(HeadError::Dtype { name, found });
        }
        let data = tensor.to_f32();
        finite(&name, &data)?;
        let shape = tensor.shape;
        tensors.insert(name, HeadTensor { shape, data });
    }
    Ok(tensors)
}

fn finite(name: &str, data: &[f32]) -> Result<(), HeadError> {
    match data.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(index) => Err(HeadError::NonFinite {
            name: name.to_owned(),
            index,
            value: data[index],
        }),
    }
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> HeadError {
    let path = path.to_path_buf();
    move |source| HeadError::Io { path, source }
}
