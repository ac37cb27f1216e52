//! `edgethink bench --profile`: where the time of a figure goes, part by part.

use edgethink_engine::{Part, PartTime};
use serde::Serialize;

use crate::table::table;

/// One part of a figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PartFigure {
    part: &'static str,
    calls: u64,
    milliseconds: f64,
    /// Bytes of weights, adapters and KV that it read.
    bytes: u64,
    /// Multiply-adds.
    macs: u64,
}

/// Adds what a run took to what the runs before it took.
pub(crate) fn add(total: &mut Vec<PartFigure>, run: &[(Part, PartTime)]) {
    for (part, time) in run {
        let ms = 1e3 * time.time.as_secs_f64();
        match total.iter_mut().find(|known| known.part == part.name()) {
            Some(known) => {
                known.calls += time.calls;
                known.milliseconds += ms;
                known.bytes += time.bytes;
                known.macs += time.macs;
            }
            None => total.push(PartFigure {
                part: part.name(),
                calls: time.calls,
                milliseconds: ms,
                bytes: time.bytes,
                macs: time.macs,
            }),
        }
    }
}

/// The parts as a table, per `unit` of which there were `count`.
pub(crate) fn text(parts: &[PartFigure], unit: &str, count: f64) -> String {
    let sum = |of: fn(&PartFigure) -> f64| parts.iter().map(of).sum::<f64>();
    let all = sum(|part| part.milliseconds);
    let row = |name: &str, ms: f64, bytes: f64, macs: f64| {
        let or_dash = |value: f64, digits: usize| {
            if value > 0.0 {
                format!("{value:.digits$}")
            } else {
                "-".to_owned()
            }
        };
        vec![
            name.to_owned(),
            format!("{:.3}", ms / count),
            format!("{:.1}", 100.0 * ms / all.max(f64::MIN_POSITIVE)),
            or_dash(bytes / count / 1e6, 1),
            or_dash(bytes / ms / 1e6, 1),
            or_dash(macs / count / 1e6, 1),
            or_dash(macs / ms / 1e6, 1),
        ]
    };
    let mut rows: Vec<Vec<String>> = parts
        .iter()
        .map(|p| row(p.part, p.milliseconds, p.bytes as f64, p.macs as f64))
        .collect();
    rows.push(row(
        "all",
        all,
        sum(|part| part.bytes as f64),
        sum(|part| part.macs as f64),
    ));
    let per = format!("ms per {unit}");
    table(&["part", &per, "%", "MB", "GB/s", "MMAC", "GMAC/s"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn runs_add_up_and_shares_are_of_the_whole() {
        let time = |ms, bytes| PartTime {
            calls: 2,
            time: Duration::from_millis(ms),
            bytes,
            macs: 0,
        };
        let mut total = Vec::new();
        add(
            &mut total,
            &[(Part::Head, time(3, 6_000_000)), (Part::Norm, time(1, 0))],
        );
        add(&mut total, &[(Part::Head, time(3, 6_000_000))]);
        assert_eq!((total[0].calls, total[0].milliseconds), (4, 6.0));
        let text = text(&total, "step", 2.0);
        let head = text.lines().find(|line| line.starts_with("lm_head"));
        let cells: Vec<&str> = head.expect("a row").split_whitespace().collect();
        assert_eq!(cells, ["lm_head", "3.000", "85.7", "6.0", "2.0", "-", "-"]);
        assert!(
            text.lines()
                .last()
                .is_some_and(|line| line.starts_with("all"))
        );
    }
}
