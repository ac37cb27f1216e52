//! Line charts of measurements, as SVG.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

/// One set of axes.
#[derive(Debug)]
pub(crate) struct Panel {
    /// What the vertical axis is.
    pub(crate) title: String,
    /// What the horizontal axis is.
    pub(crate) x: &'static str,
    /// What is drawn on it.
    pub(crate) lines: Vec<Line>,
}

/// A line through points; a single point is drawn as a dot.
#[derive(Debug)]
pub(crate) struct Line {
    label: &'static str,
    points: Vec<(f64, f64)>,
}

impl Line {
    pub(crate) fn new(label: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { label, points }
    }
}

const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 119, 180),
    RGBColor(150, 150, 150),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
];
const PANEL: (u32, u32) = (560, 340);
const FONT: (&str, u32) = ("sans-serif", 14);

/// Draws panels side by side.
pub(crate) fn save(path: &Path, panels: &[Panel]) -> Result<()> {
    let mut svg = String::new();
    let size = (PANEL.0 * panels.len().max(1) as u32, PANEL.1);
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = |e: &dyn std::fmt::Display| anyhow!("cannot draw {}: {e}", path.display());
        area.fill(&WHITE).map_err(|e| drawn(&e))?;
        for (panel, area) in panels
            .iter()
            .zip(area.split_evenly((1, panels.len().max(1))))
        {
            panel.draw(&area).map_err(|e| drawn(&e))?;
        }
        area.present().map_err(|e| drawn(&e))?;
    }
    std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Panel {
    fn draw(&self, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (left, right) = range(points().map(|p| p.0));
        let (low, high) = range(points().map(|p| p.1));
        let room = 0.05 * (high - low);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, FONT)
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(left..right, low - room..high + room)
            .map_err(|e| e.to_string())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(self.x)
            .draw()
            .map_err(|e| e.to_string())?;
        for (line, colour) in self.lines.iter().zip(COLOURS) {
            let series = if let [point] = line.points[..] {
                chart.draw_series([Circle::new(point, 5, colour.filled())])
            } else {
                let points = line.points.iter().copied();
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))
            };
            series
                .map_err(|e| e.to_string())?
                .label(line.label)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 2), (x + 14, y + 2)], colour.filled())
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .draw()
            .map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// The least range that holds finite values, and is no point.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|x| x.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
            (low.min(x), high.max(x))
        });
    match low.total_cmp(&high) {
        std::cmp::Ordering::Less => (low, high),
        std::cmp::Ordering::Equal => (low - 0.5, high + 0.5),
        std::cmp::Ordering::Greater => (0.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_of_any_data_are_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.svg");
        for points in [
            vec![],
            vec![(1.0, 2.0)],
            vec![(0.0, 3.0), (100.0, 3.0), (50.0, -1e9)],
        ] {
            let lines = vec![Line::new("a", points), Line::new("b", vec![])];
            let panel = Panel {
                title: "t".to_owned(),
                x: "x",
                lines,
            };
            save(&path, &[panel]).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("</svg>") && !text.contains("NaN") && !text.contains("inf"));
        }
    }
}
