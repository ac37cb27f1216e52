//! Flags of `edgethink quantize` and of `edgethink eval ppl`, which measures what it did.

use std::path::PathBuf;

use clap::Args;

use super::{EngineArgs, ModelArgs, positive};

#[derive(Debug, Args)]
#[command(
    after_help = "The text is cut into chunks of --ctx tokens; in each, the second half is scored, given the first. This is what llama.cpp's
llama-perplexity does, so figures of the same GGUF file and text can be compared (use --kv f16 there).

Examples:
  edgethink eval ppl --text wiki.test.raw
  edgethink eval ppl --text wiki.test.raw --model model.gguf --kv f16 --json
  edgethink eval ppl --jsonl valid.jsonl"
)]
pub(crate) struct PplArgs {
    /// The text, UTF-8
    #[arg(long, value_name = "FILE", required_unless_present = "jsonl")]
    pub(crate) text: Option<PathBuf>,
    /// Instead of a text: rows of {"prompt", "completion"} or {"messages"}, of which the completion or last message is scored
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) jsonl: Option<PathBuf>,
    /// Tokens of a chunk
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    pub(crate) ctx: u32,
    /// Only the first chunks or rows
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) chunks: Option<usize>,
    /// The result as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The scheme is a TOML file, as in recipes/quantize. The file that is written runs here and in llama.cpp: matrices are Q4_0 or Q8_0
blocks, and a scale that is shared by more than 32 weights is repeated. A run that was stopped goes on with the same command.

Examples:
  edgethink quantize --scheme recipes/quantize/q4_g32.toml --out pocket-q4.gguf
  edgethink quantize --model path/to/model --scheme recipes/quantize/w4_gptq.toml --calibration text.txt --out model.gguf"
)]
pub(crate) struct QuantizeArgs {
    /// Model directory, .gguf file or hub id [default: the pocket model in this program]
    #[arg(long, short = 'M', value_name = "MODEL", env = "EDGETHINK_MODEL")]
    pub(crate) model: Option<String>,
    /// Never use the network: a hub id must be in the local cache
    #[arg(long, env = "EDGETHINK_OFFLINE")]
    pub(crate) offline: bool,
    /// The scheme
    #[arg(long, short, value_name = "TOML")]
    pub(crate) scheme: PathBuf,
    /// The GGUF file to write
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Text that shows what the matrices will see, for schemes that round by it (gptq)
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
    /// Transforms and ranges that `edgethink train quantize` found for this model and scheme
    #[arg(long, value_name = "DIR")]
    pub(crate) trained: Option<PathBuf>,
    /// An adapter that was made for the model as it is; transforms change what it reads, so it goes along to --adapter-out
    #[arg(long, short = 'A', value_name = "ADAPTER", requires = "adapter_out")]
    pub(crate) adapter: Option<PathBuf>,
    /// Where it is written, as a PEFT directory
    #[arg(long, value_name = "DIR", requires = "adapter")]
    pub(crate) adapter_out: Option<PathBuf>,
    /// Threads, 0 for all cores
    #[arg(
        long,
        short,
        value_name = "N",
        default_value_t = 0,
        env = "EDGETHINK_THREADS"
    )]
    pub(crate) threads: usize,
    /// The result as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
