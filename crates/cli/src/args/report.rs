//! Flags of `edgethink report` and `edgethink run`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with a report.
#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Measure what is not measured yet, then write the page
    #[command(
        after_help = "A recipe has steps (commands that make what is measured), cells (each an edgethink eval with its own records), tables and goals.
What is there already is not done again, so a run that was stopped goes on with the same command.

Example:
  edgethink report run recipes/pocket/report.toml"
    )]
    Run {
        /// The recipe
        recipe: PathBuf,
    },
    /// Write the page from the records that are there
    #[command(after_help = "Example:
  edgethink report write recipes/pocket/report.toml")]
    Write {
        /// The recipe
        recipe: PathBuf,
    },
}

/// A pipeline.
#[derive(Debug, Args)]
#[command(
    after_help = "Every step is a command of this program. A step is done when it has ended well with the same command and recipes, and what it makes
is there; then it is not done again, unless a step before it was. Steps go on from their own checkpoints.

Example:
  edgethink run recipes/pocket/all.toml"
)]
pub(crate) struct RunArgs {
    /// The recipe
    pub(crate) recipe: PathBuf,
    /// Show the steps and which of them are done
    #[arg(long)]
    pub(crate) list: bool,
}
