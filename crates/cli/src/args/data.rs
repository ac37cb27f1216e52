//! `edgethink data`: training files before a training.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use edgethink_train::Schema;

use super::positive;

/// Looks at training files, and cleans them.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Count tokens of prompt, thought and answer: mean, median, 95th percentile, longest, and a histogram
    #[command(after_help = "Needs the model's tokenizer and chat template only.

Examples:
  edgethink data stats train.jsonl --model path/to/model --max-length 16384
  edgethink data stats data/qwen2.5/openthoughts3 --model Qwen/Qwen2.5-7B-Instruct --svg lengths.svg")]
    Stats(StatsArgs),
    /// Find rows that share n-grams of words with benchmarks, and write the others
    #[command(
        after_help = "A row is left out if one of its texts shares N words in a row with a benchmark's question; case, spaces and punctuation do not
count. Shorter questions count as a whole, from 6 words on. --out is JSONL: lines as they stand; of a parquet file, the columns
that training knows.

Examples:
  edgethink data decontaminate train.jsonl --against math500 --against aime24 --out clean.jsonl
  edgethink data decontaminate data/openthoughts3 --against test.jsonl --ngram 10 --report overlap.json"
    )]
    Decontaminate(DecontaminateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// .jsonl or .parquet files, or directories of them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The model whose tokens are counted: a directory, a .gguf file or a hub id
    #[arg(long, value_name = "MODEL", env = "EDGETHINK_MODEL")]
    pub(crate) model: String,
    /// The data set whose fields the rows have [default: by the fields of each row]
    #[arg(long, value_name = "NAME", value_parser = schema)]
    pub(crate) schema: Option<Schema>,
    /// Also count the rows that are longer than this
    #[arg(long, value_name = "TOKENS", value_parser = positive)]
    pub(crate) max_length: Option<usize>,
    /// Draw the histogram
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// One JSON object on stdout instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Never use the network
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DecontaminateArgs {
    /// .jsonl or .parquet files, or directories of them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// A benchmark: a task of `edgethink eval`, a task with its file (TASK=FILE), or a file (.jsonl, .json, .csv, .parquet); may be
    /// given many times
    #[arg(long, required = true, value_name = "BENCHMARK")]
    pub(crate) against: Vec<String>,
    /// Words of a gram
    #[arg(long, value_name = "WORDS", default_value_t = 13, value_parser = positive)]
    pub(crate) ngram: usize,
    /// Write the rows that share nothing to this .jsonl file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write the whole report, with examples, to this .json file
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Never use the network
    #[arg(long)]
    pub(crate) offline: bool,
}

fn schema(name: &str) -> Result<Schema, String> {
    serde_json::from_value(name.into()).map_err(|e| e.to_string())
}
