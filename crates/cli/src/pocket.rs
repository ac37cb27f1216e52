//! The pocket model that is built into the program: the bundle `models/pocket.edgethink`.
//!
//! It is embedded and not looked up beside the binary, because `cargo install` copies nothing but the binary. A bundle is read through a
//! mapping, so the file is written once to the user's cache directory, under a name that holds its hash; another version of the program
//! writes another file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `edgethink bundle pack models/pocket -o models/pocket.edgethink --licence "MIT OR Apache-2.0"`; a test holds it against the folders.
static BUNDLE: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../models/pocket.edgethink"
));

/// The pocket model's bundle, written if it is not there yet.
pub(crate) fn bundle() -> Result<PathBuf> {
    in_one_of(&cache_roots(), BUNDLE)
}

/// The file with these bytes in the first of `roots` that has it or can be written.
fn in_one_of(roots: &[PathBuf], bytes: &[u8]) -> Result<PathBuf> {
    let hash = blake3::hash(bytes).to_hex();
    let name = format!("pocket-{}.edgethink", &hash[..16]);
    let mut failed = None;
    for root in roots {
        let path = root.join(&name);
        // What another program did to it counts as not written.
        if std::fs::read(&path).is_ok_and(|found| found == bytes) {
            return Ok(path);
        }
        match write(&path, bytes) {
            Ok(()) => return Ok(path),
            Err(error) => failed = Some(error),
        }
    }
    let error = failed.unwrap_or_else(|| anyhow::anyhow!("no cache directory is known"));
    Err(error.context("the pocket model could not be written; set XDG_CACHE_HOME to a directory that can be written"))
}

/// Writes aside and renames, so that a half-written model is never used, and one that is in use stays. The disk is not waited for: what a
/// crash loses is found missing at the next start.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("it has no directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let aside = dir.join(format!(".pocket-{}", std::process::id()));
    let written = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, path));
    if written.is_err() {
        // Best effort: what is left aside is in nobody's way.
        let _ = std::fs::remove_file(&aside);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Where the file may go, best first.
fn cache_roots() -> Vec<PathBuf> {
    let var = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let mut roots = Vec::new();
    roots.extend(var("XDG_CACHE_HOME").map(|dir| dir.join("edgethink")));
    #[cfg(target_os = "macos")]
    roots.extend(var("HOME").map(|dir| dir.join("Library/Caches/edgethink")));
    #[cfg(windows)]
    roots.extend(var("LOCALAPPDATA").map(|dir| dir.join("edgethink")));
    roots.extend(var("HOME").map(|dir| dir.join(".cache/edgethink")));
    roots.push(std::env::temp_dir().join("edgethink"));
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_once_and_repaired() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // A file where the directory should be: this root cannot be written.
        let blocked = dir.path().join("blocked");
        std::fs::write(&blocked, "x").expect("written");
        let roots = [blocked, dir.path().join("cache")];
        let path = in_one_of(&roots, b"first").expect("the second root");
        assert!(path.starts_with(&roots[1]), "{}", path.display());
        let modified = || std::fs::metadata(&path).and_then(|m| m.modified()).ok();
        let before = modified();
        assert_eq!(in_one_of(&roots, b"first").expect("there"), path);
        assert_eq!(modified(), before, "not written again");
        std::fs::write(&path, "fir").expect("damaged");
        assert_eq!(in_one_of(&roots, b"first").expect("repaired"), path);
        assert_eq!(std::fs::read(&path).expect("read"), b"first");
        assert_ne!(in_one_of(&roots, b"second").expect("another"), path);
        let error = in_one_of(&roots[..1], b"first").expect_err("nowhere");
        assert!(format!("{error:#}").contains("XDG_CACHE_HOME"), "{error:#}");
    }
}
