//! From rows to tokens: the chat template, the loss span, and the place where the adapter begins (METHOD 2).

use std::path::{Path, PathBuf};

use edgethink_model::{ChatTemplate, Message, RenderOptions, Tokenizer};
use rayon::prelude::*;

use super::{
    Dataset, Row, Schema,
    cache::{Opened, Place},
    rows,
};
use crate::{
    error::TrainError,
    recipe::{DataRecipe, LossOn, Overlong},
    run::{Event, Progress},
};

/// How rows are encoded.
#[derive(Debug, Clone)]
pub(crate) struct Encoding {
    /// Longest example, in tokens.
    pub max_length: usize,
    pub overlong: Overlong,
    pub loss: LossOn,
    pub append_eos: bool,
    /// The fields of the rows; by what each row has if absent.
    pub schema: Option<Schema>,
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
            schema: data.schema,
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

/// Bytes of text that are encoded at a time, on all threads.
const BATCH_BYTES: usize = 8 << 20;

/// Files of more bytes than this are encoded to the disk.
const LARGE: u64 = 512 << 20;

/// Where the tokens of a recipe's training files go: the recipe's directory, or `tokens` in the output for files that may not fit in
/// memory. `None` is memory.
fn cache_of(data: &DataRecipe, output_dir: &Path) -> Option<PathBuf> {
    if data.cache.is_some() {
        return data.cache.clone();
    }
    // What cannot be read is refused when it is read.
    let files = data_files(&data.train).unwrap_or_default();
    let sizes = files.iter().filter_map(|path| path.metadata().ok());
    let bytes: u64 = sizes.map(|meta| meta.len()).sum();
    (bytes > LARGE).then(|| output_dir.join("tokens"))
}

/// The files, with those in a directory in its place, by name.
pub(super) fn data_files(files: &[impl AsRef<Path>]) -> Result<Vec<PathBuf>, TrainError> {
    let mut found = Vec::new();
    for path in files.iter().map(AsRef::as_ref) {
        if !path.is_dir() {
            found.push(path.to_owned());
            continue;
        }
        let wrong = |source| TrainError::Read {
            path: path.to_owned(),
            source,
        };
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(wrong)? {
            let file = entry.map_err(wrong)?.path();
            let ending = file.extension().and_then(|e| e.to_str());
            if matches!(ending, Some("jsonl" | "parquet")) {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(TrainError::Unfit {
                path: path.to_owned(),
                problem: "is a directory without a .jsonl or .parquet file".to_owned(),
            });
        }
        inside.sort();
        found.append(&mut inside);
    }
    Ok(found)
}

/// Tells how far the encoding is, now and then.
#[derive(Debug, Default)]
struct Shown {
    rows: u64,
}

impl Shown {
    fn row(&mut self, tokens: u64, progress: &mut dyn Progress) -> Result<(), TrainError> {
        self.rows += 1;
        if self.rows.is_multiple_of(1000) {
            if progress.stop() {
                return Err(TrainError::Cancelled);
            }
            progress.event(&Event::Encoded {
                rows: self.rows,
                tokens,
            });
        }
        Ok(())
    }
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
    /// The training set of a recipe, and the validation set if it has one. Only the first may lie on the disk.
    ///
    /// # Errors
    /// Those of [`Encoder::load`].
    pub(crate) fn load_sets(
        &self,
        data: &DataRecipe,
        output_dir: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(Dataset, Option<Dataset>), TrainError> {
        let cache = cache_of(data, output_dir);
        let train = self.load(&data.train, cache.as_deref(), progress)?;
        let valid = match data.valid.as_slice() {
            [] => None,
            files => Some(self.load(files, None, progress)?),
        };
        Ok((train, valid))
    }

    /// Reads and encodes files, in order; of the texts, only a few megabytes are held at a time. With `cache`, the tokens are on the disk
    /// in that directory, and found there the next time.
    ///
    /// # Errors
    /// Those of [`rows::each`], [`TrainError::DataRow`] for a row that cannot be encoded, with its file and number, and
    /// [`TrainError::Write`] for a cache that cannot be written.
    fn load(
        &self,
        files: &[impl AsRef<Path>],
        cache: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Dataset, TrainError> {
        let files = data_files(files)?;
        let none = |set: &Dataset| TrainError::NoTargets {
            files: files.clone(),
            dropped: set.dropped,
        };
        let mut shown = Shown::default();
        let Some(dir) = cache else {
            let mut set = Dataset::default();
            for file in &files {
                self.each(file, |encoded| {
                    if let Some(len) = self.kept(encoded, &mut set) {
                        let weights = encoded.learnt[..len]
                            .iter()
                            .map(|&l| f32::from(u8::from(l)));
                        set.push(
                            &encoded.tokens[..len],
                            weights,
                            encoded.adapter_from.min(len),
                        );
                    }
                    shown.row(set.tokens.len() as u64, progress)
                })?;
            }
            return if set.examples.iter().any(|e| set.targets_of(e) > 0) {
                Ok(set)
            } else {
                Err(none(&set))
            };
        };
        let mut writer = match Place::new(dir, self.key(&files)?).open()? {
            Opened::Whole(set) => return Ok(set),
            Opened::Begun(writer) => writer,
        };
        let mut learnt = false;
        for file in &files {
            self.each(file, |encoded| {
                if let Some(len) = self.kept(encoded, &mut writer.set) {
                    learnt |= encoded.learnt[1..len].contains(&true);
                    let (tokens, flags) = (&encoded.tokens[..len], &encoded.learnt[..len]);
                    writer.push(tokens, flags, encoded.adapter_from.min(len))?;
                }
                shown.row(writer.tokens, progress)
            })?;
        }
        if learnt {
            writer.finish()
        } else {
            Err(none(&writer.set))
        }
    }

    /// The hash of everything that the tokens of these files are a function of.
    fn key(&self, files: &[PathBuf]) -> Result<String, TrainError> {
        let mut hash = blake3::Hasher::new();
        let tokenizer = self.tokenizer.to_json().map_err(TrainError::engine)?;
        let template = self.template.map_or("", ChatTemplate::source);
        let settings = format!("{:?} {:?}", self.eos, self.encoding);
        for part in [tokenizer.as_str(), template, &settings] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        for path in files {
            let wrong = |source| TrainError::Read {
                path: path.clone(),
                source,
            };
            let file = std::fs::File::open(path).map_err(wrong)?;
            let bytes = file.metadata().map_err(wrong)?.len();
            hash.update(&bytes.to_le_bytes());
            hash.update_reader(file).map_err(wrong)?;
        }
        Ok(hash.finalize().to_hex()[..32].to_owned())
    }

    /// Calls `take` with each encoded row of a file, in order.
    fn each(
        &self,
        file: &Path,
        mut take: impl FnMut(&Encoded) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let mut flush = |batch: &mut Vec<(usize, Row)>| -> Result<(), TrainError> {
            let encoded: Vec<Result<Encoded, String>> =
                batch.par_iter().map(|(_, row)| self.encode(row)).collect();
            for ((row, _), encoded) in batch.drain(..).zip(encoded) {
                let encoded = encoded.map_err(|problem| TrainError::DataRow {
                    path: file.to_owned(),
                    row,
                    problem,
                })?;
                take(&encoded)?;
            }
            Ok(())
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        rows::each(file, &[], |number, value| {
            let row =
                rows::row(value, self.encoding.schema).map_err(|problem| TrainError::DataRow {
                    path: file.to_owned(),
                    row: number,
                    problem,
                });
            // What stands before a row that is refused is refused first.
            let row = match row {
                Ok(row) => row,
                Err(error) => return flush(&mut batch).and(Err(error)),
            };
            bytes += row.bytes();
            batch.push((number, row));
            if bytes >= BATCH_BYTES {
                bytes = 0;
                flush(&mut batch)?;
            }
            Ok(())
        })?;
        flush(&mut batch)
    }

    /// Tokens of a row that stay, or `None` for a row that is left out; both are counted.
    fn kept(&self, e: &Encoded, set: &mut Dataset) -> Option<usize> {
        let mut len = e.tokens.len();
        if len > self.encoding.max_length {
            match self.encoding.overlong {
                Overlong::Drop => {
                    set.dropped += 1;
                    return None;
                }
                Overlong::Truncate => {
                    set.truncated += 1;
                    len = self.encoding.max_length;
                }
            }
        }
        if len < 2 {
            set.dropped += 1;
            return None;
        }
        Some(len)
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
                schema: None,
                invocation: Some(vec![0, 3]),
            },
        };
        let row = rows::row(serde_json::from_str(row).unwrap(), None).unwrap();
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
