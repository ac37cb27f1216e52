//! A switcher as a figure (the paper's Fig. 3): accuracy and mean length along the share of queries that think.

use edgethink_reason::switcher::routing::{Cut, Routed, ends};

use crate::chart::{Line, Panel};

/// Both panels of a curve: along it, by lot, and the dot of `own`, the cut at the head's threshold. `accuracy` is the title of the first.
pub fn panels(accuracy: String, curve: &[Cut], own: Option<Cut>) -> [Panel; 2] {
    let panel = |title: String, value: fn(Routed) -> f64| {
        let point = |cut: &Cut| Some((100.0 * cut.share, value(cut.result?)));
        let ends =
            ends(curve).map(|(never, always)| vec![(0.0, value(never)), (100.0, value(always))]);
        Panel {
            title,
            x: "share of queries that think, %".to_owned(),
            lines: vec![
                Line::new("switcher", curve.iter().filter_map(point).collect()),
                Line::new("by lot", ends.unwrap_or_default()),
                Line::new("its threshold", own.iter().filter_map(point).collect()),
            ],
        }
    };
    [
        panel(accuracy, |routed| 100.0 * routed.accuracy),
        panel("tokens per answer".to_owned(), |routed| routed.tokens),
    ]
}
