//! `edgethink eval ppl`: perplexity of a text, by the rule of llama.cpp's llama-perplexity.
//!
//! The text's tokens are cut into chunks of C; what does not fill a chunk is left out. In each chunk the tokens C/2 + 1 .. C are
//! scored, given all before them: with first = C/2, the logits at first .. C - 1 and the tokens one further. If the tokenizer begins texts
//! with a BOS token, the first token of every chunk is replaced by it. ppl = exp(mean of -ln p).
//!
//! With `--jsonl` each row is read alone, and its completion is scored.

use std::fs::read_to_string;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use edgethink_engine::{AdapterSpan, Engine};
use edgethink_model::{Message, Model, RenderOptions, Tokenizer};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::args::ModelArgs;
use crate::args::quantize::PplArgs;
use crate::interrupt::{self, Running};
use crate::open;
use crate::show::rate;

/// The result.
#[derive(Debug, Clone, Serialize)]
struct Summary {
    ppl: f64,
    /// Standard error, from the spread of the scored tokens.
    ppl_stderr: f64,
    /// Mean of -ln p, nats per token.
    nll: f64,
    scored_tokens: usize,
    chunks: usize,
    /// Tokens of the longest chunk or row.
    longest: usize,
    weights_bytes: usize,
    seconds: f64,
    tokens_per_second: f64,
}

/// Sums over scored tokens.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    tokens: usize,
    nll: f64,
    squares: f64,
}

/// Tokens that are read together; those after the first `given` are scored.
#[derive(Debug, PartialEq, Eq)]
struct Sequence {
    tokens: Vec<u32>,
    given: usize,
}

/// Runs the command.
pub(crate) fn run(args: &PplArgs) -> Result<ExitCode> {
    let none = || Some("none".to_owned());
    // Perplexity is the base's, unless an adapter is named.
    let opened = open::open(&ModelArgs {
        adapter: args.model.adapter.clone().or_else(none),
        switcher: none(),
        verifier: none(),
        ..args.model.clone()
    })?;
    let model = opened.model;
    let mut sequences = match (&args.text, &args.jsonl) {
        (Some(path), _) => chunks(&model, path, args.ctx as usize)?,
        (None, Some(path)) => rows(&model, path)?,
        (None, None) => bail!("give a text with --text or rows with --jsonl"),
    };
    sequences.truncate(args.chunks.unwrap_or(usize::MAX));
    let longest = sequences.iter().map(|s| s.tokens.len()).max().unwrap_or(0);
    let most = model.config.max_position_embeddings;
    if longest > most {
        bail!("{longest} tokens in a row are more than the model's context of {most}");
    }
    let options = open::engine_options(
        &model,
        args.engine.threads,
        &args.engine.format,
        args.engine.kv_tokens.unwrap_or(longest),
        1,
    );
    let mut engine = Engine::new(model.clone(), options).context("cannot set the engine up")?;
    let adapter = match &opened.adapter {
        Some(adapter) => Some(engine.load_adapter(adapter)?),
        None => None,
    };

    let bar = ProgressBar::new(sequences.len() as u64).with_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} chunks, {msg}, {elapsed} of {duration}",
    )?);
    let started = Instant::now();
    let running = Running::start();
    let mut tally = Tally::default();
    let (mut done, mut read) = (0, 0);
    for sequence in &sequences {
        if interrupt::pressed() {
            break;
        }
        // In rows an adapter starts where its own tokens do; in a text it acts on everything.
        let from = if args.jsonl.is_some() {
            sequence.given
        } else {
            0
        };
        let span = adapter.map(|id| AdapterSpan::starting(id, from));
        let logits = engine.logits(&sequence.tokens, span)?;
        tally.add(&logits, model.config.vocab_size, sequence);
        done += 1;
        read += sequence.tokens.len();
        bar.set_message(format!("ppl {:.4}", tally.ppl()));
        bar.inc(1);
    }
    drop(running);
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    if tally.tokens > 0 {
        let summary = Summary {
            ppl: tally.ppl(),
            ppl_stderr: tally.ppl_stderr(),
            nll: tally.mean(),
            scored_tokens: tally.tokens,
            chunks: done,
            longest,
            weights_bytes: model.weights.size_bytes(),
            seconds,
            tokens_per_second: read as f64 / seconds,
        };
        let mut out = std::io::stdout();
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&summary)?)?;
        } else {
            write!(out, "{}", summary.text())?;
        }
    }
    if done < sequences.len() {
        eprintln!("stopped after {done} of {} chunks", sequences.len());
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    Ok(ExitCode::SUCCESS)
}

fn tokenizer(model: &Model) -> Result<&Tokenizer> {
    let tokenizer = model.tokenizer.as_ref();
    tokenizer.context("the model has no tokenizer, so there is no text to score")
}

/// Chunks of `ctx` tokens of a text, of which the second half is scored.
fn chunks(model: &Model, path: &Path, ctx: usize) -> Result<Vec<Sequence>> {
    let text = read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let tokenizer = tokenizer(model)?;
    let tokens = tokenizer.encode(&text, true)?;
    let bos = first_token(tokenizer)?;
    let chunk = |chunk: &[u32]| {
        let mut tokens = chunk.to_vec();
        tokens[0] = bos.unwrap_or(tokens[0]);
        // The token after position ctx / 2 is the first that counts.
        let given = ctx / 2 + 1;
        Sequence { tokens, given }
    };
    let sequences: Vec<Sequence> = tokens.chunks_exact(ctx).map(chunk).collect();
    if sequences.is_empty() {
        bail!(
            "{} has {} tokens, which do not fill one chunk of {ctx}; give a longer text or a smaller --ctx",
            path.display(),
            tokens.len()
        );
    }
    Ok(sequences)
}

