//! `edgethink train plan`: what a recipe takes, as tables or JSON; refused if the machine or the GPU has less memory.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use edgethink_train::{Cost, DeviceChoice, LayerCost, Plan, PlanOptions, Remedy, Speed, plan};
use serde_json::json;

use crate::args::PlanArgs;
use crate::info::{bytes, count};
use crate::table::table;
use crate::train::duration;

const GIB: f64 = (1u64 << 30) as f64;

/// Runs the command.
pub(crate) fn run(args: &PlanArgs) -> Result<ExitCode> {
    let options = PlanOptions {
        config: args.model_config.clone(),
        rank: args.rank,
        threads: None,
        device: args.device,
    };
    let plan = plan(&args.recipe, &options)?;
    let given = |flag: &str, gib: Option<f64>| match gib {
        Some(gib) if gib > 0.0 && gib.is_finite() => Ok(Some((gib * GIB) as u64)),
        Some(gib) => bail!("{flag} {gib}: must be a positive number of GiB"),
        None => Ok(None),
    };
    let memory = given("--memory", args.memory)?.or_else(machine_memory);
    let device_memory = given("--device-memory", args.device_memory)?;
    if device_memory.is_some() && plan.device.is_none() {
        bail!("--device-memory: this runs on the CPU; name a GPU with --device");
    }
    // What this machine's CPU computes says nothing of a GPU.
    let speed = (!args.no_times && plan.device.is_none()).then(Speed::measure);
    let mut out = std::io::stdout().lock();
    if args.json {
        let json = as_json(&plan, memory, device_memory, speed.as_ref());
        writeln!(out, "{json}")?;
    } else {
        write!(out, "{}", as_text(&plan, speed.as_ref()))?;
    }
    fits(&plan, memory, device_memory)
}

/// The plan of a recipe, for the flag of a training command.
pub(crate) fn dry_run(recipe: &Path, device: Option<DeviceChoice>) -> Result<ExitCode> {
    run(&PlanArgs {
        recipe: recipe.to_owned(),
        model_config: None,
        rank: None,
        memory: None,
        device,
        device_memory: None,
        no_times: false,
        json: false,
    })
}

/// Refuses a plan that needs more than there is, on the machine or on the GPU.
fn fits(plan: &Plan, memory: Option<u64>, device_memory: Option<u64>) -> Result<ExitCode> {
    if memory.is_none() {
        eprintln!("the memory of this machine is not known; --memory GIB checks against a number");
    }
    if plan.device.is_some() && device_memory.is_none() {
        eprintln!("the GPU's memory is not asked for; --device-memory GIB checks against a number");
    }
    let host = lacking("", plan, memory, plan.peak_bytes(), |r| r.peak_bytes);
    let peak = plan.device_peak_bytes();
    let gpu = lacking(" of the GPU", plan, device_memory, peak, |r| {
        r.device_peak_bytes
    });
    let problems: Vec<String> = host.into_iter().chain(gpu).collect();
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!(problems.join("\n"))
}

/// What to say where `peak` bytes are more than there are, with the settings that take less.
fn lacking(
    whose: &str,
    plan: &Plan,
    memory: Option<u64>,
    peak: u64,
    with: fn(&Remedy) -> u64,
) -> Option<String> {
    let memory = memory.filter(|&memory| peak > memory)?;
    let mut text = format!(
        "this needs {}{whose}, and there are {}",
        bytes(peak),
        bytes(memory)
    );
    let helps = |r: &&Remedy| with(r) < peak;
    if !plan.remedies.iter().any(|r| helps(&r)) {
        text.push_str("; take a smaller model or a larger machine");
    }
    for remedy in plan.remedies.iter().filter(helps) {
        let takes = with(remedy);
        let enough = if takes <= memory { ", which fits" } else { "" };
        text.push_str(&format!("\n  {}: {}{enough}", remedy.setting, bytes(takes)));
    }
    Some(text)
}

/// Bytes that this process may use: the machine's memory, or less where a control group limits it (Linux).
fn machine_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let group = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let limit = group.iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse::<u64>().ok()
    });
    Some((kib * 1024).min(limit.unwrap_or(u64::MAX)))
}

