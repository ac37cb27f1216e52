//! Puts the files of `page/` into the server, each with a hash for its `ETag`.
//!
//! Writes `$OUT_DIR/page.rs` with a list of (name, hash, bytes). Files that begin with a dot and folders are left out.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let page = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("page");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", page.display());
    let mut files = Vec::new();
    if page.is_dir() {
        for entry in std::fs::read_dir(&page)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_file() && !name.starts_with('.') {
                files.push((name, entry.path()));
            }
        }
    }
    files.sort();
    let mut source = String::from("pub(super) static FILES: &[(&str, &str, &[u8])] = &[\n");
    for (name, path) in &files {
        println!("cargo::rerun-if-changed={}", path.display());
        let hash = blake3::hash(&std::fs::read(path)?).to_hex();
        let hash = &hash[..16];
        writeln!(
            source,
            "    ({name:?}, {hash:?}, include_bytes!({path:?})),"
        )?;
    }
    source.push_str("];\n");
    std::fs::write(
        Path::new(&std::env::var("OUT_DIR")?).join("page.rs"),
        source,
    )?;
    Ok(())
}
