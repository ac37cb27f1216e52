//! Pairs of `golden/grader.tsv` compared per second, and the longest time that 64 KiB of anything take; one thread.
//!
//! `cargo bench -p edgethink-grader`

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use edgethink_grader::{equal, is_correct};

/// Processor time of this thread, where the system tells it.
fn cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

fn main() {
    let quick = !std::env::args().any(|a| a == "--bench");
    let pairs: Vec<(&str, &str, bool)> = include_str!("../../../golden/grader.tsv")
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            Some((*fields.get(1)?, *fields.get(2)?, *fields.get(3)? == "1"))
        })
        .collect();
    assert!(
        pairs
            .iter()
            .all(|(got, want, same)| *same || !equal(got, want)),
        "checked before it is timed"
    );
    let rounds = if quick { 1 } else { 50 };
    let (start, before) = (Instant::now(), cpu());
    for _ in 0..rounds {
        for (got, want, _) in &pairs {
            black_box(equal(got, want));
        }
    }
    let (took, compared) = (start.elapsed(), (rounds * pairs.len()) as f64);
    println!("{:.0} pairs/s", compared / took.as_secs_f64());
    // What counts on a machine with other work.
    if let (Some(before), Some(now)) = (before, cpu()) {
        let spent = (now - before).as_secs_f64();
        println!(
            "{:.0} pairs per second of this thread's processor time",
            compared / spent
        );
    }

    let mut slowest = (Duration::ZERO, "");
    for piece in [
        "1",
        "1+",
        "(",
        "{",
        "\\frac{",
        "\\boxed{",
        "Answer: ",
        "the answer is ",
        "$",
        ". ",
        "1,",
        "<think>",
        "```\n",
        "é",
    ] {
        let long = piece.repeat(65_536 / piece.len());
        let other = format!("{long}1");
        let start = Instant::now();
        black_box((equal(&long, &other), is_correct(&long, &other)));
        slowest = slowest.max((start.elapsed(), piece));
    }
    println!("64 KiB: at most {:?} ({:?})", slowest.0, slowest.1);
}
