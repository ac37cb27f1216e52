//! Rows of published data sets in their own fields, as what is asked, what is to be answered, and what is right.
//!
//! | data set | fields | learnt (`train sft`) | answer (`train grpo`, `train verifier`) |
//! |---|---|---|---|
//! | OpenThoughts3-1.2M | `conversations` of `from`, `value` | the last `gpt` turn | |
//! | Mixture-of-Thoughts | `messages` | the last assistant turn | |
//! | DeepScaleR | `problem`, `answer`, `solution` | `solution` | `answer` |
//! | MATH | `problem`, `solution` | `solution` | the last box of `solution` |
//! | s1K, s1K-1.1 | `question`, a trajectory, an attempt | thought and attempt | |
//! | SQuAD 2.0 | `context`, `question`, `answers.text` | the first text, or `unanswerable` | the same |
//! | MMLU | `question`, `choices`, `answer` | letter and choice | the letter |
//! | StrategyQA | `question`, `answer` | `yes` or `no` | the same |
//!
//! `train switcher` takes what is asked. A data set without an answer that could be compared says so where one is needed.

use edgethink_grader::{How, extract};
use edgethink_model::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A published data set's own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schema {
    /// OpenThoughts3-1.2M: `conversations` of `from` (`human`, `gpt`) and `value`, the thought within.
    OpenThoughts3,
    /// Mixture-of-Thoughts: `messages`, the thought within; one file or more for each of math, code and science.
    #[serde(rename = "mixture-of-thoughts")]
    MixtureOfThoughts,
    /// DeepScaleR: `problem`, `answer`, `solution` (often empty).
    DeepScaleR,
    /// MATH: `problem`, `solution` with the answer in a box.
    Math,
    /// s1K and s1K-1.1: `question`, and a thought with an attempt by one of two models.
    S1k,
    /// SQuAD 2.0: `context`, `question`, `answers` with a list `text`, empty where the context does not say.
    Squad2,
    /// MMLU: `question`, four `choices`, `answer` as the number of the right one from 0.
    Mmlu,
    /// StrategyQA: `question`, `answer` as true or false.
    StrategyQa,
}

/// Columns that rows of these data sets are made of, for files that are read by column.
pub(super) const COLUMNS: [&str; 14] = [
    "conversations",
    "problem",
    "solution",
    "question",
    "answer",
    "context",
    "answers",
    "choices",
    "thinking_trajectories",
    "attempt",
    "deepseek_thinking_trajectory",
    "deepseek_attempt",
    "gemini_thinking_trajectory",
    "gemini_attempt",
];

/// s1K's thoughts with their attempts, the best first.
const TRAJECTORIES: [(&str, &str); 3] = [
    ("deepseek_thinking_trajectory", "deepseek_attempt"),
    ("gemini_thinking_trajectory", "gemini_attempt"),
    ("thinking_trajectories", "attempt"),
];

/// As `edgethink eval` asks for the final answer of a problem.
const IN_A_BOX: &str = r"Please reason step by step, and put your final answer within \boxed{}.";
/// ... of a question with choices.
const LETTER: &str =
    r"Please reason step by step, and put the letter of the right choice within \boxed{}.";
/// ... of a question to be answered by yes or no.
const YES_NO: &str = r"Please reason step by step, and put yes or no within \boxed{}.";
/// ... of a question about a text.
const FROM_TEXT: &str =
    r#"Answer with words of the text, or with "unanswerable" if it does not say, within \boxed{}."#;
const UNANSWERABLE: &str = "unanswerable";

/// What a row says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// The conversation; its last turn is the user's.
    pub asked: Vec<Message>,
    /// What an assistant is to answer, or why there is nothing.
    pub response: Result<String, String>,
    /// What is right, for the grader, or why there is nothing.
    pub answer: Result<String, String>,
    /// How the answer is to be given, where it is graded.
    pub instruction: &'static str,
}

