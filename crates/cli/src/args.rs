//! The command line: every command, flag, environment twin and example.
//!
//! A flag wins over its environment variable. Flags that commands share, and those of the larger commands, stand in `args/`.

pub(crate) mod bench;
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
pub(crate) mod thinking;
#[cfg(feature = "train")]
pub(crate) mod train;
pub(crate) mod vote;
pub(crate) mod votes;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use bench::BenchArgs;
pub(crate) use bundle::BundleCommand;
pub(crate) use eval::{AskedArgs, EvalArgs, EvalCommand, EvalForm};
pub(crate) use export::ExportCommand;
pub(crate) use model::{EngineArgs, ModelArgs};
pub(crate) use sampling::SamplingArgs;
pub(crate) use switcher::{CalibrateArgs, EvalSwitchArgs, Mix};
pub(crate) use thinking::{EffortArg, ThinkArg, ThinkingArgs};
#[cfg(feature = "train")]
pub(crate) use train::{GroupArgs, GroupRecipeArgs, PlanArgs, RecipeArgs, TrainCommand};
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
