//! Flags that name the model and say how it runs.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use edgethink_engine::Isa;

/// Which model, which adapter.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// Model directory, .gguf or .edgethink file, or hub id [default: the pocket model in this program]
    #[arg(long, short = 'M', value_name = "MODEL", env = "EDGETHINK_MODEL")]
    pub(crate) model: Option<String>,
    /// LoRA adapter: PEFT directory, .gguf file, or name in the bundle; "none" for no adapter
    #[arg(long, short = 'A', value_name = "ADAPTER", env = "EDGETHINK_ADAPTER")]
    pub(crate) adapter: Option<String>,
    /// Switcher: a directory with head.json; "none" for no switcher [default: the one beside the adapter]
    #[arg(long, value_name = "DIR", env = "EDGETHINK_SWITCHER")]
    pub(crate) switcher: Option<String>,
    /// Verifier: a directory with head.json; "none" for no verifier [default: the one beside the adapter]
    #[arg(long, value_name = "DIR", env = "EDGETHINK_VERIFIER")]
    pub(crate) verifier: Option<String>,
    /// Never use the network: a hub id must be in the local cache
    #[arg(long, env = "EDGETHINK_OFFLINE")]
    pub(crate) offline: bool,
}

/// How weights are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WeightsArg {
    /// As in the file
    Stored,
    /// 8 bits, groups of 32
    Q8,
    /// 4 bits, groups of 32
    Q4,
}

/// How adapters are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AdapterWeightsArg {
    /// As in the file: floats, or 8-bit codes with a scale per row
    Stored,
    /// 8 bits, groups of 32, where the base's weights are integers
    Q8,
}

/// How the KV cache is held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvArg {
    /// 8 bits, one scale per token and head
    Int8,
    /// 16-bit floats
    F16,
    /// 32-bit floats, for comparisons
    F32,
}

/// Number formats, and the kernels that compute with them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct FormatArgs {
    /// Number format of the weights in memory
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "stored",
        env = "EDGETHINK_WEIGHTS"
    )]
    pub(crate) weights: WeightsArg,
    /// Number format of the adapters in memory
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "stored",
        env = "EDGETHINK_ADAPTER_WEIGHTS"
    )]
    pub(crate) adapter_weights: AdapterWeightsArg,
    /// Number format of the KV cache
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "int8",
        env = "EDGETHINK_KV"
    )]
    pub(crate) kv: KvArg,
    /// Instruction set of the kernels, one that `edgethink info --cpu` lists as there [default: the best]
    #[arg(long, value_name = "NAME", env = "EDGETHINK_ISA", value_parser = isa)]
    pub(crate) isa: Option<Isa>,
}

/// An instruction set that this machine has.
fn isa(name: &str) -> Result<Isa, String> {
    let isa = Isa::from_str(name).map_err(|unknown| unknown.to_string())?;
    if isa.is_available() {
        return Ok(isa);
    }
    let names: Vec<String> = Isa::available().map(|isa| isa.to_string()).collect();
    Err(format!("this machine has {}", names.join(", ")))
}

/// How the engine runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Threads, 0 for all cores
    #[arg(
        long,
        short,
        value_name = "N",
        default_value_t = 0,
        env = "EDGETHINK_THREADS"
    )]
    pub(crate) threads: usize,
    /// Tokens the KV cache holds, all streams together [default: the model's context, or what the streams need]
    #[arg(long, value_name = "TOKENS", env = "EDGETHINK_KV_TOKENS", value_parser = super::positive)]
    pub(crate) kv_tokens: Option<usize>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}
