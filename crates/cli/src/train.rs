//! `edgethink train`: runs a recipe and shows how it goes. Ctrl-C writes a checkpoint and ends the run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use edgethink_pocket::{DatasetSpec, write_dataset};
use edgethink_train::{
    BaseRecipe, Event, GrpoRecipe, ProcessGroup, Progress, QuantizeRecipe, SftRecipe,
    SwitcherRecipe, TrainError, VerifierRecipe,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{GroupArgs, GroupRecipeArgs, RecipeArgs, TrainCommand};
use crate::info::count;
use crate::interrupt::{self, Running};
use crate::show::rate;
use crate::train_plan;

/// Runs the command.
pub(crate) fn run(command: &TrainCommand) -> Result<ExitCode> {
    match command {
        TrainCommand::Plan(args) => train_plan::run(args),
        TrainCommand::Base(GroupRecipeArgs { recipe: args, .. })
        | TrainCommand::Sft(GroupRecipeArgs { recipe: args, .. })
        | TrainCommand::Grpo(GroupRecipeArgs { recipe: args, .. })
            if args.recipe.dry_run =>
        {
            train_plan::dry_run(&args.recipe.config, args.device)
        }
        TrainCommand::Quantize(args) if args.recipe.dry_run => {
            train_plan::dry_run(&args.recipe.config, args.device)
        }
        TrainCommand::Verifier { recipe, head } if recipe.dry_run => {
            train_plan::dry_run(&recipe.config, head.device)
        }
        TrainCommand::Switcher {
            config,
            dry_run: true,
            head,
        } => train_plan::dry_run(config, head.device),
        TrainCommand::Base(args) => {
            let mut recipe = BaseRecipe::load(&args.recipe.recipe.config)?;
            resume(&args.recipe.recipe, &mut recipe.run.resume);
            recipe.run.device = args.recipe.device.unwrap_or(recipe.run.device);
            let mut group = join(&args.group)?;
            train(|view| edgethink_train::base_in(&recipe, &mut group, view).map(drop))
        }
        TrainCommand::Sft(args) => {
            let mut recipe = SftRecipe::load(&args.recipe.recipe.config)?;
            resume(&args.recipe.recipe, &mut recipe.run.resume);
            recipe.run.device = args.recipe.device.unwrap_or(recipe.run.device);
            let mut group = join(&args.group)?;
            train(|view| edgethink_train::sft_in(&recipe, &mut group, view).map(drop))
        }
        TrainCommand::Quantize(args) => {
            alone()?;
            let mut recipe = QuantizeRecipe::load(&args.recipe.config)?;
            resume(&args.recipe, &mut recipe.run.resume);
            recipe.run.device = args.device.unwrap_or(recipe.run.device);
            train(|view| edgethink_train::quantize(&recipe, view).map(drop))
        }
        TrainCommand::Grpo(args) => {
            let mut recipe = GrpoRecipe::load(&args.recipe.recipe.config)?;
            resume(&args.recipe.recipe, &mut recipe.run.resume);
            recipe.run.device = args.recipe.device.unwrap_or(recipe.run.device);
            let mut group = join(&args.group)?;
            train(|view| edgethink_train::grpo_in(&recipe, &mut group, view).map(drop))
        }
        TrainCommand::Verifier { recipe: args, .. } => {
            alone()?;
            let mut recipe = VerifierRecipe::load(&args.config)?;
            resume(args, &mut recipe.run.resume);
            train(|view| edgethink_train::verifier(&recipe, view).map(drop))
        }
        TrainCommand::Switcher { config, .. } => {
            alone()?;
            let recipe = SwitcherRecipe::load(config)?;
            train(|view| edgethink_train::switcher(&recipe, view).map(drop))
        }
        TrainCommand::Data { config } => {
            alone()?;
            data(config)
        }
    }
}

/// Meets the other processes, if there are any.
fn join(args: &GroupArgs) -> Result<ProcessGroup, TrainError> {
    let address = format!("{}:{}", args.master_addr, args.master_port);
    let wait = Duration::from_secs(args.join_timeout);
    ProcessGroup::join(args.rank, args.world_size, &address, wait)
}

/// For what one process does: several would all do it, and write to one place.
fn alone() -> Result<()> {
    match std::env::var("WORLD_SIZE") {
        Ok(size) if size != "1" => bail!(
            "WORLD_SIZE is {size}, and this runs in one process; start it without torchrun, or unset WORLD_SIZE"
        ),
        _ => Ok(()),
    }
}

/// The flag wins over the recipe.
fn resume(args: &RecipeArgs, setting: &mut String) {
    if let Some(checkpoint) = &args.resume {
        setting.clone_from(checkpoint);
    }
}

fn train(run: impl FnOnce(&mut View) -> Result<(), TrainError>) -> Result<ExitCode> {
    match View::during(run) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error @ (TrainError::Stopped { .. } | TrainError::Cancelled)) => {
            eprintln!("{error}");
            Ok(ExitCode::from(interrupt::EXIT_CODE))
        }
        Err(error) => Err(error.into()),
    }
}