impl Schema {
    /// The data set that a row's fields are those of.
    pub(crate) fn of(row: &Map<String, Value>) -> Option<Self> {
        let has = |name: &str| row.get(name).is_some_and(|v| !v.is_null());
        if has("conversations") {
            return Some(Self::OpenThoughts3);
        }
        if has("problem") && has("answer") {
            return Some(Self::DeepScaleR);
        }
        if has("problem") && has("solution") {
            return Some(Self::Math);
        }
        if !has("question") {
            return None;
        }
        if TRAJECTORIES.iter().any(|(thought, _)| has(thought)) {
            return Some(Self::S1k);
        }
        if has("context") && has("answers") {
            return Some(Self::Squad2);
        }
        if has("choices") && has("answer") {
            return Some(Self::Mmlu);
        }
        let answer = row.get("answer")?;
        (answer.is_boolean() || yes_or_no(answer).is_some()).then_some(Self::StrategyQa)
    }

    /// What a row says, by the fields of this data set.
    ///
    /// # Errors
    /// What is missing in the row, or is of another kind.
    pub(crate) fn sample(self, row: &Map<String, Value>) -> Result<Sample, String> {
        match self {
            Self::OpenThoughts3 => conversation(turns(row)?),
            Self::MixtureOfThoughts => {
                let list = need(row, "messages")?.clone();
                let list = serde_json::from_value(list).map_err(|e| {
                    format!("`messages` is not a list of messages with role and content: {e}")
                })?;
                conversation(list)
            }
            Self::DeepScaleR => {
                let solution = row.get("solution").and_then(Value::as_str);
                let solution = solution.filter(|text| !text.trim().is_empty());
                Ok(Sample {
                    asked: user(text(row, "problem")?),
                    response: solution.map(str::to_owned).ok_or_else(|| {
                        "has an empty `solution`, so there is nothing to learn from it but its answer: use it in train grpo"
                            .to_owned()
                    }),
                    answer: plain(need(row, "answer")?)
                        .ok_or_else(|| "`answer` is neither a text nor a number".to_owned()),
                    instruction: IN_A_BOX,
                })
            }
            Self::Math => {
                let solution = text(row, "solution")?;
                let answer = extract(solution)
                    .filter(|found| found.how == How::Boxed)
                    .map(|found| found.text.to_owned())
                    .ok_or_else(|| r"`solution` has no answer in a \boxed{}".to_owned());
                Ok(Sample {
                    asked: user(text(row, "problem")?),
                    response: Ok(solution.to_owned()),
                    answer,
                    instruction: IN_A_BOX,
                })
            }
            Self::S1k => Ok(Sample {
                asked: user(text(row, "question")?),
                response: trajectory(row),
                answer: Err(
                    "is of s1K, whose solutions are not all answers that can be compared; use DeepScaleR or MATH"
                        .to_owned(),
                ),
                instruction: IN_A_BOX,
            }),
            Self::Squad2 => {
                let asked = format!("{}\n\n{}", text(row, "context")?, text(row, "question")?);
                let texts = need(row, "answers")?
                    .get("text")
                    .and_then(Value::as_array)
                    .ok_or("`answers` has no list `text`")?;
                let answer = match texts.first() {
                    None => UNANSWERABLE.to_owned(),
                    Some(first) => plain(first).ok_or("`answers.text` is not a list of texts")?,
                };
                Ok(Sample {
                    asked: user(&asked),
                    response: Ok(answer.clone()),
                    answer: Ok(answer),
                    instruction: FROM_TEXT,
                })
            }
            Self::Mmlu => {
                let choices = need(row, "choices")?
                    .as_array()
                    .ok_or("`choices` is no list")?;
                let choices: Vec<String> = choices
                    .iter()
                    .map(plain)
                    .collect::<Option<_>>()
                    .ok_or("`choices` is not a list of texts")?;
                let lines: Vec<String> = choices.iter().enumerate().map(lettered).collect();
                let right = need(row, "answer")?;
                let place = right
                    .as_u64()
                    .and_then(|n| usize::try_from(n).ok())
                    .or_else(|| letter_place(right.as_str()?))
                    .filter(|&at| at < choices.len())
                    .ok_or_else(|| {
                        format!(
                            "`answer` is {right}, which is none of {} choices",
                            choices.len()
                        )
                    })?;
                Ok(Sample {
                    asked: user(&format!(
                        "{}\n\n{}",
                        text(row, "question")?,
                        lines.join("\n")
                    )),
                    response: Ok(lines[place].clone()),
                    answer: Ok(letter(place)),
                    instruction: LETTER,
                })
            }
            Self::StrategyQa => {
                let value = need(row, "answer")?;
                let yes = yes_or_no(value)
                    .ok_or_else(|| format!("`answer` is {value}, neither true nor false"))?;
                let answer = if yes { "yes" } else { "no" }.to_owned();
                Ok(Sample {
                    asked: user(text(row, "question")?),
                    response: Ok(answer.clone()),
                    answer: Ok(answer),
                    instruction: YES_NO,
                })
            }
        }
    }
}

