//! `edgethink export`: models and adapters for other programs.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use edgethink_model::gguf::{ExportOptions, save_model};
use edgethink_model::lora::save_merged;
use edgethink_model::{Adapter, Dtype, Family, write_atomic};
use edgethink_reason::format::FORMAT_FILE;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::ExportCommand;
use crate::args::export::{ExportArgs, GgufArgs, MergedArgs, MergedDtype};
use crate::open::{self, Opened};
use crate::screen::Screen;

/// Runs the command.
pub(crate) fn run(command: &ExportCommand) -> Result<ExitCode> {
    match command {
        ExportCommand::Gguf(args) => gguf(args)?,
        ExportCommand::Lora(args) => lora(args)?,
        ExportCommand::Peft(args) => peft(args)?,
        ExportCommand::Merged(args) => merged(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn gguf(args: &GgufArgs) -> Result<()> {
    let path = &args.export.output;
    let opened = open::open(&args.export.model)?;
    let model = &opened.model;
    let name = name_of(&opened.name);
    let options = ExportOptions {
        name: &name,
        dtype: args.dtype.dtype(),
    };
    let bar = bytes_bar();
    save_model(model, path, &options, &mut moved(&bar))
        .with_context(|| format!("cannot export {}", opened.name))?;
    bar.finish_and_clear();
    let config = &model.config;
    let as_llama = matches!(config.family, Family::Llama | Family::Mistral);
    if let (Some(window), true) = (config.sliding_window, as_llama) {
        eprintln!(
            "note: the file names the sliding window of {window} tokens, but llama.cpp computes full attention for it: \
             answers agree up to {window} tokens of context"
        );
    }
    written(path)
}

fn lora(args: &ExportArgs) -> Result<()> {
    let opened = open::open(&args.model)?;
    let adapter = adapter(&opened)?;
    adapter.save_gguf(&args.output, &opened.model.config)?;
    if let Some(tokens) = &adapter.invocation {
        let text = match &opened.model.tokenizer {
            Some(tokenizer) => format!(", {:?}", tokenizer.decode(tokens, false)?),
            None => String::new(),
        };
        eprintln!("an activated LoRA: it begins at the last {tokens:?}{text}");
    }
    written(&args.output)
}

fn peft(args: &ExportArgs) -> Result<()> {
    let opened = open::open(&args.model)?;
    let adapter = adapter(&opened)?;
    adapter.save_peft(&args.output, Some(&opened.name))?;
    let text = opened.format.to_json();
    let path = args.output.join(FORMAT_FILE);
    write_atomic(&path, |file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    written(&args.output)
}

fn merged(args: &MergedArgs) -> Result<()> {
    let opened = open::open(&args.export.model)?;
    let adapter = adapter(&opened)?;
    let dtype = match args.dtype {
        MergedDtype::Bf16 => Dtype::BF16,
        MergedDtype::F32 => Dtype::F32,
    };
    let bar = bytes_bar();
    bar.set_style(style("{wide_bar} {pos} of {len} tensors, {eta}"));
    save_merged(
        &opened.model,
        adapter,
        &args.export.output,
        dtype,
        &|i, n| {
            bar.set_length(n as u64);
            bar.set_position(i as u64);
        },
    )?;
    bar.finish_and_clear();
    written(&args.export.output)
}

fn adapter(opened: &Opened) -> Result<&Adapter> {
    match &opened.adapter {
        Some(adapter) => Ok(adapter),
        None => bail!("there is no adapter to export; name one with --adapter"),
    }
}

/// The last part of a path or hub id, without its extension.
pub(crate) fn name_of(model: &str) -> String {
    let stem = Path::new(model).file_stem();
    stem.map_or_else(|| model.to_owned(), |s| s.to_string_lossy().into_owned())
}

/// A bar of bytes, its length still to be set; nothing where stderr is no terminal.
pub(crate) fn bytes_bar() -> ProgressBar {
    if !Screen::stderr().live {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    bar.set_style(style(
        "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta}",
    ));
    bar
}

/// Moves a bar to where a work stands: the bytes done, and all of them.
pub(crate) fn moved(bar: &ProgressBar) -> impl FnMut(u64, u64) {
    |now, all| {
        bar.set_length(all);
        bar.set_position(now);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn written(path: &Path) -> Result<()> {
    let size = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    if path.is_dir() {
        eprintln!("{} is written", path.display());
    } else {
        eprintln!("{} is written, {size} bytes", path.display());
    }
    Ok(())
}
