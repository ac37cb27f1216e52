//! Checkpoints: everything that the next step depends on, written beside its place and renamed.
//!
//! A `checkpoint-N` directory holds `params.safetensors` (the trained tensors in f32), `optimizer.safetensors` (both
//! moments) and `trainer_state.json` (steps, place in the stream of examples, guard, the resolved recipe). Every
//! random draw is a function of the seed and of these numbers, so there is no generator state to keep, and a resumed
//! run is equal bit by bit to one that was never stopped.

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
};

use edgethink_model::{Dtype, Stored, hf::safetensors, save_tensors};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Event, Progress};
use crate::{error::TrainError, optimizer::AdamW, params::Param};

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Optimizer steps made, skipped ones included.
    pub step: u64,
    /// Place in the stream of examples or questions.
    pub cursor: u64,
    /// Tokens learnt from.
    pub tokens: u64,
}

/// The numbers of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State<G> {
    #[serde(flatten)]
    at: Position,
    /// Steps that the optimizer applied.
    optimizer_steps: u64,
    guard: G,
    /// The recipe, with all defaults.
    recipe: Value,
}

/// The checkpoints of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checkpoints<'a> {
    pub output_dir: &'a Path,
    /// The recipe with all defaults, which a resumed run must agree with.
    pub recipe: &'a Value,
    /// `[run] resume`.
    pub resume: &'a str,
    /// How many are kept.
    pub keep: usize,
    /// This process writes them.
    pub writes: bool,
}

impl Checkpoints<'_> {
    /// Goes on from the checkpoint that the recipe asks for, if there is one: fills `params`, a fresh optimizer and the guard. Returns its
    /// place and its directory.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] for one that is damaged or of another recipe.
    pub(crate) fn resume<G: DeserializeOwned>(
        &self,
        params: &mut [Param],
        adamw: &mut AdamW,
        guard: &mut G,
    ) -> Result<Option<(Position, PathBuf)>, TrainError> {
        let path = match self.resume {
            "none" => None,
            "auto" => list(self.output_dir).pop().map(|(_, path)| path),
            path => Some(PathBuf::from(path)),
        };
        let Some(path) = path else { return Ok(None) };
        let state = load(&path, self.recipe, params, adamw)?;
        *guard = state.guard;
        Ok(Some((state.at, path)))
    }

    /// Writes one if this process does, drops those beyond the kept ones, and says so.
    ///
    /// # Errors
    /// [`TrainError::Write`].
    pub(crate) fn save<G: Serialize>(
        &self,
        at: Position,
        params: &[Param],
        adamw: &AdamW,
        guard: &G,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, TrainError> {
        let state = State {
            at,
            optimizer_steps: adamw.steps,
            guard,
            recipe: self.recipe.clone(),
        };
        let path = self.output_dir.join(format!("checkpoint-{}", at.step));
        if !self.writes {
            return Ok(path);
        }
        save(&path, &state, params, adamw)?;
        for old in list(self.output_dir).into_iter().rev().skip(self.keep) {
            fs::remove_dir_all(&old.1).map_err(|source| TrainError::Write {
                path: old.1,
                source,
            })?;
        }
        progress.event(&Event::Saved {
            step: at.step,
            path: path.clone(),
        });
        Ok(path)
    }

    /// Writes one for a run that was asked to stop; returns what ends it.
    pub(crate) fn stop<G: Serialize>(
        &self,
        at: Position,
        params: &[Param],
        adamw: &AdamW,
        guard: &G,
        progress: &mut dyn Progress,
    ) -> TrainError {
        match self.save(at, params, adamw, guard, progress) {
            Ok(checkpoint) => TrainError::Stopped {
                step: at.step,
                checkpoint,
            },
            Err(error) => error,
        }
    }
}

/// Values of one tensor for a safetensors file, as f32.
struct Values<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl Stored for Values<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.shape
    }
    fn bytes(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytemuck::cast_slice(self.values))
    }
}

/// Writes a directory beside `path` with `fill`, then renames it; an old one is replaced.
pub(crate) fn write_dir_atomic(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let wrong = |source| TrainError::Write {
        path: path.to_owned(),
        source,
    };
    if part.exists() {
        fs::remove_dir_all(&part).map_err(wrong)?;
    }
    fs::create_dir_all(&part).map_err(wrong)?;
    fill(&part)?;
    if path.exists() {
        fs::remove_dir_all(path).map_err(wrong)?;
    }
    fs::rename(&part, path).map_err(wrong)?;
    // The rename itself reaches the disk with the parent directory.
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::File::open(parent)
            .and_then(|d| d.sync_all())
            .map_err(wrong)?;
    }
    Ok(())
}

