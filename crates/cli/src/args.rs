//! The command line: every command, flag, environment twin and example.
//!
//! A flag wins over its environment variable. Flags shared by commands stand in `args/`.

pub(crate) mod bundle;
#[cfg(feature = "train")]
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod model;
pub(crate) mod quantize;
pub(crate) mod report;
pub(crate) mod sampling;
pub(crate) mod serve;
pub(crate) mod switcher;
pub(crate) mod vote;
pub(crate) mod votes;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use edgethink_reason::query::DEFAULT_CONTINUATION;
#[cfg(feature = "train")]
use edgethink_train::DeviceChoice;

pub(crate) use bundle::BundleCommand;
pub(crate) use eval::{EvalCommand, EvalForm};
pub(crate) use export::ExportCommand;
pub(crate) use model::{EngineArgs, ModelArgs};
pub(crate) use sampling::SamplingArgs;
pub(crate) use switcher::{CalibrateArgs, EvalSwitchArgs, Mix};
pub(crate) use vote::VoteArgs;
pub(crate) use votes::VotesArgs;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// A small language model that thinks when told to, on your own machine.
#[derive(Debug, Parser)]
#[command(
    name = "edgethink",
    version,
    styles = STYLES,
    max_term_width = 100,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "Examples:
  edgethink ask \"What is 17 plus 25?\"            the shipped pocket model, offline
  edgethink ask --think off \"Hello!\"             the base answers at once
  edgethink chat                                 a conversation
  edgethink ask --model Qwen/Qwen3-0.6B \"Why is the sky blue?\"
  edgethink info --model path/to/model.gguf

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
Environment: every flag with [env: ...] in its help; NO_COLOR turns colours off."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask one question
    Ask(AskArgs),
    /// Talk: a conversation with history
    Chat(ChatArgs),
    /// Serve the model over HTTP: OpenAI's API and a page
    Serve(Box<serve::ServeArgs>),
    /// Show what is in a model or an adapter
    Info(InfoArgs),
    /// Measure prefill and decode speed
    Bench(BenchArgs),
    /// Measure answers: benchmarks, data sets, votes, switchers, perplexity
    Eval(Box<EvalCommand>),
    /// Measure everything that a recipe names, and write one page of it
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// Do the steps of a recipe, each a command of this program
    Run(report::RunArgs),
    /// Write a model or an adapter for other programs
    #[command(subcommand)]
    Export(ExportCommand),
    /// One file with base, adapters, heads and tokenizer: pack, unpack, verify, show
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Set the threshold of a switcher: how often it lets the model think
    Calibrate(CalibrateArgs),
    /// Write a model in 4 or 8 bits
    Quantize(quantize::QuantizeArgs),
    /// Train a model or an adapter by a recipe
    #[cfg(feature = "train")]
    #[command(subcommand)]
    Train(TrainCommand),
    /// Look at training files, and clean them: lengths, overlap with benchmarks
    #[cfg(feature = "train")]
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Print the completion script of a shell
    #[command(after_help = "Example:
  edgethink completions bash > ~/.local/share/bash-completion/completions/edgethink")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How a thought is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShowThought {
    /// All of it, dimmed
    Full,
    /// Its last lines while it runs, one line when it is over
    Fold,
    /// Nothing of it
    Hide,
}

