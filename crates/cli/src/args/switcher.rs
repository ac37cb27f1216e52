//! Flags of `calibrate` and `eval switch`.

use std::fmt;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use edgethink_reason::switcher::routing::Wish;

use super::{AskedArgs, positive};

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("wish").required(true)),
    after_help = "A row is {\"prompt\": text or messages, \"answer\": text}; --share needs no answers. The rows should be such as the model will be asked:
the share of hard ones among them is part of what is measured. With --accuracy and --keep every question is asked both ways once.
The threshold and the curve that it was read from are written into the switcher's head.json. --think is not looked at.

Examples:
  edgethink calibrate easy.jsonl hard.jsonl --switcher path/to/switcher --share 0.4
  edgethink calibrate easy.jsonl hard.jsonl --switcher path/to/switcher --accuracy 0.9
  edgethink calibrate easy.jsonl hard.jsonl --switcher path/to/switcher --keep 0.99"
)]
pub(crate) struct CalibrateArgs {
    /// Data sets
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// This share of the queries is to think, 0 to 1
    #[arg(long, value_name = "SHARE", group = "wish")]
    pub(crate) share: Option<f64>,
    /// This share of the answers is to be right, 0 to 1, with as few thoughts as possible
    #[arg(long, value_name = "SHARE", group = "wish")]
    pub(crate) accuracy: Option<f64>,
    /// This share of the accuracy of always thinking is to be kept, 0 to 1, with as few thoughts as possible
    #[arg(long, value_name = "SHARE", group = "wish")]
    pub(crate) keep: Option<f64>,
    /// What was written, as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) asked: AskedArgs,
}

impl CalibrateArgs {
    /// The one of the three flags that was given.
    pub(crate) fn wish(&self) -> Wish {
        match (self.share, self.accuracy, self.keep) {
            (Some(share), _, _) => Wish::Share(share),
            (None, Some(accuracy), _) => Wish::Accuracy(accuracy),
            // clap sees to it that one is there; 1 asks for no loss at all.
            (None, None, keep) => Wish::Keep(keep.unwrap_or(1.0)),
        }
    }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Every question is asked both ways once. The curve is that of accuracy and tokens along the share of queries that think, for the
switcher, by lot, never and always; a mix weighs the easy set and the hard one. --think is not looked at.

Examples:
  edgethink eval switch easy-test.jsonl hard-test.jsonl
  edgethink eval switch easy-test.jsonl hard-test.jsonl --shifted shifted-test.jsonl --mix 1:1,9:1 --out switch/
  edgethink eval switch easy-test.jsonl hard-test.jsonl --system \"A long text in front ...\""
)]
pub(crate) struct EvalSwitchArgs {
    /// Questions that need no thought
    pub(crate) easy: PathBuf,
    /// Questions that need one
    pub(crate) hard: PathBuf,
    /// Another hard set, of another kind than the switcher was trained on; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) shifted: Vec<PathBuf>,
    /// Mixes to report, easy:hard
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "1:1,3:1,9:1",
        value_parser = mix
    )]
    pub(crate) mix: Vec<Mix>,
    /// Only the first rows of each set
    #[arg(long, value_name = "ROWS", value_parser = positive)]
    pub(crate) limit: Option<usize>,
    /// Write switch.json, scores.jsonl and the curves as SVG into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The whole report as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) asked: AskedArgs,
}

/// How many easy questions come with how many hard ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mix {
    /// Weight of the easy set.
    pub(crate) easy: f64,
    /// Weight of the hard set.
    pub(crate) hard: f64,
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.easy, self.hard)
    }
}

fn mix(text: &str) -> Result<Mix, String> {
    let wrong = || format!("{text:?} is no mix such as 3:1 (three easy questions to one hard one)");
    let (easy, hard) = text.split_once(':').ok_or_else(wrong)?;
    let part = |text: &str| {
        text.trim()
            .parse::<f64>()
            .ok()
            .filter(|x| x.is_finite() && *x > 0.0)
    };
    match (part(easy), part(hard)) {
        (Some(easy), Some(hard)) => Ok(Mix { easy, hard }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_read_and_refused() {
        assert_eq!(mix("9:1").map(|m| m.to_string()), Ok("9:1".to_owned()));
        assert_eq!(
            mix("0.5:2"),
            Ok(Mix {
                easy: 0.5,
                hard: 2.0
            })
        );
        for text in ["", "1", "1:0", "-1:1", "nan:1", "a:b"] {
            assert!(mix(text).is_err(), "{text}");
        }
    }
}
