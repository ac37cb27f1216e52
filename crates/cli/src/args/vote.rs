//! Flags of parallel streams: how many, what scores their answers, how they become one.

use clap::{Args, ValueEnum};

/// What scores the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyArg {
    /// The trained verifier beside the model
    Head,
    /// The model itself: the probability of "Yes" to "Is the answer correct?"
    Genrm,
}

/// How the streams' answers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VoteArg {
    /// The answer of most streams
    Majority,
    /// The answer with the highest sum of scores
    Weighted,
    /// The answer with the highest score
    Best,
    /// None: all answers side by side
    None,
}

/// When a vote may end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum EarlyStopArg {
    /// When all streams have ended.
    Off,
    /// When nothing can change it any more.
    Exact,
    /// Also with this confidence.
    Confidence(f64),
}

/// Parallel streams and their vote.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Streams and vote")]
pub(crate) struct VoteArgs {
    /// Parallel streams from one encoded prompt
    #[arg(long, short, value_name = "N", default_value_t = 1, env = "EDGETHINK_N",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) n: u16,
    /// Let the switcher's score choose how many streams, up to --n (with --think auto)
    #[arg(long, env = "EDGETHINK_SCALE_N")]
    pub(crate) scale_n: bool,
    /// Score each answer, 0 to 1
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "head", env = "EDGETHINK_VERIFY")]
    pub(crate) verify: Option<VerifyArg>,
    /// How the streams' answers become one [default: weighted with --verify, else majority]
    #[arg(long, value_enum, value_name = "HOW", env = "EDGETHINK_VOTE")]
    pub(crate) vote: Option<VoteArg>,
    /// End a vote before all streams have: exact (nothing can change it), off, or a confidence such as 0.95 (with --verify one answer that
    /// the verifier is so sure of is enough)
    #[arg(
        long,
        value_name = "RULE",
        default_value = "exact",
        env = "EDGETHINK_EARLY_STOP",
        value_parser = early_stop
    )]
    pub(crate) early_stop: EarlyStopArg,
    /// Begin only as many streams as can decide the vote: fewer tokens, but an open vote takes longer
    #[arg(long, env = "EDGETHINK_WAVES")]
    pub(crate) waves: bool,
}

fn early_stop(text: &str) -> Result<EarlyStopArg, String> {
    match text {
        "off" => Ok(EarlyStopArg::Off),
        "exact" => Ok(EarlyStopArg::Exact),
        _ => match text.parse::<f64>() {
            Ok(wanted) if wanted > 0.5 && wanted < 1.0 => Ok(EarlyStopArg::Confidence(wanted)),
            _ => Err("must be exact, off, or a confidence above 0.5 and below 1".into()),
        },
    }
}