/// What is shown besides the answer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Display")]
pub(crate) struct DisplayArgs {
    /// How the thought is shown [default: fold on a terminal, hide in a pipe]
    #[arg(long, value_enum, value_name = "HOW", env = "EDGETHINK_SHOW_THOUGHT")]
    pub(crate) show_thought: Option<ShowThought>,
    /// No line with speed and counts on stderr
    #[arg(long, short, env = "EDGETHINK_QUIET")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  edgethink ask \"Tom has 3 apples. Ann has 4 more than Tom. How many has Ann?\"
  edgethink ask --budget 100 \"...\"                 at most 100 tokens, and still an answer
  edgethink ask --budget 100 --budget-line none \"...\"   cut there, but do not say so in the prompt
  edgethink ask --min-think 200 --stop-loops \"...\"   think longer, but not in circles
  edgethink ask --n 8 --temperature 0.8 --verify \"...\"   eight streams, scored, one weighted vote
  edgethink ask --n 8 --temperature 0.8 --waves \"...\"    begin only the streams that can decide the vote
  edgethink ask --n 4 --temperature 0.8 --vote none --json \"...\" | jq '.choices[].text'
  echo \"What is 2 plus 2?\" | edgethink ask        the question from stdin
  edgethink ask --raw --max-tokens 20 \"Once upon a time\"

In --json, thought_closed says why the thought ended: model, budget, loop, turn (the model
ended its turn inside it), or null if it did not; budget has the limits and the prompt's line.")]
pub(crate) struct AskArgs {
    /// The question; left out or \"-\": read from stdin
    pub(crate) prompt: Option<String>,
    /// Instructions in front of the question
    #[arg(
        long,
        value_name = "TEXT",
        env = "EDGETHINK_SYSTEM",
        conflicts_with = "raw"
    )]
    pub(crate) system: Option<String>,
    /// Give the text to the model as it is, without its chat template
    #[arg(long)]
    pub(crate) raw: bool,
    /// Go on after the model has ended its turn
    #[arg(long)]
    pub(crate) ignore_eos: bool,
    #[command(flatten)]
    pub(crate) vote: VoteArgs,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// The answer is JSON after the JSON schema in this file; the thought before it stays free
    #[arg(long, value_name = "FILE", conflicts_with = "ignore_eos")]
    pub(crate) json_schema: Option<PathBuf>,
    /// Log-probabilities of the tokens, with this many alternatives each (in --json)
    #[arg(long, value_name = "K", num_args = 0..=1, default_missing_value = "0", requires = "json",
          value_parser = clap::value_parser!(u16).range(0..=100))]
    pub(crate) logprobs: Option<u16>,
    /// One JSON object on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) thinking: ThinkingArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Commands inside:
  /think on|off    think before answering, or not; auto lets the switcher decide
  /budget N|off    limit on the tokens of one answer
  /clear           forget the conversation
  /help            show the commands
  /exit            leave (Ctrl-D does too); Ctrl-C stops an answer

Examples:
  edgethink chat
  edgethink chat --budget 200                     every answer within 200 tokens
  edgethink chat --model path/to/model --adapter path/to/adapter --system \"Answer briefly.\"")]
pub(crate) struct ChatArgs {
    /// Instructions in front of the conversation
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
    #[command(flatten)]
    pub(crate) display: DisplayArgs,
}

/// Think or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ThinkArg {
    /// Think before answering: with the adapter, or by the template's own switch
    On,
    /// The base answers at once
    Off,
    /// The switcher decides
    Auto,
}

/// How hard to think, in the words of OpenAI's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EffortArg {
    /// Answer at once
    None,
    /// The smallest budget that the adapter was trained with
    Minimal,
    /// A small one
    Low,
    /// A larger one
    Medium,
    /// The largest one
    High,
    /// No budget
    Xhigh,
}

