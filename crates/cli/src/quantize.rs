//! `edgethink quantize`: a model in 4 or 8 bits, as a GGUF file that runs here and in llama.cpp.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use edgethink_model::{Adapter, Model};
use edgethink_quantize::transforms::Plan;
use edgethink_quantize::{
    Job, Origin, Progress, QuantizeError, Report, Scheme, Trained, fold_adapter,
};
use edgethink_reason::format::FORMAT_FILE;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::ModelArgs;
use crate::args::quantize::QuantizeArgs;
use crate::info::bytes;
use crate::interrupt::{self, Running};
use crate::open;

/// The result.
#[derive(Debug, Serialize)]
struct Summary {
    #[serde(flatten)]
    report: Report,
    /// Tensor bytes now over those before.
    share: f64,
    bits_per_weight: f64,
    seconds: f64,
    weights_per_second: f64,
}

/// Runs the command.
pub(crate) fn run(args: &QuantizeArgs) -> Result<ExitCode> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let scheme = Scheme::from_toml(&read(&args.scheme)?)
        .with_context(|| format!("cannot use the scheme {}", args.scheme.display()))?;
    let opened = open::open(&ModelArgs {
        model: args.model.clone(),
        adapter: Some("none".to_owned()),
        switcher: Some("none".to_owned()),
        verifier: Some("none".to_owned()),
        offline: args.offline,
    })?;
    let name = opened.name;
    let model = Arc::into_inner(opened.model).context("the model is in use")?;
    let calibration = match &args.calibration {
        Some(path) => {
            let tokenizer = model.tokenizer.as_ref();
            let tokenizer =
                tokenizer.context("the model has no tokenizer for the calibration text")?;
            Some(tokenizer.encode(&read(path)?, true)?)
        }
        None => None,
    };
    let threads = match args.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let trained = match &args.trained {
        Some(dir) => {
            let hash = model
                .hash()
                .with_context(|| format!("cannot read {name}"))?;
            let origin = Origin {
                model: hash.to_string(),
                scheme: scheme.clone(),
            };
            let config = Plan::new(&model.config, scheme.transforms)?.config();
            Some(Trained::load(dir, &origin, &config)?)
        }
        None => None,
    };
    if let (Some(from), Some(to)) = (&args.adapter, &args.adapter_out) {
        take_along(
            &model,
            &scheme,
            trained.as_ref(),
            [from, to],
            &name,
            threads,
        )?;
    }
    let job = Job {
        scheme: &scheme,
        calibration: calibration.as_deref(),
        trained: trained.as_ref(),
        out: &args.out,
        name: &name,
        threads,
    };
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{bar:30} {percent} % of {human_len} weights, {msg}, {elapsed}, {eta} left",
    )?);
    let started = Instant::now();
    let running = Running::start();
    let mut resumed = None;
    let result = edgethink_quantize::quantize(model, &job, &mut |progress: &Progress| {
        let seconds = started.elapsed().as_secs_f64();
        // What an earlier run did comes at once; the rate is that of this one.
        let before = *resumed.get_or_insert(if seconds < 0.5 { progress.done } else { 0 });
        let rate = progress.done.saturating_sub(before) as f64 / seconds.max(1e-3) / 1e6;
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(format!("{}, {rate:.1} M/s", progress.part));
        !interrupt::pressed()
    });
    drop(running);
    bar.finish_and_clear();
    let report = match result {
        Ok(report) => report,
        Err(error @ QuantizeError::Stopped { .. }) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot quantize {name}")),
    };
    let seconds = started.elapsed().as_secs_f64();
    let summary = Summary {
        share: report.stored_bytes as f64 / report.source_bytes as f64,
        bits_per_weight: 8.0 * report.stored_bytes as f64 / report.weights as f64,
        weights_per_second: report.weights as f64 / seconds,
        seconds,
        report,
    };
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&summary)?)?;
    } else {
        write!(out, "{}", summary.text(&args.out.display().to_string()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the adapter for the model with the scheme's and the trained transforms in it, with the file that says how it thinks.
fn take_along(
    model: &Model,
    scheme: &Scheme,
    trained: Option<&Trained>,
    [from, to]: [&Path; 2],
    base: &str,
    threads: usize,
) -> Result<()> {
    let unusable = || format!("cannot take the adapter {} along", from.display());
    let adapter = Adapter::load(from, &model.config).with_context(unusable)?;
    let adapter = fold_adapter(model, &adapter, scheme.transforms, trained, threads)
        .with_context(unusable)?;
    adapter.save_peft(to, Some(base)).with_context(unusable)?;
    let thoughts = from.join(FORMAT_FILE);
    if thoughts.is_file() {
        std::fs::copy(&thoughts, to.join(FORMAT_FILE)).with_context(unusable)?;
    }
    Ok(())
}

impl Summary {
    fn text(&self, out: &str) -> String {
        format!(
            "file            {out}, {}\nweights         {} of {}: {:.1} %, {:.2} bits per weight\ntime            {:.1} s, {:.1} M weights/s\n",
            bytes(self.report.file_bytes),
            bytes(self.report.stored_bytes),
            bytes(self.report.source_bytes),
            100.0 * self.share,
            self.bits_per_weight,
            self.seconds,
            self.weights_per_second / 1e6
        )
    }
}
