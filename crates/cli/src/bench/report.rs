//! What `edgethink bench` says: figures, in JSON and as tables.

use serde::Serialize;

use super::profile::{self, PartFigure};
use crate::show::rate;
use crate::table::table;

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) threads: usize,
    pub(crate) streams: usize,
    pub(crate) depth: usize,
    pub(crate) tokens: usize,
    pub(crate) tokens_per_second: f64,
    /// Slowest and fastest repeat.
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// KV held at most while decoding: the prompt once, and what each stream wrote.
    pub(crate) kv_bytes: Option<usize>,
    /// Where the time of all repeats went, on the calling thread.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) profile: Vec<PartFigure>,
    /// Repeats that the profile covers.
    #[serde(skip)]
    pub(crate) repeats: usize,
}

/// Greedy tokens that another program can check.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) prompt: Vec<u32>,
    pub(crate) tokens: Vec<u32>,
}

/// What it costs to go on with the adapter behind a prompt that the base has read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Switch {
    pub(crate) threads: usize,
    /// Tokens of the prompt.
    pub(crate) tokens: usize,
    /// Time to the adapter's first token.
    pub(crate) switch_ms: f64,
    /// Time to the base's first token, the prompt read anew: what a switch costs where nothing is shared.
    pub(crate) prefill_ms: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) model: String,
    pub(crate) architecture: &'static str,
    pub(crate) parameters: usize,
    pub(crate) weights: String,
    pub(crate) adapter_weights: String,
    pub(crate) kv: String,
    pub(crate) isa: String,
    pub(crate) adapter: bool,
    pub(crate) repeats: usize,
    pub(crate) weights_bytes: usize,
    pub(crate) kv_bytes_per_token: usize,
    pub(crate) adapters_bytes: usize,
    /// From the start of the command until the weights are ready, and until the first token behind a prompt of one.
    pub(crate) load_ms: f64,
    pub(crate) first_token_ms: f64,
    /// The most memory that was resident, on Linux.
    pub(crate) peak_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sample: Option<Sample>,
    pub(crate) figures: Vec<Figure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) switches: Vec<Switch>,
}

impl Report {
    /// Tables for people.
    pub(crate) fn text(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .figures
            .iter()
            .map(|f| {
                vec![
                    f.what.to_owned(),
                    f.threads.to_string(),
                    f.streams.to_string(),
                    f.depth.to_string(),
                    f.tokens.to_string(),
                    rate(f.tokens_per_second),
                    rate(f.min),
                    rate(f.max),
                    f.kv_bytes
                        .map_or("-".to_owned(), |bytes| crate::info::bytes(bytes as u64)),
                ]
            })
            .collect();
        let mut text = format!(
            "{}, {} parameters, weights {} ({}), KV {} ({} per token), {}{}\n\n",
            self.model,
            crate::info::count(self.parameters),
            self.weights,
            crate::info::bytes(self.weights_bytes as u64),
            self.kv,
            crate::info::bytes(self.kv_bytes_per_token as u64),
            self.isa,
            if self.adapter {
                format!(
                    ", adapter on, {} ({})",
                    self.adapter_weights,
                    crate::info::bytes(self.adapters_bytes as u64)
                )
            } else {
                String::new()
            },
        );
        let rss = self
            .peak_rss_bytes
            .map_or("-".to_owned(), crate::info::bytes);
        text += &format!(
            "loaded in {:.0} ms, first token after {:.0} ms, at most {rss} resident\n\n",
            self.load_ms, self.first_token_ms
        );
        if !rows.is_empty() {
            text += &table(
                &[
                    "what", "threads", "streams", "depth", "tokens", "tokens/s", "min", "max", "KV",
                ],
                &rows,
            );
        }
        for f in self.figures.iter().filter(|f| !f.profile.is_empty()) {
            let (unit, count) = match f.what {
                "prefill" => ("prompt", f.repeats),
                _ => ("step", f.repeats * f.tokens),
            };
            text += &format!(
                "\n{} of {} tokens, {} streams, depth {}, {} threads\n{}",
                f.what,
                f.tokens,
                f.streams,
                f.depth,
                f.threads,
                profile::text(&f.profile, unit, count as f64)
            );
        }
        for s in &self.switches {
            text += &format!(
                "\nswitch to the adapter behind {} tokens, {} threads: {:.1} ms to its first token; reading them anew takes {:.1} ms, {:.0} times as long\n",
                s.tokens,
                s.threads,
                s.switch_ms,
                s.prefill_ms,
                s.prefill_ms / s.switch_ms
            );
        }
        text
    }
}
