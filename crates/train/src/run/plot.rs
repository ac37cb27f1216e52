//! Pictures of a run: curves from `metrics.jsonl`, and histograms, as SVG.

use std::{fs, path::Path};

use plotters::prelude::*;
use serde_json::Value;

use crate::error::TrainError;

/// One set of axes.
#[derive(Debug)]
pub(crate) struct Panel<'a> {
    title: &'a str,
    /// Names of metrics with their labels.
    series: &'a [(&'a str, &'a str)],
}

impl<'a> Panel<'a> {
    pub(crate) fn new(title: &'a str, series: &'a [(&'a str, &'a str)]) -> Self {
        Self { title, series }
    }
}

const COLOURS: [RGBColor; 3] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
];
const PANEL: (u32, u32) = (560, 320);
const FONT: (&str, u32) = ("sans-serif", 14);

type Drawing<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws panels of curves over optimizer steps from `dir/metrics.jsonl` into `dir/name`. Values that are not finite are left out.
pub(crate) fn curves(dir: &Path, name: &str, panels: &[Panel<'_>]) -> Result<(), TrainError> {
    let metrics = dir.join("metrics.jsonl");
    let text = fs::read_to_string(&metrics).map_err(|source| TrainError::Read {
        path: metrics,
        source,
    })?;
    let rows: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let columns = panels.len().clamp(1, 2);
    let lines = panels.len().div_ceil(columns);
    let size = (PANEL.0 * columns as u32, PANEL.1 * lines as u32);
    write(&dir.join(name), size, |area| {
        for (panel, area) in panels.iter().zip(area.split_evenly((lines, columns))) {
            let series: Vec<(&str, Vec<(f64, f64)>)> = panel
                .series
                .iter()
                .map(|(metric, label)| (*label, points(&rows, metric)))
                .filter(|(_, points)| !points.is_empty())
                .collect();
            let axes = Axes {
                title: panel.title,
                x: "step",
                y: "",
            };
            draw_panel(&area, &axes, &series)?;
        }
        Ok(())
    })
}

fn points(rows: &[Value], metric: &str) -> Vec<(f64, f64)> {
    rows.iter()
        .filter_map(|row| Some((row["step"].as_f64()?, row[metric].as_f64()?)))
        .filter(|(_, y)| y.is_finite())
        .collect()
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What a picture of curves says beside them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axes<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
}

/// Draws curves through points into `path`; x begins at 0.
pub(crate) fn lines(
    path: &Path,
    axes: &Axes<'_>,
    series: &[(&str, Vec<(f64, f64)>)],
) -> Result<(), TrainError> {
    write(path, PANEL, |area| draw_panel(area, axes, series))
}

fn draw_panel(
    area: &Drawing<'_>,
    axes: &Axes<'_>,
    series: &[(&str, Vec<(f64, f64)>)],
) -> Result<(), Failed> {
    let all = || series.iter().flat_map(|(_, points)| points);
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    let low = all().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = all().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = match low.total_cmp(&high) {
        std::cmp::Ordering::Less => (low, high + 0.05 * (high - low)),
        _ if low.is_finite() => (low - 0.5, low + 0.5),
        _ => (0.0, 1.0),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(axes.title, FONT)
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..last, low..high)
        .map_err(|e| e.to_string())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .x_desc(axes.x)
        .y_desc(axes.y)
        .draw()
        .map_err(|e| e.to_string())?;
    for ((label, points), colour) in series.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))
            .map_err(|e| e.to_string())?
            .label(*label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 2), (x + 14, y + 2)], colour.filled()));
    }
    legend(&mut chart, series.len())
}

/// A number without the zeros at its end.
fn short(value: &f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn legend<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    series: usize,
) -> Result<(), Failed>
where
    X: plotters::coord::ranged1d::Ranged,
    Y: plotters::coord::ranged1d::Ranged,
{
    if series > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .draw()
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Draws histograms of the same quantity over each other.
pub(crate) fn histogram(
    path: &Path,
    title: &str,
    series: &[(&str, &[f64])],
) -> Result<(), TrainError> {
    const BINS: usize = 40;
    let last = series
        .iter()
        .flat_map(|(_, values)| values.iter().copied())
        .fold(1.0, f64::max);
    let width = last / BINS as f64;
    let bins: Vec<Vec<usize>> = series
        .iter()
        .map(|(_, values)| {
            let mut bins = vec![0; BINS];
            for value in *values {
                bins[((value / width) as usize).min(BINS - 1)] += 1;
            }
            bins
        })
        .collect();
    let most = bins.iter().flatten().copied().max().unwrap_or(1).max(1);
    write(path, PANEL, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, FONT)
            .margin(10)
            .x_label_area_size(28)
            .y_label_area_size(40)
            .build_cartesian_2d(0.0..last, 0.0..most as f64 * 1.05)
            .map_err(|e| e.to_string())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()
            .map_err(|e| e.to_string())?;
        for (((label, _), bins), colour) in series.iter().zip(&bins).zip(COLOURS.iter().copied()) {
            let bars = bins.iter().enumerate().map(|(i, &count)| {
                let left = i as f64 * width;
                Rectangle::new(
                    [(left, 0.0), (left + width, count as f64)],
                    colour.mix(0.5).filled(),
                )
            });
            chart
                .draw_series(bars)
                .map_err(|e| e.to_string())?
                .label(*label)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.mix(0.5).filled())
                });
        }
        legend(&mut chart, series.len())
    })
}

/// Makes an SVG of a size and writes it.
fn write(
    path: &Path,
    size: (u32, u32),
    fill: impl FnOnce(&Drawing<'_>) -> Result<(), Failed>,
) -> Result<(), TrainError> {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)
            .map_err(|e| Failed::from(e.to_string()))
            .and_then(|()| fill(&area))
            .and_then(|()| area.present().map_err(|e| Failed::from(e.to_string())))
    };
    let wrong = |source| TrainError::Write {
        path: path.to_owned(),
        source,
    };
    drawn.map_err(|e| wrong(std::io::Error::other(e)))?;
    fs::write(path, svg).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_of_any_data_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        for metrics in [
            "",
            "{\"step\": 1, \"loss\": 2.0}\n",
            "{\"step\": 1, \"loss\": null}\nnot json\n{\"step\": 2, \"loss\": 3.0}\n{\"step\": 900, \"loss\": 0.5, \"eval_loss\": 1}\n",
        ] {
            fs::write(dir.path().join("metrics.jsonl"), metrics).unwrap();
            let panels = [Panel::new(
                "loss",
                &[("loss", "training"), ("eval_loss", "validation")],
            )];
            curves(dir.path(), "loss.svg", &panels).unwrap();
            let text = fs::read_to_string(dir.path().join("loss.svg")).unwrap();
            assert!(text.contains("</svg>") && !text.contains("NaN") && !text.contains("inf"));
        }
    }

    #[test]
    fn histograms_of_any_data_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.svg");
        for values in [&[][..], &[0.0], &[1.0, 2.0, 2.0, 400.0]] {
            histogram(&path, "lengths", &[("before", values), ("after", &[3.0])]).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("</svg>") && !text.contains("NaN"));
        }
    }
}
