//! Where the files of a model, an adapter or a head stand: a directory of the disk, or a folder inside a bundle.

use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::Bundle;
use crate::{Bytes, MappedFile};

/// A folder that is read from.
#[derive(Debug, Clone)]
pub enum Folder {
    /// A directory.
    Disk(PathBuf),
    /// The parts of a bundle whose names begin with `prefix` and a slash.
    Bundle {
        /// The open file.
        bundle: Bundle,
        /// Name of the folder, such as `base`.
        prefix: String,
    },
}

impl Folder {
    /// A directory of the disk.
    pub fn disk(path: impl AsRef<Path>) -> Self {
        Self::Disk(path.as_ref().to_path_buf())
    }

    /// The folder's path, for messages; inside a bundle it goes on behind the bundle's own.
    pub fn path(&self) -> PathBuf {
        match self {
            Folder::Disk(path) => path.clone(),
            Folder::Bundle { bundle, prefix } => bundle.path().join(prefix),
        }
    }

    /// The path of a file in it, for messages.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        let path = self.path();
        path.file_name().map_or_else(
            || path.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        )
    }

    /// Whether there is such a file.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Folder::Disk(path) => path.join(name).is_file(),
            Folder::Bundle { bundle, prefix } => bundle.has(&format!("{prefix}/{name}")),
        }
    }

    /// All bytes of a file.
    ///
    /// # Errors
    /// The system's, and for a bundle that the part is missing or damaged.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        match self {
            Folder::Disk(path) => std::fs::read(path.join(name)),
            Folder::Bundle { .. } => Ok(self.map(name)?.as_slice().to_vec()),
        }
    }

    /// A file as a mapping, which costs no memory until it is touched.
    ///
    /// # Errors
    /// As [`Folder::read`], and `UnexpectedEof` for an empty file.
    pub fn map(&self, name: &str) -> io::Result<Bytes> {
        match self {
            Folder::Disk(path) => {
                let file = MappedFile::open(&path.join(name))?;
                Ok(Bytes::whole(&file))
            }
            Folder::Bundle { bundle, prefix } => {
                let part = bundle.part(&format!("{prefix}/{name}"));
                part.map_err(io::Error::other)
            }
        }
    }
}
