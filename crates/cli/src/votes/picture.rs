//! The votes as a picture: accuracy over N, a line for each way to vote, one standard deviation of the draws up and down.

use anyhow::{Result, anyhow};
use edgethink_eval::votes::{Entry, Spread, Votes};
use plotters::prelude::*;

const SIZE: (u32, u32) = (640, 400);
const FONT: (&str, u32) = ("sans-serif", 14);

type Way = (&'static str, RGBColor, fn(&Entry) -> Option<Spread>);

const WAYS: [Way; 3] = [
    ("majority", RGBColor(31, 119, 180), |e| Some(e.majority)),
    ("weighted majority", RGBColor(214, 39, 40), |e| e.weighted),
    ("best of N", RGBColor(44, 160, 44), |e| e.best_of_n),
];

/// Draws the table as SVG.
pub(super) fn draw(votes: &Votes) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let spreads: Vec<Spread> = votes
            .by_n
            .iter()
            .flat_map(|entry| WAYS.iter().filter_map(|way| way.2(entry)))
            .collect();
        let low = spreads.iter().map(|s| s.mean - s.std).fold(1.0, f64::min);
        let high = spreads.iter().map(|s| s.mean + s.std).fold(0.0, f64::max);
        let margin = 0.05 * (high - low).max(0.02);
        let most = votes.by_n.iter().map(|e| e.n).max().unwrap_or(1) as f64;
        let mut chart = ChartBuilder::on(&area)
            .caption(
                format!("{} questions, {} draws", votes.questions, votes.resamples),
                FONT,
            )
            .margin(10)
            .x_label_area_size(32)
            .y_label_area_size(52)
            .build_cartesian_2d(
                0.0..most + 0.5,
                100.0 * (low - margin)..100.0 * (high + margin),
            )
            .map_err(failed)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("answers N")
            .y_desc("right, %")
            .draw()
            .map_err(failed)?;
        for (at, (label, colour, of)) in WAYS.iter().enumerate() {
            // Side by side, so that no bar hides another.
            let shift = 0.06 * (at as f64 - 1.0);
            let points: Vec<(f64, Spread)> = votes
                .by_n
                .iter()
                .filter_map(|entry| Some((entry.n as f64 + shift, of(entry)?)))
                .collect();
            if points.is_empty() {
                continue;
            }
            let line = points.iter().map(|(x, s)| (*x, 100.0 * s.mean));
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)))
                .map_err(failed)?
                .label(*label)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 2), (x + 14, y + 2)], colour.filled())
                });
            let bars = points.iter().map(|(x, s)| {
                let ends = [s.mean - s.std, s.mean + s.std].map(|y| (*x, 100.0 * y));
                PathElement::new(ends.to_vec(), colour.stroke_width(1))
            });
            chart.draw_series(bars).map_err(failed)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .draw()
            .map_err(failed)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw the picture: {error}")
}
