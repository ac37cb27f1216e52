//! Flags of `edgethink train`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use edgethink_train::DeviceChoice;

use super::positive;

#[derive(Debug, Subcommand)]
pub(crate) enum TrainCommand {
    /// Train all weights, from scratch or on from a model
    #[command(after_help = "Examples:
  edgethink train base --config recipes/pocket/base.toml
  edgethink train base --config recipes/pocket/base.toml --device vulkan")]
    Base(GroupRecipeArgs),
    /// Train a LoRA adapter on prompts and completions
    #[command(after_help = "Example:
  edgethink train sft --config recipes/pocket/sft.toml --resume")]
    Sft(GroupRecipeArgs),
    /// Train the transforms and ranges of a quantized model, for `edgethink quantize --trained`
    #[command(after_help = "Example:
  edgethink train quantize --config recipes/pocket/quantize.toml
  edgethink quantize --scheme recipes/quantize/w4.toml --trained out/trained --out pocket-w4.gguf")]
    Quantize(DeviceRecipeArgs),
    /// Make an adapter's thoughts short by reinforcement learning (GRPO with budgets)
    #[command(after_help = "Example:
  edgethink train grpo --config recipes/pocket/grpo.toml")]
    Grpo(GroupRecipeArgs),
    /// Train a verifier: the head that says how likely a response is right
    #[command(
        after_help = "Draws responses, grades them, and fits the head; a stopped run goes on where it was.

Example:
  edgethink train verifier --config recipes/pocket/verifier.toml"
    )]
    Verifier {
        #[command(flatten)]
        recipe: RecipeArgs,
        #[command(flatten)]
        head: HeadArgs,
    },
    /// Train a switcher: the head that says which queries need a thought
    #[command(after_help = "Example:
  edgethink train switcher --config recipes/pocket/switcher.toml
Then set its threshold with edgethink calibrate.")]
    Switcher {
        /// The recipe
        #[arg(long, short, value_name = "TOML")]
        config: PathBuf,
        /// Only say what it takes, as `train plan` does
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        head: HeadArgs,
    },
    /// Say what a recipe takes before it runs: memory layer by layer, and about how long
    #[command(
        after_help = "Nothing is loaded or written. Memory is the peak of one optimizer step; a recipe that needs more than the machine has is
refused, with the settings that help. Times are estimates: operations over the speed of this machine's matrix product.

Examples:
  edgethink train plan recipes/pocket/sft.toml
  edgethink train plan recipes/qwen2.5-7b/sft.toml --model-config recipes/qwen2.5-7b/config.json --memory 80
  edgethink train plan recipes/pocket/sft.toml --device vulkan --device-memory 8
  edgethink train sft --config recipes/pocket/sft.toml --dry-run"
    )]
    Plan(PlanArgs),
    /// Generate the pocket model's training text
    #[command(after_help = "Example:
  edgethink train data --config recipes/pocket/data.toml")]
    Data {
        /// The recipe
        #[arg(long, short, value_name = "TOML")]
        config: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RecipeArgs {
    /// The recipe
    #[arg(long, short, value_name = "TOML")]
    pub(crate) config: PathBuf,
    /// Go on from a checkpoint: the newest one, or the one named
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1, default_missing_value = "auto")]
    pub(crate) resume: Option<String>,
    /// Only say what it takes, as `train plan` does
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What is planned, and for which machine.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The recipe: of base, sft, grpo, verifier, switcher or quantize
    #[arg(value_name = "TOML")]
    pub(crate) recipe: PathBuf,
    /// Plan with this config.json instead of the recipe's model, which then need not be there
    #[arg(long, value_name = "FILE")]
    pub(crate) model_config: Option<PathBuf>,
    /// Rank of an adapter that is not there yet [default: 128]
    #[arg(long, value_name = "R", value_parser = positive)]
    pub(crate) rank: Option<usize>,
    /// Memory that must be enough, in GiB [default: that of this machine]
    #[arg(long, value_name = "GIB")]
    pub(crate) memory: Option<f64>,
    /// Plan for this device instead of the recipe's: cpu, vulkan, cuda or metal; it need not be there
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceChoice>,
    /// Memory of the GPU that must be enough, in GiB
    #[arg(long, value_name = "GIB")]
    pub(crate) device_memory: Option<f64>,
    /// Do not measure this machine, and leave the times out
    #[arg(long)]
    pub(crate) no_times: bool,
    /// One JSON object on stdout instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// A training of the network itself, which a GPU can do.
#[derive(Debug, Args)]
pub(crate) struct DeviceRecipeArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Where the network learns: cpu, vulkan, cuda or metal, and vulkan:N for one of several GPUs; instead of the recipe's device
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceChoice>,
}

/// A training of a head, which learns where our engine runs.
#[derive(Debug, Args)]
pub(crate) struct HeadArgs {
    /// Where it learns: cpu, and no other, as heads are fitted to the states of our engine
    #[arg(long, value_name = "DEVICE", value_parser = cpu)]
    pub(crate) device: Option<DeviceChoice>,
}

fn cpu(text: &str) -> Result<DeviceChoice, String> {
    let device: DeviceChoice = text.parse()?;
    if device.is_cpu() {
        return Ok(device);
    }
    Err(
        "a head is fitted to the states of our engine, in the formats that will be deployed, and the engine runs on the CPU; leave --device out"
            .to_owned(),
    )
}

/// A training that several processes can share.
#[derive(Debug, Args)]
pub(crate) struct GroupRecipeArgs {
    #[command(flatten)]
    pub(crate) recipe: DeviceRecipeArgs,
    #[command(flatten)]
    pub(crate) group: GroupArgs,
}

/// This process among those that train together, as torchrun says it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Several processes")]
pub(crate) struct GroupArgs {
    /// Which of the processes this is, from 0; process 0 writes and shows how it goes
    #[arg(long, value_name = "N", env = "RANK", default_value_t = 0)]
    pub(crate) rank: usize,
    /// How many processes train together, each on its share of every step
    #[arg(long, value_name = "N", env = "WORLD_SIZE", default_value_t = 1, value_parser = positive)]
    pub(crate) world_size: usize,
    /// Where process 0 listens; the connections are not encrypted
    #[arg(
        long,
        value_name = "HOST",
        env = "MASTER_ADDR",
        default_value = "127.0.0.1"
    )]
    pub(crate) master_addr: String,
    /// Its port
    #[arg(
        long,
        value_name = "PORT",
        env = "MASTER_PORT",
        default_value_t = 29_500
    )]
    pub(crate) master_port: u16,
    /// Seconds to wait for the others
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) join_timeout: u64,
}
