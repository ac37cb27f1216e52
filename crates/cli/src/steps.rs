//! `edgethink run`: the steps of a recipe, each a command of this program, each done once.
//!
//! A step that has ended well leaves a mark in the recipe's `state` folder: the hash of its command, of the recipes that the command
//! names, and of the mark before it. So a step is done again when its command, its recipe or an earlier step has changed.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use edgethink_eval::report::recipe::Step;
use serde::Deserialize;

use crate::args::report::RunArgs;
use crate::interrupt::{self, Running};

/// A pipeline.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pipeline {
    /// Where marks of finished steps are kept.
    state: PathBuf,
    /// What is done, in order.
    #[serde(rename = "step")]
    steps: Vec<Step>,
}

/// A step with its words and its place.
struct Planned<'a> {
    step: &'a Step,
    words: Vec<String>,
    mark: String,
    file: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let path = &args.recipe;
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let pipeline: Pipeline =
        toml::from_str(&text).with_context(|| format!("recipe {} is refused", path.display()))?;
    if args.list {
        for planned in plan(&pipeline.steps, &pipeline.state, words)? {
            let done = if planned.is_done() { "done" } else { "open" };
            eprintln!(
                "{done}  {}: edgethink {}",
                planned.step.name,
                planned.words.join(" ")
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    let done = all(&pipeline.steps, &pipeline.state, words)?;
    Ok(if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(interrupt::EXIT_CODE)
    })
}

/// The words of a step's command, as a shell has them.
fn words(step: &Step) -> Result<Vec<String>> {
    shlex::split(&step.run)
        .with_context(|| format!("step {}: a quotation mark is open: {}", step.name, step.run))
}

/// Does what is not done. Returns false if Ctrl-C ended it.
pub(crate) fn all(
    steps: &[Step],
    state: &Path,
    words: impl Fn(&Step) -> Result<Vec<String>>,
) -> Result<bool> {
    for (at, planned) in plan(steps, state, words)?.iter().enumerate() {
        let name = format!("step {} of {}, {}", at + 1, steps.len(), planned.step.name);
        if planned.is_done() {
            eprintln!("{name}: done already");
            continue;
        }
        eprintln!("{name}: edgethink {}", planned.words.join(" "));
        let started = Instant::now();
        let Some(status) = child(&planned.words, None)? else {
            return Ok(false);
        };
        if !status.success() {
            bail!("{name} has failed; put right what it says, and run the same command again");
        }
        if let Some(missing) = planned.step.makes.iter().find(|path| !path.exists()) {
            bail!("{name} has ended, but {} is not there", missing.display());
        }
        std::fs::create_dir_all(state)
            .with_context(|| format!("cannot create {}", state.display()))?;
        std::fs::write(&planned.file, &planned.mark)
            .with_context(|| format!("cannot write {}", planned.file.display()))?;
        eprintln!("{name}: done in {:.0} s", started.elapsed().as_secs_f64());
    }
    Ok(true)
}

fn plan<'a>(
    steps: &'a [Step],
    state: &Path,
    words: impl Fn(&Step) -> Result<Vec<String>>,
) -> Result<Vec<Planned<'a>>> {
    let mut before = String::new();
    let mut planned = Vec::new();
    for step in steps {
        let words = words(step)?;
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&before).chain(&words) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        for recipe in words.iter().filter(|word| word.ends_with(".toml")) {
            let text = std::fs::read(recipe)
                .with_context(|| format!("step {}: cannot read {recipe}", step.name))?;
            hasher.update(&text);
        }
        let mark = hasher.finalize().to_hex().to_string();
        before.clone_from(&mark);
        planned.push(Planned {
            file: state.join(format!("{}.done", step.name)),
            step,
            words,
            mark,
        });
    }
    Ok(planned)
}

impl Planned<'_> {
    fn is_done(&self) -> bool {
        let marked = std::fs::read_to_string(&self.file).is_ok_and(|mark| mark == self.mark);
        marked && self.step.makes.iter().all(|path| path.exists())
    }
}

/// Runs this program with other arguments; its stderr is ours. `None` if Ctrl-C ended it.
pub(crate) fn child(
    words: &[String],
    stdout: Option<std::process::Stdio>,
) -> Result<Option<ExitStatus>> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let running = Running::start();
    let mut command = Command::new(program);
    if let Some(stdout) = stdout {
        command.stdout(stdout);
    }
    // A Ctrl-C reaches the child as well, which ends as it should.
    let status = command
        .args(words)
        .status()
        .context("cannot start a step")?;
    drop(running);
    let stopped = interrupt::pressed() || status.code() == Some(i32::from(interrupt::EXIT_CODE));
    Ok((!stopped).then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, run: &str, makes: &Path) -> Step {
        Step {
            name: name.to_owned(),
            run: run.to_owned(),
            makes: vec![makes.to_owned()],
        }
    }

    #[test]
    fn a_step_is_open_again_when_it_or_what_stands_before_it_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let (recipe, made) = (dir.path().join("a.toml"), dir.path().join("made"));
        std::fs::write(&recipe, "x = 1").expect("written");
        std::fs::write(&made, "").expect("written");
        let first = format!("train --config {}", recipe.display());
        let steps = |second: &str| vec![step("a", &first, &made), step("b", second, &made)];
        let done = |steps: &[Step]| -> Vec<bool> {
            let plan = plan(steps, dir.path(), words).expect("a plan");
            plan.iter().map(Planned::is_done).collect()
        };
        let two = steps("eval b");
        assert_eq!(done(&two), [false, false]);
        for planned in plan(&two, dir.path(), words).expect("a plan") {
            std::fs::write(planned.file, planned.mark).expect("written");
        }
        assert_eq!(done(&two), [true, true]);
        assert_eq!(done(&steps("eval c")), [true, false], "another command");
        std::fs::write(&recipe, "x = 2").expect("written");
        assert_eq!(
            done(&two),
            [false, false],
            "another recipe, and what follows"
        );
        std::fs::write(&recipe, "x = 1").expect("written");
        std::fs::remove_file(&made).expect("removed");
        assert_eq!(done(&two), [false, false], "nothing there");
    }

    #[test]
    fn the_repositorys_pipeline_is_whole() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let text =
            std::fs::read_to_string(root.join("recipes/pocket/all.toml")).expect("it is there");
        let pipeline: Pipeline = toml::from_str(&text).expect("it is right");
        for step in pipeline.steps {
            use clap::Parser;
            let words = words(&step).expect("words");
            let line = std::iter::once("edgethink").chain(words.iter().map(String::as_str));
            crate::args::Cli::try_parse_from(line)
                .unwrap_or_else(|error| panic!("{}: {error}", step.name));
            for recipe in words.iter().filter(|word| word.ends_with(".toml")) {
                assert!(root.join(recipe).is_file(), "{}: {recipe}", step.name);
            }
        }
    }
}
