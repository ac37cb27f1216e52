//! Flags of `edgethink bench`.

use clap::Args;

use super::model::FormatArgs;
use super::{ModelArgs, positive};

#[derive(Debug, Args)]
#[command(
    after_help = "Prefill: tokens of a fresh prompt per second, after `depth` tokens that are cached already.
Decode: tokens of all streams together per second, after `depth` tokens of prompt.
Every figure is the median of the repeats.

Examples:
  edgethink bench
  edgethink bench --model model.gguf --threads 1,2 --streams 1,4,8 --depth 0,1024
  edgethink bench --profile --streams 1,8 --depth 0,4096    where the time of a step goes
  edgethink bench --roofline                                what this machine can read and multiply
  edgethink bench --json > bench.json"
)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Thread counts to measure, 0 for all cores
    #[arg(
        long,
        short,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "0",
        env = "EDGETHINK_THREADS"
    )]
    pub(crate) threads: Vec<usize>,
    /// Numbers of parallel streams to decode
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4", value_parser = positive)]
    pub(crate) streams: Vec<usize>,
    /// Tokens of context in front
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0")]
    pub(crate) depth: Vec<usize>,
    /// Prompt lengths to measure prefill with, 0 for none
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "128"
    )]
    pub(crate) prefill: Vec<usize>,
    /// Tokens to decode per stream, 0 for none
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    pub(crate) decode: usize,
    /// Runs per figure, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive)]
    pub(crate) repeats: usize,
    /// Measure with the adapter on
    #[arg(long)]
    pub(crate) with_adapter: bool,
    /// Another adapter: decode figures then spread their streams over the base, the adapter and this one
    #[arg(long, value_name = "ADAPTER", requires = "adapter")]
    pub(crate) mixed_with: Option<String>,
    /// Also give this many greedy tokens behind a prompt of 32 random ones in the JSON, to compare with other programs
    #[arg(long, value_name = "TOKENS", default_value_t = 0, requires = "json")]
    pub(crate) sample: usize,
    /// Also show where the time of each figure goes, part by part
    #[arg(long)]
    pub(crate) profile: bool,
    /// Measure the machine instead of a model: reading by size and threads, int8 multiply-adds
    #[arg(long)]
    pub(crate) roofline: bool,
    /// Prompt length behind which to measure the switch to a masked adapter, 0 for none [default: 1024, or the context]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) switch: Option<usize>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// JSON on stdout instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}