/// Neighbours that take the same are one line: their name, how many there are, and one of them.
fn grouped(layers: &[LayerCost]) -> Vec<(String, usize, &LayerCost)> {
    let same = |a: &LayerCost, b: &LayerCost| {
        LayerCost {
            name: b.name.clone(),
            ..a.clone()
        } == *b
    };
    let mut groups: Vec<(String, usize, &LayerCost)> = Vec::new();
    for layer in layers {
        match groups.last_mut() {
            Some((name, n, first)) if same(first, layer) => {
                *n += 1;
                let last = layer.name.rsplit(' ').next().unwrap_or_default();
                *name = format!(
                    "{} to {last}, each",
                    first.name.replacen("layer", "layers", 1)
                );
            }
            _ => groups.push((layer.name.clone(), 1, layer)),
        }
    }
    groups
}

fn as_text(plan: &Plan, speed: Option<&Speed>) -> String {
    let share = 100.0 * plan.trainable() as f64 / plan.parameters().max(1) as f64;
    let mut text = format!(
        "train {}: {} values are trained, {share:.2} % of the network's {}\n\n",
        plan.kind,
        count(plan.trainable()),
        count(plan.parameters())
    );
    if let Some(gpu) = &plan.device {
        text.push_str(&format!("On the GPU ({}):\n", gpu.device));
        text.push_str(&memory_of(&gpu.layers, &gpu.rest, gpu.peak_bytes()));
        text.push_str("\nOn this machine:\n");
    }
    text.push_str(&memory_of(&plan.layers, &plan.rest, plan.peak_bytes()));
    if let Some(speed) = speed
        && !plan.work.is_empty()
    {
        text.push('\n');
        text.push_str(&times(plan, speed));
    }
    for note in &plan.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

/// The parts of the network and what is there besides, as two tables.
fn memory_of(layers: &[LayerCost], rest: &[Cost], peak: u64) -> String {
    let cell = |n: u64| if n == 0 { "-".to_owned() } else { bytes(n) };
    let row = |name: &str, l: &LayerCost| {
        vec![
            name.to_owned(),
            count(l.parameters),
            cell(l.weights),
            cell(l.adapter),
            cell(l.gradients),
            cell(l.optimizer),
            cell(l.activations),
            cell(l.total()),
        ]
    };
    let sum = |of: fn(&LayerCost) -> u64| layers.iter().map(of).sum();
    let all = LayerCost {
        name: String::new(),
        parameters: sum(|l| l.parameters),
        trainable: sum(|l| l.trainable),
        weights: sum(|l| l.weights),
        adapter: sum(|l| l.adapter),
        gradients: sum(|l| l.gradients),
        optimizer: sum(|l| l.optimizer),
        activations: sum(|l| l.activations),
    };
    let mut rows: Vec<Vec<String>> = grouped(layers)
        .iter()
        .map(|(name, _, layer)| row(name, layer))
        .collect();
    rows.push(row("the network", &all));
    let header = [
        "part",
        "values",
        "weights",
        "adapter",
        "gradients",
        "optimizer",
        "activations",
        "memory",
    ];
    let mut rest: Vec<Vec<String>> = rest
        .iter()
        .map(|cost| vec![cost.name.clone(), bytes(cost.bytes)])
        .collect();
    rest.push(vec!["peak of the whole".to_owned(), bytes(peak)]);
    let besides = table(&["besides", "memory"], &rest);
    format!("{}\n{besides}", table(&header, &rows))
}

fn times(plan: &Plan, speed: &Speed) -> String {
    let rows: Vec<Vec<String>> = plan
        .work
        .iter()
        .map(|work| {
            vec![
                work.name.to_owned(),
                format!("{:.2}", work.flops / 1e12),
                duration(work.seconds(speed)),
            ]
        })
        .collect();
    let step: f64 = plan.work.iter().map(|work| work.seconds(speed)).sum();
    let mut text = table(&["in a step", "10^12 operations", "time (estimate)"], &rows);
    text.push_str(&format!(
        "estimate at {:.0} GFLOP/s and {:.1} GB/s, as measured here: {} for a step",
        speed.flops / 1e9,
        speed.bytes / 1e9,
        duration(step)
    ));
    match plan.steps {
        Some(steps) => text.push_str(&format!(
            ", {} for {steps} steps\n",
            duration(step * steps as f64)
        )),
        None => text.push_str("; the number of steps is known when the data is encoded\n"),
    }
    text
}

/// Layers and the rest, as the keys of a plan.
fn costs(layers: &[LayerCost], rest: &[Cost]) -> serde_json::Map<String, serde_json::Value> {
    let layers: Vec<_> = layers
        .iter()
        .map(|l| {
            json!({
                "name": l.name, "parameters": l.parameters, "trainable": l.trainable, "weights_bytes": l.weights,
                "adapter_bytes": l.adapter, "gradients_bytes": l.gradients, "optimizer_bytes": l.optimizer,
                "activations_bytes": l.activations,
            })
        })
        .collect();
    let rest: Vec<_> = rest
        .iter()
        .map(|c| json!({"name": c.name, "bytes": c.bytes}))
        .collect();
    [
        ("layers".to_owned(), json!(layers)),
        ("rest".to_owned(), json!(rest)),
    ]
    .into_iter()
    .collect()
}

fn as_json(
    plan: &Plan,
    memory: Option<u64>,
    device_memory: Option<u64>,
    speed: Option<&Speed>,
) -> serde_json::Value {
    let work: Vec<_> = plan
        .work
        .iter()
        .map(|w| {
            json!({"name": w.name, "flops": w.flops, "bytes": w.bytes, "estimated_seconds": speed.map(|s| w.seconds(s))})
        })
        .collect();
    let remedies: Vec<_> = plan
        .remedies
        .iter()
        .map(|r| json!({"setting": r.setting, "peak_bytes": r.peak_bytes, "device_peak_bytes": r.device_peak_bytes}))
        .collect();
    let mut whole = costs(&plan.layers, &plan.rest);
    let about = json!({
        "kind": plan.kind, "parameters": plan.parameters(), "trainable": plan.trainable(), "peak_bytes": plan.peak_bytes(),
        "memory_bytes": memory, "work": work, "steps": plan.steps, "remedies": remedies, "notes": plan.notes,
        "measured_flops_per_second": speed.map(|s| s.flops), "measured_bytes_per_second": speed.map(|s| s.bytes),
    });
    whole.extend(about.as_object().cloned().unwrap_or_default());
    if let Some(gpu) = &plan.device {
        let mut part = costs(&gpu.layers, &gpu.rest);
        part.insert("name".to_owned(), json!(gpu.device));
        part.insert("peak_bytes".to_owned(), json!(gpu.peak_bytes()));
        part.insert("memory_bytes".to_owned(), json!(device_memory));
        whole.insert("device".to_owned(), part.into());
    }
    whole.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_layers_are_one_line() {
        let layer = |name: &str, weights| LayerCost {
            name: name.to_owned(),
            weights,
            ..LayerCost::default()
        };
        let layers = [
            layer("embedding", 9),
            layer("layer 0", 4),
            layer("layer 1", 4),
            layer("layer 2", 4),
            layer("norm, head", 9),
        ];
        let names: Vec<(String, usize)> = grouped(&layers)
            .into_iter()
            .map(|(name, n, _)| (name, n))
            .collect();
        let want = [
            ("embedding", 1),
            ("layers 0 to 2, each", 3),
            ("norm, head", 1),
        ];
        assert_eq!(names, want.map(|(name, n)| (name.to_owned(), n)));
    }

    #[test]
    fn more_than_there_is_is_refused_with_what_helps() {
        let all = |bytes| {
            vec![Cost {
                name: "all".to_owned(),
                bytes,
            }]
        };
        let plan = Plan {
            kind: "sft",
            layers: Vec::new(),
            rest: all(5 << 30),
            device: Some(edgethink_train::DevicePlan {
                device: DeviceChoice::Cuda(None),
                layers: Vec::new(),
                rest: all(9 << 30),
            }),
            work: Vec::new(),
            steps: None,
            notes: Vec::new(),
            remedies: vec![Remedy {
                setting: "[lora] r = 8".to_owned(),
                peak_bytes: 3 << 30,
                device_peak_bytes: 9 << 30,
            }],
        };
        let said = |host: u64, gpu| match fits(&plan, Some(host << 30), gpu) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(said(5, None), "");
        assert_eq!(said(5, Some(9 << 30)), "");
        let error = said(4, None);
        assert!(
            error.contains("5.0 GiB") && error.contains("[lora] r = 8: 3.0 GiB, which fits"),
            "{error}"
        );
        let error = said(5, Some(8 << 30));
        assert!(error.contains("9.0 GiB of the GPU"), "{error}");
        assert!(error.contains("smaller model"), "{error}");
    }
}