/// How long the model may think.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Thinking and limits")]
pub(crate) struct ThinkingArgs {
    /// Think before answering [default: auto if there is a switcher, on if there is an adapter or the model can think]
    #[arg(
        long,
        value_enum,
        value_name = "auto|on|off",
        env = "EDGETHINK_THINK",
        hide_possible_values = true
    )]
    pub(crate) think: Option<ThinkArg>,
    /// How hard to think: none answers at once, minimal to high set --think on and a budget of the adapter's, xhigh sets none
    #[arg(
        long,
        value_enum,
        value_name = "EFFORT",
        env = "EDGETHINK_REASONING_EFFORT",
        conflicts_with_all = ["think", "budget", "soft_budget"]
    )]
    pub(crate) reasoning_effort: Option<EffortArg>,
    /// Hard limit on the whole response: the thought is cut in time and an answer is forced; the prompt names it too if the
    /// adapter was trained so
    #[arg(long, value_name = "TOKENS", env = "EDGETHINK_BUDGET")]
    pub(crate) budget: Option<usize>,
    /// The budget that the prompt names, which limits nothing by itself [default: that of --budget]
    #[arg(long, value_name = "TOKENS", env = "EDGETHINK_SOFT_BUDGET")]
    pub(crate) soft_budget: Option<usize>,
    /// The line that names it, with {B} for the number; "none" names nothing [default: the adapter's own]
    #[arg(long, value_name = "TEXT", env = "EDGETHINK_BUDGET_LINE")]
    pub(crate) budget_line: Option<String>,
    /// Tokens of the budget kept for the answer [default: an eighth, 16 to 512]
    #[arg(long, value_name = "TOKENS", env = "EDGETHINK_ANSWER_RESERVE")]
    pub(crate) answer_reserve: Option<usize>,
    /// What is written when a thought is cut, closing tag included; "\n" is a new line [default: the adapter's own]
    #[arg(long, value_name = "TEXT", env = "EDGETHINK_ANSWER_PHRASE")]
    pub(crate) answer_phrase: Option<String>,
    /// A thought that ends before this many tokens goes on, up to six times and never past the budget
    #[arg(long, value_name = "TOKENS", env = "EDGETHINK_MIN_THINK")]
    pub(crate) min_think: Option<usize>,
    /// What takes the place of an end that comes too early
    #[arg(
        long,
        value_name = "TEXT",
        default_value = DEFAULT_CONTINUATION,
        env = "EDGETHINK_CONTINUATION"
    )]
    pub(crate) continuation: String,
    /// Close a thought that repeats the same tokens over and over
    #[arg(long, env = "EDGETHINK_STOP_LOOPS")]
    pub(crate) stop_loops: bool,
    /// At most this many tokens per answer [default: what fits in the context]
    #[arg(long, short, value_name = "TOKENS", env = "EDGETHINK_MAX_TOKENS",
          value_parser = positive)]
    pub(crate) max_tokens: Option<usize>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  edgethink info                                  the shipped pocket model
  edgethink info --model path/to/model --adapter path/to/adapter
  edgethink info --model model.gguf --json | jq .architecture
  edgethink info --cpu                            which instruction set was chosen, and why")]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The processor instead of a model: which instruction set was chosen, and why
    #[arg(long)]
    pub(crate) cpu: bool,
    /// One JSON object on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

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
    pub(crate) format: model::FormatArgs,
    /// JSON on stdout instead of a table
    #[arg(long)]
    pub(crate) json: bool,
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

#[cfg(feature = "train")]
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
    Quantize(RecipeArgs),
    /// Make an adapter's thoughts short by reinforcement learning (GRPO with budgets)
    #[command(after_help = "Example:
  edgethink train grpo --config recipes/pocket/grpo.toml")]
    Grpo(DeviceRecipeArgs),
    /// Train a verifier: the head that says how likely a response is right
    #[command(
        after_help = "Draws responses, grades them, and fits the head; a stopped run goes on where it was.

Example:
  edgethink train verifier --config recipes/pocket/verifier.toml"
    )]
    Verifier(RecipeArgs),
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
    },
    /// Say what a recipe takes before it runs: memory layer by layer, and about how long
    #[command(
        after_help = "Nothing is loaded or written. Memory is the peak of one optimizer step; a recipe that needs more than the machine has is
refused, with the settings that help. Times are estimates: operations over the speed of this machine's matrix product.

Examples:
  edgethink train plan recipes/pocket/sft.toml
  edgethink train plan recipes/qwen2.5-7b/sft.toml --model-config recipes/qwen2.5-7b/config.json --memory 80
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

#[cfg(feature = "train")]
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
#[cfg(feature = "train")]
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
    /// Do not measure this machine, and leave the times out
    #[arg(long)]
    pub(crate) no_times: bool,
    /// One JSON object on stdout instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// A training of the network itself, which a GPU can do.
#[cfg(feature = "train")]
#[derive(Debug, Args)]
pub(crate) struct DeviceRecipeArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Where the network learns: cpu, vulkan, or vulkan:N for one of several GPUs; instead of [run] device
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<DeviceChoice>,
}

/// A training that several processes can share.
#[cfg(feature = "train")]
#[derive(Debug, Args)]
pub(crate) struct GroupRecipeArgs {
    #[command(flatten)]
    pub(crate) recipe: DeviceRecipeArgs,
    #[command(flatten)]
    pub(crate) group: GroupArgs,
}

/// This process among those that train together, as torchrun says it.
#[cfg(feature = "train")]
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

/// A count of at least one.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
