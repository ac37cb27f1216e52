//! Questions with answers, and the prompt of each under a budget.

use std::path::Path;

use edgethink_model::{ChatTemplate, Message, RenderOptions, Tokenizer};
use rand::{Rng, seq::SliceRandom};
use serde_json::Value;

use super::recipe::{BudgetRecipe, QuestionsRecipe};
use crate::{
    data::{Schema, understood},
    error::TrainError,
    params::generator,
};

/// A question with its expected answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub messages: Vec<Message>,
    pub answer: String,
}

/// How a row is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form<'a> {
    /// The fields of the rows; by what each row has if absent.
    pub schema: Option<Schema>,
    /// Field with the expected answer of rows with a `prompt`.
    pub answer: &'a str,
    /// What follows the question of a published data set; as `edgethink eval` asks if absent.
    pub instruction: Option<&'a str>,
}

impl<'a> From<&'a QuestionsRecipe> for Form<'a> {
    fn from(recipe: &'a QuestionsRecipe) -> Self {
        Self {
            schema: recipe.schema,
            answer: &recipe.answer,
            instruction: recipe.instruction.as_deref(),
        }
    }
}

/// A prompt ready for the engine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompt {
    pub question: usize,
    /// The budget that counts, and whether it is named.
    pub budget: usize,
    pub named: bool,
    pub tokens: Vec<u32>,
}

/// The questions of a run.
#[derive(Debug)]
pub(crate) struct Questions<'a> {
    pub list: Vec<Question>,
    /// Questions left out because their prompt is too long.
    pub dropped: usize,
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    budget: &'a BudgetRecipe,
}

impl<'a> Questions<'a> {
    /// Reads files, in order.
    ///
    /// # Errors
    /// [`TrainError::Read`], [`TrainError::DataRow`] or [`TrainError::NoQuestions`].
    pub(crate) fn load(
        files: &[impl AsRef<Path>],
        recipe: &QuestionsRecipe,
        budget: &'a BudgetRecipe,
        tokenizer: &'a Tokenizer,
        template: &'a ChatTemplate,
    ) -> Result<Self, TrainError> {
        let mut questions = Self {
            list: Vec::new(),
            dropped: 0,
            tokenizer,
            template,
            budget,
        };
        let largest = budget.tokens.iter().copied().max();
        for path in files.iter().map(AsRef::as_ref) {
            let form = Form::from(recipe);
            let rows = understood(path, &[form.answer], |row| {
                let question = parse(&row, form)?;
                let length = questions.encode(&question, largest)?.len();
                Ok((question, length))
            })?;
            for (_, (question, length)) in rows {
                if length > recipe.max_prompt_tokens {
                    questions.dropped += 1;
                } else {
                    questions.list.push(question);
                }
            }
        }
        if questions.list.is_empty() {
            return Err(TrainError::NoQuestions {
                files: files.iter().map(|f| f.as_ref().to_owned()).collect(),
                dropped: questions.dropped,
            });
        }
        Ok(questions)
    }

