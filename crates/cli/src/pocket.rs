//! The pocket model that is built into the program.
//!
//! It is embedded (base and adapter are at most 16 MB together) and not looked up beside the binary, because
//! `cargo install` copies nothing but the binary. Weights are read by mmap, so the files are written once to the user's cache
//! directory, under a name that holds their hash; another version of the program writes another directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/pocket.rs"));
}

/// The directory with the pocket model's `base/` and `adapter/`, written if it is not there yet.
pub(crate) fn directory() -> Result<PathBuf> {
    if embedded::FILES.is_empty() {
        bail!("this program was built without the pocket model; name a model with --model");
    }
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in embedded::FILES {
        for part in [name.as_bytes(), bytes] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    let name = format!("pocket-{}", &hasher.finalize().to_hex()[..16]);
    let mut failed = None;
    for root in cache_roots() {
        let dir = root.join(&name);
        if is_whole(&dir) {
            return Ok(dir);
        }
        match unpack(&root, &dir) {
            Ok(()) => return Ok(dir),
            Err(error) => failed = Some(error),
        }
    }
    let error = failed.unwrap_or_else(|| anyhow::anyhow!("no cache directory is known"));
    Err(error.context("the pocket model could not be unpacked; set XDG_CACHE_HOME to a directory that can be written"))
}

/// Where the files may go, best first.
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

/// All files are there, with the bytes that are built in.
fn is_whole(dir: &Path) -> bool {
    embedded::FILES
        .iter()
        .all(|(name, bytes)| std::fs::read(dir.join(name)).is_ok_and(|found| found == *bytes))
}

/// Writes everything aside and renames, so that a half-written model is never used.
fn unpack(root: &Path, dir: &Path) -> Result<()> {
    let aside = root.join(format!(".pocket-{}", std::process::id()));
    let written = (|| -> Result<()> {
        for (name, bytes) in embedded::FILES {
            let path = aside.join(name);
            let parent = path.parent().unwrap_or(&aside);
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
            std::fs::write(&path, bytes)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        // Never over a directory: another process may have been faster, and reads what it wrote.
        if std::fs::rename(&aside, dir).is_ok() || is_whole(dir) {
            return Ok(());
        }
        if dir.exists() {
            std::fs::remove_dir_all(dir)
                .with_context(|| format!("cannot replace {}", dir.display()))?;
        }
        std::fs::rename(&aside, dir).with_context(|| format!("cannot create {}", dir.display()))
    })();
    // Best effort: what is left aside is in nobody's way.
    let _ = std::fs::remove_dir_all(&aside);
    written
}
