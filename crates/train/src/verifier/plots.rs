//! Two pictures of a verifier: its calibration, and the scores of right and wrong responses.

use std::path::Path;

use super::metrics::{Scored, calibration};
use crate::{
    error::TrainError,
    run::plot::{self, Axes},
};

/// Draws `calibration.svg` and `scores.svg` of held-out responses.
///
/// # Errors
/// [`TrainError::Write`].
pub(crate) fn draw(dir: &Path, scored: &[Scored]) -> Result<(), TrainError> {
    let curve: Vec<(f64, f64)> = calibration(scored)
        .iter()
        .map(|bin| (bin.score, bin.correct))
        .collect();
    let axes = Axes {
        title: "calibration on held-out questions",
        x: "score",
        y: "share of right responses",
    };
    let perfect = vec![(0.0, 0.0), (1.0, 1.0)];
    plot::lines(
        &dir.join("calibration.svg"),
        &axes,
        &[("verifier", curve), ("perfect", perfect)],
    )?;
    let of = |correct: bool| -> Vec<f64> {
        let class = scored.iter().filter(|s| s.correct == correct);
        class.map(|s| s.score).collect()
    };
    plot::histogram(
        &dir.join("scores.svg"),
        "scores of held-out responses",
        &[("right", &of(true)), ("wrong", &of(false))],
    )
}
