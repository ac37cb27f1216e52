//! The parts of a bundle as the files that they were, byte for byte.

use std::fs;
use std::path::Path;

use super::panels::{PANELS, To, dtypes, turn};
use super::{Bundle, BundleError, CHUNK, GGUF, place};
use crate::write_atomic;

impl Bundle {
    /// Writes every part below `dir`, which must be empty or not exist, and compares its hash on the way. A base in panels becomes the GGUF
    /// file that it was. `progress` is told the bytes that are written, and those of all parts.
    ///
    /// # Errors
    /// [`BundleError::NotEmpty`], [`BundleError::Damaged`], or a failed write. Files that were written before stay.
    pub fn unpack(
        &self,
        dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), BundleError> {
        fs::create_dir_all(dir).map_err(BundleError::io(dir))?;
        let mut there = fs::read_dir(dir).map_err(BundleError::io(dir))?;
        if there.next().is_some() {
            let path = dir.to_path_buf();
            return Err(BundleError::NotEmpty { path });
        }
        let (parts, dtypes) = (&self.manifest().parts, dtypes(self.manifest().format));
        let all: u64 = parts.iter().map(|part| part.size).sum();
        let mut done = 0;
        for part in parts {
            let in_panels = part.path.strip_suffix(PANELS);
            let name = in_panels.map(|folder| format!("{folder}{GGUF}"));
            let path = place(dir, name.as_ref().unwrap_or(&part.path));
            let folder = path.parent().unwrap_or(dir);
            fs::create_dir_all(folder).map_err(BundleError::io(folder))?;
            let bytes = self.bytes_of(part);
            let mut damage = None;
            if in_panels.is_some() {
                self.check(part)?;
            }
            let written = write_atomic(&path, |file| {
                let mut told = |run: &[u8]| {
                    file.write_all(run)?;
                    done += run.len() as u64;
                    progress(done, all);
                    Ok(())
                };
                if in_panels.is_some() {
                    return turn(&bytes, To::Rows, dtypes, &mut told);
                }
                let mut hasher = blake3::Hasher::new();
                bytes.read_runs(0..bytes.len(), CHUNK, &mut |run| {
                    hasher.update(run);
                    told(run)
                })?;
                // An error keeps the damaged part from being renamed to its name.
                self.compare(part, &hasher).map_err(|error| {
                    damage = Some(error);
                    std::io::Error::other("damaged")
                })
            });
            if let Some(error) = damage {
                return Err(error);
            }
            written.map_err(BundleError::io(&path))?;
        }
        Ok(())
    }
}