/// Writes the directory `path`.
fn save<G: Serialize>(
    path: &Path,
    state: &State<G>,
    params: &[Param],
    optimizer: &AdamW,
) -> Result<(), TrainError> {
    write_dir_atomic(path, |dir| {
        let named = |prefix: &str, values: &'_ [Vec<f32>]| -> Vec<(String, Vec<f32>, Vec<usize>)> {
            params
                .iter()
                .zip(values)
                .map(|(p, v)| (format!("{prefix}{}", p.name), v.clone(), p.shape.clone()))
                .collect()
        };
        save_tensors(
            &dir.join("params.safetensors"),
            params.iter().map(|p| {
                let values = Values {
                    shape: &p.shape,
                    values: &p.values,
                };
                (p.name.clone(), values)
            }),
        )?;
        let mut moments = named("exp_avg.", &optimizer.first);
        moments.extend(named("exp_avg_sq.", &optimizer.second));
        save_tensors(
            &dir.join("optimizer.safetensors"),
            moments
                .iter()
                .map(|(name, values, shape)| (name.clone(), Values { shape, values })),
        )?;
        let file = dir.join("trainer_state.json");
        let text = format!("{:#}\n", serde_json::json!(state));
        fs::write(&file, text).map_err(|source| TrainError::Write { path: file, source })
    })
}

/// The checkpoints of a run, oldest first.
fn list(output_dir: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(output_dir) else {
        return Vec::new();
    };
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let step = path
                .file_name()?
                .to_str()?
                .strip_prefix("checkpoint-")?
                .parse()
                .ok()?;
            Some((step, path))
        })
        .collect();
    found.sort();
    found
}

/// Reads a checkpoint into `params` and a fresh optimizer.
fn load<G: DeserializeOwned>(
    path: &Path,
    recipe: &Value,
    params: &mut [Param],
    optimizer: &mut AdamW,
) -> Result<State<G>, TrainError> {
    let wrong = |problem: String| TrainError::Checkpoint {
        path: path.to_owned(),
        problem,
    };
    let file = path.join("trainer_state.json");
    let text =
        fs::read_to_string(&file).map_err(|source| TrainError::Read { path: file, source })?;
    let state: State<G> = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let changed = differences(&state.recipe, recipe);
    if !changed.is_empty() {
        return Err(wrong(format!(
            "the recipe has changed since ({}); set [run] resume = \"none\" to start anew",
            changed.join(", ")
        )));
    }
    let fill = |file: &str, prefix: &str, into: &mut dyn FnMut(usize, Vec<f32>)| {
        let tensors = safetensors::open(&path.join(file))?;
        for (i, param) in params.iter().enumerate() {
            let name = format!("{prefix}{}", param.name);
            let tensor = tensors
                .get(&name)
                .filter(|t| t.shape == param.shape)
                .ok_or_else(|| wrong(format!("{file} lacks {name} of shape {:?}", param.shape)))?;
            into(i, tensor.to_f32());
        }
        Ok::<(), TrainError>(())
    };
    let mut values = Vec::new();
    fill("params.safetensors", "", &mut |_, v| values.push(v))?;
    fill("optimizer.safetensors", "exp_avg.", &mut |i, v| {
        optimizer.first[i] = v
    })?;
    fill("optimizer.safetensors", "exp_avg_sq.", &mut |i, v| {
        optimizer.second[i] = v
    })?;
    for (param, v) in params.iter_mut().zip(values) {
        param.values = v;
    }
    optimizer.steps = state.optimizer_steps;
    Ok(state)
}

/// Keys of `[run]` that may change between a run and its resumption.
const FREE: [&str; 11] = [
    "log_every",
    "eval_every",
    "save_every",
    "save_total_limit",
    "device",
    "threads",
    "resume",
    "micro_batch_tokens",
    "gradient_checkpointing",
    "save_dtype",
    "completions_every",
];

/// Names of the settings that differ between two resolved recipes and change results.
pub(crate) fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut out = Vec::new();
    walk("", old, new, &mut out);
    out
}

fn walk(name: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    if let (Value::Object(a), Value::Object(b)) = (old, new) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for key in keys {
            let inner = if name.is_empty() {
                key.clone()
            } else {
                format!("{name}.{key}")
            };
            let free =
                // Where completions are drawn changes none of what is learnt.
                ["output_dir", "rollout.backend"].contains(&inner.as_str()) || FREE.iter().any(|f| inner.strip_prefix("run.") == Some(f));
            if !free {
                let null = Value::Null;
                walk(
                    &inner,
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                    out,
                );
            }
        }
    } else if old != new {
        out.push(name.to_owned());
    }
}