/// A conversation that ends with an assistant's turn.
fn conversation(mut turns: Vec<Message>) -> Result<Sample, String> {
    let last = turns.pop().filter(|m| m.role == "assistant");
    let response = last.ok_or("does not end with an assistant's turn")?;
    if turns.last().is_none_or(|m| m.role != "user") {
        return Err("has no user's turn before the assistant's".to_owned());
    }
    Ok(Sample {
        asked: turns,
        response: Ok(response.content),
        answer: Err(
            "has a response but no answer that is known to be right; use DeepScaleR or MATH"
                .to_owned(),
        ),
        instruction: IN_A_BOX,
    })
}

/// `conversations` as messages.
fn turns(row: &Map<String, Value>) -> Result<Vec<Message>, String> {
    let list = need(row, "conversations")?
        .as_array()
        .ok_or("`conversations` is no list")?;
    let turn = |turn: &Value| {
        let part = |name: &str| {
            turn.get(name)
                .and_then(Value::as_str)
                .ok_or_else(|| format!("`conversations` has a turn without a text `{name}`"))
        };
        let role = match part("from")? {
            "human" | "user" => "user",
            "gpt" | "assistant" => "assistant",
            "system" => "system",
            other => {
                return Err(format!(
                    "`conversations` has a turn from {other:?}, not from human, gpt or system"
                ));
            }
        };
        Ok(Message::new(role, part("value")?))
    };
    list.iter().map(turn).collect()
}

/// s1K's thought and attempt, in the form of a model that thinks.
fn trajectory(row: &Map<String, Value>) -> Result<String, String> {
    for (thought, attempt) in TRAJECTORIES {
        let thought = match row.get(thought) {
            Some(Value::String(text)) => Some(text.as_str()),
            Some(Value::Array(list)) => list.first().and_then(Value::as_str),
            _ => None,
        };
        let attempt = row.get(attempt).and_then(Value::as_str);
        if let (Some(thought), Some(attempt)) = (thought, attempt) {
            return Ok(format!(
                "<think>\n{}\n</think>\n\n{}",
                thought.trim(),
                attempt.trim()
            ));
        }
    }
    let names: Vec<String> = TRAJECTORIES
        .iter()
        .map(|(thought, attempt)| format!("`{thought}` and `{attempt}`"))
        .collect();
    Err(format!("has none of {}", names.join(", ")))
}

fn user(text: &str) -> Vec<Message> {
    vec![Message::new("user", text)]
}

fn need<'a>(row: &'a Map<String, Value>, name: &str) -> Result<&'a Value, String> {
    row.get(name).filter(|v| !v.is_null()).ok_or_else(|| {
        let has: Vec<&str> = row.keys().map(String::as_str).collect();
        format!("has no `{name}`, only {}", has.join(", "))
    })
}

fn text<'a>(row: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    let value = need(row, name)?;
    value
        .as_str()
        .ok_or_else(|| format!("`{name}` is not a text"))
}

/// A text or a number as text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn yes_or_no(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(yes) => Some(*yes),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" => Some(true),
            "false" | "no" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn letter(place: usize) -> String {
    char::from(b'A' + (place % 26) as u8).to_string()
}

fn letter_place(text: &str) -> Option<usize> {
    match text.trim().as_bytes() {
        [byte @ b'A'..=b'Z'] => Some(usize::from(byte - b'A')),
        _ => None,
    }
}

fn lettered((place, choice): (usize, &String)) -> String {
    format!("({}) {choice}", letter(place))
}

#[cfg(test)]
mod tests;
