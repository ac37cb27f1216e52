//! `edgethink bundle`: packing, unpacking, verifying and showing `.edgethink` files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use edgethink_model::AdapterDtype as StoredAs;
use edgethink_model::bundle::{self, Bundle, Manifest, PackOptions, PackSources};

use crate::args::BundleCommand;
use crate::args::bundle::{AdapterDtype, HeadDtype, PackArgs};
use crate::export::{bytes_bar, moved, name_of};

/// Runs the command.
pub(crate) fn run(command: &BundleCommand) -> Result<ExitCode> {
    match command {
        BundleCommand::Pack(args) => pack(args)?,
        BundleCommand::Unpack { file, output } => {
            let bar = bytes_bar();
            open(file)?.unpack(output, &mut moved(&bar))?;
            bar.finish_and_clear();
            eprintln!("{} is written", output.display());
        }
        BundleCommand::Verify { file } => {
            let bar = bytes_bar();
            let bundle = open(file)?;
            bundle.verify(&mut moved(&bar))?;
            bar.finish_and_clear();
            let parts = bundle.manifest().parts.len();
            eprintln!("{}: {parts} parts, all as they were packed", file.display());
        }
        BundleCommand::Show { file, json } => {
            let bundle = open(file)?;
            let mut out = std::io::stdout().lock();
            if *json {
                writeln!(out, "{}", serde_json::to_string(bundle.manifest())?)?;
            } else {
                out.write_all(text(bundle.manifest()).as_bytes())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(file: &Path) -> Result<Bundle> {
    Bundle::open(file).with_context(|| format!("cannot open the bundle {}", file.display()))
}

fn pack(args: &PackArgs) -> Result<()> {
    if !Bundle::is_one(&args.output) {
        bail!(
            "{} does not end in .{}, by which a bundle is known",
            args.output.display(),
            bundle::EXTENSION
        );
    }
    let sources = sources(args)?;
    let options = PackOptions {
        name: args.name.clone().unwrap_or_else(|| name_of(&args.model)),
        program: format!("edgethink {}", env!("CARGO_PKG_VERSION")),
        licence: args.licence.clone(),
        adapter_dtype: match args.adapter_dtype {
            AdapterDtype::Stored => StoredAs::Float,
            AdapterDtype::Int8 => StoredAs::Int8,
            AdapterDtype::Int4 => StoredAs::Int4,
        },
        int8_heads: match args.head_dtype {
            Some(dtype) => dtype == HeadDtype::Int8,
            None => args.adapter_dtype != AdapterDtype::Stored,
        },
    };
    let bar = bytes_bar();
    bundle::pack(&sources, &args.output, &options, &mut moved(&bar))
        .with_context(|| format!("cannot pack {}", args.model))?;
    bar.finish_and_clear();
    let size = std::fs::metadata(&args.output)?.len();
    eprintln!("{} is written, {size} bytes", args.output.display());
    Ok(())
}

/// What the arguments name, and what lies beside a base/ that they name.
fn sources(args: &PackArgs) -> Result<PackSources> {
    let root = Path::new(&args.model);
    let mut sources = PackSources {
        base: args.model.clone(),
        adapters: args.adapter.clone(),
        heads: args.head.clone(),
    };
    if !root.join("base/config.json").is_file() || root.join("config.json").is_file() {
        return Ok(sources);
    }
    let base = root.join("base");
    let base = base
        .to_str()
        .context("the path of the model is not UTF-8")?;
    base.clone_into(&mut sources.base);
    let adapter = root.join("adapter");
    if sources.adapters.is_empty() && adapter.join("adapter_config.json").is_file() {
        sources.adapters.push(adapter);
    }
    if sources.heads.is_empty() {
        sources.heads = heads(root).with_context(|| format!("cannot read {}", root.display()))?;
    }
    Ok(sources)
}

/// The directories in `root` that hold a head.json, by name.
fn heads(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut heads = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.join("head.json").is_file() {
            heads.push(path);
        }
    }
    heads.sort();
    Ok(heads)
}

fn text(manifest: &Manifest) -> String {
    let base = &manifest.base;
    let mut lines = vec![
        format!("name      {}", manifest.name),
        format!(
            "licence   {}",
            manifest.licence.as_deref().unwrap_or("not said")
        ),
        format!(
            "written   by {}, format {}",
            manifest.program, manifest.format
        ),
        format!(
            "base      {}, {} parameters, {}, {:.12}",
            base.family,
            base.parameters,
            base.dtypes.join(" and "),
            base.hash
        ),
    ];
    for adapter in &manifest.adapters {
        let kind = match &adapter.invocation {
            Some(tokens) => format!("from the last {tokens:?} on"),
            None => "from the first token on".to_owned(),
        };
        lines.push(format!(
            "adapter   {}, {}, {kind}",
            adapter.name, adapter.dtype
        ));
    }
    for head in &manifest.heads {
        let dtype = head.dtype.as_deref().unwrap_or("float");
        lines.push(match head.settings.get("threshold") {
            Some(threshold) => format!("head      {}, {dtype}, threshold {threshold}", head.kind),
            None => format!("head      {}, {dtype}", head.kind),
        });
    }
    for part in &manifest.parts {
        lines.push(format!(
            "{:>12}  {:.12}  {}",
            part.size, part.blake3, part.path
        ));
    }
    lines.join("\n") + "\n"
}
