//! `edgethink eval switch`: what the switcher's choice is worth (the paper's Fig. 3), on mixes of easy and hard questions.
//!
//! Every question is asked both ways once. A mix weighs the two sets; routing by the switcher is compared with never and always thinking
//! and with routing by lot.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use edgethink_eval::chart;
use edgethink_eval::routed::panels;
use edgethink_reason::switcher::routing::{
    Asked, Cut, Outcome, Routed, auroc, by_lot, curve, ends, route,
};
use serde_json::{Value, json};

use crate::args::{EvalSwitchArgs, Mix};
use crate::asked::Both;
use crate::calibrate::point;
use crate::eval;
use crate::interrupt;
use crate::table::table;

/// A hard set beside the easy one, in one mix.
struct Report {
    set: String,
    mix: Mix,
    auroc: f64,
    curve: Vec<Cut>,
    /// At the head's own threshold.
    own: Cut,
}

/// One file's rows with all that was measured.
struct Set {
    name: String,
    scores: Vec<f32>,
    outcomes: Vec<[Outcome; 2]>,
}

/// Runs the command.
pub(crate) fn run(args: &EvalSwitchArgs) -> Result<ExitCode> {
    let mut rows = Vec::new();
    let mut sizes = Vec::new();
    let files = [&args.easy, &args.hard].into_iter().chain(&args.shifted);
    for file in files.clone() {
        let mut of_file = eval::read_rows(file, true)?;
        of_file.truncate(args.limit.unwrap_or(of_file.len()));
        sizes.push(of_file.len());
        rows.extend(of_file);
    }
    let both = Both::open(&args.asked)?;
    let threshold = both.threshold();
    let stopped = || {
        eprintln!("stopped before all was measured");
        Ok(ExitCode::from(interrupt::EXIT_CODE))
    };
    let Some(mut scores) = both.scores(&rows, &args.asked)? else {
        return stopped();
    };
    let Some(mut outcomes) = both.outcomes(&rows, &args.asked)? else {
        return stopped();
    };
    let mut sets = Vec::new();
    for (file, size) in files.zip(sizes) {
        sets.push(Set {
            name: stem(file),
            scores: scores.drain(..size).collect(),
            outcomes: outcomes.drain(..size).collect(),
        });
    }
    let reports = reports(&sets, &args.mix, threshold)?;
    let whole = json!({
        "threshold": threshold,
        "reports": reports.iter().map(Report::json).collect::<Vec<_>>(),
    });
    if let Some(out) = &args.out {
        write_files(out, &whole, &reports, &sets)?;
    }
    let mut stdout = std::io::stdout();
    if args.json {
        writeln!(stdout, "{whole}")?;
    } else {
        write!(stdout, "{}", text(&reports, &sets, threshold))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stem(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or(file.as_os_str());
    stem.to_string_lossy().into_owned()
}

/// The first set is the easy one; each other is put beside it.
fn reports(sets: &[Set], mixes: &[Mix], threshold: f32) -> Result<Vec<Report>> {
    let (easy, others) = sets.split_first().context("there is no easy set")?;
    let mut reports = Vec::new();
    for hard in others {
        for &mix in mixes {
            let mut asked = Vec::new();
            for (set, part) in [(easy, mix.easy), (hard, mix.hard)] {
                let rows = set.scores.iter().zip(&set.outcomes);
                asked.extend(rows.map(|(&score, &[base, think])| Asked {
                    score,
                    weight: part / set.scores.len() as f64,
                    base,
                    think,
                }));
            }
            reports.push(Report {
                set: hard.name.clone(),
                mix,
                auroc: auroc(&easy.scores, &hard.scores).context("a set has no rows")?,
                curve: curve(&asked),
                own: route(&asked, threshold).context("a set has no rows")?,
            });
        }
    }
    Ok(reports)
}

impl Report {
    /// Accuracy and tokens at the head's threshold, as shares of always thinking.
    fn of_always(&self) -> Option<(f64, f64)> {
        let (own, (_, always)) = (self.own.result?, ends(&self.curve)?);
        Some((own.accuracy / always.accuracy, own.tokens / always.tokens))
    }

    fn json(&self) -> Value {
        let of_always = self.of_always();
        let ends = ends(&self.curve);
        let lot = by_lot(&self.curve, self.own.share);
        let routed = |r: Option<Routed>| json!({"accuracy": r.map(|r| r.accuracy), "tokens": r.map(|r| r.tokens)});
        json!({
            "set": self.set,
            "mix": self.mix.to_string(),
            "auroc": self.auroc,
            "never": routed(ends.map(|ends| ends.0)),
            "always": routed(ends.map(|ends| ends.1)),
            "own": point(&self.own),
            "own_accuracy_of_always": of_always.map(|o| o.0),
            "own_tokens_of_always": of_always.map(|o| o.1),
            "by_lot_at_own_share": routed(lot),
            "curve": self.curve.iter().map(point).collect::<Vec<_>>(),
        })
    }
}

fn write_files(out: &Path, whole: &Value, reports: &[Report], sets: &[Set]) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let path = out.join("switch.json");
    std::fs::write(&path, format!("{whole:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    // The scores, so that another threshold can be tried without asking again.
    let path = out.join("scores.jsonl");
    let mut lines = String::new();
    for set in sets {
        for (row, (score, [base, think])) in set.scores.iter().zip(&set.outcomes).enumerate() {
            let outcome = |o: &Outcome| json!({"correct": o.correct, "tokens": o.tokens});
            let line = json!({
                "set": set.name, "row": row, "score": score, "base": outcome(base), "think": outcome(think),
            });
            lines.push_str(&format!("{line}\n"));
        }
    }
    std::fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    for report in reports {
        let mix = report.mix.to_string().replace(':', "-");
        let path = out.join(format!("switch-{}-{mix}.svg", report.set));
        draw(&path, report)?;
    }
    Ok(())
}

fn draw(path: &Path, report: &Report) -> Result<()> {
    let title = format!(
        "{}, easy to hard {}: right answers, %",
        report.set, report.mix
    );
    let svg = chart::file(&panels(title, &report.curve, Some(report.own)))?;
    std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

fn text(reports: &[Report], sets: &[Set], threshold: f32) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut rows = Vec::new();
    for set in sets {
        let n = set.scores.len() as f64;
        let right = |way: usize| set.outcomes.iter().filter(|o| o[way].correct).count() as f64 / n;
        let tokens = |way: usize| {
            let sum: usize = set.outcomes.iter().map(|o| o[way].tokens).sum();
            format!("{:.1}", sum as f64 / n)
        };
        let thinks = set.scores.iter().filter(|&&s| s >= threshold).count() as f64 / n;
        rows.push(vec![
            set.name.clone(),
            format!("{n}"),
            percent(right(0)),
            tokens(0),
            percent(right(1)),
            tokens(1),
            percent(thinks),
        ]);
    }
    let head = [
        "set",
        "rows",
        "at once",
        "tokens",
        "thinking",
        "tokens",
        "sent to think",
    ];
    let mut text = table(&head, &rows);
    text.push_str(&format!("\nat the threshold {threshold:.6}:\n"));
    let rows: Vec<Vec<String>> = reports
        .iter()
        .filter_map(|report| {
            let (own, (never, always)) = (report.own.result?, ends(&report.curve)?);
            let (kept, cost) = report.of_always()?;
            let lot = by_lot(&report.curve, report.own.share)?;
            Some(vec![
                report.set.clone(),
                report.mix.to_string(),
                format!("{:.4}", report.auroc),
                percent(report.own.share),
                percent(own.accuracy),
                percent(never.accuracy),
                percent(always.accuracy),
                percent(lot.accuracy),
                percent(kept),
                percent(cost),
            ])
        })
        .collect();
    let head = [
        "set",
        "mix",
        "AUROC",
        "thinks",
        "right",
        "never",
        "always",
        "by lot",
        "of always",
        "its tokens",
    ];
    text.push_str(&table(&head, &rows));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, scores: &[f32], base: (bool, usize), think: (bool, usize)) -> Set {
        let outcome = |(correct, tokens)| Outcome { correct, tokens };
        Set {
            name: name.to_owned(),
            scores: scores.to_vec(),
            outcomes: vec![[outcome(base), outcome(think)]; scores.len()],
        }
    }

    #[test]
    fn a_mix_weighs_sets_of_any_size() {
        let sets = [
            set("easy", &[0.1, 0.2, 0.3, 0.6], (true, 10), (true, 40)),
            set("hard", &[0.9, 0.8], (false, 20), (true, 120)),
        ];
        let mixes = [
            Mix {
                easy: 1.0,
                hard: 1.0,
            },
            Mix {
                easy: 3.0,
                hard: 1.0,
            },
        ];
        let reports = reports(&sets, &mixes, 0.7).unwrap();
        assert_eq!(reports.len(), 2);
        let tokens: Vec<f64> = reports
            .iter()
            .map(|r| r.own.result.unwrap().tokens)
            .collect();
        assert!(
            (tokens[0] - 65.0).abs() < 1e-9 && (tokens[1] - 37.5).abs() < 1e-9,
            "{tokens:?}"
        );
        let (kept, cost) = reports[1].of_always().unwrap();
        assert!((kept - 1.0).abs() < 1e-9 && (cost - 37.5 / 60.0).abs() < 1e-9);
        assert_eq!(reports[0].auroc, 1.0);
        let dir = tempfile::tempdir().unwrap();
        write_files(dir.path(), &json!({}), &reports, &sets).unwrap();
        for file in [
            "switch.json",
            "scores.jsonl",
            "switch-hard-1-1.svg",
            "switch-hard-3-1.svg",
        ] {
            let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
            assert!(!text.contains("NaN"), "{file}");
        }
        assert!(text(&reports, &sets, 0.7).contains("100.0 %"));
    }
}
