//! From rows to tokens: the chat template, the loss span, and the place where the adapter begins (METHOD 2).

use std::path::Path;

use edgethink_model::{ChatTemplate, Message, RenderOptions, Tokenizer};
use rayon::prelude::*;

use super::{Dataset, Row, read};
use crate::{
    error::TrainError,
    recipe::{DataRecipe, LossOn, Overlong},
};

/// How rows are encoded.
#[derive(Debug, Clone)]
pub(crate) struct Encoding {
    /// Longest example, in tokens.
    pub max_length: usize,
    pub overlong: Overlong,
    pub loss: LossOn,
    pub append_eos: bool,
    /// The adapter begins at the last occurrence of this sequence; `None` for everywhere.
    pub invocation: Option<Vec<u32>>,
}

impl Encoding {
    /// The settings of a recipe.
    pub(crate) fn new(data: &DataRecipe, loss: LossOn, invocation: Option<Vec<u32>>) -> Self {
        Self {
            max_length: data.max_length,
            overlong: data.overlong,
            loss: data.loss.unwrap_or(loss),
            append_eos: data.append_eos,
            invocation,
        }
    }
}

/// The text side of a model, and how to use it.
#[derive(Debug)]
pub(crate) struct Encoder<'a> {
    pub tokenizer: &'a Tokenizer,
    pub template: Option<&'a ChatTemplate>,
    pub eos: &'a [u32],
    pub encoding: Encoding,
}

/// Tokens of one row, and whether each is learnt.
#[derive(Debug, Default)]
struct Encoded {
    tokens: Vec<u32>,
    learnt: Vec<bool>,
    adapter_from: usize,
}

impl Encoded {
    fn add(&mut self, tokens: &[u32], learnt: bool) {
        self.tokens.extend_from_slice(tokens);
        self.learnt.resize(self.tokens.len(), learnt);
    }
}

