//! What a run takes of the machine: wall time, the most memory, and energy where the processor says so.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One session of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Queries answered.
    pub queries: usize,
    /// From the first query to the end of the last, without loading.
    pub seconds: f64,
    /// The most resident memory of the process, bytes; `None` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// Energy of the processor packages, joules; `None` where RAPL is not exposed.
    pub energy_joules: Option<f64>,
}

/// A session that is being measured.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    energy: Option<f64>,
}

impl Meter {
    /// Starts.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            energy: energy_joules(),
        }
    }

    /// What it took until now.
    pub fn read(&self, queries: usize) -> Session {
        let energy = self.energy.zip(energy_joules());
        Session {
            queries,
            // To the microsecond, so that it is the same when it is read and written again.
            seconds: (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e6,
            peak_memory_bytes: peak_memory_bytes(),
            // A counter that wrapped says nothing.
            energy_joules: energy
                .map(|(before, after)| after - before)
                .filter(|joules| *joules >= 0.0),
        }
    }
}

/// The most resident memory of this process so far (Linux: VmHWM).
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The sum of the RAPL counters of all packages (Linux powercap). Most systems let only root read them, and virtual machines have none.
fn energy_joules() -> Option<f64> {
    let mut sum = None;
    for package in 0.. {
        let path = PathBuf::from(format!(
            "/sys/class/powercap/intel-rapl:{package}/energy_uj"
        ));
        let Ok(text) = std::fs::read_to_string(path) else {
            break;
        };
        let microjoules: f64 = text.trim().parse().ok()?;
        sum = Some(sum.unwrap_or(0.0) + microjoules / 1e6);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_measured() {
        let meter = Meter::start();
        let session = meter.read(3);
        assert!(session.queries == 3 && session.seconds >= 0.0);
        if cfg!(target_os = "linux") {
            assert!(session.peak_memory_bytes > Some(1 << 20), "{session:?}");
        }
    }
}
