//! Each kind of table and figure, counted from records.

mod switcher;

use crate::chart::{self, Line, Panel};
use crate::error::EvalError;
use crate::record::QueryRecords;
use crate::report::cell::Cell;
use crate::report::page::{Block, Page};
use crate::report::paper;
use crate::report::recipe::{Goal, LimitRow, Measure, PaperTable, Recipe, Table};
use crate::summary::{Summary, voters};
use crate::votes;

const NOT_MEASURED: &str = "not measured";
/// Draws of votes.
const RESAMPLES: usize = 100;

/// The whole page.
pub(super) fn page(recipe: &Recipe, cells: &[Cell]) -> Result<Page, EvalError> {
    let book = Book { recipe, cells };
    let mut blocks = vec![Block::Text(recipe.about.clone())];
    if !recipe.goals.is_empty() {
        blocks.push(Block::Heading("What was wanted".to_owned()));
        blocks.push(goals(&book));
    }
    for table in &recipe.tables {
        match table {
            Table::Accuracy {
                title,
                cells,
                paper,
            } => {
                blocks.push(Block::Heading(title.clone()));
                blocks.push(book.accuracy(cells));
                blocks.extend(paper.map(|table| match table {
                    PaperTable::Adapters => paper::adapters(),
                    PaperTable::Quantization => paper::quantization(),
                }));
            }
            Table::Switcher {
                title,
                base,
                think,
                scores,
            } => {
                blocks.push(Block::Heading(title.clone()));
                blocks.extend(switcher::blocks(&book, [base, think, scores])?);
                blocks.push(Block::Text(paper::SWITCHER.to_owned()));
            }
            Table::Lengths { title, task, cells } => {
                blocks.push(Block::Heading(title.clone()));
                blocks.extend(book.lengths(task, cells)?);
                blocks.push(Block::Text(paper::LENGTHS.to_owned()));
            }
            Table::Limits {
                title,
                limits,
                rows,
            } => {
                blocks.push(Block::Heading(title.clone()));
                blocks.push(book.limits(limits, rows));
                blocks.push(paper::limits());
            }
            Table::Votes { title, n, cell } => {
                blocks.push(Block::Heading(title.clone()));
                blocks.push(book.votes(n, cell));
                blocks.push(paper::votes());
            }
            Table::Combined {
                title,
                cells,
                mixes,
            } => {
                blocks.push(Block::Heading(title.clone()));
                blocks.push(book.combined(cells));
                blocks.extend(book.mixes(cells, mixes));
            }
        }
    }
    blocks.push(Block::Heading("Where the numbers come from".to_owned()));
    blocks.push(book.commands());
    Ok(Page {
        title: recipe.title.clone(),
        blocks,
    })
}

/// The cells by name.
struct Book<'a> {
    recipe: &'a Recipe,
    cells: &'a [Cell],
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn or_missing(value: Option<String>) -> String {
    value.unwrap_or_else(|| NOT_MEASURED.to_owned())
}

fn right(summary: &Summary) -> String {
    let interval = summary.interval.map_or_else(String::new, |i| {
        format!(" ({:.1} to {:.1})", 100.0 * i.low, 100.0 * i.high)
    });
    format!("{}{interval}", percent(summary.accuracy))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.3} MB", bytes as f64 / 1e6)
}