impl Encoder<'_> {
    /// Reads and encodes files, in order.
    ///
    /// # Errors
    /// Those of [`read`], and [`TrainError::DataRow`] for a row that cannot be encoded, with its file and number.
    pub(crate) fn load(&self, files: &[impl AsRef<Path>]) -> Result<Dataset, TrainError> {
        let mut set = Dataset::default();
        for file in files {
            let file = file.as_ref();
            let rows = read(file)?;
            let encoded: Vec<Result<Encoded, String>> =
                rows.par_iter().map(|(_, row)| self.encode(row)).collect();
            for ((line, _), encoded) in rows.iter().zip(encoded) {
                let encoded = encoded.map_err(|problem| TrainError::DataRow {
                    path: file.to_owned(),
                    row: *line,
                    problem,
                })?;
                self.push(&mut set, &encoded);
            }
        }
        if set.examples.iter().all(|e| set.targets_of(e) == 0) {
            return Err(TrainError::NoTargets {
                files: files.iter().map(|f| f.as_ref().to_owned()).collect(),
                dropped: set.dropped,
            });
        }
        Ok(set)
    }

    fn push(&self, set: &mut Dataset, e: &Encoded) {
        let mut len = e.tokens.len();
        if len > self.encoding.max_length {
            match self.encoding.overlong {
                Overlong::Drop => {
                    set.dropped += 1;
                    return;
                }
                Overlong::Truncate => {
                    set.truncated += 1;
                    len = self.encoding.max_length;
                }
            }
        }
        if len < 2 {
            set.dropped += 1;
            return;
        }
        let weights = e.learnt[..len].iter().map(|&l| f32::from(u8::from(l)));
        set.push(&e.tokens[..len], weights, e.adapter_from.min(len));
    }

    fn encode(&self, row: &Row) -> Result<Encoded, String> {
        let all = self.encoding.loss == LossOn::All;
        let mut out = Encoded::default();
        match row {
            Row::Text(text) => {
                if self.encoding.loss == LossOn::Completion {
                    return Err("is a text without a completion to learn; set [data] loss to \"all\" or \"assistant\"".to_owned());
                }
                out.add(&self.tokens(text, true)?, true);
                self.end(&mut out);
            }
            Row::Completion { prompt, completion } => {
                out.add(&self.tokens(prompt, false)?, all);
                out.add(&self.tokens(completion, false)?, true);
                self.end(&mut out);
            }
            Row::Messages(messages) => self.encode_messages(messages, &mut out)?,
        }
        if let Some(sequence) = &self.encoding.invocation {
            out.adapter_from = out
                .tokens
                .windows(sequence.len())
                .rposition(|w| w == sequence)
                .ok_or("does not contain the adapter's invocation sequence")?;
        }
        Ok(out)
    }

    /// A chat: the text that the template makes of it, cut before and after each answer that is learnt, so that token
    /// boundaries are where they are when the model answers.
    fn encode_messages(&self, messages: &[Message], out: &mut Encoded) -> Result<(), String> {
        let template = self
            .template
            .ok_or("has messages, but the model has no chat template")?;
        let render = |messages: &[Message], add_generation_prompt: bool| {
            let options = RenderOptions {
                add_generation_prompt,
                ..RenderOptions::default()
            };
            template
                .render(messages, &options)
                .map_err(|e| e.to_string())
        };
        let full = render(messages, false)?;
        let answers: Vec<usize> = (0..messages.len())
            .filter(|&i| messages[i].role == "assistant")
            .collect();
        let last = messages.len() - 1;
        let answers = match self.encoding.loss {
            LossOn::Assistant => answers,
            LossOn::All | LossOn::Completion => {
                answers.into_iter().filter(|&i| i == last).collect()
            }
        };
        if answers.is_empty() && self.encoding.loss != LossOn::All {
            return Err("does not end with an assistant's message".to_owned());
        }
        let all = self.encoding.loss == LossOn::All;
        let mut written = 0;
        for &i in &answers {
            let prompt = render(&messages[..i], true)?;
            let answered = render(&messages[..=i], false)?;
            let fits = written <= prompt.len()
                && full.starts_with(&prompt)
                && full.starts_with(&answered)
                && answered.starts_with(&prompt);
            if !fits {
                return Err(
                    "the chat template writes earlier messages differently once later ones are there; give each \
                     answer a row of its own"
                        .to_owned(),
                );
            }
            out.add(&self.tokens(&full[written..prompt.len()], false)?, all);
            let answer = self.tokens(&full[prompt.len()..answered.len()], false)?;
            // Templates add a line end after the token that ends the answer: that is not the model's to write.
            let end = answer
                .iter()
                .rposition(|t| self.eos.contains(t))
                .map_or(answer.len(), |at| at + 1);
            out.add(&answer[..end], true);
            if i < last || all {
                out.add(&answer[end..], all);
            }
            written = answered.len();
        }
        if all {
            out.add(&self.tokens(&full[written..], false)?, true);
        }
        Ok(())
    }

    /// Ends a text with the end-of-sequence token, if the recipe says so.
    fn end(&self, out: &mut Encoded) {
        if let (true, Some(&eos)) = (self.encoding.append_eos, self.eos.first())
            && out.tokens.last() != Some(&eos)
        {
            out.add(&[eos], true);
        }
    }

    fn tokens(&self, text: &str, add_special: bool) -> Result<Vec<u32>, String> {
        self.tokenizer
            .encode(text, add_special)
            .map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "{% for m in messages %}<s> {{ m.role }} {{ m.content }} </s> \n {% endfor %}\
                            {% if add_generation_prompt %}<s> assistant {% endif %}";

    fn learnt(loss: LossOn, row: &str) -> Result<(Vec<bool>, usize), String> {
        let words = ["<s>", "</s>", "user", "assistant", "a", "b", "c", "d"];
        let vocab: serde_json::Map<String, serde_json::Value> = words
            .iter()
            .enumerate()
            .map(|(i, w)| ((*w).to_owned(), i.into()))
            .collect();
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"},
        });
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
        let template = ChatTemplate::new(TEMPLATE, serde_json::Map::new()).unwrap();
        let encoder = Encoder {
            tokenizer: &tokenizer,
            template: Some(&template),
            eos: &[1],
            encoding: Encoding {
                max_length: 100,
                overlong: Overlong::Drop,
                loss,
                append_eos: true,
                invocation: Some(vec![0, 3]),
            },
        };
        let row = super::super::rows::row(serde_json::from_str(row).unwrap()).unwrap();
        encoder.encode(&row).map(|e| (e.learnt, e.adapter_from))
    }

    #[test]
    fn each_way_of_loss_learns_its_tokens() {
        let chat = r#"{"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"},
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "c d"}]}"#;
        // <s> user a b </s> <s> assistant c </s> <s> user a </s> <s> assistant c d </s>
        let bits = |text: &str| text.bytes().map(|b| b == b'1').collect::<Vec<_>>();
        assert_eq!(
            learnt(LossOn::Assistant, chat).unwrap(),
            (bits("000000011000000111"), 13)
        );
        assert_eq!(
            learnt(LossOn::Completion, chat).unwrap(),
            (bits("000000000000000111"), 13)
        );
        assert_eq!(
            learnt(LossOn::All, chat).unwrap(),
            (bits("111111111111111111"), 13)
        );
        let pair = r#"{"prompt": "<s> user a </s> <s> assistant", "completion": "b"}"#;
        // ... b </s>
        assert_eq!(
            learnt(LossOn::Completion, pair).unwrap(),
            (bits("00000011"), 4)
        );
    }

    #[test]
    fn rows_that_cannot_be_learnt_say_why() {
        let no_answer = r#"{"messages": [{"role": "user", "content": "a"}]}"#;
        assert!(
            learnt(LossOn::Completion, no_answer)
                .unwrap_err()
                .contains("assistant")
        );
        assert!(
            learnt(LossOn::All, no_answer)
                .unwrap_err()
                .contains("invocation")
        );
        assert!(
            learnt(LossOn::Completion, r#"{"text": "a"}"#)
                .unwrap_err()
                .contains("loss")
        );
    }
}
