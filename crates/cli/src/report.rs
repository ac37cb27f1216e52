//! `edgethink report`: measures the cells of a recipe, each as an `edgethink eval` of its own, and writes the page.
//!
//! A process per cell, so that its peak memory is its own.

use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Error, Result, bail};
use edgethink_eval::report::cell::note_files;
use edgethink_eval::report::recipe::{CellRecipe, Recipe, Step};
use edgethink_eval::report::write;

use crate::args::report::ReportCommand;
use crate::interrupt;
use crate::steps;

/// Runs the command.
pub(crate) fn run(command: &ReportCommand) -> Result<ExitCode> {
    match command {
        ReportCommand::Run { recipe } => {
            let recipe = Recipe::read(recipe)?;
            if !measure(&recipe)? {
                eprintln!("stopped before all was measured");
                return Ok(ExitCode::from(interrupt::EXIT_CODE));
            }
            page(&recipe)
        }
        ReportCommand::Write { recipe } => page(&Recipe::read(recipe)?),
    }
}

fn page(recipe: &Recipe) -> Result<ExitCode> {
    write(recipe)?;
    eprintln!(
        "written to {}",
        recipe.output_dir.join("index.html").display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Steps, then cells. Returns false if Ctrl-C ended it.
fn measure(recipe: &Recipe) -> Result<bool> {
    let filled: Vec<Step> = recipe
        .steps
        .iter()
        .map(|step| Step {
            makes: step.makes.iter().map(|path| recipe.path(path)).collect(),
            ..step.clone()
        })
        .collect();
    let state = Path::new("runs").join("steps").join(&recipe.output_dir);
    if !steps::all(&filled, &state, |step| {
        recipe.words(&step.run).map_err(Error::msg)
    })? {
        return Ok(false);
    }
    for (at, cell) in recipe.cells.iter().enumerate() {
        eprintln!(
            "cell {} of {}, {}: {}",
            at + 1,
            recipe.cells.len(),
            cell.name,
            cell.about
        );
        let Some(status) = steps::child(&words(recipe, cell)?, Some(Stdio::null()))? else {
            return Ok(false);
        };
        if !status.success() {
            bail!(
                "cell {} has failed; put right what it says, and run the same command again",
                cell.name
            );
        }
        let files: Vec<_> = cell.files.iter().map(|path| recipe.path(path)).collect();
        note_files(&files, &recipe.cell_dir(&cell.name))?;
    }
    Ok(true)
}

/// The whole command of a cell.
fn words(recipe: &Recipe, cell: &CellRecipe) -> Result<Vec<String>> {
    let given = recipe.words(&cell.eval).map_err(Error::msg)?;
    let dir = recipe.cell_dir(&cell.name).display().to_string();
    let fixed = ["--compact", "--json", "--fresh=other", "--out", &dir].map(str::to_owned);
    Ok(std::iter::once("eval".to_owned())
        .chain(given)
        .chain(fixed)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn the_repositorys_cells_and_steps_are_commands() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        let program = || std::iter::once("edgethink".to_owned());
        for name in ["pocket", "qwen2.5-7b"] {
            let recipe = Recipe::read(&root.join(name).join("report.toml")).expect(name);
            for cell in &recipe.cells {
                let words = program().chain(words(&recipe, cell).expect("its variables are there"));
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{}: {error}", cell.name));
            }
            for step in &recipe.steps {
                let words =
                    program().chain(recipe.words(&step.run).expect("its variables are there"));
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{}: {error}", step.name));
            }
        }
    }
}
