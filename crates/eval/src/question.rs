//! From a row of a data set to a question with its right answer.

use std::path::{Path, PathBuf};

use edgethink_engine::rng::Draws;
use edgethink_model::Message;
use edgethink_model::hub::Hub;
use serde_json::Value;

use crate::code::Program;
use crate::error::EvalError;
use crate::rows::{self, Columns, column};
use crate::task::{Judge, Task};

/// Shuffles choices; any fixed number does.
const CHOICE_SEED: u64 = 0x6564_6765;

/// One thing to ask.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Its place in the data set, from 0.
    pub index: usize,
    /// The conversation; the last turn is the user's.
    pub messages: Vec<Message>,
    /// What is right.
    pub truth: Truth,
    /// The row.
    pub columns: Columns,
}

/// What a response is held against.
#[derive(Debug, Clone, PartialEq)]
pub enum Truth {
    /// The final answer, by the grader.
    Answer(String),
    /// Tests for the last code block.
    Program(Program),
}

impl Truth {
    /// The right answer as text; empty for programs.
    pub fn text(&self) -> &str {
        match self {
            Self::Answer(text) => text,
            Self::Program(_) => "",
        }
    }
}

/// The files of a task: the given one, or those of the hub.
///
/// # Errors
/// A task without data, or a hub that has none.
pub fn files(task: &Task, given: Option<&Path>, hub: &Hub) -> Result<Vec<PathBuf>, EvalError> {
    if let Some(path) = given {
        return Ok(vec![path.to_owned()]);
    }
    let Some(data) = &task.hub else {
        return Err(EvalError::NoData {
            name: task.name.clone(),
        });
    };
    let file = |file: &String| {
        hub.data_file(&data.repo, &data.revision, file)
            .map_err(|source| EvalError::Hub {
                task: task.name.clone(),
                source: Box::new(source),
            })
    };
    data.files.iter().map(file).collect()
}

/// The questions of a task from its files.
///
/// # Errors
/// Files that cannot be read, and rows that lack what the task names.
pub fn read(task: &Task, files: &[PathBuf]) -> Result<Vec<Question>, EvalError> {
    let mut questions = Vec::new();
    for path in files {
        for (at, columns) in rows::read(path)?.into_iter().enumerate() {
            let question = question(task, questions.len(), columns);
            questions.push(question.map_err(|problem| EvalError::Row {
                path: path.clone(),
                row: at + 1,
                problem,
            })?);
        }
    }
    Ok(questions)
}

fn question(task: &Task, index: usize, columns: Columns) -> Result<Question, String> {
    let asked = first(&columns, &task.question)?;
    let (truth, choices) = match &task.judge {
        Judge::Answer { column, after } => {
            let text = plain(first(&columns, column)?);
            let text = match after {
                None => text,
                Some(mark) => {
                    let (_, answer) = text
                        .rsplit_once(mark.as_str())
                        .ok_or_else(|| format!("its answer has no {mark}"))?;
                    answer.trim().to_owned()
                }
            };
            (Truth::Answer(text), None)
        }
        Judge::Choice { choices, column } => {
            let Value::Array(choices) = need(&columns, choices)? else {
                return Err(format!("its column `{choices}` is no list"));
            };
            let choices: Vec<String> = choices.iter().map(plain).collect();
            let right = need(&columns, column)?;
            let letter = right_letter(right, choices.len()).ok_or_else(|| {
                format!(
                    "{right} is no number or letter of {} choices",
                    choices.len()
                )
            })?;
            (Truth::Answer(letter), Some(choices))
        }
        Judge::Shuffled { right, wrong } => {
            let mut choices = vec![plain(need(&columns, right)?)];
            for name in wrong {
                choices.push(plain(need(&columns, name)?));
            }
            let order = order(index, choices.len());
            let place = order.iter().position(|&at| at == 0).unwrap_or(0);
            let choices = order
                .iter()
                .map(|&at| choices[at].trim().to_owned())
                .collect();
            (Truth::Answer(letter(place)), Some(choices))
        }
        Judge::YesNo { column } => {
            let value = need(&columns, column)?;
            let yes = match plain(value).to_ascii_lowercase().as_str() {
                "true" | "yes" => true,
                "false" | "no" => false,
                _ => return Err(format!("{value} is neither true nor false")),
            };
            (
                Truth::Answer(if yes { "yes" } else { "no" }.to_owned()),
                None,
            )
        }
        Judge::Code { tests } => (Truth::Program(Program::of(*tests, &columns)?), None),
    };
    let messages = match asked {
        Value::Array(_) => serde_json::from_value(asked.clone())
            .map_err(|error| format!("its question is no conversation: {error}"))?,
        asked => {
            let text = fill(&task.prompt, &plain(asked), choices.as_deref(), &columns)?;
            vec![Message::new("user", &text)]
        }
    };
    Ok(Question {
        index,
        messages,
        truth,
        columns,
    })
}

