//! A task: where its questions are, what of a row is asked, how the answer is judged, and the sampling of the paper's protocol (METHOD 8).
//!
//! Tasks are data: the TOML files in `tasks/`, which are built in, or one of the user's own. Names of columns are found without
//! regard to case, since copies of one data set differ in it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::EvalError;

const BUILT_IN: [&str; 15] = [
    include_str!("../tasks/aime24.toml"),
    include_str!("../tasks/aime25.toml"),
    include_str!("../tasks/amc23.toml"),
    include_str!("../tasks/gpqa-diamond.toml"),
    include_str!("../tasks/gsm8k.toml"),
    include_str!("../tasks/humaneval.toml"),
    include_str!("../tasks/livecodebench.toml"),
    include_str!("../tasks/math500.toml"),
    include_str!("../tasks/mbpp.toml"),
    include_str!("../tasks/mmlu.toml"),
    include_str!("../tasks/strategyqa.toml"),
    include_str!("../tasks/pocket-easy.toml"),
    include_str!("../tasks/pocket-hard.toml"),
    include_str!("../tasks/pocket-shifted.toml"),
    include_str!("../tasks/jsonl.toml"),
];

/// One benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// What it is called.
    pub name: String,
    /// What it asks, for people.
    pub about: String,
    /// The data set on the hub; without it a file must be given.
    #[serde(default)]
    pub hub: Option<HubData>,
    /// What is asked. `{question}` is the row's question, `{choices}` the lettered choices, any other `{column}` that column.
    /// A question that is a conversation is asked as it stands.
    pub prompt: String,
    /// Columns that hold the question; the first that a row has counts.
    pub question: Vec<String>,
    /// How an answer is judged.
    pub judge: Judge,
    /// How tokens are drawn, where the user does not say.
    #[serde(default)]
    pub sampling: TaskSampling,
    /// How often each question is asked.
    pub repeats: usize,
}

/// Files of a data set on the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubData {
    /// `org/name`.
    pub repo: String,
    /// The files in it, read one after the other.
    pub files: Vec<String>,
    /// Branch, tag or commit.
    #[serde(default = "main_branch")]
    pub revision: String,
}

fn main_branch() -> String {
    "main".to_owned()
}

/// How an answer is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Judge {
    /// The final answer equals the row's, by the grader.
    Answer {
        /// Columns that hold the right answer.
        column: Vec<String>,
        /// It begins behind the last of these in the column, as GSM8K's behind `####`.
        #[serde(default)]
        after: Option<String>,
    },
    /// The final answer is the letter of the right choice.
    Choice {
        /// The column that holds the list of choices.
        choices: String,
        /// The column that holds the right one's number from 0, or its letter.
        column: String,
    },
    /// As [`Judge::Choice`], where each choice has a column; they are shuffled by the row's number.
    Shuffled {
        /// The column of the right choice.
        right: String,
        /// Those of the wrong ones.
        wrong: Vec<String>,
    },
    /// The final answer is yes or no.
    YesNo {
        /// A column of true and false, or of yes and no.
        column: String,
    },
    /// The last code block passes the row's tests. Runs only where generated code may run.
    Code {
        /// Where the tests are.
        tests: CodeTests,
    },
}

/// How a data set keeps the tests of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeTests {
    /// `test` defines `check(candidate)`, `entry_point` names the function, `prompt` begins it.
    HumanEval,
    /// `test_list` holds assertions, behind `test_imports` or `test_setup_code`.
    Mbpp,
    /// `public_test_cases` and `private_test_cases` hold inputs and outputs, `metadata` names the function, if there is one.
    LiveCodeBench,
}

/// How tokens are drawn; what is absent is the model's own.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSampling {
    /// Temperature.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// Nucleus.
    #[serde(default)]
    pub top_p: Option<f32>,
    /// Tokens of a response at most.
    #[serde(default)]
    pub max_tokens: Option<usize>,
}

impl Task {
    /// The built-in tasks.
    ///
    /// # Errors
    /// None, as a test sees to; the signature is that of reading.
    pub fn built_in() -> Result<Vec<Self>, EvalError> {
        BUILT_IN
            .iter()
            .map(|text| Self::read("built in", text))
            .collect()
    }

    /// A built-in task by name, or a task file.
    ///
    /// # Errors
    /// An unknown name, a file that cannot be read or is wrong.
    pub fn named(name: &str) -> Result<Self, EvalError> {
        if name.ends_with(".toml") {
            let path = Path::new(name);
            let text = std::fs::read_to_string(path).map_err(|source| EvalError::Read {
                path: path.to_owned(),
                source,
            })?;
            return Self::read(name, &text);
        }
        let all = Self::built_in()?;
        let known: Vec<&str> = all.iter().map(|task| task.name.as_str()).collect();
        let unknown = EvalError::UnknownTask {
            name: name.to_owned(),
            known: known.join(", "),
        };
        all.into_iter()
            .find(|task| task.name == name)
            .ok_or(unknown)
    }

    fn read(name: &str, text: &str) -> Result<Self, EvalError> {
        let refused = |problem: String| EvalError::Task {
            name: name.to_owned(),
            problem,
        };
        let task: Self = toml::from_str(text).map_err(|e| refused(e.to_string()))?;
        if task.repeats == 0 {
            return Err(refused("repeats must be at least 1".to_owned()));
        }
        if task.question.is_empty() {
            return Err(refused("question names no column".to_owned()));
        }
        let lettered = matches!(task.judge, Judge::Choice { .. } | Judge::Shuffled { .. });
        if lettered != task.prompt.contains("{choices}") {
            return Err(refused(
                "{choices} stands in the prompt exactly where there are choices".to_owned(),
            ));
        }
        Ok(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_tasks_are_whole_and_have_the_papers_protocol() {
        let all = Task::built_in().expect("they are right");
        let names: Vec<&str> = all.iter().map(|task| task.name.as_str()).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len(), "{names:?}");
        for (name, repeats) in [
            ("aime24", 10),
            ("aime25", 10),
            ("amc23", 10),
            ("gpqa-diamond", 4),
            ("math500", 1),
            ("livecodebench", 16),
        ] {
            let task = Task::named(name).expect(name);
            assert_eq!(task.repeats, repeats, "{name}");
            let want = TaskSampling {
                temperature: Some(0.6),
                top_p: Some(0.95),
                max_tokens: Some(32_768),
            };
            assert_eq!(task.sampling, want, "{name}");
        }
    }

    #[test]
    fn wrong_tasks_are_refused_with_a_reason() {
        let unknown = Task::named("gsm9k").expect_err("no such task").to_string();
        assert!(unknown.contains("gsm8k"), "{unknown}");
        let good = include_str!("../tasks/mmlu.toml");
        for (from, to, reason) in [
            ("repeats = 1", "repeats = 0", "repeats"),
            ("{choices}", "", "{choices}"),
            ("about", "abuot", "abuot"),
        ] {
            let error = Task::read("x", &good.replace(from, to)).expect_err(reason);
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