/// A bar on a terminal; a line now and then where there is none.
pub(crate) struct View {
    bar: ProgressBar,
    /// When the last plain line was written.
    last_line: Instant,
}

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(30);

impl View {
    /// Shows how `work` goes; Ctrl-C asks it to stop.
    pub(crate) fn during<T>(
        work: impl FnOnce(&mut Self) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let mut view = Self::new();
        let running = Running::start();
        let done = work(&mut view);
        drop(running);
        view.bar.finish_and_clear();
        done
    }

    fn new() -> Self {
        Self {
            bar: ProgressBar::new(0),
            last_line: Instant::now(),
        }
    }

    /// Sets the bar up, for a run that may go on from a checkpoint.
    fn begin(&self, steps: u64, resumed: Option<&(u64, PathBuf)>) {
        if let Some((step, path)) = resumed {
            self.line(&format!(
                "going on after step {step} from {}",
                path.display()
            ));
            self.bar.set_position(*step);
        }
        self.bar.set_length(steps);
        // The template is a constant of this program; a wrong one is found by its test.
        if let Ok(style) = bar_style() {
            self.bar.set_style(style);
        }
    }

    /// A step was made.
    fn went(&mut self, step: u64, text: &str) {
        self.bar.set_message(text.to_owned());
        self.bar.set_position(step);
        if self.bar.is_hidden() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("step {step}: {text}");
        }
    }

    /// Rows are being encoded: how many there are is not known.
    fn encoding(&mut self, text: &str) {
        if !self.bar.is_hidden() {
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                self.bar.set_style(style);
            }
            self.bar.set_message(text.to_owned());
            self.bar.tick();
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{text}");
        }
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }
}

