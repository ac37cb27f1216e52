//! Questions asked both ways, at once and with a thought, each with the switcher's score: what `calibrate` and `eval switch` count.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use edgethink_engine::Engine;
use edgethink_eval::local::each_answer;
use edgethink_reason::prompt::encode;
use edgethink_reason::switcher::routing::Outcome;
use edgethink_reason::switcher::{Switcher, averages};
use edgethink_reason::{Query, Think};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Map;

use crate::args::{AskedArgs, ModelArgs};
use crate::eval::{self, Row};
use crate::interrupt::{self, Running};
use crate::open::{self, Need, Opened};

/// The directory of the switcher whose file is to be changed: the one named, or the one beside the model.
pub(crate) fn switcher_dir(args: &ModelArgs) -> Result<PathBuf> {
    match (args.switcher.as_deref(), &args.model) {
        (Some(dir), _) if dir != "none" => Ok(PathBuf::from(dir)),
        (None, Some(model)) => Ok(PathBuf::from(model).join("switcher")),
        // The built-in pocket's files are the program's own.
        _ => bail!("name the directory of the switcher with --switcher"),
    }
}

/// A model with its switcher.
#[derive(Debug)]
pub(crate) struct Both {
    opened: Opened,
    switcher: Switcher,
}

impl Both {
    /// Loads them.
    pub(crate) fn open(args: &AskedArgs) -> Result<Self> {
        let opened = open::open(&args.model)?;
        let switcher = opened.switcher.clone().context(
            "the model has no switcher; name one with --switcher, or train one with edgethink train switcher",
        )?;
        Ok(Self { opened, switcher })
    }

    /// The least score that gets a thought.
    pub(crate) fn threshold(&self) -> f32 {
        self.switcher.threshold()
    }

    /// The score of every row; `None` if Ctrl-C ended it.
    pub(crate) fn scores(&self, rows: &[Row], args: &AskedArgs) -> Result<Option<Vec<f32>>> {
        let model = &self.opened.model;
        let mut prompts = Vec::with_capacity(rows.len());
        for row in rows {
            let input = row.input(args.system.as_deref());
            let prompt = encode(
                model,
                &input,
                Think::Off,
                &self.opened.format.tags,
                &Map::new(),
            )?;
            let read = self.switcher.reads(&prompt.tokens);
            prompts.push(prompt.tokens[..read].to_vec());
        }
        let context = model.config.max_position_embeddings;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
        let kv_tokens = args.engine.kv_tokens.unwrap_or(context.min(8 * longest));
        let format = &args.engine.format;
        let options = open::engine_options(model, args.engine.threads, format, kv_tokens, 64);
        let mut engine =
            Engine::new(Arc::clone(model), options).context("cannot set the engine up")?;
        let bar = bar(prompts.len(), "prompts read")?;
        let running = Running::start();
        let lists: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let states = averages(&mut engine, self.switcher.averaging(), &lists, |_| {
            bar.inc(1);
            !interrupt::pressed()
        });
        drop(running);
        bar.finish_and_clear();
        let Some(states) = states? else {
            return Ok(None);
        };
        let scores = states.iter().map(|state| self.switcher.score(state));
        Ok(Some(scores.collect::<Result<_, _>>()?))
    }

    /// What comes of every row at once and with a thought; `None` if Ctrl-C ended it.
    pub(crate) fn outcomes(
        self,
        rows: &[Row],
        args: &AskedArgs,
    ) -> Result<Option<Vec<[Outcome; 2]>>> {
        let batch = args.batch.min(rows.len());
        let need = Need {
            streams: batch,
            prompts: batch,
            ..Need::one(&args.thinking)
        };
        let mut reasoner = open::reasoner(self.opened, &args.engine, &args.thinking, &need)?;
        if reasoner.default_think() == Think::Off {
            bail!("the model cannot think: give an adapter with --adapter");
        }
        let nothing = Outcome {
            correct: false,
            tokens: 0,
        };
        let mut outcomes = vec![[nothing; 2]; rows.len()];
        let bar = bar(2 * rows.len(), "answers")?;
        let running = Running::start();
        let done: Result<bool> = each_answer(
            &mut reasoner,
            2 * rows.len(),
            batch,
            |reasoner, index| {
                let input = rows[index / 2].input(args.system.as_deref());
                let query = open::query(reasoner, input, &args.thinking, &args.sampling);
                Query {
                    think: [Think::Off, Think::On][index % 2],
                    seed: query.seed.wrapping_add(index as u64 / 2),
                    ..query
                }
            },
            interrupt::pressed,
            |index, answer| {
                let expected = rows[index / 2].expected();
                if let Some(choice) = answer.choices.first() {
                    outcomes[index / 2][index % 2] = Outcome {
                        correct: eval::is_correct(choice, &expected),
                        tokens: choice.token_ids.len(),
                    };
                }
                bar.inc(1);
                Ok(true)
            },
        );
        drop(running);
        bar.finish_and_clear();
        Ok(done?.then_some(outcomes))
    }
}

fn bar(len: usize, what: &str) -> Result<ProgressBar> {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {elapsed} of {duration}")?;
    Ok(ProgressBar::new(len as u64)
        .with_style(style)
        .with_message(what.to_owned()))
}
