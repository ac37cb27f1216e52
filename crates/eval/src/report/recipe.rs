//! The recipe of a report: steps that make what is measured, cells that are measured, tables that show them, goals that they are held to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::EvalError;

/// A report.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Over the page.
    pub title: String,
    /// What is measured, for people: under the title.
    pub about: String,
    /// Where records and page go.
    pub output_dir: PathBuf,
    /// `{name}` in a command stands for this.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// What must be there before cells are measured.
    #[serde(default, rename = "step")]
    pub steps: Vec<Step>,
    /// What is measured.
    #[serde(rename = "cell")]
    pub cells: Vec<CellRecipe>,
    /// What is shown, in order.
    #[serde(rename = "table")]
    pub tables: Vec<Table>,
    /// What it is held to.
    #[serde(default, rename = "goal")]
    pub goals: Vec<Goal>,
}

/// A command of this program that makes something.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What it is called.
    pub name: String,
    /// The command without the program's name; words are separated by spaces.
    pub run: String,
    /// What is there when it is done.
    pub makes: Vec<PathBuf>,
}

/// One measurement: `edgethink eval` with these arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellRecipe {
    /// The name of its folder, and how tables call it.
    pub name: String,
    /// What it is, in a table.
    pub about: String,
    /// Arguments of `edgethink eval`; words are separated by spaces.
    pub eval: String,
    /// The files that a device needs for it; their bytes are counted.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

/// One table or figure.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Table {
    /// A row per cell: right answers and tokens by task. `paper` shows the paper's rows below.
    Accuracy {
        /// Over it.
        title: String,
        /// Its rows.
        cells: Vec<String>,
        /// Which of the paper's tables is like it.
        #[serde(default)]
        paper: Option<PaperTable>,
    },
    /// Fig. 3: accuracy and length along the share of queries that think.
    Switcher {
        /// Over it.
        title: String,
        /// Answers at once.
        base: String,
        /// Answers with a thought.
        think: String,
        /// A cell whose records have the switcher's scores.
        scores: String,
    },
    /// Fig. 4 and 5: how long answers are.
    Lengths {
        /// Over it.
        title: String,
        /// Whose answers.
        task: String,
        /// Its lines.
        cells: Vec<String>,
    },
    /// Table 8: accuracy by hard limit.
    Limits {
        /// Over it.
        title: String,
        /// The limits, in tokens.
        limits: Vec<usize>,
        /// A row each: a name, and the cell of each limit.
        rows: Vec<LimitRow>,
    },
    /// Table 9: what N answers and a vote are worth.
    Votes {
        /// Over it.
        title: String,
        /// Numbers of answers.
        n: Vec<usize>,
        /// A cell with several answers to each question.
        cell: String,
    },
    /// What the paper lacks: everything on, and each part off in turn.
    Combined {
        /// Over it.
        title: String,
        /// Its rows; the first is what the others are compared with.
        cells: Vec<String>,
        /// Mixes of the first task and the others, as easy to hard.
        #[serde(default)]
        mixes: Vec<[f64; 2]>,
    },
}

/// A row of [`Table::Limits`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRow {
    /// What it is.
    pub name: String,
    /// A cell for each limit.
    pub cells: Vec<String>,
}

/// Tables of the paper that stand beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaperTable {
    /// Table 1: base, fine-tuned, dense.
    Adapters,
    /// Tables 10 and 11: quantization.
    Quantization,
}

/// What is wanted of a cell, against another.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// For people.
    pub text: String,
    /// Which cell.
    pub cell: String,
    /// Against which.
    pub than: String,
    /// Of what.
    pub measure: Measure,
    /// The share of the other's that is allowed at most.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// The share of the other's that is wanted at least.
    #[serde(default)]
    pub at_least: Option<f64>,
}

/// What can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Right answers.
    Accuracy,
    /// Tokens of all streams per query.
    Tokens,
    /// Bytes of the files.
    Bytes,
    /// Seconds per query.
    Seconds,
}

