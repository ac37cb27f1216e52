//! How a model was taught to think: the tags of a thought, what stands before its answer, how a budget is named to it.
//!
//! A trained adapter says this in `edgethink.json` beside its `adapter_config.json`, so that nobody has to guess it:
//!
//! ```json
//! {"budget_line": "Use at most {B} tokens.", "budgets": [96, 128, 192, 256], "closing": "\n</think>\n\n**Final answer:** "}
//! ```
//!
//! Every key may be left out. Without `budget_line` no budget is named in the prompt: a model that never saw the line would only
//! be disturbed by it. Read by [`ThoughtFormat::beside`]; used by [`crate::Reasoner`].

use std::path::Path;

use edgethink_model::Folder;
use serde_json::{Map, Value};

use crate::split::Tags;

/// What is written when a thought is cut. Differs per model: it should be what the model itself writes before its answer.
pub const DEFAULT_CLOSING: &str = "\n</think>\n\n**Final answer:** ";

/// The file beside an adapter.
pub const FORMAT_FILE: &str = "edgethink.json";

/// The budgets of the paper (METHOD 3), where the adapter names none.
pub const DEFAULT_BUDGETS: [usize; 4] = [1000, 3000, 4000, 6000];

/// Where a budget line has its number.
const NUMBER: &str = "{B}";

/// How the model writes its thoughts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThoughtFormat {
    /// The thought's tags.
    pub tags: Tags,
    /// What is forced when a thought is cut; holds `tags.close`.
    pub closing: String,
    /// The line that names a budget in the prompt, with `{B}` for the number; `None` if the model does not know one.
    pub budget_line: Option<String>,
    /// Budgets that it was trained with, in tokens, growing; what an [`crate::Effort`] chooses from.
    pub budgets: Vec<usize>,
}

impl Default for ThoughtFormat {
    fn default() -> Self {
        Self {
            tags: Tags::default(),
            closing: DEFAULT_CLOSING.to_owned(),
            budget_line: None,
            budgets: DEFAULT_BUDGETS.to_vec(),
        }
    }
}

/// A format that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is no JSON object.
    #[error("{path} is no JSON object")]
    Json {
        /// The file.
        path: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A key that is not known, or whose value is none of its kind.
    #[error(
        "{path}: {key:?} is not known; the keys are the texts \"budget_line\" and \"closing\" and \"budgets\", a list of growing numbers"
    )]
    Key {
        /// The file.
        path: String,
        /// The key.
        key: String,
    },
    /// The closing phrase does not close a thought.
    #[error("the closing phrase {closing:?} has no {tag}, so it would end no thought; put it in")]
    Closing {
        /// The phrase.
        closing: String,
        /// The missing tag.
        tag: String,
    },
    /// A budget line without a number, or of several lines.
    #[error("the budget line {line:?} is no single line with {{B}} in the place of the number")]
    BudgetLine {
        /// The line.
        line: String,
    },
}

impl ThoughtFormat {
    /// What the directory of an adapter says, or the default if it says nothing. Adapters in a single file say nothing.
    ///
    /// # Errors
    /// A file that cannot be read, is no JSON, has other keys, or fails [`ThoughtFormat::check`].
    pub fn beside(adapter: &Path) -> Result<Self, FormatError> {
        Self::of(&Folder::disk(adapter))
    }

    /// As [`ThoughtFormat::beside`], for an adapter that may be inside a bundle.
    ///
    /// # Errors
    /// As [`ThoughtFormat::beside`].
    pub fn of(adapter: &Folder) -> Result<Self, FormatError> {
        if !adapter.has(FORMAT_FILE) {
            return Ok(Self::default());
        }
        let name = adapter.path_of(FORMAT_FILE).display().to_string();
        match adapter.read(FORMAT_FILE) {
            Ok(text) => Self::from_json(&text, &name),
            Err(source) => Err(FormatError::Read { path: name, source }),
        }
    }

