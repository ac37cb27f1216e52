//! Flags of `edgethink bundle`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What to do with a bundle.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Put base, adapters, heads and tokenizer into one file
    #[command(
        after_help = "A directory with base/ and adapter/ is packed whole: heads are the directories in it that hold a head.json.

Examples:
  edgethink bundle pack models/pocket -o pocket.edgethink
  edgethink ask --model pocket.edgethink \"What is 17 plus 25?\"
  edgethink bundle pack model.gguf --adapter path/to/adapter --adapter-dtype int8 -o small.edgethink"
    )]
    Pack(PackArgs),
    /// Write the parts of a bundle as the files that they were, byte for byte
    #[command(after_help = "Example:
  edgethink bundle unpack pocket.edgethink -o pocket")]
    Unpack {
        /// The bundle
        file: PathBuf,
        /// The directory, empty or not there yet
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
    },
    /// Hash every part and load everything
    #[command(after_help = "Example:
  edgethink bundle verify pocket.edgethink

ask, chat, eval and info hash the parts that they read, too, except those above 256 MiB.")]
    Verify {
        /// The bundle
        file: PathBuf,
    },
    /// Show what is in a bundle
    #[command(after_help = "Example:
  edgethink bundle show pocket.edgethink --json | jq .adapters")]
    Show {
        /// The bundle
        file: PathBuf,
        /// The manifest as JSON on stdout instead of text
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// Model directory, .gguf file, hub id, or a directory with base/ and adapter/
    pub(crate) model: String,
    /// PEFT directory; may be given several times, the first is the default [default: adapter/ beside base/]
    #[arg(long, short = 'A', value_name = "DIR")]
    pub(crate) adapter: Vec<PathBuf>,
    /// Directory of a head; may be given several times [default: those beside base/]
    #[arg(long, value_name = "DIR")]
    pub(crate) head: Vec<PathBuf>,
    /// Number format of the adapters
    #[arg(long, value_enum, value_name = "DTYPE", default_value = "stored")]
    pub(crate) adapter_dtype: AdapterDtype,
    /// Number format of the heads' weights [default: int8 where the adapters are rounded]
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub(crate) head_dtype: Option<HeadDtype>,
    /// Name for people [default: that of the model]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Under which licence the parts may be used, for example Apache-2.0
    #[arg(long, value_name = "TEXT")]
    pub(crate) licence: Option<String>,
    /// The bundle
    #[arg(long, short, value_name = "FILE.edgethink")]
    pub(crate) output: PathBuf,
}

/// Number formats of adapters in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AdapterDtype {
    /// The files as they are
    Stored,
    /// 8 bits, one scale per output channel
    Int8,
    /// 4 bits, one scale per 32 columns
    Int4,
}

/// Number formats of heads in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeadDtype {
    /// The files as they are
    Stored,
    /// 8 bits, one scale per row
    Int8,
}