fn need<'a>(columns: &'a Columns, name: &str) -> Result<&'a Value, String> {
    column(columns, name).ok_or_else(|| lacks(columns, &[name]))
}

fn first<'a>(columns: &'a Columns, names: &[String]) -> Result<&'a Value, String> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = names.iter().find_map(|name| column(columns, name));
    found.ok_or_else(|| lacks(columns, &names))
}

fn lacks(columns: &Columns, names: &[&str]) -> String {
    let has: Vec<&str> = columns.keys().map(String::as_str).collect();
    format!(
        "it has no column `{}`, only {}",
        names.join("` or `"),
        has.join(", ")
    )
}

/// Text as it is, lists line by line, anything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

fn letter(place: usize) -> String {
    char::from(b'A' + (place % 26) as u8).to_string()
}

/// A letter, or the number of a choice from 0.
fn right_letter(value: &Value, choices: usize) -> Option<String> {
    let text = plain(value).trim().to_ascii_uppercase();
    let place = match text.parse::<usize>() {
        Ok(number) => number,
        Err(_) => match text.as_bytes() {
            [byte @ b'A'..=b'Z'] => usize::from(byte - b'A'),
            _ => return None,
        },
    };
    (place < choices).then(|| letter(place))
}

/// The order of choices of a question: always the same.
fn order(index: usize, n: usize) -> Vec<usize> {
    let draws = Draws::new(CHOICE_SEED, index);
    let mut order: Vec<usize> = (0..n).collect();
    for at in 0..n {
        let other = at + (draws.uniform(at) * (n - at) as f64) as usize;
        order.swap(at, other.min(n - 1));
    }
    order
}

