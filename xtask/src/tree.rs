//! The repository as a list of text files, relative to its root.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// One text file: its path from the root (with `/`) and its contents.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the repository's root, for example `crates/model/src/lib.rs`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

/// Every Rust, TOML and Markdown file of the repository, outside build output.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    /// The files, sorted by path.
    pub(crate) files: Vec<Source>,
}

impl Tree {
    /// Reads the repository that holds this crate.
    ///
    /// # Errors
    /// When a folder or file cannot be read.
    pub(crate) fn open() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .map(Path::to_path_buf)
            .ok_or_else(|| io::Error::other("xtask has no parent folder"))?;
        let mut files = Vec::new();
        walk(&root, &root, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { root, files })
    }

    /// Rust files of a crate's `src`, tests and benches aside.
    pub(crate) fn sources_of<'a>(&'a self, krate: &str) -> impl Iterator<Item = &'a Source> {
        let prefix = format!("crates/{krate}/src/");
        self.files
            .iter()
            .filter(move |file| file.path.starts_with(&prefix) && file.path.ends_with(".rs"))
    }

    /// All Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// The file at this path.
    pub(crate) fn file(&self, path: &str) -> Option<&Source> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether the path exists on disk, as file or folder.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Names of the folders under `crates/`.
    pub(crate) fn crates(&self) -> Vec<String> {
        self.files
            .iter()
            .filter_map(|file| {
                let rest = file.path.strip_prefix("crates/")?;
                let name = rest.strip_suffix("/Cargo.toml")?;
                (!name.contains('/')).then(|| name.to_owned())
            })
            .collect()
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<Source>) -> io::Result<()> {
    const SKIPPED: [&str; 7] = [
        "target",
        ".git",
        "runs",
        "node_modules",
        ".venv",
        "corpus",
        "artifacts",
    ];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            if !SKIPPED.contains(&name) {
                walk(root, &path, files)?;
            }
        } else if [".rs", ".toml", ".md"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            let relative = path.strip_prefix(root).map_err(io::Error::other)?;
            files.push(Source {
                path: relative.to_string_lossy().replace('\\', "/"),
                text: fs::read_to_string(&path)?,
            });
        }
    }
    Ok(())
}
