//! A data set on disk: JSON lines in the forms that TRL reads, by seed, the same bytes every time.

use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::PocketError;
use crate::example::Document;
use crate::example::{
    BaseMix, HardSpec, Message, SftMix, documents, easy_questions, hard_questions, worked,
};
use crate::split::Split;
use crate::tokenizer::train_tokenizer;

/// What is written, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSpec {
    /// Everything follows from it.
    pub seed: u64,
    /// Entries of the tokenizer.
    pub vocab_size: usize,
    /// Documents that the tokenizer is trained on.
    pub tokenizer_documents: usize,
    /// Lines of `base.jsonl`.
    pub base_documents: usize,
    /// Lines of `sft.jsonl`.
    pub sft_examples: usize,
    /// Lines of `rl.jsonl`: hard training problems with answers and without thoughts.
    pub rl_questions: usize,
    /// Lines of each evaluation set.
    pub eval_questions: usize,
    /// The base model's reading.
    pub base: BaseMix,
    /// The adapter's examples.
    pub sft: SftMix,
    /// The problems of `rl.jsonl`; budgets are named there.
    pub rl: HardSpec,
}

/// Writes the tokenizer (into `dir/tokenizer`) and the data sets: `base.jsonl`, `base-valid.jsonl`, `sft.jsonl`, `sft-valid.jsonl`, `rl.jsonl`,
/// `easy-{valid,test}.jsonl`, `hard-{valid,test}.jsonl`, `shifted-{valid,test}.jsonl`.
///
/// # Errors
/// If a file cannot be written or the tokenizer cannot be trained.
pub fn write_dataset(dir: &Path, spec: &DatasetSpec) -> Result<(), PocketError> {
    std::fs::create_dir_all(dir)?;
    let seed = spec.seed;
    let texts = documents(seed, Split::Train, spec.base.clone())
        .take(spec.tokenizer_documents)
        .flat_map(plain_texts);
    let extra = worked(seed, Split::Train, spec.sft.clone())
        .take(spec.tokenizer_documents / 8)
        .map(|w| join(w.prompt.into_iter().chain(w.completion)));
    let budget = std::iter::repeat_n(
        "Use at most 128 tokens.".to_owned(),
        spec.tokenizer_documents / 8,
    );
    train_tokenizer(
        texts.chain(extra).chain(budget),
        spec.vocab_size,
        &dir.join("tokenizer"),
    )?;
    lines(
        &dir.join("base.jsonl"),
        documents(seed, Split::Train, spec.base.clone()).take(spec.base_documents),
    )?;
    lines(
        &dir.join("base-valid.jsonl"),
        documents(seed, Split::Valid, spec.base.clone()).take(spec.eval_questions),
    )?;
    lines(
        &dir.join("sft.jsonl"),
        worked(seed, Split::Train, spec.sft.clone()).take(spec.sft_examples),
    )?;
    lines(
        &dir.join("sft-valid.jsonl"),
        worked(seed, Split::Valid, spec.sft.clone()).take(spec.eval_questions),
    )?;
    lines(
        &dir.join("rl.jsonl"),
        hard_questions(seed, Split::Train, spec.rl.clone()).take(spec.rl_questions),
    )?;
    let shifted = HardSpec {
        shifted: true,
        distractors: 6,
        ..HardSpec::even()
    };
    for split in [Split::Valid, Split::Test] {
        let name = split.name();
        let n = spec.eval_questions;
        lines(
            &dir.join(format!("easy-{name}.jsonl")),
            easy_questions(seed, split).take(n),
        )?;
        lines(
            &dir.join(format!("hard-{name}.jsonl")),
            hard_questions(seed, split, HardSpec::even()).take(n),
        )?;
        lines(
            &dir.join(format!("shifted-{name}.jsonl")),
            hard_questions(seed, split, shifted.clone()).take(n),
        )?;
    }
    Ok(())
}

fn join(messages: impl Iterator<Item = Message>) -> String {
    messages.map(|m| m.content).collect::<Vec<_>>().join("\n")
}

/// The texts of a document without chat markup.
fn plain_texts(document: Document) -> Vec<String> {
    match document {
        Document::Text { text } => vec![text],
        Document::Worked { prompt, completion } => vec![prompt + &completion],
        Document::Chat { messages } => messages.into_iter().map(|m| m.content).collect(),
    }
}

/// Writes one JSON object per line, through a temporary file that is renamed when it is whole.
fn lines<T: Serialize>(path: &Path, items: impl Iterator<Item = T>) -> Result<(), PocketError> {
    let part = path.with_extension("jsonl.part");
    let mut out = BufWriter::new(std::fs::File::create(&part)?);
    for item in items {
        serde_json::to_writer(&mut out, &item)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    std::fs::rename(&part, path)?;
    Ok(())
}
