//! Flags that say whether and how long the model thinks.

use clap::{Args, ValueEnum};
use edgethink_reason::query::DEFAULT_CONTINUATION;

use super::positive;

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
