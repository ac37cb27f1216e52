//! What a recipe takes, before anything is loaded: memory, layer by layer, and the work of its steps.
//!
//! Needs the network's shape only, so a model that is not there can be planned from its config. The memory is the peak of one optimizer
//! step with micro-batches that are full, all of whose tokens are learnt: an upper bound for data with prompts. `tests/plan.rs` holds it
//! against the peak that a run has.

mod device;
mod memory;
mod recipe;
mod work;

pub use recipe::Recipe;
pub use work::{Speed, Work};

use std::path::{Path, PathBuf};

use edgethink_model::{Config, Dtype, LoadOptions, Model};

use crate::{
    base_model,
    device::DeviceChoice,
    error::TrainError,
    net::Spec,
    recipe::{BaseFormat, FloatType},
};

/// What a plan may be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// A `config.json` to plan with instead of the recipe's model, which then need not be there.
    pub config: Option<PathBuf>,
    /// Rank of an adapter that is not there yet, with all linear layers; the paper's 128 if absent.
    pub rank: Option<usize>,
    /// Threads; those of this process if absent.
    pub threads: Option<usize>,
    /// The device that trains instead of the recipe's. It need not be there.
    pub device: Option<DeviceChoice>,
}

/// The memory of one part of the network, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerCost {
    /// `embedding`, `layer 0` and so on, `head`.
    pub name: String,
    /// Values of the network, without the adapter.
    pub parameters: u64,
    /// Values that are trained.
    pub trainable: u64,
    /// The weights, as often as they are held.
    pub weights: u64,
    /// The adapter, as often as it is held.
    pub adapter: u64,
    /// Gradients.
    pub gradients: u64,
    /// The two moments of AdamW.
    pub optimizer: u64,
    /// What the backward pass needs of the forward pass.
    pub activations: u64,
}

impl LayerCost {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.adapter + self.gradients + self.optimizer + self.activations
    }
}

/// Memory that belongs to no single layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// What it is.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

/// A setting that takes less memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// The setting and its value.
    pub setting: String,
    /// The peak with it, bytes.
    pub peak_bytes: u64,
    /// The GPU's peak with it, bytes; 0 without one.
    pub device_peak_bytes: u64,
}

/// The memory of a GPU that trains, apart from the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// Which.
    pub device: DeviceChoice,
    /// The network, part by part.
    pub layers: Vec<LayerCost>,
    /// The rest.
    pub rest: Vec<Cost>,
}

impl DevicePlan {
    /// The most memory of the GPU that is held at once, bytes, without what the driver and the library's pools take.
    pub fn peak_bytes(&self) -> u64 {
        peak(&self.layers, &self.rest)
    }
}

fn peak(layers: &[LayerCost], rest: &[Cost]) -> u64 {
    let layers: u64 = layers.iter().map(LayerCost::total).sum();
    layers + rest.iter().map(|c| c.bytes).sum::<u64>()
}

/// What a recipe takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// `base`, `sft`, `grpo`, `verifier`, `switcher` or `quantize`.
    pub kind: &'static str,
    /// The network, part by part; beside a GPU what the host has of it.
    pub layers: Vec<LayerCost>,
    /// The rest.
    pub rest: Vec<Cost>,
    /// The memory of the GPU, if one trains.
    pub device: Option<DevicePlan>,
    /// What one optimizer step computes (a verifier and a switcher: the whole run), and how many there are if that is known.
    pub work: Vec<Work>,
    /// Optimizer steps; `None` if the data must be read to know them.
    pub steps: Option<u64>,
    /// What was assumed.
    pub notes: Vec<String>,
    /// Settings that take less, the best last.
    pub remedies: Vec<Remedy>,
}

impl Plan {
    /// Values of the network and of what is trained beside it.
    pub fn parameters(&self) -> u64 {
        self.layers.iter().map(|l| l.parameters).sum()
    }

    /// Values that are trained.
    pub fn trainable(&self) -> u64 {
        self.layers.iter().map(|l| l.trainable).sum()
    }

    /// The most memory of the host that is held at once, bytes.
    pub fn peak_bytes(&self) -> u64 {
        peak(&self.layers, &self.rest)
    }

    /// The same of the GPU; 0 without one.
    pub fn device_peak_bytes(&self) -> u64 {
        self.device.as_ref().map_or(0, DevicePlan::peak_bytes)
    }
}

/// Plans a recipe.
///
/// # Errors
/// [`TrainError`] for a recipe that is refused, or a model that is neither there nor given by a config.
pub fn plan(path: &Path, options: &PlanOptions) -> Result<Plan, TrainError> {
    let recipe = Recipe::load(path)?;
    let shape = Shape::of(&recipe, options)?;
    let mut plan = memory::plan(&recipe, &shape);
    let peaks = [plan.peak_bytes(), plan.device_peak_bytes()];
    let mut remedies: Vec<Remedy> = recipe
        .cheaper(&shape)
        .into_iter()
        .map(|(setting, recipe)| {
            let plan = memory::plan(&recipe, &shape);
            Remedy {
                setting,
                peak_bytes: plan.peak_bytes(),
                device_peak_bytes: plan.device_peak_bytes(),
            }
        })
        .filter(|r| r.peak_bytes < peaks[0] || r.device_peak_bytes < peaks[1])
        .collect();
    remedies.sort_by_key(|r| std::cmp::Reverse((r.device_peak_bytes, r.peak_bytes)));
    plan.remedies = remedies;
    Ok(plan)
}

