//! `edgethink info --cpu`: the processor, and which instruction set was chosen for it.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use edgethink_engine::Isa;
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Cpu {
    architecture: &'static str,
    /// As the system names it; absent where it does not.
    name: Option<String>,
    threads: usize,
    chosen: String,
    /// All that this program has kernels for on this architecture, best first.
    instruction_sets: Vec<InstructionSet>,
}

#[derive(Debug, Serialize)]
struct InstructionSet {
    name: String,
    available: bool,
    needs: Vec<&'static str>,
    missing: Vec<&'static str>,
}

/// Runs the command.
pub(crate) fn run(as_json: bool) -> Result<ExitCode> {
    let cpu = Cpu::find();
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{}", serde_json::to_string(&cpu)?)?;
    } else {
        write!(out, "{}", cpu.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Cpu {
    fn find() -> Self {
        let sets = Isa::ALL
            .into_iter()
            .rev()
            .filter(|isa| isa.of_this_architecture());
        Self {
            architecture: std::env::consts::ARCH,
            name: name(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            chosen: Isa::detect().to_string(),
            instruction_sets: sets
                .map(|isa| InstructionSet {
                    name: isa.to_string(),
                    available: isa.is_available(),
                    needs: isa.features().map(|(name, _)| name).collect(),
                    missing: isa
                        .features()
                        .filter_map(|(name, has)| (!has).then_some(name))
                        .collect(),
                })
                .collect(),
        }
    }

    fn text(&self) -> String {
        let name = self.name.as_deref().unwrap_or("not named by the system");
        let mut text = format!(
            "processor         {name} ({}), {} threads\ninstruction set   {}\n",
            self.architecture, self.threads, self.chosen
        );
        for set in &self.instruction_sets {
            let why = if set.name == self.chosen {
                "chosen: the best that this processor has".to_owned()
            } else if set.available {
                "there, but slower than the chosen one".to_owned()
            } else {
                format!("not here: no {}", set.missing.join(", "))
            };
            let needs = if set.needs.is_empty() {
                "nothing".to_owned()
            } else {
                set.needs.join(" ")
            };
            text += &format!("  {:14}  {why}; needs {needs}\n", set.name);
        }
        text
    }
}

/// The processor's name on Linux.
fn name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_one_is_the_first_that_is_there() {
        let cpu = Cpu::find();
        let first = cpu.instruction_sets.iter().find(|set| set.available);
        assert_eq!(first.map(|set| &set.name), Some(&cpu.chosen));
        for set in &cpu.instruction_sets {
            assert_eq!(set.available, set.missing.is_empty(), "{set:?}");
        }
        assert!(cpu.text().contains("chosen: the best"));
    }
}
