//! The loss curve as an SVG: training loss per log entry and validation loss, against optimizer steps.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 40.0;
const MARGIN: f64 = 16.0;

/// Draws the curve; points that are not finite are left out.
pub(crate) fn svg(train: &[(u64, f64)], eval: &[(u64, f64)]) -> String {
    let finite = |points: &[(u64, f64)]| -> Vec<(f64, f64)> {
        points
            .iter()
            .filter(|(_, y)| y.is_finite())
            .map(|&(x, y)| (x as f64, y))
            .collect()
    };
    let (train, eval) = (finite(train), finite(eval));
    let all = || train.iter().chain(&eval);
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    let low = all().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = all().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
    let step = nice_step((high - low) / 6.0);
    let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
    let x = |v: f64| LEFT + v / last * (WIDTH - LEFT - MARGIN);
    let y = |v: f64| MARGIN + (high - v) / (high - low) * (HEIGHT - BOTTOM - MARGIN);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>Loss over optimizer steps</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{text}");
    };
    let ticks = ((high - low) / step).round() as usize;
    for i in 0..=ticks {
        let v = low + i as f64 * step;
        let (at, right) = (y(v), WIDTH - MARGIN);
        line(format_args!(
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"
        ));
        line(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            (v * 1e6).round() / 1e6
        ));
    }
    let step = nice_step(last / 6.0).max(1.0);
    for i in 0..=(last / step) as usize {
        let v = i as f64 * step;
        line(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{v}</text>",
            x(v),
            HEIGHT - BOTTOM + 16.0
        ));
    }
    line(format_args!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">optimizer steps (loss in nats per token)</text>",
        (LEFT + WIDTH) / 2.0,
        HEIGHT - 6.0
    ));
    for (name, points, colour, at) in [
        ("training", &train, "#1f77b4", 0.0),
        ("validation", &eval, "#d62728", 1.0),
    ] {
        if points.is_empty() {
            continue;
        }
        let path: Vec<String> = points
            .iter()
            .map(|&(px, py)| format!("{:.1},{:.1}", x(px), y(py)))
            .collect();
        line(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            path.join(" ")
        ));
        line(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{name}</text>",
            WIDTH - MARGIN - 4.0,
            MARGIN + 14.0 + at * 16.0
        ));
    }
    out.push_str("</svg>\n");
    out
}

/// The next of 1, 2, 5 times a power of ten at or above `raw`.
fn nice_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.max(1e-9).log10().floor());
    let lead = raw / power;
    let nice = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|n| lead <= *n * 1.000_001);
    nice.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_of_any_data_are_drawn() {
        for (train, eval) in [
            (vec![], vec![]),
            (vec![(1, 2.0)], vec![]),
            (vec![(1, f64::NAN), (2, 3.0), (900, 0.5)], vec![(450, 1.0)]),
        ] {
            let text = svg(&train, &eval);
            assert!(text.ends_with("</svg>\n") && !text.contains("NaN") && !text.contains("inf"));
        }
    }
}
