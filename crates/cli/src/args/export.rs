//! Flags of `edgethink export`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use edgethink_model::Dtype;

use super::ModelArgs;

/// For which program.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportCommand {
    /// The base as a GGUF file for llama.cpp
    #[command(after_help = "Examples:
  edgethink export gguf --dtype q8_0 -o pocket-q8_0.gguf
  edgethink export gguf --model path/to/model --dtype f16 -o model.gguf

Vectors are F32. q4_0 keeps embedding and head in Q8_0; rows that are no blocks of 32 become F16.")]
    Gguf(GgufArgs),
    /// The adapter as a GGUF LoRA or aLoRA for llama.cpp, not merged
    #[command(after_help = "Example:
  edgethink export lora -o pocket-think.gguf")]
    Lora(ExportArgs),
    /// The adapter as a directory for PEFT and vLLM
    #[command(after_help = "Example:
  edgethink export peft --model model.gguf --adapter adapter.gguf -o adapter")]
    Peft(ExportArgs),
    /// Base and adapter in one set of weights, as a model directory; not for activated adapters
    #[command(after_help = "Example:
  edgethink export merged --model path/to/model --adapter path/to/lora -o merged")]
    Merged(MergedArgs),
}

/// What every export needs.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Where it is written; what is there is replaced when all of it is written
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GgufArgs {
    /// Number format of the matrices
    #[arg(long, value_enum, value_name = "DTYPE", default_value = "f16")]
    pub(crate) dtype: GgufDtype,
    #[command(flatten)]
    pub(crate) export: ExportArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MergedArgs {
    /// Number format of the weights
    #[arg(long, value_enum, value_name = "DTYPE", default_value = "bf16")]
    pub(crate) dtype: MergedDtype,
    #[command(flatten)]
    pub(crate) export: ExportArgs,
}

/// Number formats of GGUF that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum GgufDtype {
    /// Each matrix as it is stored
    Stored,
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// 16-bit floats with the range of 32-bit ones
    Bf16,
    /// 8 bits, groups of 32
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits, groups of 32
    #[value(name = "q4_0")]
    Q4_0,
}

impl GgufDtype {
    /// The dtype; none for "as stored".
    pub(crate) fn dtype(self) -> Option<Dtype> {
        match self {
            Self::Stored => None,
            Self::F32 => Some(Dtype::F32),
            Self::F16 => Some(Dtype::F16),
            Self::Bf16 => Some(Dtype::BF16),
            Self::Q8_0 => Some(Dtype::Q8_0),
            Self::Q4_0 => Some(Dtype::Q4_0),
        }
    }
}

/// Number formats of merged weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MergedDtype {
    /// 16-bit floats with the range of 32-bit ones
    Bf16,
    /// 32-bit floats
    F32,
}
