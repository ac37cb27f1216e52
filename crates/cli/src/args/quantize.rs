//! Flags of `edgethink eval ppl`.

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