fn strings(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

impl Book<'_> {
    fn cell(&self, name: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.name == name)
    }

    fn about(&self, name: &str) -> String {
        let recipe = self.recipe.cells.iter().find(|cell| cell.name == name);
        recipe.map_or_else(|| name.to_owned(), |cell| cell.about.clone())
    }

    fn accuracy(&self, names: &[String]) -> Block {
        let found: Vec<&Cell> = names.iter().filter_map(|name| self.cell(name)).collect();
        let mut tasks: Vec<&str> = found
            .iter()
            .flat_map(|cell| cell.tasks.iter().map(|task| task.task.as_str()))
            .collect();
        tasks.sort_unstable();
        tasks.dedup();
        let mut header = vec![String::new()];
        for task in &tasks {
            header.extend([
                format!("{task}, right"),
                "tokens".to_owned(),
                "unfinished".to_owned(),
            ]);
        }
        header.push("bytes".to_owned());
        let row = |name: &String| {
            let mut row = vec![self.about(name)];
            for task in &tasks {
                match self.cell(name).and_then(|cell| cell.task(task)) {
                    Some(task) => row.extend([
                        right(task),
                        format!("{:.1}", task.tokens_per_answer),
                        percent(task.unfinished_share),
                    ]),
                    None => row.extend(strings(&[NOT_MEASURED, "", ""])),
                }
            }
            row.push(
                self.cell(name)
                    .and_then(|cell| cell.bytes)
                    .map_or_else(String::new, megabytes),
            );
            row
        };
        Block::Table {
            caption: "Right answers with 95 %, tokens per answer".to_owned(),
            header,
            rows: names.iter().map(row).collect(),
        }
    }

    fn lengths(&self, task: &str, names: &[String]) -> Result<Vec<Block>, EvalError> {
        let mut lines = Vec::new();
        let mut rows = Vec::new();
        let mut first = None;
        for name in names {
            let Some(cell) = self.cell(name) else {
                rows.push(strings(&[&self.about(name), NOT_MEASURED, "", "", ""]));
                continue;
            };
            let of_task = cell
                .records
                .iter()
                .filter(|record| record.task == task && record.is_whole());
            let mut lengths: Vec<f64> = of_task
                .map(|record| record.completion_tokens as f64)
                .collect();
            lengths.sort_by(f64::total_cmp);
            let n = lengths.len().max(1) as f64;
            let points = lengths
                .iter()
                .enumerate()
                .map(|(at, &length)| (length, 100.0 * (at + 1) as f64 / n));
            lines.push(Line::new(self.about(name), points.collect()));
            let Some(summary) = cell.task(task) else {
                continue;
            };
            let mean = summary.tokens_per_answer;
            let longest = *first.get_or_insert(mean);
            rows.push(vec![
                self.about(name),
                format!("{mean:.1}"),
                format!("{:.0}", summary.tokens_median),
                format!("{:.0}", summary.tokens_p95),
                format!("{:.2}", longest / mean.max(1e-9)),
            ]);
        }
        let panel = Panel {
            title: format!("{task}: answers of at most so many tokens, %"),
            x: "tokens".to_owned(),
            lines,
        };
        Ok(vec![
            figure("lengths.svg", "How long answers are", &[panel])?,
            Block::Table {
                caption: "Tokens per answer".to_owned(),
                header: strings(&[
                    "",
                    "mean",
                    "median",
                    "95 % are shorter than",
                    "times shorter than the first",
                ]),
                rows,
            },
        ])
    }

    fn limits(&self, limits: &[usize], rows: &[LimitRow]) -> Block {
        let mut header = vec![String::new()];
        header.extend(limits.iter().map(usize::to_string));
        let row = |row: &LimitRow| {
            let cells = row
                .cells
                .iter()
                .map(|name| or_missing(self.cell(name).map(|cell| percent(cell.all.accuracy))));
            std::iter::once(row.name.clone()).chain(cells).collect()
        };
        Block::Table {
            caption: "Right answers by hard limit on the whole response, tokens".to_owned(),
            header,
            rows: rows.iter().map(row).collect(),
        }
    }

    fn votes(&self, n: &[usize], name: &str) -> Block {
        let Some(cell) = self.cell(name) else {
            return Block::Text(NOT_MEASURED.to_owned());
        };
        let all: Vec<QueryRecords<'_>> = cell.queries().collect();
        let same = |a: &QueryRecords<'_>, b: &QueryRecords<'_>| {
            (&a.any().task, a.any().question) == (&b.any().task, b.any().question)
        };
        let pool: Vec<_> = all.chunk_by(same).map(voters).collect();
        let votes = votes::count(&pool, n, RESAMPLES, 0);
        let optional =
            |spread: Option<votes::Spread>| or_missing(spread.map(|spread| spread.text()));
        let rows = votes.by_n.iter().map(|entry| {
            vec![
                entry.n.to_string(),
                entry.majority.text(),
                optional(entry.weighted),
                optional(entry.best_of_n),
                entry.weighted_not_below.map_or_else(String::new, percent),
            ]
        });
        Block::Table {
            caption: format!(
                "{} questions, {} answers, one answer right {}; right in %, mean ± standard deviation over {RESAMPLES} draws",
                votes.questions,
                votes.samples,
                percent(votes.one_sample)
            ),
            header: strings(&[
                "N",
                "majority",
                "weighted",
                "best of N",
                "weighted at least majority, draws",
            ]),
            rows: rows.collect(),
        }
    }

    fn combined(&self, names: &[String]) -> Block {
        let header = strings(&[
            "",
            "right",
            "think",
            "streams",
            "tokens per query",
            "time to first token",
            "tokens/s",
            "seconds per answer",
            "peak memory",
            "bytes",
            "energy",
        ]);
        let row = |name: &String| {
            let Some(cell) = self.cell(name) else {
                let mut row = strings(&[&self.about(name), NOT_MEASURED]);
                row.resize(header.len(), String::new());
                return row;
            };
            let all = &cell.all;
            vec![
                self.about(name),
                right(all),
                all.thought_share.map_or_else(|| "-".to_owned(), percent),
                format!("{:.2}", all.streams),
                format!("{:.1}", all.tokens_per_query),
                or_missing(all.ttft_ms.map(|ms| format!("{ms:.2} ms"))),
                or_missing(cell.tokens_per_second().map(|rate| format!("{rate:.0}"))),
                format!("{:.4}", all.seconds),
                or_missing(cell.peak_memory().map(megabytes)),
                or_missing(cell.bytes.map(megabytes)),
                cell.joules().map_or_else(
                    || "not exposed".to_owned(),
                    |joules| format!("{joules:.2} J"),
                ),
            ]
        };
        Block::Table {
            caption: "One query at a time; tokens of all streams; tokens/s from the start of a query to its end; time to first token: median".to_owned(),
            rows: names.iter().map(row).collect(),
            header,
        }
    }

    /// Accuracy and tokens where easy and hard questions come in other numbers.
    fn mixes(&self, names: &[String], mixes: &[[f64; 2]]) -> Option<Block> {
        if mixes.is_empty() {
            return None;
        }
        let reference = names.first().and_then(|name| self.cell(name));
        let mut header = vec!["easy to hard".to_owned()];
        header.extend(mixes.iter().map(|[easy, hard]| format!("{easy}:{hard}")));
        let weigh = |cell: &Cell, [easy, hard]: [f64; 2]| {
            let [a, b] = &cell.tasks[..] else { return None };
            let mean = |of: fn(&Summary) -> f64| (easy * of(a) + hard * of(b)) / (easy + hard);
            Some((
                mean(|task| task.accuracy),
                mean(|task| task.tokens_per_query),
            ))
        };
        let row = |name: &String| {
            let of = |mix: &[f64; 2]| {
                let (accuracy, tokens) = weigh(self.cell(name)?, *mix)?;
                let share = reference
                    .and_then(|cell| weigh(cell, *mix))
                    .map_or_else(String::new, |(_, all)| format!(" ({:.2})", tokens / all));
                Some(format!("{}, {tokens:.1}{share}", percent(accuracy)))
            };
            let cells = mixes.iter().map(|mix| or_missing(of(mix)));
            std::iter::once(self.about(name)).chain(cells).collect()
        };
        Some(Block::Table {
            caption: "Right, tokens per query and their share of the first row's, in other mixes"
                .to_owned(),
            header,
            rows: names.iter().map(row).collect(),
        })
    }

    /// The command of every cell.
    fn commands(&self) -> Block {
        let row = |cell: &crate::report::recipe::CellRecipe| {
            let words = self
                .recipe
                .words(&cell.eval)
                .map_or_else(|problem| problem, |words| words.join(" "));
            vec![cell.name.clone(), format!("edgethink eval {words}")]
        };
        Block::Table {
            caption: "Each cell's records stand in cells/NAME/records.parquet".to_owned(),
            header: strings(&["cell", "command"]),
            rows: self.recipe.cells.iter().map(row).collect(),
        }
    }
}