/// The network, its adapter, and the machine's threads.
#[derive(Debug)]
struct Shape {
    spec: Spec,
    /// Bytes of the weights in their file.
    file_bytes: u64,
    /// Values of the linear layers by their type in the file.
    linears: Vec<(Dtype, u64)>,
    /// Rank and targets of the adapter, by linear layer.
    rank: usize,
    targets: [bool; 7],
    threads: usize,
    device: DeviceChoice,
    notes: Vec<String>,
}

impl Shape {
    fn of(recipe: &Recipe, options: &PlanOptions) -> Result<Self, TrainError> {
        let mut notes = Vec::new();
        let Network {
            config,
            file_bytes,
            linears,
        } = network(recipe, options, &mut notes)?;
        let (rank, targets) = recipe.adapter(options.rank, &mut notes)?;
        let device = match (options.device, recipe.device()) {
            (given, Some(own)) => given.unwrap_or(own),
            (Some(given), None) if !given.is_cpu() => {
                return Err(TrainError::Device {
                    device: given.to_string(),
                    problem: format!("train {} runs on the CPU only", recipe.kind()),
                });
            }
            _ => DeviceChoice::Cpu,
        };
        if !device.is_cpu() {
            notes.push(
                "the GPU's memory is that of the tensors: its driver and the library's pools take more; no time is estimated for it"
                    .to_owned(),
            );
        }
        let threads = match (options.threads, recipe.threads()) {
            (Some(threads), _) => threads,
            (None, 0) => std::thread::available_parallelism().map_or(1, usize::from),
            (None, threads) => threads,
        };
        let shape = Self {
            spec: base_model::spec(&config),
            file_bytes,
            linears,
            rank,
            targets,
            threads,
            device,
            notes,
        };
        shape.check_base(recipe.base_dtype(), recipe.compute_dtype())?;
        device.check_checkpointing(recipe.checkpointing().unwrap_or_default())?;
        Ok(shape)
    }

    /// Refuses a frozen base that the device cannot hold in a format, or multiply with.
    fn check_base(&self, format: BaseFormat, compute: FloatType) -> Result<(), TrainError> {
        let linears = self.linears.iter().map(|&(dtype, _)| dtype);
        self.device.check_base(linears, format, compute)
    }

    /// Bytes of so many values of the linear layers, where `block` gives the bytes of 256 values of a type.
    fn stored(&self, values: u64, block: impl Fn(Dtype) -> u64) -> u64 {
        let of = |&(dtype, values): &(Dtype, u64)| u128::from(values) * u128::from(block(dtype));
        let all: u64 = self.linears.iter().map(|(_, values)| values).sum();
        let bytes: u128 = self.linears.iter().map(of).sum();
        (u128::from(values) * bytes / u128::from(256 * all.max(1))) as u64
    }
}

/// A network as its file has it.
struct Network {
    config: Config,
    file_bytes: u64,
    linears: Vec<(Dtype, u64)>,
}

/// What is known of the network; of one that is only a config, its weights are taken to be bf16.
fn network(
    recipe: &Recipe,
    options: &PlanOptions,
    notes: &mut Vec<String>,
) -> Result<Network, TrainError> {
    let from_file = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::Read {
            path: path.to_owned(),
            source,
        })?;
        Config::from_json(&text).map_err(|source| TrainError::Config {
            path: path.to_owned(),
            source,
        })
    };
    let given = options.config.as_deref().or_else(|| recipe.config());
    if let Some(path) = given {
        let config = from_file(path)?;
        let new = options.config.is_none();
        let file_bytes = if new {
            0
        } else {
            2 * config.parameters() as u64
        };
        if !new {
            notes.push(format!(
                "the shape is that of {}; its weights are taken to be 16 bits",
                path.display()
            ));
        }
        let linears =
            memory::matrices(&base_model::spec(&config)) * config.num_hidden_layers as u64;
        return Ok(Network {
            config,
            file_bytes,
            linears: vec![(Dtype::BF16, linears)],
        });
    }
    let Some(base) = recipe.base() else {
        return Err(TrainError::Unfit {
            path: "[model]".into(),
            problem: "names no model".to_owned(),
        });
    };
    // A plan downloads nothing.
    let here = LoadOptions {
        offline: true,
        ..LoadOptions::default()
    };
    let model = Model::load_with(&base.to_string_lossy(), here).map_err(|source| {
        TrainError::Unplanned {
            base: base.to_owned(),
            source: Box::new(source),
        }
    })?;
    let mut linears: Vec<(Dtype, u64)> = Vec::new();
    for (name, tensor) in base_model::network(&model).1 {
        if BaseFormat::Stored.of(&name, &tensor.shape) != BaseFormat::Stored {
            continue;
        }
        let values = tensor.len() as u64;
        match linears.iter_mut().find(|(dtype, _)| *dtype == tensor.dtype) {
            Some((_, sum)) => *sum += values,
            None => linears.push((tensor.dtype, values)),
        }
    }
    Ok(Network {
        file_bytes: model.weights.size_bytes() as u64,
        config: model.config,
        linears,
    })
}