/// Puts the row into the prompt. `{}` and braces around what is no name stay.
fn fill(
    template: &str,
    question: &str,
    choices: Option<&[String]>,
    columns: &Columns,
) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        text.push_str(before);
        let name = from[1..].split_once('}').map(|(name, _)| name);
        let Some(name) = name.filter(|n| !n.is_empty() && !n.contains(['{', '\\', '\n'])) else {
            text.push('{');
            rest = &from[1..];
            continue;
        };
        match (name, choices) {
            ("question", _) => text.push_str(question),
            ("choices", Some(choices)) => {
                let lines = choices.iter().enumerate();
                let lines: Vec<String> = lines
                    .map(|(at, choice)| format!("({}) {choice}", letter(at)))
                    .collect();
                text.push_str(&lines.join("\n"));
            }
            _ => text.push_str(&plain(need(columns, name)?)),
        }
        rest = &from[name.len() + 2..];
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(task: &str, row: &Value) -> Result<(String, String), String> {
        let task = Task::named(task).expect(task);
        let Value::Object(columns) = row.clone() else {
            panic!("a row is an object")
        };
        let question = question(&task, 3, columns)?;
        let text = question.messages[0].content.clone();
        Ok((text, question.truth.text().to_owned()))
    }

    #[test]
    fn rows_of_the_data_sets_own_columns_become_questions() {
        let (text, truth) = asked(
            "gsm8k",
            &json!({"question": "Q?", "answer": "48/2 = <<48/2=24>>24\n#### 72"}),
        )
        .unwrap();
        assert!(
            text.starts_with("Q?\n\n") && text.ends_with("within \\boxed{}."),
            "{text:?}"
        );
        assert_eq!(truth, "72");
        for (task, row) in [
            (
                "aime24",
                json!({"ID": "2024-I-1", "Problem": "Q?", "Answer": 72}),
            ),
            ("aime24", json!({"problem": "Q?", "answer": "72"})),
            ("aime25", json!({"problem": "Q?", "answer": "72"})),
            ("amc23", json!({"question": "Q?", "answer": "72"})),
            (
                "math500",
                json!({"problem": "Q?", "solution": "", "answer": "72", "unique_id": "x"}),
            ),
            (
                "pocket-hard",
                json!({"prompt": [{"role": "user", "content": "Q?"}], "answer": "72"}),
            ),
        ] {
            let (text, truth) = asked(task, &row).expect(task);
            assert!(
                text.starts_with("Q?") && truth == "72",
                "{task}: {text:?} {truth}"
            );
        }
        let (text, truth) = asked(
            "mmlu",
            &json!({"question": "Q?", "choices": ["w", "x", "y", "z"], "answer": 2}),
        )
        .unwrap();
        assert!(text.contains("(C) y\n(D) z"), "{text}");
        assert_eq!(truth, "C");
        let (_, truth) = asked("strategyqa", &json!({"question": "Q?", "answer": false})).unwrap();
        assert_eq!(truth, "no");
    }

    #[test]
    fn shuffled_choices_keep_the_right_one_and_are_always_the_same() {
        let row = json!({"Question": "Q?", "Correct Answer": "right", "Incorrect Answer 1": "a", "Incorrect Answer 2": "b", "Incorrect Answer 3": "c"});
        let (text, truth) = asked("gpqa-diamond", &row).unwrap();
        assert!(text.contains(&format!("({truth}) right")), "{text} {truth}");
        assert_eq!(asked("gpqa-diamond", &row).unwrap().0, text);
        let mut places = [0; 4];
        for index in 0..4000 {
            let order = order(index, 4);
            places[order.iter().position(|&at| at == 0).unwrap()] += 1;
        }
        // 1000 expected, standard deviation 27.
        assert!(
            places.iter().all(|&n| (860..1140).contains(&n)),
            "{places:?}"
        );
    }

    #[test]
    fn rows_that_lack_something_are_refused_by_name() {
        for (task, row, reason) in [
            ("gsm8k", json!({"question": "Q?", "answer": "72"}), "####"),
            ("gsm8k", json!({"text": "Q?"}), "`question`, only text"),
            (
                "mmlu",
                json!({"question": "Q?", "choices": ["a"], "answer": 4}),
                "4 is no number",
            ),
            (
                "mmlu",
                json!({"question": "Q?", "choices": "a", "answer": 0}),
                "no list",
            ),
            (
                "strategyqa",
                json!({"question": "Q?", "answer": "maybe"}),
                "maybe",
            ),
        ] {
            let error = asked(task, &row).expect_err(task);
            assert!(error.contains(reason), "{task}: {error}");
        }
    }

    #[test]
    fn what_is_no_name_stays_in_a_prompt() {
        let columns = Columns::new();
        let fill = |template: &str| fill(template, "Q", None, &columns);
        assert_eq!(fill(r"{question} \boxed{} {").unwrap(), r"Q \boxed{} {");
        assert_eq!(
            fill(r"\boxed{\frac{}{}} {question}").unwrap(),
            r"\boxed{\frac{}{}} Q"
        );
        assert!(fill("{nothing}").is_err());
    }
}
