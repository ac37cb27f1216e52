//! `edgethink bench --roofline`: how fast this machine reads memory, by size and threads, and how fast it multiplies 8-bit integers.
//!
//! Each thread reads a buffer of its own, in large pages where the system has them, as the weights lie. A figure is the best of some
//! passes in which all threads begin together: other work on the machine can only lower it.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Result;
use edgethink_engine::{Isa, advise_huge_pages, multiply_adds, multiply_adds_per_step, read_all};
use serde::Serialize;

use crate::args::BenchArgs;
use crate::table::table;

/// Bytes that each thread reads: in the first, second and third cache of usual processors, and in memory.
const SIZES: [usize; 4] = [16 << 10, 256 << 10, 4 << 20, 256 << 20];
/// Passes of which the best counts.
const PASSES: usize = 7;
/// The shortest pass.
const PASS: Duration = Duration::from_millis(30);

/// What was measured.
#[derive(Debug, Serialize)]
struct Roofline {
    isa: String,
    reads: Vec<Read>,
    multiplies: Vec<Multiply>,
}

#[derive(Debug, Serialize)]
struct Read {
    threads: usize,
    bytes_per_thread: usize,
    /// Of all threads together, 10⁹ bytes per second.
    gb_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Multiply {
    threads: usize,
    /// 8-bit multiply-adds of all threads together, 10⁹ per second.
    gmac_per_second: f64,
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads: Vec<usize> = args
        .threads
        .iter()
        .map(|&t| if t == 0 { all } else { t })
        .collect();
    if args.threads == [0] && all > 1 {
        threads.insert(0, 1);
    }
    let isa = args.format.isa.unwrap_or_else(Isa::detect);
    let roofline = measure(&threads, isa, &SIZES, PASS);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&roofline)?)?;
    } else {
        write!(out, "{}", roofline.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(threads: &[usize], isa: Isa, sizes: &[usize], pass: Duration) -> Roofline {
    let (mut reads, mut multiplies) = (Vec::new(), Vec::new());
    for &threads in threads {
        for &bytes in sizes {
            let rate = together(threads, pass, || {
                let mut data = vec![0.0f32; bytes / 4];
                let _ = advise_huge_pages(&mut data); // only speed depends on it
                data.fill(1.0);
                move || {
                    std::hint::black_box(read_all(isa, std::hint::black_box(&data)));
                    bytes as f64
                }
            });
            reads.push(Read {
                threads,
                bytes_per_thread: bytes,
                gb_per_second: rate / 1e9,
            });
        }
        let rate = together(threads, pass, || {
            move || {
                let steps = std::hint::black_box(10_000);
                std::hint::black_box(multiply_adds(isa, steps));
                (steps * multiply_adds_per_step(isa)) as f64
            }
        });
        multiplies.push(Multiply {
            threads,
            gmac_per_second: rate / 1e9,
        });
    }
    Roofline {
        isa: isa.to_string(),
        reads,
        multiplies,
    }
}

/// Work of all threads per second, the best of the passes. `make` sets a thread's work up on that thread; a call of the work returns
/// how much it did.
fn together<W: FnMut() -> f64>(threads: usize, pass: Duration, make: impl Fn() -> W + Sync) -> f64 {
    let barrier = Barrier::new(threads);
    let one = || {
        let mut work = make();
        (0..PASSES)
            .map(|_| {
                barrier.wait();
                let start = Instant::now();
                let mut done = work();
                while start.elapsed() < pass {
                    done += work();
                }
                done / start.elapsed().as_secs_f64()
            })
            .collect::<Vec<f64>>()
    };
    let rates: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("a measuring thread does not panic"))
            .collect()
    });
    (0..PASSES)
        .map(|pass| rates.iter().map(|thread| thread[pass]).sum::<f64>())
        .fold(0.0, f64::max)
}

impl Roofline {
    fn text(&self) -> String {
        let size = |bytes: usize| crate::info::bytes(bytes as u64);
        let rows: Vec<Vec<String>> = self
            .reads
            .iter()
            .map(|read| {
                vec![
                    read.threads.to_string(),
                    size(read.bytes_per_thread),
                    format!("{:.1} GB/s", read.gb_per_second),
                ]
            })
            .chain(self.multiplies.iter().map(|multiply| {
                vec![
                    multiply.threads.to_string(),
                    "-".to_owned(),
                    format!("{:.0} GMAC/s of int8", multiply.gmac_per_second),
                ]
            }))
            .collect();
        format!(
            "{}\n\n{}",
            self.isa,
            table(&["threads", "each", "all together"], &rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_measured() {
        let found = measure(
            &[1, 2],
            Isa::detect(),
            &[4096, 65536],
            Duration::from_micros(200),
        );
        assert_eq!((found.reads.len(), found.multiplies.len()), (4, 2));
        assert!(found.reads.iter().all(|read| read.gb_per_second > 0.0));
        assert!(found.multiplies.iter().all(|one| one.gmac_per_second > 0.0));
        let text = found.text();
        assert!(
            text.contains("64.0 KiB") && text.contains("GMAC/s"),
            "{text}"
        );
    }
}
