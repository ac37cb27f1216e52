//! What a run leaves on the disk while it goes, so that a kill costs one layer: a directory `OUT.work` beside the file to be written.
//!
//! - `run.json`: which model, scheme and calibration text this is the work of; another run is refused
//! - `embedding.gguf`, `layer-0007.gguf`, `lm_head.gguf`: finished tensors under their Hugging Face names
//! - `stream-0007.f32`: hidden states of the calibration text after layer 7, written before the layer itself is
//!
//! Every file is written aside and renamed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use edgethink_model::gguf::{Gguf, GgufWriter};
use edgethink_model::{Bytes, MappedFile, Tensor, write_atomic};
use serde::{Deserialize, Serialize};

use crate::error::QuantizeError;
use crate::scheme::Scheme;

/// Tensors by their Hugging Face names.
pub(crate) type Named = Vec<(String, Tensor)>;

/// What a run is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) model: String,
    pub(crate) scheme: Scheme,
    /// Hash of the calibration tokens.
    pub(crate) calibration: Option<String>,
    /// Hash of the trained transforms and ranges.
    pub(crate) trained: Option<String>,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Work {
    dir: PathBuf,
}

impl Work {
    /// Opens the directory of the file `out`, or makes it.
    pub(crate) fn open(out: &Path, identity: &Identity) -> Result<Self, QuantizeError> {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(".work");
        let dir = out.with_file_name(name);
        fs::create_dir_all(&dir).map_err(QuantizeError::io(&dir))?;
        let path = dir.join("run.json");
        let damaged = |error: serde_json::Error| QuantizeError::Part {
            path: path.clone(),
            reason: error.to_string(),
        };
        match fs::read(&path) {
            Ok(text) => {
                let found: Identity = serde_json::from_slice(&text).map_err(damaged)?;
                let what = if found.model != identity.model {
                    Some("model")
                } else if found.scheme != identity.scheme {
                    Some("scheme")
                } else if found.calibration != identity.calibration {
                    Some("calibration text")
                } else if found.trained != identity.trained {
                    Some("training of ranges")
                } else {
                    None
                };
                if let Some(what) = what {
                    return Err(QuantizeError::OtherWork { path: dir, what });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = serde_json::to_vec_pretty(identity).map_err(damaged)?;
                write_atomic(&path, |file| file.write_all(&text))
                    .map_err(QuantizeError::io(&path))?;
            }
            Err(error) => return Err(QuantizeError::io(&path)(error)),
        }
        Ok(Self { dir })
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tensors of a finished part, mapped; `None` if it is not there yet.
    pub(crate) fn part(&self, name: &str) -> Result<Option<Named>, QuantizeError> {
        let path = self.part_path(name);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |reason: String| QuantizeError::Part {
            path: path.clone(),
            reason,
        };
        let file = MappedFile::open(&path).map_err(QuantizeError::io(&path))?;
        let gguf = Gguf::parse(file.bytes()).map_err(|e| damaged(e.to_string()))?;
        let tensor = |info: &edgethink_model::gguf::TensorInfo<'_>| {
            let bytes = Bytes::mapped(&file, info.range.clone())?;
            let tensor = Tensor::new(info.dtype, info.shape.clone(), bytes).ok()?;
            Some((info.name.to_owned(), tensor))
        };
        let named: Option<Named> = gguf.tensors.iter().map(tensor).collect();
        named
            .map(Some)
            .ok_or_else(|| damaged("a tensor lies outside of it".to_owned()))
    }

    /// Writes a part, and gives its tensors back as they lie in the file, so that they cost no memory.
    pub(crate) fn finish(&self, name: &str, tensors: Named) -> Result<Named, QuantizeError> {
        let path = self.part_path(name);
        let mut file = GgufWriter::new();
        for (name, tensor) in tensors {
            file.tensor(&name, tensor)?;
        }
        file.save(&path)?;
        let lost = || QuantizeError::Part {
            path,
            reason: "it was removed".to_owned(),
        };
        self.part(name)?.ok_or_else(lost)
    }

    /// The hidden states after `layers` layers.
    pub(crate) fn stream(&self, layers: usize) -> Result<Vec<f32>, QuantizeError> {
        let path = self.stream_path(layers);
        let bytes = fs::read(&path).map_err(QuantizeError::io(&path))?;
        let numbers = bytes.as_chunks::<4>().0.iter();
        Ok(numbers.map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Writes the hidden states after `layers` layers, and removes those that no resumption needs.
    pub(crate) fn put_stream(&self, layers: usize, x: &[f32]) -> Result<(), QuantizeError> {
        let path = self.stream_path(layers);
        write_atomic(&path, |file| file.write_all(bytemuck::cast_slice(x)))
            .map_err(QuantizeError::io(&path))?;
        if layers >= 2 {
            let old = self.stream_path(layers - 2);
            match fs::remove_file(&old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(QuantizeError::io(&old)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the directory.
    pub(crate) fn remove(self) -> Result<(), QuantizeError> {
        fs::remove_dir_all(&self.dir).map_err(QuantizeError::io(&self.dir))
    }

    fn part_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.gguf"))
    }

    fn stream_path(&self, layers: usize) -> PathBuf {
        self.dir.join(format!("stream-{layers:04}.f32"))
    }
}
