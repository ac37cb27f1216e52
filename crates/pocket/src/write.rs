//! A data set on disk: JSON lines in the forms that TRL reads, by seed, the same bytes every time.

use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::PocketError;
use crate::example::Document;
use crate::example::{
    BaseMix, HardSpec, Message, SftMix, documents, easy_questions, hard_questions, worked,
};
use crate::initial::{ModelSpec, write_initial_model};
use crate::split::Split;
use crate::tokenizer::{SPECIAL_TOKENS, TOKENIZER_FILES, train_tokenizer};

/// Longest thought among the texts of the tokenizer, with its problem.
const TOKENIZER_CHARS: usize = 1800;
/// Share of concise thoughts among them.
const TOKENIZER_CONCISE: f64 = 0.1;

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
    /// Lines of `sft.jsonl`.
    pub sft_examples: usize,
    /// Lines of `rl.jsonl`: hard training problems with answers and without thoughts.
    pub rl_questions: usize,
    /// Lines of `rl-easy.jsonl`: easy training questions, for a budget forcing that sees both kinds.
    #[serde(default)]
    pub rl_easy_questions: usize,
    /// Lines of each evaluation set.
    pub eval_questions: usize,
    /// The base model's reading, in the order in which it is read.
    pub base: Vec<BaseStage>,
    /// What the trained base reads once more, for a form of text that it has not seen yet. The tokenizer does not depend on it.
    #[serde(default)]
    pub midtrain: Vec<BaseStage>,
    /// What it reads last of all, after `midtrain` and apart from it: the same form, and little else.
    #[serde(default)]
    pub anneal: Vec<BaseStage>,
    /// The adapter's examples.
    pub sft: SftMix,
    /// The problems of `rl.jsonl`; budgets are named there.
    pub rl: HardSpec,
    /// The model before training; written to `dir/initial`, with the tokenizer, if it is given.
    #[serde(default)]
    pub model: Option<ModelSpec>,
}

impl DatasetSpec {
    /// Checks all settings before anything is written.
    ///
    /// # Errors
    /// [`PocketError::Spec`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), PocketError> {
        let mut problems = Vec::new();
        let least = 256 + SPECIAL_TOKENS.len();
        if !(least..=65_536).contains(&self.vocab_size) {
            problems.push(format!(
                "vocab_size is {}, not from {least} to 65536",
                self.vocab_size
            ));
        }
        if self.base.is_empty() {
            problems.push("base needs at least one stage".to_owned());
        }
        for (part, _, stages) in self.reading() {
            for (i, stage) in stages.iter().enumerate() {
                stage
                    .mix
                    .problems(&format!("{part}[{i}].mix"), &mut problems);
            }
        }
        self.sft.problems("sft", &mut problems);
        self.rl.problems("rl", &mut problems);
        if let Some(model) = &self.model {
            model.problems(&mut problems);
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(PocketError::Spec { problems })
        }
    }

    /// Name of each part of the base's reading, number of its first stage, and its stages.
    fn reading(&self) -> [(&'static str, usize, &[BaseStage]); 3] {
        let (base, midtrain) = (self.base.len(), self.midtrain.len());
        [
            ("base", 0, &self.base),
            ("midtrain", base, &self.midtrain),
            ("anneal", base + midtrain, &self.anneal),
        ]
    }
}

/// A part of the base model's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseStage {
    /// Documents of this part.
    pub documents: usize,
    /// What they are made of.
    pub mix: BaseMix,
}

/// Writes the tokenizer (into `dir/tokenizer`) and the data sets: `base.jsonl`, `base-valid.jsonl`, the same of `midtrain` and `anneal`
/// where the spec has them, `sft.jsonl`, `sft-valid.jsonl`, `rl.jsonl`, `rl-easy.jsonl`, `easy-{valid,test}.jsonl`, `hard-{valid,test}.jsonl`, `shifted-{valid,test}.jsonl`.
///
/// # Errors
/// If the spec is refused, a file cannot be written or the tokenizer cannot be trained.
pub fn write_dataset(dir: &Path, spec: &DatasetSpec) -> Result<(), PocketError> {
    spec.validate()?;
    std::fs::create_dir_all(dir)?;
    let seed = spec.seed;
    let share = spec.tokenizer_documents / spec.base.len().max(1);
    let texts: Vec<String> = stages(seed, Split::Train, 0, &spec.base)
        .flat_map(|(_, docs)| docs.take(share))
        .flat_map(plain_texts)
        .collect();
    // The tokenizer, and so the base, does not change with the styles of the fine-tuning examples.
    let thoughts = SftMix {
        max_chars: TOKENIZER_CHARS,
        concise: TOKENIZER_CONCISE,
        shorthand: 0.0,
        usual_opener: 0.0,
        ..spec.sft.clone()
    };
    let extra = worked(seed, Split::Train, thoughts)
        .take(spec.tokenizer_documents / 8)
        .map(|w| join(w.prompt.into_iter().chain(w.completion)));
    let budget = std::iter::repeat_n(
        "Use at most 128 tokens.".to_owned(),
        spec.tokenizer_documents / 8,
    );
    train_tokenizer(
        texts.into_iter().chain(extra).chain(budget),
        spec.vocab_size,
        &dir.join("tokenizer"),
    )?;
    if let Some(model) = &spec.model {
        let initial = dir.join("initial");
        write_initial_model(&initial, seed, spec.vocab_size, model)?;
        for name in TOKENIZER_FILES {
            std::fs::copy(dir.join("tokenizer").join(name), initial.join(name))?;
        }
    }
    for (part, first, stages) in spec.reading() {
        base_texts(dir, part, spec, first, stages)?;
    }
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
    lines(
        &dir.join("rl-easy.jsonl"),
        easy_questions(seed, Split::Train).take(spec.rl_easy_questions),
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

/// The stages of a base training, each with its endless documents; `first` is the number of the first one in the whole training.
fn stages(
    seed: u64,
    split: Split,
    first: usize,
    stages: &[BaseStage],
) -> impl DoubleEndedIterator<Item = (&BaseStage, impl Iterator<Item = Document>)> {
    stages
        .iter()
        .enumerate()
        .map(move |(i, stage)| (stage, documents(seed, split, first + i, stage.mix.clone())))
}

/// Writes `{name}.jsonl` and `{name}-valid.jsonl`, if there are stages.
fn base_texts(
    dir: &Path,
    name: &str,
    spec: &DatasetSpec,
    first: usize,
    parts: &[BaseStage],
) -> Result<(), PocketError> {
    // The last stage is what the model is meant to know at the end.
    let Some((_, valid)) = stages(spec.seed, Split::Valid, first, parts).next_back() else {
        return Ok(());
    };
    lines(
        &dir.join(format!("{name}.jsonl")),
        stages(spec.seed, Split::Train, first, parts)
            .flat_map(|(stage, docs)| docs.take(stage.documents)),
    )?;
    lines(
        &dir.join(format!("{name}-valid.jsonl")),
        valid.take(spec.eval_questions),
    )
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
