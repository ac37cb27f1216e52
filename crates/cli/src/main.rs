//! The program `edgethink`: one module per command, exit codes, and nothing that a library should know.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage (clap), 130 stopped by Ctrl-C. A closed pipe is a silent 0, as `| head` expects.

mod args;
mod ask;
mod asked;
mod bench;
mod bundle;
mod calibrate;
mod chat;
#[cfg(feature = "train")]
mod data;
mod eval;
mod eval_ppl;
mod eval_switch;
mod eval_task;
mod export;
mod info;
mod info_cpu;
mod interrupt;
mod json;
mod open;
mod pocket;
mod progress;
mod quantize;
mod report;
mod roofline;
mod screen;
mod serve;
mod settings;
mod show;
mod steps;
mod table;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "train")]
mod train_plan;
mod votes;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::CommandFactory;

use args::{Cli, Command, EvalForm};
use screen::Screen;

fn main() -> ExitCode {
    match interrupt::install().and_then(|()| run(serve::parse()?.command)) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ask(args) => ask::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Bench(args) if args.roofline => roofline::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Eval(command) => match &command.form {
            None => eval_task::run(&command.tasks),
            Some(EvalForm::Jsonl(args)) => eval::run(args),
            Some(EvalForm::Votes(args)) => votes::run(args),
            Some(EvalForm::Switch(args)) => eval_switch::run(args),
            Some(EvalForm::Ppl(args)) => eval_ppl::run(args),
        },
        Command::Report(command) => report::run(&command),
        Command::Run(args) => steps::run(&args),
        Command::Bundle(command) => bundle::run(&command),
        Command::Export(command) => export::run(&command),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        #[cfg(feature = "train")]
        Command::Train(command) => train::run(&command),
        #[cfg(feature = "train")]
        Command::Data(command) => data::run(&command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "edgethink", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The error and what caused it, one line each.
pub(crate) fn report(error: &anyhow::Error) {
    let screen = Screen::stderr();
    eprintln!("{} {error}", screen.red("error:"));
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        // Some errors repeat their source in their own text.
        let text = cause.to_string();
        if !last.contains(&text) {
            eprintln!("  caused by: {text}");
        }
        last = text;
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == ErrorKind::BrokenPipe)
}
