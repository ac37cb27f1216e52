//! `edgethink ask`: one question, one answer (or n).

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use edgethink_model::Message;
use edgethink_reason::{AdapterUse, Answer, FinishReason, Grammar, Input, Query, Reasoner};

use crate::args::{AskArgs, DisplayArgs};
use crate::interrupt::{self, Running};
use crate::json::AnswerJson;
use crate::open::{self, Need};
use crate::screen::Screen;
use crate::show::{Show, cost_line};

/// Runs the command.
pub(crate) fn run(args: &AskArgs) -> Result<ExitCode> {
    let prompt = read_prompt(args.prompt.as_deref())?;
    let input = if args.raw {
        Input::Raw(prompt)
    } else {
        Input::Messages(conversation(args.system.as_deref(), prompt))
    };
    let opened = open::open(&args.model)?;
    let need = Need {
        streams: args.vote.n.into(),
        ..Need::one(&args.thinking)
    };
    let name = opened.name.clone();
    let mut reasoner = open::reasoner(opened, &args.engine, &args.thinking, &need)?;
    let query = Query {
        stop: args.stop.clone(),
        ignore_eos: args.ignore_eos,
        top_logprobs: args.logprobs.map(usize::from),
        grammar: args.json_schema.as_deref().map(read_schema).transpose()?,
        ..open::with_vote(
            open::query(&reasoner, input, &args.thinking, &args.sampling),
            &args.vote,
        )
    };
    if !args.json {
        let answer = stream(&mut reasoner, &query, &args.display)?;
        return Ok(exit_code(&answer));
    }
    let running = Running::start();
    let answer = reasoner.answer(&query, |_| {}, interrupt::pressed)?;
    drop(running);
    let code = exit_code(&answer);
    let text = serde_json::to_string(&AnswerJson::new(&name, answer))?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(code)
}

fn read_schema(path: &Path) -> Result<Grammar> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let schema = serde_json::from_slice(&text);
    let schema = schema.with_context(|| format!("{} is no JSON", path.display()))?;
    Ok(Grammar::JsonSchema(schema))
}

/// Answers `query` on the terminal, with its cost at the end.
pub(crate) fn stream(
    reasoner: &mut Reasoner,
    query: &Query,
    display: &DisplayArgs,
) -> Result<Answer> {
    let mut show = Show::new(
        std::io::stdout().lock(),
        Screen::stdout(),
        display.show_thought,
        query.n,
        query.vote.is_some(),
    );
    let running = Running::start();
    let mut shown = Ok(());
    let broken = std::cell::Cell::new(false);
    let answered = reasoner.answer(
        query,
        |event| {
            if shown.is_ok() {
                shown = show.event(event);
                broken.set(shown.is_err());
            }
        },
        // A reader that went away needs no more tokens.
        || interrupt::pressed() || broken.get(),
    );
    drop(running);
    shown?;
    let answer = match answered {
        Ok(answer) => answer,
        Err(error) => {
            show.abandon()?;
            return Err(error.into());
        }
    };
    show.finish(&answer)?;
    drop(show);
    if !display.quiet {
        tell_cost(&answer);
    }
    Ok(answer)
}

fn tell_cost(answer: &Answer) {
    let screen = Screen::stderr();
    eprintln!("{}", screen.dim(&cost_line(answer)));
    let note = match answer.adapter {
        AdapterUse::Plain => {
            "note: this is a plain LoRA: it encodes the prompt too, so nothing is shared with the base"
        }
        AdapterUse::NotInvoked => {
            "note: the adapter's invocation is not in the prompt, so the base answered"
        }
        AdapterUse::Base | AdapterUse::Masked { .. } => return,
    };
    eprintln!("{}", screen.dim(note));
}

/// A cancelled answer ends the program as Ctrl-C does; a cut one is an answer.
fn exit_code(answer: &Answer) -> ExitCode {
    let cancelled =
        |choice: &edgethink_reason::Choice| choice.finish_reason == FinishReason::Cancelled;
    if answer.choices.iter().any(cancelled) {
        ExitCode::from(interrupt::EXIT_CODE)
    } else {
        ExitCode::SUCCESS
    }
}

/// System and user turn.
pub(crate) fn conversation(system: Option<&str>, prompt: String) -> Vec<Message> {
    let system = system.map(|text| Message::new("system", text));
    system
        .into_iter()
        .chain([Message::new("user", prompt)])
        .collect()
}

fn read_prompt(given: Option<&str>) -> Result<String> {
    match given {
        Some(text) if text != "-" => Ok(text.to_owned()),
        None if std::io::stdin().is_terminal() => {
            bail!(
                "no question; write it behind `ask`, or pipe it in: echo \"What is 2 plus 2?\" | edgethink ask"
            )
        }
        _ => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the question from stdin")?;
            let text = text.trim_end_matches(['\n', '\r']).to_owned();
            if text.trim().is_empty() {
                bail!("the question on stdin is empty");
            }
            Ok(text)
        }
    }
}