    /// What the text of an `edgethink.json` says; `name` is the file's, for the errors.
    ///
    /// # Errors
    /// Text that is no JSON, has other keys, or fails [`ThoughtFormat::check`].
    pub fn from_json(text: &[u8], name: &str) -> Result<Self, FormatError> {
        let path = || name.to_owned();
        let mut format = Self::default();
        let keys: Map<String, Value> =
            serde_json::from_slice(text).map_err(|source| FormatError::Json {
                path: path(),
                source,
            })?;
        for (key, value) in keys {
            match (key.as_str(), value) {
                ("budget_line", Value::String(line)) => format.budget_line = Some(line),
                ("closing", Value::String(closing)) => format.closing = closing,
                ("budgets", value) if growing(&value).is_some() => {
                    format.budgets = growing(&value).unwrap_or_default();
                }
                _ => return Err(FormatError::Key { path: path(), key }),
            }
        }
        format.check()?;
        Ok(format)
    }

    /// The text of the `edgethink.json` that says this.
    pub fn to_json(&self) -> String {
        let mut keys = Map::new();
        if let Some(line) = &self.budget_line {
            keys.insert("budget_line".to_owned(), line.as_str().into());
        }
        if self.closing != DEFAULT_CLOSING {
            keys.insert("closing".to_owned(), self.closing.as_str().into());
        }
        if self.budgets != DEFAULT_BUDGETS {
            keys.insert("budgets".to_owned(), self.budgets.clone().into());
        }
        format!("{:#}\n", Value::Object(keys))
    }

    /// Refuses a phrase that closes nothing and a line that names no number.
    ///
    /// # Errors
    /// [`FormatError::Closing`], [`FormatError::BudgetLine`].
    pub fn check(&self) -> Result<(), FormatError> {
        if !self.closing.contains(&self.tags.close) {
            return Err(FormatError::Closing {
                closing: self.closing.clone(),
                tag: self.tags.close.clone(),
            });
        }
        match &self.budget_line {
            Some(line) if !line.contains(NUMBER) || line.contains('\n') => {
                Err(FormatError::BudgetLine { line: line.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The line that names a budget of so many tokens, if the model knows one.
    pub fn budget_line(&self, tokens: usize) -> Option<String> {
        self.budget_line
            .as_ref()
            .map(|line| line.replace(NUMBER, &tokens.to_string()))
    }
}

/// Numbers that grow, at least one.
fn growing(value: &Value) -> Option<Vec<usize>> {
    let list = value.as_array()?.iter();
    let numbers: Option<Vec<usize>> = list
        .map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok()))
        .collect();
    numbers.filter(|all| !all.is_empty() && all.is_sorted_by(|a, b| a < b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ThoughtFormat, FormatError> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FORMAT_FILE), text).expect("written");
        ThoughtFormat::beside(dir.path())
    }

    #[test]
    fn an_adapter_says_how_a_budget_is_named() {
        let format = read(r#"{"budget_line": "Use at most {B} tokens."}"#).expect("a format");
        assert_eq!(
            format.budget_line(64).as_deref(),
            Some("Use at most 64 tokens.")
        );
        assert_eq!(format.closing, DEFAULT_CLOSING);
        let format = read(r#"{"closing": "</think>So: "}"#).expect("a format");
        assert_eq!(
            (format.closing.as_str(), format.budget_line(64)),
            ("</think>So: ", None)
        );
        let again = ThoughtFormat::from_json(format.to_json().as_bytes(), "again");
        assert_eq!(again.expect("a format"), format);
    }

    #[test]
    fn an_adapter_without_the_file_says_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in [dir.path(), &dir.path().join("adapter.gguf")] {
            let format = ThoughtFormat::beside(path).expect("a format");
            assert_eq!(format, ThoughtFormat::default());
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (text, says) in [
            (r#"{"budget": "Use {B}"}"#, "budget"),
            (r#"{"budget_line": 3}"#, "the texts"),
            (r#"{"budgets": [128, 96]}"#, "growing numbers"),
            (r#"{"budgets": []}"#, "growing numbers"),
            ("nothing", "edgethink.json"),
            (r#"{"budget_line": "Be brief."}"#, "Be brief."),
            (r#"{"budget_line": "{B}\ntokens"}"#, "single line"),
            (r#"{"closing": "So: "}"#, "</think>"),
        ] {
            let error = read(text).expect_err("refused");
            let mut said = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                said.push_str(&source.to_string());
            }
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