    fn encode(&self, question: &Question, named: Option<usize>) -> Result<Vec<u32>, String> {
        let mut messages = question.messages.clone();
        if let (Some(budget), Some(last)) = (named, messages.last_mut()) {
            let line = self.budget.line.replace("{B}", &budget.to_string());
            last.content = format!("{}\n{line}", last.content);
        }
        let options = RenderOptions {
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let text = self
            .template
            .render(&messages, &options)
            .map_err(|e| e.to_string())?;
        self.tokenizer
            .encode(&text, false)
            .map_err(|e| e.to_string())
    }

    /// A question under a budget; `None` is one that is not named, where the largest counts.
    fn prompt(&self, question: usize, named: Option<usize>) -> Result<Prompt, TrainError> {
        let largest = self.budget.tokens.iter().copied().max().unwrap_or(0);
        let tokens = self
            .encode(&self.list[question], named)
            .map_err(|problem| TrainError::DataRow {
                path: "questions".into(),
                row: question + 1,
                problem,
            })?;
        Ok(Prompt {
            question,
            budget: named.unwrap_or(largest),
            named: named.is_some(),
            tokens,
        })
    }

    /// The prompts at places `from .. from + count` of the endless stream of questions: a new order in each epoch, and a budget drawn for
    /// each place. A function of the seed and the places only.
    pub(crate) fn prompts(
        &self,
        seed: u64,
        from: u64,
        count: usize,
    ) -> Result<Vec<Prompt>, TrainError> {
        let n = self.list.len() as u64;
        let mut epoch: Option<(u64, Vec<usize>)> = None;
        let mut prompts = Vec::with_capacity(count);
        for place in from..from + count as u64 {
            let at = place / n;
            if epoch.as_ref().is_none_or(|(e, _)| *e != at) {
                let mut order: Vec<usize> = (0..self.list.len()).collect();
                order.shuffle(&mut generator(seed, &format!("questions {at}")));
                epoch = Some((at, order));
            }
            let order = epoch.as_ref().map(|(_, order)| order.as_slice());
            let question = order.map_or(0, |order| order[(place % n) as usize]);
            let mut rng = generator(seed, &format!("budget {place}"));
            let budgets = &self.budget.tokens;
            let budget = budgets[rng.random_range(0..budgets.len())];
            let named = !rng.random_bool(self.budget.unnamed);
            prompts.push(self.prompt(question, named.then_some(budget))?);
        }
        Ok(prompts)
    }

    /// The first `limit` questions with each budget in turn, the unnamed one included if the recipe has it.
    pub(crate) fn evaluation(&self, limit: usize) -> Result<Vec<Prompt>, TrainError> {
        let mut turns: Vec<Option<usize>> = self.budget.tokens.iter().map(|&b| Some(b)).collect();
        if self.budget.unnamed > 0.0 {
            turns.push(None);
        }
        (0..self.list.len().min(limit))
            .map(|i| self.prompt(i, turns[i % turns.len()]))
            .collect()
    }
}

/// A row as a question.
pub(crate) fn parse(row: &Value, form: Form<'_>) -> Result<Question, String> {
    if let Some(fields) = row.as_object() {
        let found = || (!fields.contains_key("prompt")).then(|| Schema::of(fields));
        if let Some(schema) = form.schema.or_else(|| found().flatten()) {
            return own(schema, fields, form.instruction);
        }
    }
    let messages = match row.get("prompt") {
        Some(Value::String(text)) => vec![Message::new("user", text.clone())],
        Some(list @ Value::Array(_)) => serde_json::from_value::<Vec<Message>>(list.clone())
            .map_err(|e| {
                format!("`prompt` is not a list of messages with role and content: {e}")
            })?,
        _ => {
            return Err(
                "has no `prompt`, a text or a list of messages, nor the fields of a data set that is known"
                    .to_owned(),
            );
        }
    };
    if messages.last().is_none_or(|m| m.role != "user") {
        return Err("`prompt` does not end with the user's message".to_owned());
    }
    let answer = match row.get(form.answer) {
        Some(Value::String(text)) if !text.trim().is_empty() => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => {
            return Err(format!(
                "has no `{}`, a text or a number; name the field in [data] answer",
                form.answer
            ));
        }
    };
    Ok(Question { messages, answer })
}

/// A row of a published data set, with the line that says how to answer.
fn own(
    schema: Schema,
    fields: &serde_json::Map<String, Value>,
    instruction: Option<&str>,
) -> Result<Question, String> {
    let sample = schema.sample(fields)?;
    let (mut messages, answer) = (sample.asked, sample.answer?);
    let line = instruction.unwrap_or(sample.instruction);
    if let (false, Some(last)) = (line.is_empty(), messages.last_mut()) {
        last.content = format!("{}\n\n{line}", last.content.trim_end());
    }
    Ok(Question { messages, answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a line of a file is read.
    fn parse(text: &str, answer: &str) -> Result<Question, String> {
        let row: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        super::parse(&row, form(answer))
    }

    fn form(answer: &str) -> Form<'_> {
        Form {
            schema: None,
            answer,
            instruction: None,
        }
    }

    #[test]
    fn rows_of_published_data_sets_are_asked_as_the_evaluation_asks() {
        let boxed = r"Please reason step by step, and put your final answer within \boxed{}.";
        let question = parse(
            r#"{"problem": "1+1?", "answer": "2", "solution": ""}"#,
            "answer",
        );
        let question = question.expect("DeepScaleR");
        assert_eq!(question.answer, "2");
        assert_eq!(question.messages[0].content, format!("1+1?\n\n{boxed}"));
        let math =
            r#"{"problem": "1+1?", "solution": "It is \\boxed{2}, not \\boxed{\\frac{1}{2}}."}"#;
        assert_eq!(parse(math, "answer").expect("MATH").answer, r"\frac{1}{2}");
        let row: Value = serde_json::from_str(math).expect("JSON");
        let bare = Form {
            instruction: Some(""),
            ..form("answer")
        };
        let question = super::parse(&row, bare).expect("MATH");
        assert_eq!(question.messages[0].content, "1+1?");
        // A named data set wins over a `prompt`, and a data set without answers says so.
        let named = Form {
            schema: Some(Schema::OpenThoughts3),
            ..form("answer")
        };
        let row: Value = serde_json::from_str(
            r#"{"prompt": "x", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
        )
        .expect("JSON");
        let error = super::parse(&row, named).expect_err("no answer");
        assert!(error.contains("DeepScaleR"), "{error}");
    }

    #[test]
    fn rows_say_what_is_wrong_with_them() {
        let good = r#"{"prompt": [{"role": "user", "content": "1+1?"}], "answer": 2}"#;
        assert_eq!(parse(good, "answer").map(|q| q.answer), Ok("2".to_owned()));
        assert!(parse(r#"{"prompt": "1+1?", "solution": "2"}"#, "solution").is_ok());
        for (row, want) in [
            ("{", "EOF"),
            (r#"{"answer": "2"}"#, "no `prompt`"),
            (
                r#"{"prompt": []  , "answer": "2"}"#,
                "does not end with the user",
            ),
            (
                r#"{"prompt": [{"role": "user"}], "answer": "2"}"#,
                "list of messages",
            ),
            (r#"{"prompt": "1+1?", "answer": ""}"#, "no `answer`"),
            (r#"{"prompt": "1+1?"}"#, "name the field"),
        ] {
            let error = parse(row, "answer").expect_err(row);
            assert!(error.contains(want), "{error}");
        }
    }
}
