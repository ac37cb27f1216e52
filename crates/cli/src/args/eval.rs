//! Flags of `edgethink eval` with tasks, and its other forms.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::quantize::PplArgs;
use super::{
    EngineArgs, EvalSwitchArgs, ModelArgs, SamplingArgs, ThinkingArgs, VoteArgs, VotesArgs,
    positive,
};

/// When an eval forgets what its folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fresh {
    /// Always
    Always,
    /// Where it is of another model, other data or other settings
    Other,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "A task is the name of a benchmark or a task file (.toml); NAME=FILE takes its questions from a .jsonl, .json, .csv or .parquet file
with the data set's own columns, otherwise they come from the hub. Prompts, repeats and sampling are those of the paper's protocol unless
flags say otherwise. Accuracy is the mean over questions of the share of right answers (avg@k); behind a vote it is that of the vote.
The interval has 95 %: Wilson's where a question has one answer, a bootstrap over questions where it has more.

With --out every answer is kept in DIR/records.parquet; a run that was stopped goes on with the same command.

Examples:
  edgethink eval --list
  edgethink eval gsm8k math500 --model Qwen/Qwen2.5-7B-Instruct --out runs/base
  edgethink eval gsm8k=test.jsonl --model path/to/model --adapter path/to/adapter --think on --limit 100
  edgethink eval pocket-hard=data/pocket/hard-test.jsonl --think auto --n 4 --temperature 0.8 --verify
  edgethink eval gsm8k --endpoint http://127.0.0.1:8080/v1 --endpoint-model qwen"
)]
pub(crate) struct EvalCommand {
    #[command(subcommand)]
    pub(crate) form: Option<EvalForm>,
    #[command(flatten)]
    pub(crate) tasks: TasksArgs,
}

/// Measurements that are no task.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalForm {
    /// Accuracy and length on a JSONL file of {"prompt", "answer"}
    Jsonl(Box<EvalArgs>),
    /// What N answers and a vote are worth, from samples with scores
    Votes(VotesArgs),
    /// What a switcher's choice between answering at once and thinking is worth
    Switch(Box<EvalSwitchArgs>),
    /// Perplexity of a text
    Ppl(Box<PplArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    /// Benchmarks: NAME, FILE.toml, or either with =FILE
    #[arg(value_name = "TASK", required_unless_present = "list")]
    pub(crate) tasks: Vec<String>,
    /// Show the benchmarks that are built in
    #[arg(long)]
    pub(crate) list: bool,
    /// Only the first questions of each task
    #[arg(long, value_name = "QUESTIONS", value_parser = positive)]
    pub(crate) limit: Option<usize>,
    /// How often each question is asked [default: the task's]
    #[arg(long, value_name = "K", value_parser = positive)]
    pub(crate) repeats: Option<usize>,
    /// Keep every answer in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Forget what is in it, or only what another run has left there
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always", requires = "out")]
    pub(crate) fresh: Option<Fresh>,
    /// Keep answers without texts and thoughts
    #[arg(long, requires = "out")]
    pub(crate) compact: bool,
    /// Run the programs that the model writes, in a sandbox without network and files (bubblewrap)
    #[arg(long)]
    pub(crate) run_code: bool,
    /// The figures as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,
    #[command(flatten)]
    pub(crate) vote: VoteArgs,
    #[command(flatten)]
    pub(crate) asked: AskedArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A row is {\"prompt\": text, \"answer\": text}; other keys are copied to --out. \"prompt\" may also be a list of messages.
An answer counts if it equals the row's after the thought; an unfinished thought is wrong.
Prompts that name their budget themselves need --budget-line none, or it is named twice.

Examples:
  edgethink eval jsonl hard.jsonl --think on
  edgethink eval jsonl hard.jsonl --think on --budget 64 --stop-loops
  edgethink eval jsonl hard.jsonl --think on --n 4 --temperature 0.8 --out samples.jsonl --json"
)]
pub(crate) struct EvalArgs {
    /// The data set
    pub(crate) file: PathBuf,
    /// Only the first rows
    #[arg(long, value_name = "ROWS", value_parser = positive)]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) vote: VoteArgs,
    /// Accuracy and length by the values of this key of the rows, for example steps
    #[arg(long, value_name = "KEY")]
    pub(crate) by: Option<String>,
    /// Write one line per sample to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The summary as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) asked: AskedArgs,
}

/// Questions of a data set, many at once.
#[derive(Debug, Args)]
pub(crate) struct AskedArgs {
    /// Questions that run at the same time
    #[arg(long, value_name = "ROWS", default_value_t = 32, value_parser = positive)]
    pub(crate) batch: usize,
    /// Instructions in front of every prompt
    #[arg(long, value_name = "TEXT", env = "EDGETHINK_SYSTEM")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) thinking: ThinkingArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// A server under test instead of a model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Endpoint")]
pub(crate) struct EndpointArgs {
    /// Ask this server by OpenAI's API, for example http://127.0.0.1:8080/v1
    #[arg(
        long,
        value_name = "URL",
        env = "EDGETHINK_ENDPOINT",
        requires = "endpoint_model"
    )]
    pub(crate) endpoint: Option<String>,
    /// The model's name there
    #[arg(
        long,
        value_name = "NAME",
        env = "EDGETHINK_ENDPOINT_MODEL",
        requires = "endpoint"
    )]
    pub(crate) endpoint_model: Option<String>,
    /// Its key
    #[arg(
        long,
        value_name = "KEY",
        env = "EDGETHINK_ENDPOINT_KEY",
        hide_env_values = true,
        requires = "endpoint"
    )]
    pub(crate) endpoint_key: Option<String>,
    /// A further field of every request, for example chat_template_kwargs={"enable_thinking":true}; may be given several times
    #[arg(long, value_name = "FIELD=JSON", requires = "endpoint", value_parser = field)]
    pub(crate) endpoint_field: Vec<(String, Value)>,
    /// Tries after a request that failed
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) retries: usize,
    /// Seconds for one request
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
}

/// `FIELD=JSON`; what is no JSON is text.
fn field(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("{text:?} is not of the form FIELD=JSON"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_json_or_text() {
        assert_eq!(field("n=4"), Ok(("n".to_owned(), Value::from(4))));
        assert_eq!(
            field("reasoning_effort=low"),
            Ok(("reasoning_effort".to_owned(), Value::from("low")))
        );
        assert!(field("n").is_err() && field("=1").is_err());
    }
}