impl Progress for View {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Encoded { rows, tokens } => {
                self.encoding(&format!("{} rows encoded, {} tokens", count(*rows), count(*tokens)));
            }
            Event::Compared { rows, contaminated } => {
                self.encoding(&format!("{} rows compared, {} to leave out", count(*rows), count(*contaminated)));
            }
            Event::Device { name } => self.line(&format!("on {name}")),
            Event::Started {
                trainable,
                parameters,
                examples,
                dropped,
                truncated,
                steps,
                tokens,
                resumed,
            } => {
                self.line(&format!(
                    "{} of {} parameters, {} examples, {} tokens, {steps} steps",
                    count(*trainable),
                    count(*parameters),
                    count(*examples),
                    count(*tokens)
                ));
                if *dropped > 0 {
                    self.line(&format!(
                        "{} examples are too long and left out",
                        count(*dropped)
                    ));
                }
                if *truncated > 0 {
                    self.line(&format!(
                        "{} examples are too long and cut",
                        count(*truncated)
                    ));
                }
                self.begin(*steps, resumed.as_ref());
            }
            Event::Step {
                step,
                loss,
                tokens_per_second,
                eta_seconds,
                learning_rate,
                ..
            } => {
                let text = format!(
                    "loss {loss:.4}, lr {learning_rate:.1e}, {} tokens/s, {} left",
                    rate(*tokens_per_second),
                    duration(*eta_seconds)
                );
                self.went(*step, &text);
            }
            Event::PolicyStarted {
                trainable,
                questions,
                dropped,
                steps,
                resumed,
                rollouts,
            } => {
                self.line(&format!(
                    "{} parameters, {} questions, {steps} steps",
                    count(*trainable),
                    count(*questions)
                ));
                if *dropped > 0 {
                    self.line(&format!(
                        "{} questions are too long and left out",
                        count(*dropped)
                    ));
                }
                for line in rollouts.lines() {
                    self.line(line);
                }
                self.begin(*steps, resumed.as_ref());
            }
            Event::Policy {
                step,
                reward,
                accuracy,
                mean_length,
                kl,
                eta_seconds,
                servers,
            } => {
                let servers = servers.map_or_else(String::new, |(live, all)| {
                    format!("{live} of {all} servers, ")
                });
                let text = format!(
                    "reward {reward:.3}, right {:.0} %, {mean_length:.0} tokens, KL {kl:.1e}, {servers}{} left",
                    100.0 * accuracy,
                    duration(*eta_seconds)
                );
                self.went(*step, &text);
            }
            Event::Answered {
                step,
                accuracy,
                mean_length,
                answer_share,
            } => self.line(&format!(
                "step {step}: held out {:.1} % right, {mean_length:.1} tokens, {:.0} % of them after the thought",
                100.0 * accuracy,
                100.0 * answer_share
            )),
            Event::PolicyFinished {
                path,
                reward,
                seconds,
            } => {
                self.line(&format!(
                    "reward {reward:.3} after {}, written to {}",
                    duration(*seconds),
                    path.display()
                ));
            }
            Event::StatesStarted {
                easy,
                hard,
                repeated,
                dropped,
                parameters,
            } => {
                self.line(&format!(
                    "{} parameters, {} easy and {} hard queries; left out: {} repeated, {} too long",
                    count(*parameters),
                    count(*easy),
                    count(*hard),
                    count(*repeated),
                    count(*dropped)
                ));
                self.begin((easy + hard) as u64, None);
            }
            Event::States {
                done,
                tokens_per_second,
                eta_seconds,
                ..
            } => {
                let text = format!(
                    "queries encoded, {} tokens/s, {} left",
                    rate(*tokens_per_second),
                    duration(*eta_seconds)
                );
                self.went(*done as u64, &text);
            }
            Event::HeadFinished {
                path,
                auroc,
                seconds,
            } => self.line(&format!(
                "AUROC {auroc:.4} on held-out queries after {}, written to {}",
                duration(*seconds),
                path.display()
            )),
            Event::Skipped { step } => self.line(&format!(
                "step {step}: the gradient is not finite, left out"
            )),
            Event::Evaluated { step, loss } => {
                self.line(&format!("step {step}: validation loss {loss:.4}"))
            }
            Event::Saved { step, path } => {
                self.line(&format!("step {step}: saved {}", path.display()))
            }
            Event::Finished {
                path,
                loss,
                seconds,
            } => {
                self.line(&format!(
                    "loss {loss:.4} after {}, written to {}",
                    duration(*seconds),
                    path.display()
                ));
            }
            Event::VerifierStarted {
                questions,
                held_out,
                dropped,
                samples,
                found,
                replaced,
            } => {
                self.line(&format!(
                    "{} questions and {} held out, {} responses",
                    count(*questions),
                    count(*held_out),
                    count(*samples)
                ));
                if *dropped > 0 {
                    self.line(&format!(
                        "{} questions are too long and left out",
                        count(*dropped)
                    ));
                }
                if *replaced {
                    self.line("the responses that are there were drawn with other settings: they are replaced");
                }
                if *found > 0 {
                    self.line(&format!("{} responses are there already", count(*found)));
                }
                self.bar.set_position(*found as u64);
                self.begin(*samples as u64, None);
            }
            Event::Sampled {
                done,
                accuracy,
                tokens_per_second,
                eta_seconds,
                ..
            } => {
                let text = format!(
                    "right {:.0} %, {} tokens/s, {} left",
                    100.0 * accuracy,
                    rate(*tokens_per_second),
                    duration(*eta_seconds)
                );
                self.went(*done as u64, &text);
            }
            Event::VerifierFinished {
                path,
                samples,
                auroc,
                ece,
                seconds,
            } => {
                let auroc = auroc.map_or_else(|| "none".to_owned(), |a| format!("{a:.3}"));
                self.line(&format!(
                    "learnt from {} responses; held out: AUROC {auroc}, calibration error {ece:.3}; {}, written to {}",
                    count(*samples),
                    duration(*seconds),
                    path.display()
                ));
            }
            _ => {}
        }
    }

    fn stop(&mut self) -> bool {
        interrupt::pressed()
    }
}

fn bar_style() -> Result<ProgressStyle> {
    Ok(ProgressStyle::with_template("{bar:24} {pos}/{len} {msg}")?)
}

/// Seconds as people say them.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

/// The pocket model's world: `output_dir` and the fields of a [`DatasetSpec`].
fn data(config: &Path) -> Result<ExitCode> {
    let (dir, spec) = data_recipe(config)?;
    let spinner = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {msg}, {elapsed}")?);
    spinner.set_message(format!("writing {}", dir.display()));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let written = write_dataset(&dir, &spec);
    spinner.finish_and_clear();
    written.with_context(|| format!("cannot write the data set to {}", dir.display()))?;
    eprintln!("written to {}", dir.display());
    Ok(ExitCode::SUCCESS)
}

fn data_recipe(config: &Path) -> Result<(PathBuf, DatasetSpec)> {
    let text = std::fs::read_to_string(config)
        .with_context(|| format!("cannot read {}", config.display()))?;
    let refused = || format!("recipe {} is refused", config.display());
    let mut recipe: toml::Table = toml::from_str(&text).with_context(refused)?;
    let Some(toml::Value::String(dir)) = recipe.remove("output_dir") else {
        bail!(
            "recipe {} is refused: output_dir, a directory, is missing",
            config.display()
        );
    };
    let spec = recipe.try_into().with_context(refused)?;
    Ok((dir.into(), spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_speech() {
        assert_eq!(duration(59.4), "59 s");
        assert_eq!(duration(61.0), "1 min 01 s");
        assert_eq!(duration(3720.0), "1 h 02 min");
        assert_eq!(duration(f64::NAN), "?");
    }

    #[test]
    fn the_bar_can_be_drawn() {
        bar_style().expect("the template is right");
    }
}
