//! A bundle: base, adapters, heads and tokenizer in one `.edgethink` file that is used through a mapping, without unpacking.
//!
//! It is a safetensors file, so that every tool for these can list it: each part is a file, byte for byte, as a U8 tensor (but the matrices
//! of a base that is a GGUF file lie in [`crate::panels`]), and `__metadata__` holds a manifest ([`Manifest`]) with the parts' BLAKE3 hashes and the base's identity. The data inside safetensors and
//! GGUF parts begins at multiples of 64 bytes in the bundle. A part is read by the same code as the file that it came from
//! ([`Folder`]), so a bundle computes what its directory computes, to the bit.
//!
//! What is read is hashed first, except parts above [`HASHED_AT_LOAD`]: reading a base of many gigabytes twice would cost more than
//! loading it. [`Bundle::verify`] hashes everything, padding and the base's identity included.

mod error;
mod manifest;
mod pack;
mod panels;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::BundleError;
pub use manifest::{ALIGNMENT, AdapterEntry, BaseEntry, FORMAT, HeadEntry, Manifest, Part};
pub use pack::{PackOptions, PackSources, is_packed, pack};
use panels::PANELS;

use crate::head::HeadFile;
use crate::{Adapter, Bytes, Config, ContentHash, Folder, MappedFile, Model, Source, gguf, hf};

/// The extension of a bundle.
pub const EXTENSION: &str = "edgethink";
/// Parts up to this size are hashed whenever they are read: about a quarter of a second.
pub const HASHED_AT_LOAD: u64 = 256 << 20;
/// Name of a base that is a GGUF file.
const GGUF: &str = "model.gguf";
/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// An open bundle. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Bundle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<MappedFile>,
    manifest: Manifest,
    /// Where the data begins in the file.
    data: usize,
    /// Places in `manifest.parts`.
    index: BTreeMap<String, usize>,
}

