//! Line charts of measurements, as SVG: for a file, or to stand in a page that may be light or dark.

use plotters::prelude::*;

use crate::error::EvalError;

/// One set of axes.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What the vertical axis is.
    pub title: String,
    /// What the horizontal axis is.
    pub x: String,
    /// What is drawn on it.
    pub lines: Vec<Line>,
}

/// A line through points; a single point is drawn as a dot.
#[derive(Debug, Clone)]
pub struct Line {
    label: String,
    points: Vec<(f64, f64)>,
}

impl Line {
    /// Points in order of the horizontal axis.
    pub fn new(label: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            label: label.into(),
            points,
        }
    }
}

/// Seen on white and on black.
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(150, 150, 150),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(230, 130, 20),
];
const PANEL: (u32, u32) = (560, 340);
const FONT: (&str, u32) = ("sans-serif", 14);

/// Panels side by side on white, as an SVG file.
///
/// # Errors
/// Axes that cannot be laid out.
pub fn file(panels: &[Panel]) -> Result<String, EvalError> {
    svg(panels, true)
}

/// Panels side by side, for a page: what is black takes the colour of the text around, and the ground is the page's.
///
/// # Errors
/// Axes that cannot be laid out.
pub fn inline(panels: &[Panel]) -> Result<String, EvalError> {
    let svg = svg(panels, false)?;
    Ok(svg.replace("#000000", "currentColor"))
}

fn svg(panels: &[Panel], white: bool) -> Result<String, EvalError> {
    let mut svg = String::new();
    let columns = panels.len().max(1);
    let failed = |problem: String| EvalError::Chart {
        what: panels
            .iter()
            .map(|panel| panel.title.as_str())
            .collect::<Vec<_>>()
            .join(", "),
        problem,
    };
    {
        let size = (PANEL.0 * columns as u32, PANEL.1);
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        if white {
            area.fill(&WHITE).map_err(|e| failed(e.to_string()))?;
        }
        for (panel, area) in panels.iter().zip(area.split_evenly((1, columns))) {
            panel
                .draw(&area, white)
                .map_err(|e| failed(e.to_string()))?;
        }
        area.present().map_err(|e| failed(e.to_string()))?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Panel {
    fn draw(&self, area: &Area<'_>, white: bool) -> Result<(), Box<dyn std::error::Error>> {
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
            .x_desc(self.x.as_str())
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
                .label(line.label.as_str())
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 2), (x + 14, y + 2)], colour.filled())
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(if white { 0.8 } else { 0.0 }))
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
        for points in [
            vec![],
            vec![(1.0, 2.0)],
            vec![(0.0, 3.0), (100.0, 3.0), (50.0, -1e9)],
        ] {
            let lines = vec![Line::new("a", points), Line::new("b", vec![])];
            let panel = Panel {
                title: "t".to_owned(),
                x: "x".to_owned(),
                lines,
            };
            let panels = [panel];
            for text in [file(&panels), inline(&panels)] {
                let text = text.expect("drawn");
                assert!(text.contains("</svg>") && !text.contains("NaN") && !text.contains("inf"));
            }
            let page = inline(&panels).expect("drawn");
            assert!(
                page.contains("currentColor") && !page.contains("#FFFFFF"),
                "it takes the page's colours"
            );
        }
    }
}
