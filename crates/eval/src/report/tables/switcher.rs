//! What a switcher is worth: accuracy and tokens along the share of queries that think.

use edgethink_reason::switcher::routing::{
    Asked, Cut, Outcome, Routed, by_lot, curve, ends, route,
};

use super::{Book, NOT_MEASURED, figure, percent, strings};
use crate::error::EvalError;
use crate::record::QueryRecords;
use crate::report::cell::Cell;
use crate::report::page::Block;
use crate::routed::panels;

/// The figure and the table of a switcher, from cells without a thought, with one, and with its scores.
pub(super) fn blocks(book: &Book<'_>, names: [&String; 3]) -> Result<Vec<Block>, EvalError> {
    let [Some(base), Some(think), Some(scores)] = names.map(|name| book.cell(name)) else {
        return Ok(vec![Block::Text(NOT_MEASURED.to_owned())]);
    };
    let asked = asked(base, think, scores);
    let cuts = curve(&asked);
    let threshold = own_threshold(scores);
    let own = threshold.and_then(|threshold| route(&asked, threshold));
    let ends = ends(&cuts);
    let panels = panels("right answers, %".to_owned(), &cuts, own);
    let mut blocks = vec![figure(
        "switcher.svg",
        "Accuracy and length along the share of queries that think",
        &panels,
    )?];
    let row = |name: &str, cut: Option<Routed>, share: f64| {
        let cut = cut.map(|cut| (percent(cut.accuracy), format!("{:.1}", cut.tokens)));
        let (right, tokens) = cut.unwrap_or_else(|| (NOT_MEASURED.to_owned(), String::new()));
        vec![name.to_owned(), percent(share), right, tokens]
    };
    let share = own.map_or(0.0, |own: Cut| own.share);
    blocks.push(Block::Table {
        caption: format!("{} queries, half of them easy", asked.len()),
        header: strings(&["", "think", "right", "tokens"]),
        rows: vec![
            row("never", ends.map(|ends| ends.0), 0.0),
            row(
                "the switcher at its threshold",
                own.and_then(|own| own.result),
                share,
            ),
            row("by lot, the same share", by_lot(&cuts, share), share),
            row("always", ends.map(|ends| ends.1), 1.0),
        ],
    });
    Ok(blocks)
}

/// The questions that all three cells have.
fn asked(base: &Cell, think: &Cell, scores: &Cell) -> Vec<Asked> {
    let outcome = |query: QueryRecords<'_>| Outcome {
        correct: query.accuracy() > 0.5,
        tokens: query.any().query_tokens,
    };
    let find = |cell: &Cell, like: QueryRecords<'_>| {
        let like = like.any();
        cell.queries()
            .find(|query| query.any().task == like.task && query.any().query() == like.query())
            .map(outcome)
    };
    let one = |query: QueryRecords<'_>| {
        Some(Asked {
            score: query.any().switch_score?,
            weight: 1.0,
            base: find(base, query)?,
            think: find(think, query)?,
        })
    };
    scores.queries().filter_map(one).collect()
}

/// The least score that got a thought: the head's threshold, as far as the records tell.
fn own_threshold(scores: &Cell) -> Option<f32> {
    let thought = scores
        .queries()
        .filter(|query| query.any().thinks == Some(true));
    thought
        .filter_map(|query| query.any().switch_score)
        .min_by(f32::total_cmp)
}
