//! Puts the shipped pocket model into the program, so that `cargo install` gives something that answers offline.
//!
//! Writes `$OUT_DIR/pocket.rs` with one `include_bytes!` per file of `models/pocket/{base,adapter,switcher,verifier}` in the repository. A
//! repository without them gives an empty list, and the program then asks for `--model`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What a directory of a model, an adapter or a head may hold besides the checkpoints and logs of its training.
const MODEL_FILES: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
    "edgethink.json",
    "head.json",
    "head.safetensors",
];

/// All parts together; more does not belong into a program (or the repository).
const MAX_BYTES: u64 = 16 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../models/pocket");
    println!("cargo::rerun-if-changed=build.rs");
    // Cargo looks for a path that is not there at every build, so this also sees the model arrive.
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    for part in ["base", "adapter", "switcher", "verifier"] {
        let dir = root.join(part);
        if dir.is_dir() {
            collect(&dir, part, &mut files)?;
        }
    }
    files.sort();
    let mut bytes = 0;
    let mut source = String::from("pub(super) static FILES: &[(&str, &[u8])] = &[\n");
    for (name, path) in &files {
        bytes += path.metadata()?.len();
        let path = path.canonicalize()?;
        writeln!(
            source,
            "    ({name:?}, include_bytes!({:?})),",
            path.display().to_string()
        )?;
    }
    source.push_str("];\n");
    if bytes > MAX_BYTES {
        return Err(format!(
            "models/pocket has {bytes} bytes, at most {MAX_BYTES} go into the program"
        )
        .into());
    }
    std::fs::write(
        Path::new(&std::env::var("OUT_DIR")?).join("pocket.rs"),
        source,
    )?;
    Ok(())
}

/// The model's files of one directory, without checkpoints and logs of its training.
fn collect(dir: &Path, part: &str, files: &mut Vec<(String, PathBuf)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_file() && MODEL_FILES.contains(&name) {
            files.push((format!("{part}/{name}"), path));
        }
    }
    Ok(())
}
