//! The queries of a labelled set, as tokens: rows of `prompt`, through the chat template, up to the generation prompt.

use std::collections::BTreeSet;

use edgethink_model::{ChatTemplate, Message, Model, RenderOptions, Tokenizer};
use edgethink_reason::switcher::read_tokens;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::recipe::{LabelledRecipe, SetRecipe, StatesRecipe, has};
use super::turns::Turns;
use crate::{
    data::{Schema, understood},
    error::TrainError,
};

/// Turns rows into tokens.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    /// Where a switcher stops reading.
    pub invocation: Vec<u32>,
}

/// One set.
#[derive(Debug, Default)]
pub(super) struct Queries {
    /// What the switcher reads of each, `[T]`; no two are equal.
    pub prompts: Vec<Vec<u32>>,
    /// Left out as too long.
    pub too_long: usize,
    /// Left out because they were there already.
    pub repeated: usize,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(recipe: &StatesRecipe, model: &'a Model) -> Result<Self, TrainError> {
        let unfit = |problem: String| TrainError::Unfit {
            path: recipe.base.clone(),
            problem,
        };
        let missing = |what: &str| unfit(format!("has no {what}"));
        let tokenizer = model.tokenizer.as_ref();
        let tokenizer = tokenizer.ok_or_else(|| missing("tokenizer.json"))?;
        let template = model.template.as_ref();
        let template =
            template.ok_or_else(|| missing("chat template, which queries are put into"))?;
        let text = match &recipe.invocation {
            Some(text) => text.clone(),
            None => template
                .generation_prompt()
                .map_err(|e| unfit(e.to_string()))?,
        };
        let invocation = tokenizer
            .encode(&text, false)
            .map_err(|e| unfit(e.to_string()))?;
        if invocation.is_empty() {
            return Err(missing(
                "generation prompt to stop reading at; set [model] invocation",
            ));
        }
        Ok(Self {
            tokenizer,
            template,
            invocation,
        })
    }

    /// Reads a set. Earlier turns are drawn from `turns` by a generator of their own.
    ///
    /// # Errors
    /// [`TrainError::Read`], [`TrainError::DataRow`], or [`TrainError::NoQuestions`] for fewer than two queries.
    pub(super) fn load(
        &self,
        set: &SetRecipe,
        data: &LabelledRecipe,
        turns: Option<(&Turns, ChaCha8Rng)>,
    ) -> Result<Queries, TrainError> {
        let mut lot = turns;
        let mut queries = Queries::default();
        let mut seen: BTreeSet<Vec<u32>> = BTreeSet::new();
        for path in &set.files {
            let keys: Vec<&str> = set.only.keys().map(String::as_str).collect();
            let rows = understood(path, &keys, |row| {
                has(&row, &set.only)
                    .then(|| prompt_of(&row, set.schema))
                    .transpose()
            })?;
            for (row, messages) in rows {
                let Some(messages) = messages else { continue };
                if set
                    .limit
                    .is_some_and(|limit| queries.prompts.len() >= limit)
                {
                    break;
                }
                let plain = self.encode(&messages, path, row)?;
                if !seen.insert(plain.clone()) {
                    queries.repeated += 1;
                    continue;
                }
                let place = queries.prompts.len();
                let system = data.systems.get(place % data.systems.len().max(1));
                let system = system.filter(|text| !text.is_empty());
                let history = data.histories.get(place % data.histories.len().max(1));
                let mut before: Vec<&[Message]> = match lot.as_mut() {
                    Some((turns, rng)) => turns.draw(rng),
                    None => history
                        .filter(|list| !list.is_empty())
                        .map(Vec::as_slice)
                        .into_iter()
                        .collect(),
                };
                let prompt = loop {
                    if system.is_none() && before.is_empty() {
                        break plain;
                    }
                    let system = system.map(|text| Message::new("system", text.clone()));
                    let before_it = before.iter().copied().flatten().cloned();
                    let all = system.into_iter().chain(before_it);
                    let all: Vec<Message> = all.chain(messages.iter().cloned()).collect();
                    let prompt = self.encode(&all, path, row)?;
                    if prompt.len() <= data.max_prompt_tokens || lot.is_none() || before.is_empty()
                    {
                        break prompt;
                    }
                    before.remove(0);
                };
                if prompt.len() > data.max_prompt_tokens {
                    queries.too_long += 1;
                } else {
                    queries.prompts.push(prompt);
                }
            }
        }
        if queries.prompts.len() < 2 {
            return Err(TrainError::NoQuestions {
                files: set.files.clone(),
                dropped: queries.too_long,
            });
        }
        Ok(queries)
    }

    fn encode(
        &self,
        messages: &[Message],
        path: &std::path::Path,
        row: usize,
    ) -> Result<Vec<u32>, TrainError> {
        let wrong = |problem: String| TrainError::DataRow {
            path: path.to_owned(),
            row,
            problem,
        };
        let options = RenderOptions {
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let text = self
            .template
            .render(messages, &options)
            .map_err(|e| wrong(e.to_string()))?;
        let mut tokens = self
            .tokenizer
            .encode(&text, false)
            .map_err(|e| wrong(e.to_string()))?;
        tokens.truncate(read_tokens(&self.invocation, &tokens));
        if tokens.is_empty() {
            return Err(wrong(
                "has no tokens before the generation prompt".to_owned(),
            ));
        }
        Ok(tokens)
    }
}

/// The messages that ask what a row asks.
pub(super) fn prompt_of(row: &Value, schema: Option<Schema>) -> Result<Vec<Message>, String> {
    if let Some(fields) = row.as_object() {
        let found = || (!fields.contains_key("prompt")).then(|| Schema::of(fields));
        if let Some(schema) = schema.or_else(|| found().flatten()) {
            return Ok(schema.sample(fields)?.asked);
        }
    }
    match row.get("prompt") {
        Some(Value::String(text)) => Ok(vec![Message::new("user", text.clone())]),
        Some(list @ Value::Array(items)) if !items.is_empty() => {
            serde_json::from_value(list.clone()).map_err(|e| {
                format!("`prompt` is not a list of messages with role and content: {e}")
            })
        }
        _ => Err(
            "has no `prompt`, a text or a list of messages, nor the fields of a data set that is known"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_what_is_wrong_with_them() {
        let parse = |text: &str| prompt_of(&serde_json::from_str(text).unwrap(), None);
        assert_eq!(parse(r#"{"prompt": "1+1?"}"#).unwrap().len(), 1);
        let two =
            r#"{"prompt": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}"#;
        assert_eq!(parse(two).unwrap().len(), 2);
        let asked = |text: &str| parse(text).unwrap()[0].content.clone();
        let squad = r#"{"context": "c", "question": "x", "answers": {"text": []}}"#;
        assert_eq!(asked(squad), "c\n\nx");
        let mmlu = r#"{"question": "x", "choices": ["p", "q"], "answer": 1}"#;
        assert_eq!(asked(mmlu), "x\n\n(A) p\n(B) q");
        assert_eq!(asked(r#"{"question": "x", "answer": false}"#), "x");
        assert_eq!(
            asked(r#"{"question": "x", "thinking_trajectories": ["t"]}"#),
            "x"
        );
        for (row, want) in [
            (r#"{"question": "x"}"#, "no `prompt`"),
            (
                r#"{"context": "c", "question": "x", "answers": []}"#,
                "`text`",
            ),
            (r#"{"prompt": []}"#, "no `prompt`"),
            (r#"{"prompt": [{"role": "user"}]}"#, "role and content"),
        ] {
            let error = parse(row).expect_err(row);
            assert!(error.contains(want), "{error}");
        }
    }
}