impl Bundle {
    /// Whether a path is that of a bundle.
    pub fn is_one(path: &Path) -> bool {
        path.extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION))
    }

    /// Opens a bundle: reads header and manifest and compares both with each other and with the length of the file.
    ///
    /// # Errors
    /// [`BundleError`] for a file that is no bundle, is damaged or cut, or was written by a newer program.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let file = MappedFile::open(path).map_err(BundleError::io(path))?;
        let bytes = file.bytes();
        let not = |reason| BundleError::NotABundle {
            path: path.to_path_buf(),
            reason,
        };
        let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(not("it is shorter than a header"));
        };
        let len = u64::from_le_bytes(*len);
        if len > manifest::MAX_HEADER || len > rest.len() as u64 {
            return Err(not("it does not begin with the length of a header"));
        }
        let data = 8 + len as usize;
        let text = manifest::manifest_text(&bytes[8..data])?;
        let text = text.ok_or_else(|| not("its header has no manifest"))?;
        let manifest = Manifest::parse(&text)?;
        let expected = manifest.data_len().saturating_add(data as u64);
        if expected != bytes.len() as u64 {
            let found = bytes.len() as u64;
            return Err(BundleError::Length { expected, found });
        }
        if manifest::header(&text, &manifest.parts) != bytes[..data] {
            return Err(BundleError::Header);
        }
        let places = manifest.parts.iter().enumerate();
        let index = places.map(|(i, part)| (part.path.clone(), i)).collect();
        let shared = Shared {
            file,
            manifest,
            data,
            index,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.shared.file.path()
    }

    /// What is in it.
    pub fn manifest(&self) -> &Manifest {
        &self.shared.manifest
    }

    /// Whether there is a part of this name.
    pub fn has(&self, part: &str) -> bool {
        self.shared.index.contains_key(part)
    }

    /// The bytes of a part, on the mapping.
    ///
    /// # Errors
    /// [`BundleError::MissingPart`], and [`BundleError::Damaged`] for one up to [`HASHED_AT_LOAD`] whose hash is wrong.
    pub fn part(&self, name: &str) -> Result<Bytes, BundleError> {
        let missing = || BundleError::MissingPart {
            part: name.to_owned(),
        };
        let index = *self.shared.index.get(name).ok_or_else(missing)?;
        let part = &self.manifest().parts[index];
        let bytes = self.bytes_of(part);
        if part.size <= HASHED_AT_LOAD {
            self.check(part)?;
        }
        Ok(bytes)
    }

    /// The folder of this name: its parts as files.
    pub fn folder(&self, name: &str) -> Folder {
        Folder::Bundle {
            bundle: self.clone(),
            prefix: name.to_owned(),
        }
    }

    /// The base model, its weights on the mapping. Its identity is the manifest's: reading all weights for it would take longer than
    /// loading them ([`Bundle::verify`] does).
    ///
    /// # Errors
    /// [`BundleError::Load`].
    pub fn model(&self) -> Result<Model, BundleError> {
        let folder = self.folder(&self.manifest().base.folder);
        let mut model = if folder.has(PANELS) {
            gguf::load_from(&folder, PANELS, panels::dtypes(self.manifest().format))
        } else if folder.has(GGUF) {
            gguf::load_from(&folder, GGUF, &[])
        } else {
            hf::load_folder(&folder)
        }
        .map_err(|e| BundleError::Load(Box::new(e)))?;
        model.source = Source::Bundle(self.path().to_path_buf());
        if let Some(hash) = ContentHash::from_hex(&self.manifest().base.hash) {
            model.trust_hash(hash);
        }
        Ok(model)
    }

    /// The adapter of this name, or the first one if `name` is none; no adapter if the bundle has none.
    ///
    /// # Errors
    /// [`BundleError::NoAdapter`] or [`BundleError::Adapter`].
    pub fn adapter(
        &self,
        name: Option<&str>,
        base: &Config,
    ) -> Result<Option<(Adapter, Folder)>, BundleError> {
        let adapters = &self.manifest().adapters;
        let entry = match name {
            None => adapters.first(),
            Some(name) => match adapters.iter().find(|a| a.name == name) {
                Some(entry) => Some(entry),
                None => {
                    return Err(BundleError::NoAdapter {
                        name: name.to_owned(),
                        have: adapters.iter().map(|a| a.name.clone()).collect(),
                    });
                }
            },
        };
        let Some(entry) = entry else { return Ok(None) };
        let folder = self.folder(&entry.folder);
        let adapter = Adapter::load_from(&folder, base);
        let mut adapter = adapter.map_err(|e| adapter_error(&entry.name, e))?;
        adapter.name.clone_from(&entry.name);
        Ok(Some((adapter, folder)))
    }

    /// The head of this kind, if there is one. Whether it fits the base is for its user to say ([`HeadFile::expect`]).
    ///
    /// # Errors
    /// [`BundleError::Head`].
    pub fn head(&self, kind: &str) -> Result<Option<HeadFile>, BundleError> {
        let heads = &self.manifest().heads;
        let Some(entry) = heads.iter().find(|head| head.kind == kind) else {
            return Ok(None);
        };
        let head = HeadFile::load_from(&self.folder(&entry.folder));
        head.map(Some).map_err(|source| BundleError::Head {
            name: kind.to_owned(),
            source: Box::new(source),
        })
    }

    /// Hashes every part, looks at the padding, loads everything, and compares the identities of base, adapters and heads.
    /// `progress` is told the bytes that are hashed, and those of all parts.
    ///
    /// # Errors
    /// [`BundleError`] for the first thing that is not what was packed.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), BundleError> {
        let manifest = self.manifest();
        let (mut end, mut done) = (0, 0);
        let all: u64 = manifest.parts.iter().map(|part| part.size).sum();
        for part in &manifest.parts {
            let gap = self.shared.data + end as usize..self.shared.data + part.offset as usize;
            if self.shared.file.bytes()[gap].iter().any(|&byte| byte != 0) {
                let offset = part.offset;
                return Err(BundleError::Padding { offset });
            }
            end = part.offset + part.size;
            self.check(part)?;
            done += part.size;
            progress(done, all);
        }
        let model = self.model()?;
        let hash = model.content_hash();
        let hash = hash.map_err(BundleError::io(self.path()))?;
        if hash.to_string() != manifest.base.hash {
            return Err(BundleError::BaseHash {
                expected: manifest.base.hash.clone(),
                found: hash.to_string(),
            });
        }
        for entry in &manifest.adapters {
            self.adapter(Some(&entry.name), &model.config)?;
        }
        for entry in &manifest.heads {
            if let Some(head) = self.head(&entry.kind)? {
                let fits = head.expect(&entry.kind, &hash, model.config.hidden_size);
                fits.map_err(|source| BundleError::Head {
                    name: entry.kind.clone(),
                    source: Box::new(source),
                })?;
            }
        }
        Ok(())
    }

    fn bytes_of(&self, part: &Part) -> Bytes {
        let range = self.range(part);
        Bytes::mapped(&self.shared.file, range).expect("open compared the parts with the file")
    }

    /// Where a part is in the file.
    fn range(&self, part: &Part) -> Range<usize> {
        let start = self.shared.data + part.offset as usize;
        start..start + part.size as usize
    }

    /// Compares a part's hash with the manifest's, without making it resident.
    fn check(&self, part: &Part) -> Result<(), BundleError> {
        let bytes = self.bytes_of(part);
        let mut hasher = blake3::Hasher::new();
        let mut take = |run: &[u8]| {
            hasher.update(run);
            Ok(())
        };
        let read = bytes.read_runs(0..bytes.len(), CHUNK, &mut take);
        read.map_err(BundleError::io(self.path()))?;
        self.compare(part, &hasher)
    }

    fn compare(&self, part: &Part, hasher: &blake3::Hasher) -> Result<(), BundleError> {
        let found = hasher.finalize().to_hex();
        if found.as_str() == part.blake3 {
            return Ok(());
        }
        Err(BundleError::Damaged {
            part: part.path.clone(),
            expected: part.blake3.clone(),
            found: found.to_string(),
        })
    }
}

fn adapter_error(name: &str, source: crate::AdapterError) -> BundleError {
    BundleError::Adapter {
        name: name.to_owned(),
        source: Box::new(source),
    }
}

/// A path inside a directory, for a part's name.
fn place(dir: &Path, part: &str) -> PathBuf {
    part.split('/')
        .fold(dir.to_path_buf(), |path, name| path.join(name))
}