/// The token that the tokenizer puts in front of every text, if it does.
fn first_token(tokenizer: &Tokenizer) -> Result<Option<u32>> {
    let with = tokenizer.encode("a", true)?;
    let without = tokenizer.encode("a", false)?;
    Ok(with
        .first()
        .copied()
        .filter(|first| with.len() > without.len() && without.first() != Some(first)))
}

/// One row of `--jsonl`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Row {
    Text {
        prompt: String,
        completion: String,
    },
    Turns {
        prompt: Vec<Message>,
        completion: Vec<Message>,
    },
    Chat {
        messages: Vec<Message>,
    },
}

/// The rows of a data set, of which the completion is scored.
fn rows(model: &Model, path: &Path) -> Result<Vec<Sequence>> {
    let text = read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty());
    let sequences: Vec<Sequence> = lines
        .map(|(index, line)| {
            let place = || format!("line {} of {}", index + 1, path.display());
            row(model, line).with_context(place)
        })
        .collect::<Result<_>>()?;
    if sequences.is_empty() {
        bail!("{} has no rows", path.display());
    }
    Ok(sequences)
}

fn row(model: &Model, line: &str) -> Result<Sequence> {
    let (prompt, completion) = match serde_json::from_str(line)? {
        Row::Text { prompt, completion } => (prompt, completion),
        Row::Turns { prompt, completion } => chat(model, &prompt, &completion)?,
        Row::Chat { messages } => match messages.split_last() {
            Some((last, before)) => chat(model, before, std::slice::from_ref(last))?,
            None => bail!("there are no messages"),
        },
    };
    let tokenizer = tokenizer(model)?;
    let mut tokens = tokenizer.encode(&prompt, false)?;
    let given = tokens.len();
    tokens.extend(tokenizer.encode(&completion, false)?);
    if given == 0 || tokens.len() == given {
        bail!("prompt or completion is empty");
    }
    Ok(Sequence { tokens, given })
}

/// A conversation as the template writes it, cut where the answer begins.
fn chat(model: &Model, prompt: &[Message], answer: &[Message]) -> Result<(String, String)> {
    let template = model.template.as_ref();
    let template = template.context("the model has no chat template for these messages")?;
    let render = |messages: &[Message], add_generation_prompt| {
        let options = RenderOptions {
            add_generation_prompt,
            ..RenderOptions::default()
        };
        template.render(messages, &options)
    };
    let before = render(prompt, true)?;
    let whole = render(&[prompt, answer].concat(), false)?;
    match whole.strip_prefix(&before) {
        Some(completion) => Ok((before, completion.to_owned())),
        None => bail!("the template writes the prompt differently when an answer follows"),
    }
}

impl Tally {
    /// Scores what was not given by the logits `[T, V]`: those at a position are for the token behind it.
    fn add(&mut self, logits: &[f32], vocab_size: usize, sequence: &Sequence) {
        let rows = logits.chunks_exact(vocab_size).zip(&sequence.tokens[1..]);
        for (row, &next) in rows.skip(sequence.given - 1) {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
            let nll = sum.ln() + f64::from(most) - f64::from(row[next as usize]);
            self.tokens += 1;
            self.nll += nll;
            self.squares += nll * nll;
        }
    }

    fn mean(&self) -> f64 {
        self.nll / self.tokens.max(1) as f64
    }

    fn ppl(&self) -> f64 {
        self.mean().exp()
    }

    fn ppl_stderr(&self) -> f64 {
        let n = self.tokens as f64;
        let variance = (self.squares / n - self.mean() * self.mean()).max(0.0);
        (variance / (n - 1.0).max(1.0)).sqrt() * self.ppl()
    }
}

impl Summary {
    fn text(&self) -> String {
        format!(
            "perplexity     {:.4} ± {:.4}\nnll            {:.5} nats per token\nscored tokens  {} in {} chunks of at most {}\nweights        {} bytes as stored\ntime           {:.1} s, {} tokens/s\n",
            self.ppl,
            self.ppl_stderr,
            self.nll,
            self.scored_tokens,
            self.chunks,
            self.longest,
            self.weights_bytes,
            self.seconds,
            rate(self.tokens_per_second)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(tokens: &[u32], given: usize) -> Sequence {
        let tokens = tokens.to_vec();
        Sequence { tokens, given }
    }

    #[test]
    fn what_is_given_is_not_scored() {
        // Uniform logits over 8: every token costs ln 8. Of 6 tokens the last two count.
        let mut tally = Tally::default();
        tally.add(&[0.5; 6 * 8], 8, &sequence(&[0, 1, 2, 3, 4, 5], 4));
        assert_eq!(tally.tokens, 2);
        assert!((tally.ppl() - 8.0).abs() < 1e-9, "{}", tally.ppl());
        assert!(tally.ppl_stderr() < 1e-6);
    }

    #[test]
    fn the_logits_at_a_place_score_the_next_token() {
        let mut logits = vec![0.0; 4 * 4];
        logits[2 * 4 + 3] = 50.0; // position 2 knows that token 3 follows
        let mut tally = Tally::default();
        tally.add(&logits, 4, &sequence(&[0, 1, 2, 3], 3));
        assert_eq!(tally.tokens, 1);
        assert!(tally.ppl() < 1.0001, "{}", tally.ppl());
    }
}
