//! `edgethink calibrate`: sets the threshold of a switcher to a wish, and writes it with its curve into the head's file.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use edgethink_model::HeadFile;
use edgethink_reason::switcher::routing::{Asked, Cut, Wish, curve, cuts, grant};
use serde_json::{Value, json};

use crate::args::CalibrateArgs;
use crate::asked::{Both, switcher_dir};
use crate::eval;
use crate::interrupt;

/// Points of the curve that are kept in the file.
const POINTS: usize = 21;

/// Runs the command.
pub(crate) fn run(args: &CalibrateArgs) -> Result<ExitCode> {
    let wish = args.wish();
    let asks = !matches!(wish, Wish::Share(_));
    let mut rows = Vec::new();
    for file in &args.files {
        rows.extend(eval::read_rows(file, asks)?);
    }
    let dir = switcher_dir(&args.asked.model)?;
    let mut file = HeadFile::load(&dir)
        .with_context(|| format!("cannot use the switcher {}", dir.display()))?;
    let both = Both::open(&args.asked)?;
    let stopped = || {
        eprintln!("stopped, nothing is written");
        Ok(ExitCode::from(interrupt::EXIT_CODE))
    };
    let Some(scores) = both.scores(&rows, &args.asked)? else {
        return stopped();
    };
    let curve = if asks {
        let Some(outcomes) = both.outcomes(&rows, &args.asked)? else {
            return stopped();
        };
        let asked = scores.iter().zip(outcomes);
        let asked = asked.map(|(&score, [base, think])| Asked {
            score,
            weight: 1.0,
            base,
            think,
        });
        curve(&asked.collect::<Vec<_>>())
    } else {
        cuts(&scores)
    };
    let cut = grant(&curve, wish)?;
    // A granted cut has a threshold.
    let threshold = cut.threshold.context("the cut has no threshold")?;
    let sets: Vec<String> = args
        .files
        .iter()
        .filter_map(|file| Some(file.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let calibration = json!({
        "sets": sets,
        "rows": rows.len(),
        "wish": words(wish),
        "reached": point(&cut),
        "curve": thinned(&curve).iter().map(point).collect::<Vec<_>>(),
    });
    let text = text(&cut, threshold, &curve, rows.len());
    file.settings
        .insert("threshold".to_owned(), json!(threshold));
    file.settings
        .insert("calibration".to_owned(), calibration.clone());
    file.save(&dir)?;
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{calibration}")?;
    } else {
        write!(out, "{text}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn words(wish: Wish) -> Value {
    match wish {
        Wish::Share(share) => json!({ "share": share }),
        Wish::Accuracy(accuracy) => json!({ "accuracy": accuracy }),
        Wish::Keep(keep) => json!({ "keep": keep }),
    }
}

/// A cut for a file or for scripts.
pub(crate) fn point(cut: &Cut) -> Value {
    json!({
        "share": cut.share,
        "threshold": cut.threshold,
        "accuracy": cut.result.map(|result| result.accuracy),
        "tokens": cut.result.map(|result| result.tokens),
    })
}

/// The cuts nearest to equal steps of the share.
fn thinned(curve: &[Cut]) -> Vec<Cut> {
    let mut kept: Vec<Cut> = Vec::new();
    for i in 0..POINTS {
        let wanted = i as f64 / (POINTS - 1) as f64;
        let distance = |cut: &&Cut| (cut.share - wanted).abs();
        let nearest = curve
            .iter()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)));
        kept.extend(nearest.filter(|cut| kept.last() != Some(*cut)));
    }
    kept
}

fn text(cut: &Cut, threshold: f32, curve: &[Cut], rows: usize) -> String {
    let mut text = format!(
        "threshold {threshold:.6}: {:.1} % of {rows} queries think\n",
        100.0 * cut.share
    );
    let always = curve.last().and_then(|cut| cut.result);
    if let (Some(result), Some(always)) = (cut.result, always) {
        text.push_str(&format!(
            "{:.1} % right (always thinking {:.1} %), {:.1} tokens per answer (always {:.1})\n",
            100.0 * result.accuracy,
            100.0 * always.accuracy,
            result.tokens,
            always.tokens
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_curve_has_its_ends_and_no_point_twice() {
        let scores: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.0).collect();
        let all = cuts(&scores);
        let kept = thinned(&all);
        assert_eq!(kept.len(), POINTS);
        assert_eq!((kept[0].share, kept[POINTS - 1].share), (0.0, 1.0));
        assert_eq!(thinned(&cuts(&[0.5, 0.25])).len(), 3);
        assert!(thinned(&[]).is_empty());
    }
}