fn figure(name: &str, caption: &str, panels: &[Panel]) -> Result<Block, EvalError> {
    Ok(Block::Figure {
        name: name.to_owned(),
        caption: caption.to_owned(),
        inline: chart::inline(panels)?,
        file: chart::file(panels)?,
    })
}

fn goals(book: &Book<'_>) -> Block {
    let row = |goal: &Goal| {
        let of = |name: &str| book.cell(name).and_then(|cell| cell.measure(goal.measure));
        let mut row = vec![goal.text.clone()];
        let (Some(is), Some(than)) = (of(&goal.cell), of(&goal.than)) else {
            row.extend(strings(&[NOT_MEASURED, "", "", ""]));
            return row;
        };
        let share = is / than;
        let met = goal.at_most.is_none_or(|most| share <= most)
            && goal.at_least.is_none_or(|least| share >= least);
        let show = |value: f64| match goal.measure {
            Measure::Accuracy => percent(value),
            Measure::Tokens => format!("{value:.1}"),
            Measure::Bytes => megabytes(value as u64),
            Measure::Seconds => format!("{value:.4} s"),
        };
        row.extend([
            show(than),
            show(is),
            format!("{share:.3}"),
            if met { "yes" } else { "no" }.to_owned(),
        ]);
        row
    };
    Block::Table {
        caption: String::new(),
        header: strings(&["", "without", "with", "share", "met"]),
        rows: book.recipe.goals.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns;
    use crate::record::Record;
    use crate::report::build;
    use serde_json::json;

    fn cell(dir: &std::path::Path, name: &str, tokens: usize, right: bool, score: Option<f32>) {
        let dir = dir.join("cells").join(name);
        std::fs::create_dir_all(&dir).expect("created");
        let record = |task: &str, question: usize| Record {
            task: task.to_owned(),
            question,
            answer: Some("1".to_owned()),
            correct: right,
            chosen: true,
            completion_tokens: tokens,
            query_tokens: tokens,
            streams: 1,
            finish_reason: "stop".to_owned(),
            switch_score: score,
            thinks: score.map(|score| score > 0.5),
            seconds: 0.1,
            ttft_ms: Some(1.0),
            ..Record::default()
        };
        let records: Vec<Record> = ["easy", "hard"]
            .iter()
            .flat_map(|task| (0..3).map(|q| record(task, q)))
            .collect();
        columns::write(&dir.join("records.parquet"), &records).expect("written");
        let session = json!({"queries": 6, "seconds": 0.6, "peak_memory_bytes": 5_000_000, "energy_joules": null});
        let run = json!({"settings": {}, "sessions": [session]});
        std::fs::write(dir.join("run.json"), run.to_string()).expect("written");
        std::fs::write(
            dir.join("files.json"),
            format!("{{\"a\": {}}}", tokens * 1_000_000),
        )
        .expect("written");
    }

    #[test]
    fn every_table_is_filled_from_records_or_says_that_it_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        cell(dir.path(), "base", 5, false, None);
        cell(dir.path(), "think", 20, true, None);
        cell(dir.path(), "auto", 20, true, Some(0.9));
        let recipe: Recipe = toml::from_str(&format!(
            r#"
            title = "t"
            about = "a"
            output_dir = {:?}
            cell = [
                {{ name = "base", about = "the base", eval = "x" }},
                {{ name = "think", about = "thinking", eval = "x" }},
                {{ name = "auto", about = "switched", eval = "x" }},
                {{ name = "none", about = "nothing yet", eval = "x" }},
            ]
            goal = [
                {{ text = "shorter", cell = "base", than = "think", measure = "tokens", at_most = 0.25 }},
                {{ text = "as right", cell = "base", than = "think", measure = "accuracy", at_least = 1.0 }},
                {{ text = "smaller", cell = "none", than = "think", measure = "bytes", at_most = 0.3 }},
            ]
            table = [
                {{ kind = "accuracy", title = "A", cells = ["base", "think", "none"], paper = "adapters" }},
                {{ kind = "switcher", title = "S", base = "base", think = "think", scores = "auto" }},
                {{ kind = "lengths", title = "L", task = "hard", cells = ["think", "base", "none"] }},
                {{ kind = "limits", title = "H", limits = [5, 20], rows = [{{ name = "r", cells = ["base", "none"] }}] }},
                {{ kind = "votes", title = "V", n = [1], cell = "think" }},
                {{ kind = "combined", title = "C", cells = ["think", "base", "none"], mixes = [[1, 1], [9, 1]] }},
            ]
            "#,
            dir.path()
        ))
        .expect("a recipe");
        let text = build(&recipe).expect("a page").markdown();
        for part in [
            "| shorter | 20.0 | 5.0 | 0.250 | yes |",
            "| as right | 100.0 % | 0.0 % | 0.000 | no |",
            "| smaller | not measured |",
            "| the switcher at its threshold | 100.0 % | 100.0 % | 20.0 |",
            "| the base | 5.0 | 5 | 5 | 4.00 |",
            "| r | 0.0 % | not measured |",
            "| 1 | 100.0 ± 0.0 | not measured |",
            "0.0 %, 5.0 (0.25)",
            "not exposed",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains("NaN"), "{text}");
        super::super::write(&recipe).expect("written");
        assert!(
            dir.path().join("switcher.svg").is_file() && dir.path().join("index.html").is_file()
        );
    }
}
