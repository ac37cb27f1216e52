//! The records of a run: `metrics.jsonl` with TRL's names, TensorBoard scalars, the loss curve, and what the run
//! was made with.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{
    plot::{self, Panel},
    tensorboard::EventFile,
};
use crate::error::TrainError;

/// Open records of a run.
#[derive(Debug)]
pub(crate) struct Records {
    dir: PathBuf,
    metrics: File,
    events: EventFile,
}

impl Records {
    /// Opens the records in `dir`. A resumed run keeps the lines up to `step` and goes on after them.
    pub(crate) fn open(dir: &Path, step: u64) -> Result<Self, TrainError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Write { path, source }
        };
        fs::create_dir_all(dir).map_err(write(dir))?;
        let path = dir.join("metrics.jsonl");
        let mut kept = String::new();
        if step > 0 && path.is_file() {
            let text = fs::read_to_string(&path).map_err(|source| TrainError::Read {
                path: path.clone(),
                source,
            })?;
            for line in text.lines() {
                // A line cut short by a crash is left out.
                let Ok(Value::Object(map)) = serde_json::from_str(line) else {
                    continue;
                };
                let at = map.get("step").and_then(Value::as_u64).unwrap_or(u64::MAX);
                if at > step {
                    continue;
                }
                kept.push_str(line);
                kept.push('\n');
            }
        }
        fs::write(&path, kept).map_err(write(&path))?;
        let metrics = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(write(&path))?;
        let runs = dir.join("runs");
        let events = EventFile::create(&runs).map_err(write(&runs))?;
        Ok(Self {
            dir: dir.to_owned(),
            metrics,
            events,
        })
    }

    /// Notes values of a step: names as TRL's.
    pub(crate) fn note(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        let mut map = Map::new();
        map.insert("step".to_owned(), json!(step));
        for &(name, value) in values {
            map.insert(name.to_owned(), json!(value));
        }
        let path = self.dir.join("metrics.jsonl");
        writeln!(self.metrics, "{}", Value::Object(map))
            .map_err(|source| TrainError::Write { path, source })?;
        let tagged: Vec<(String, f64)> = values
            .iter()
            .map(|&(name, value)| match name.strip_prefix("eval_") {
                Some(rest) => (format!("eval/{rest}"), value),
                None => (format!("train/{name}"), value),
            })
            .collect();
        let tagged: Vec<(&str, f64)> = tagged.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        self.events
            .scalars(step, &tagged)
            .map_err(|source| TrainError::Write {
                path: self.dir.join("runs"),
                source,
            })
    }

    /// Draws the loss curve.
    pub(crate) fn draw(&self) -> Result<(), TrainError> {
        let loss = Panel::new(
            "loss, nats per token",
            &[("loss", "training"), ("eval_loss", "validation")],
        );
        plot::curves(&self.dir, "loss.svg", &[loss])
    }
}

/// Writes what a run was made with: the recipe with all defaults, the version and commit, the seed, the machine.
pub(crate) fn write_provenance(dir: &Path, resolved: &Value, seed: u64) -> Result<(), TrainError> {
    let path = dir.join("run.json");
    let text = format!(
        "{:#}\n",
        json!({
            "recipe": resolved,
            "seed": seed,
            "version": env!("CARGO_PKG_VERSION"),
            "git_commit": git_commit(),
            "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            "threads": rayon::current_num_threads(),
        })
    );
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, text))
        .map_err(|source| TrainError::Write { path, source })
}

/// Puts what came out under `key` into the `run.json` that [`write_provenance`] wrote.
pub(crate) fn add_provenance(dir: &Path, key: &str, value: Value) -> Result<(), TrainError> {
    let path = dir.join("run.json");
    let read = |source| TrainError::Read {
        path: path.clone(),
        source,
    };
    let text = fs::read_to_string(&path).map_err(read)?;
    let mut run: Value = serde_json::from_str(&text).map_err(|e| read(e.into()))?;
    run[key] = value;
    fs::write(&path, format!("{run:#}\n")).map_err(|source| TrainError::Write { path, source })
}

/// The commit of the working directory, read from `.git` without running anything; `None` outside a repository.
fn git_commit() -> Option<String> {
    let here = std::env::current_dir().ok()?;
    let git = here
        .ancestors()
        .map(|d| d.join(".git"))
        .find(|p| p.exists())?;
    // In a worktree `.git` is a file that names the real directory.
    let git = if git.is_file() {
        let text = fs::read_to_string(&git).ok()?;
        PathBuf::from(text.strip_prefix("gitdir:")?.trim())
    } else {
        git
    };
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(name) = head.strip_prefix("ref:").map(str::trim) else {
        return Some(head.trim().to_owned());
    };
    let common = match fs::read_to_string(git.join("commondir")) {
        Ok(text) => git.join(text.trim()),
        Err(_) => git,
    };
    if let Ok(hash) = fs::read_to_string(common.join(name)) {
        return Some(hash.trim().to_owned());
    }
    let packed = fs::read_to_string(common.join("packed-refs")).ok()?;
    packed.lines().find_map(|line| {
        line.strip_suffix(name)?
            .split_whitespace()
            .next()
            .map(str::to_owned)
    })
}