impl Recipe {
    /// Reads a recipe and names all its problems.
    ///
    /// # Errors
    /// A file that cannot be read, is no recipe, or names cells that do not exist.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = std::fs::read_to_string(path).map_err(|source| EvalError::Read {
            path: path.to_owned(),
            source,
        })?;
        let refused = |problems: String| EvalError::Recipe {
            path: path.to_owned(),
            problems,
        };
        let recipe: Self = toml::from_str(&text).map_err(|e| refused(e.to_string()))?;
        let problems = recipe.problems();
        if problems.is_empty() {
            Ok(recipe)
        } else {
            Err(refused(problems.join("\n")))
        }
    }

    /// Everything that is wrong.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut known = BTreeSet::new();
        for cell in &self.cells {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if cell.name.is_empty() || cell.name.starts_with('.') || !cell.name.chars().all(plain) {
                problems.push(format!("cell {:?} is no name for a folder", cell.name));
            }
            if !known.insert(cell.name.as_str()) {
                problems.push(format!("cell {} is there twice", cell.name));
            }
        }
        let commands = self.cells.iter().map(|cell| &cell.eval);
        for command in commands.chain(self.steps.iter().map(|step| &step.run)) {
            if let Err(problem) = self.words(command) {
                problems.push(problem);
            }
        }
        let named = self.tables.iter().flat_map(Table::cells);
        let goals = self.goals.iter().flat_map(|goal| [&goal.cell, &goal.than]);
        for name in named.chain(goals) {
            if !known.contains(name.as_str()) {
                problems.push(format!("there is no cell {name}"));
            }
        }
        for table in &self.tables {
            if let Table::Limits { limits, rows, .. } = table
                && rows.iter().any(|row| row.cells.len() != limits.len())
            {
                problems.push(format!(
                    "every row needs {} cells, one for each limit",
                    limits.len()
                ));
            }
        }
        problems
    }

    /// The words of a command, with the variables put in.
    ///
    /// # Errors
    /// An unknown variable.
    pub fn words(&self, command: &str) -> Result<Vec<String>, String> {
        // Before it is cut: a variable may stand for several words.
        let mut command = command.to_owned();
        for (name, value) in &self.vars {
            command = command.replace(&format!("{{{name}}}"), value);
        }
        if command.contains(['{', '}']) {
            return Err(format!("{command:?} names no variable of [vars]"));
        }
        Ok(command.split_whitespace().map(str::to_owned).collect())
    }

    /// A path with the variables put in.
    pub fn path(&self, path: &Path) -> PathBuf {
        let mut text = path.to_string_lossy().into_owned();
        for (name, value) in &self.vars {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        PathBuf::from(text)
    }

    /// Where a cell's records are.
    pub fn cell_dir(&self, name: &str) -> PathBuf {
        self.output_dir.join("cells").join(name)
    }
}

impl Table {
    /// The cells that it shows.
    fn cells(&self) -> Vec<&String> {
        match self {
            Self::Accuracy { cells, .. }
            | Self::Lengths { cells, .. }
            | Self::Combined { cells, .. } => cells.iter().collect(),
            Self::Switcher {
                base,
                think,
                scores,
                ..
            } => vec![base, think, scores],
            Self::Limits { rows, .. } => rows.iter().flat_map(|row| &row.cells).collect(),
            Self::Votes { cell, .. } => vec![cell],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_named() {
        let text = r#"
            title = "t"
            about = "a"
            output_dir = "o"
            [vars]
            base = "models/base"
            [[cell]]
            name = "a"
            about = "x"
            eval = "gsm8k --model {base}"
            [[cell]]
            name = "a"
            about = "x"
            eval = "gsm8k --model {bse}"
            [[cell]]
            name = "../b"
            about = "x"
            eval = "gsm8k"
            [[table]]
            kind = "limits"
            title = "t"
            limits = [1, 2]
            rows = [{ name = "r", cells = ["c"] }]
        "#;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("r.toml");
        std::fs::write(&path, text).expect("written");
        let error = Recipe::read(&path).expect_err("it is wrong").to_string();
        for problem in [
            "a is there twice",
            "{bse}",
            "../b",
            "no cell c",
            "needs 2 cells",
        ] {
            assert!(error.contains(problem), "{problem} is not in: {error}");
        }
    }

    #[test]
    fn the_repositorys_report_is_whole() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let recipe = Recipe::read(&root.join("recipes/pocket/report.toml")).expect("it is right");
        let words = recipe
            .words(&recipe.cells[0].eval)
            .expect("its variables are there");
        assert!(words.len() > 2, "{words:?}");
    }
}
