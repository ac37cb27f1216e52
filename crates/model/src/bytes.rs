//! The bytes of a tensor: a range of a memory-mapped file, or a buffer of our own. Cloning shares them.
//!
//! This file holds the only `unsafe` of the crate: the mapping of a file that we opened read-only.
//! A mapping costs no memory until it is touched, and [`Bytes::read_into`] reads the file without touching it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

#[cfg(target_endian = "big")]
compile_error!(
    "weights are used in place as little-endian numbers: big-endian machines are not supported"
);

/// A file mapped for reading.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    map: Mmap,
}

impl MappedFile {
    /// Opens and maps a whole file.
    ///
    /// # Errors
    /// Whatever the system says of opening or mapping it. An empty file is an error of kind `UnexpectedEof`.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        if meta.len() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is empty",
            ));
        }
        #[expect(
            unsafe_code,
            reason = "weights are used in place; a copy would double the memory of a model"
        )]
        // SAFETY: the mapping is private to this struct, read-only, and dropped with it. The bytes are only read as
        // plain numbers, for which every bit pattern is valid. What the type system cannot rule out is another process
        // that writes to or truncates the file while it is mapped; writers in this project replace files by rename,
        // which leaves the mapped file as it was.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            file,
            map,
        }))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Reads `range` through the file handle, so that the mapping does not become resident.
    fn read_range(&self, range: Range<usize>, out: &mut [u8]) -> io::Result<()> {
        #[cfg(unix)]
        {
            std::os::unix::fs::FileExt::read_exact_at(&self.file, out, range.start as u64)
        }
        #[cfg(not(unix))]
        {
            out.copy_from_slice(&self.map[range]);
            Ok(())
        }
    }
}

/// A shared, immutable run of bytes, aligned for the numbers it holds.
#[derive(Clone)]
pub struct Bytes {
    source: Source,
    range: Range<usize>,
}

#[derive(Clone)]
enum Source {
    Mapped(Arc<MappedFile>),
    /// Words, so that any element type we use is aligned.
    Owned(Arc<[u64]>),
}

impl Bytes {
    /// A range of a mapped file; `None` if it reaches past the end.
    pub fn mapped(file: &Arc<MappedFile>, range: Range<usize>) -> Option<Self> {
        (range.start <= range.end && range.end <= file.bytes().len()).then(|| Self {
            source: Source::Mapped(Arc::clone(file)),
            range,
        })
    }

    /// All bytes of a mapped file.
    pub fn whole(file: &Arc<MappedFile>) -> Self {
        Self {
            source: Source::Mapped(Arc::clone(file)),
            range: 0..file.bytes().len(),
        }
    }

    /// A copy of `bytes` in memory of our own, aligned to 8.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self {
            source: Source::Owned(words.into()),
            range: 0..bytes.len(),
        }
    }

    /// The bytes themselves. For a mapped file this makes the pages that are read resident.
    pub fn as_slice(&self) -> &[u8] {
        let all = match &self.source {
            Source::Mapped(file) => file.bytes(),
            Source::Owned(words) => bytemuck::cast_slice(words),
        };
        &all[self.range.clone()]
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A part of these bytes; `None` if it reaches past the end.
    pub fn slice(&self, part: Range<usize>) -> Option<Self> {
        if part.start > part.end || part.end > self.len() {
            return None;
        }
        let range = self.range.start + part.start..self.range.start + part.end;
        Some(Self {
            source: self.source.clone(),
            range,
        })
    }

    /// Copies `part` into `out` (cleared first) by reading the file, not the mapping.
    ///
    /// # Errors
    /// The system's error for a failed read, `UnexpectedEof` if the file became shorter since it was opened.
    ///
    /// # Panics
    /// If `part` reaches past the end of these bytes.
    pub fn read_into(&self, part: Range<usize>, out: &mut Vec<u8>) -> io::Result<()> {
        assert!(
            part.start <= part.end && part.end <= self.len(),
            "bytes {part:?} of {}",
            self.len()
        );
        let range = self.range.start + part.start..self.range.start + part.end;
        out.clear();
        match &self.source {
            Source::Mapped(file) => {
                out.resize(range.len(), 0);
                file.read_range(range, out)
            }
            Source::Owned(words) => {
                out.extend_from_slice(&bytemuck::cast_slice(words)[range]);
                Ok(())
            }
        }
    }

    /// Gives `part` to `take`, `step` bytes at a time, read as by [`Bytes::read_into`].
    ///
    /// # Errors
    /// The system's error for a failed read, and the first one that `take` gives.
    ///
    /// # Panics
    /// If `part` reaches past the end of these bytes, or `step` is 0.
    pub fn read_runs(
        &self,
        part: Range<usize>,
        step: usize,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut run = Vec::new();
        for at in part.clone().step_by(step) {
            self.read_into(at..part.end.min(at + step), &mut run)?;
            take(&run)?;
        }
        Ok(())
    }

    /// Asks the system for large pages of a mapped file: it then reads ahead in runs as large, and an engine that reads all of it waits
    /// less for page tables. Only speed depends on it; there is none on systems other than Linux.
    pub fn advise_huge_pages(&self) {
        #[cfg(target_os = "linux")]
        if let Source::Mapped(file) = &self.source {
            let (start, len) = (self.range.start, self.range.len());
            let _ = file.map.advise_range(memmap2::Advice::HugePage, start, len);
        }
    }

    /// Whether the first byte is aligned to `align` (a power of two).
    pub fn is_aligned(&self, align: usize) -> bool {
        (self.as_slice().as_ptr() as usize).is_multiple_of(align)
    }

    /// Whether the bytes are a mapping of a file rather than memory of our own.
    pub fn is_mapped(&self) -> bool {
        matches!(self.source, Source::Mapped(_))
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            Source::Mapped(file) => write!(f, "Bytes({}, {:?})", file.path().display(), self.range),
            Source::Owned(_) => write!(f, "Bytes(owned, {})", self.range.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_and_owned_read_alike() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = MappedFile::open(&path).unwrap();
        let mapped = Bytes::mapped(&file, 2..8).unwrap();
        let owned = Bytes::copy_of(b"234567");
        let mut out = Vec::new();
        for bytes in [mapped, owned] {
            assert_eq!(bytes.as_slice(), b"234567");
            let part = bytes.slice(1..4).unwrap();
            assert_eq!(part.as_slice(), b"345");
            part.read_into(1..3, &mut out).unwrap();
            assert_eq!(out, b"45");
            assert!(bytes.slice(3..7).is_none());
            let mut runs = Vec::new();
            let mut take = |run: &[u8]| {
                runs.push(run.to_vec());
                Ok(())
            };
            bytes.read_runs(1..6, 2, &mut take).unwrap();
            assert_eq!(runs, [&b"34"[..], b"56", b"7"]);
        }
        assert!(Bytes::mapped(&file, 5..11).is_none());
    }

    #[test]
    fn empty_files_and_directories_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(
            MappedFile::open(&path).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(MappedFile::open(dir.path()).is_err());
    }
}
