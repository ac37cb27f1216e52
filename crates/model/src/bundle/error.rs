//! What can be wrong with a bundle, or with what is to be put in one.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::head::HeadError;
use crate::json::JsonError;
use crate::{AdapterError, LoadError};

/// A bundle cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The system refused to read or write.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The container is not one of ours.
    #[error("{} is no bundle: {reason}", path.display())]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The header or the manifest is not JSON, or has a key twice.
    #[error("the {what} of the bundle is damaged")]
    Json {
        /// Header or manifest.
        what: &'static str,
        /// Where and why.
        source: JsonError,
    },
    /// A later version of the format.
    #[error(
        "the bundle has format {found} and was written by {program}; this program reads {supported}: use a newer edgethink"
    )]
    Newer {
        /// Its format.
        found: u64,
        /// Who wrote it.
        program: String,
        /// The newest format that is read.
        supported: u64,
    },
    /// The manifest lacks a field, or has one of another kind or an unknown one.
    #[error("the manifest of the bundle: {reason}")]
    Manifest {
        /// Which field.
        reason: String,
    },
    /// The manifest is not the one that was written.
    #[error(
        "the manifest of the bundle is damaged: its hash is {found:.12}, expected {expected:.12}"
    )]
    ManifestHash {
        /// Hash in the header.
        expected: String,
        /// Hash of the text.
        found: String,
    },
    /// The header names other parts or places than the manifest.
    #[error("the header of the bundle does not say what its manifest says; the file is damaged")]
    Header,
    /// The file is shorter or longer than its parts.
    #[error("the bundle needs {expected} bytes and has {found}; it was not copied completely")]
    Length {
        /// Bytes that the parts need.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// A part that something in the manifest needs is not there.
    #[error("the bundle has no part {part}")]
    MissingPart {
        /// Name of the part.
        part: String,
    },
    /// A part is not what was packed.
    #[error(
        "the part {part} is damaged: its hash is {found:.12}, expected {expected:.12}; copy the bundle again"
    )]
    Damaged {
        /// Name of the part.
        part: String,
        /// Hash in the manifest.
        expected: String,
        /// Hash of the bytes.
        found: String,
    },
    /// A byte between two parts is not zero.
    #[error(
        "the padding before byte {offset} of the bundle's data is damaged; copy the bundle again"
    )]
    Padding {
        /// Where the next part begins.
        offset: u64,
    },
    /// An adapter or a head of another base.
    #[error("the {what} {name} belongs to the base {found:.12}, the bundle's is {expected:.12}")]
    OtherBase {
        /// Adapter or head.
        what: &'static str,
        /// Its name.
        name: String,
        /// Hash of the bundle's base.
        expected: String,
        /// Hash of its own base.
        found: String,
    },
    /// The base's tensors are not those that the manifest names.
    #[error("the base has the identity {found:.12}, the manifest says {expected:.12}")]
    BaseHash {
        /// Hash in the manifest.
        expected: String,
        /// Hash of config and weights.
        found: String,
    },
    /// There is no adapter of that name.
    #[error("the bundle has no adapter {name:?}; it has {have:?}")]
    NoAdapter {
        /// The name asked for.
        name: String,
        /// Names of its adapters.
        have: Vec<String>,
    },
    /// Something that cannot be packed.
    #[error("cannot pack {}: {reason}", path.display())]
    Unpackable {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file changed while it was packed.
    #[error("{} changed while it was packed; pack again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The directory to unpack to has files in it.
    #[error("{} is not empty; give a directory that is, or that does not exist", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The base cannot be loaded.
    #[error("the base of the bundle")]
    Load(#[source] Box<LoadError>),
    /// An adapter cannot be loaded.
    #[error("the adapter {name}")]
    Adapter {
        /// Its name.
        name: String,
        /// Why.
        source: Box<AdapterError>,
    },
    /// A head cannot be loaded, or is of another base.
    #[error("the head {name}")]
    Head {
        /// Its name.
        name: String,
        /// Why.
        source: Box<HeadError>,
    },
}

impl BundleError {
    pub(super) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> BundleError {
        let path = path.to_path_buf();
        move |source| BundleError::Io { path, source }
    }
}
