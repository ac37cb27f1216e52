//! Trains by a recipe and prints the loss: `cargo run --release -p edgethink-train --example train -- base recipe.toml`.

use std::{path::Path, process::ExitCode};

use edgethink_train::{BaseRecipe, Event, Progress, SftRecipe, TrainError, base, sft};

struct Lines;

impl Progress for Lines {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Step {
                step,
                loss,
                tokens_per_second,
                eta_seconds,
                ..
            } if step % 10 == 0 => {
                eprintln!(
                    "step {step} loss {loss:.4} {tokens_per_second:.0} tokens/s, {eta_seconds:.0} s to go"
                );
            }
            Event::Step { .. } => {}
            other => eprintln!("{other:?}"),
        }
    }
}

fn run(kind: &str, path: &Path) -> Result<(), TrainError> {
    let summary = match kind {
        "base" => base(&BaseRecipe::load(path)?, &mut Lines)?,
        _ => sft(&SftRecipe::load(path)?, &mut Lines)?,
    };
    eprintln!("{summary:?}");
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, kind, path] = args.as_slice() else {
        eprintln!("usage: train base|sft RECIPE");
        return ExitCode::from(2);
    };
    match run(kind, Path::new(path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            while let Some(e) = source {
                eprintln!("{e}");
                source = e.source();
            }
            ExitCode::FAILURE
        }
    }
}
