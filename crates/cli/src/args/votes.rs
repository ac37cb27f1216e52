//! Flags of `eval votes`.

use std::path::PathBuf;

use clap::Args;

use super::positive;

#[derive(Debug, Args)]
#[command(
    after_help = "A line is {\"row\": question, \"text\": answer, \"expected\": answer, \"score\": 0 to 1}, as `eval jsonl --out` and `train verifier`
(pool.jsonl) write them; without scores only the majority is counted. Samples of a question are drawn from its lines without
replacement, as often as --resamples says; the spread is that of the accuracy over the draws.
With --out: votes.json and votes.svg in that directory.

Examples:
  edgethink eval votes models/pocket/verifier/pool.jsonl
  edgethink eval votes samples.jsonl --n 1,2,4,6,8 --resamples 100 --out votes"
)]
pub(crate) struct VotesArgs {
    /// Samples, several for each question
    pub(crate) file: PathBuf,
    /// Numbers of answers to vote with
    #[arg(long, short, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4,6,8", value_parser = positive)]
    pub(crate) n: Vec<usize>,
    /// Draws of each number of answers
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = positive)]
    pub(crate) resamples: usize,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Directory for the table as JSON and the picture
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The table as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}
