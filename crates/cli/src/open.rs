//! From flags to a model, an adapter, heads, an engine and a query.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use edgethink_engine::{AdapterFormat, Engine, EngineOptions, KvFormat, Sampling, WeightFormat};
use edgethink_model::{Adapter, Bundle, Folder, GenerationConfig, HeadFile, LoadOptions, Model};
use edgethink_reason::{
    Aggregate, EarlyStop, Effort, Input, MinThink, Query, Reasoner, Scoring, Switcher, Think,
    ThoughtFormat, VerifierHead,
};

use crate::args::model::{AdapterWeightsArg, FormatArgs, KvArg, WeightsArg};
use crate::args::vote::{EarlyStopArg, VerifyArg, VoteArg};
use crate::args::{
    EffortArg, EngineArgs, ModelArgs, SamplingArgs, ThinkArg, ThinkingArgs, VoteArgs,
};
use crate::pocket;
use crate::screen::Screen;

/// Contexts beyond this are held only on request (`--kv-tokens`).
const MAX_CONTEXT_TOKENS: usize = 32_768;
/// What a further stream may need when no limit is given.
const STREAM_TOKENS: usize = 4096;

/// A loaded model, and the adapter that goes with it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) name: String,
    pub(crate) model: Arc<Model>,
    pub(crate) adapter: Option<Adapter>,
    /// How the adapter was taught to think, as the file beside it says.
    pub(crate) format: ThoughtFormat,
    /// Says when to think.
    pub(crate) switcher: Option<Switcher>,
    /// Scores answers.
    pub(crate) verifier: Option<VerifierHead>,
    /// What the heads are.
    pub(crate) hashes: HeadHashes,
}

/// Hashes of the heads' settings and weights, 16 hex digits each.
#[derive(Debug, Default)]
pub(crate) struct HeadHashes {
    pub(crate) switcher: Option<String>,
    pub(crate) verifier: Option<String>,
}

/// Loads what the flags name; the shipped pocket model if they name nothing.
pub(crate) fn open(args: &ModelArgs) -> Result<Opened> {
    let (name, path) = match &args.model {
        Some(model) => (model.clone(), model.clone()),
        None => ("pocket".to_owned(), text(&pocket::bundle()?)?),
    };
    let bundle = match Path::new(&path) {
        file if Bundle::is_one(file) => {
            let bundle = Bundle::open(file);
            Some(bundle.with_context(|| format!("cannot open the bundle {path}"))?)
        }
        _ => None,
    };
    // A directory with base/ and adapter/, switcher/ and verifier/ holds a whole, as training a pocket leaves it.
    let root = Path::new(&path);
    let pair = root.join("base/config.json").is_file() && !root.join("config.json").is_file();
    let base = if pair {
        text(&root.join("base"))?
    } else {
        path.clone()
    };
    let part = |given: Option<&str>, name: &str, file: &str| match (given, &bundle) {
        (Some("none"), _) => None,
        (Some(given), Some(bundle)) => {
            let adapters = &bundle.manifest().adapters;
            let within = adapters.iter().find(|entry| entry.name == given);
            Some(within.map_or_else(|| Folder::disk(given), |entry| bundle.folder(&entry.folder)))
        }
        (Some(path), None) => Some(Folder::disk(path)),
        (None, Some(bundle)) => Some(bundle.folder(name)).filter(|folder| folder.has(file)),
        (None, None) => Some(Folder::disk(root.join(name))).filter(|folder| folder.has(file)),
    };
    let adapter = part(args.adapter.as_deref(), "adapter", "adapter_config.json");
    let switcher = part(args.switcher.as_deref(), "switcher", "head.json");
    let verifier = part(args.verifier.as_deref(), "verifier", "head.json");
    let model = load_model(&base, args.offline)?;
    let (adapter, format) = match adapter {
        None => (None, ThoughtFormat::default()),
        Some(folder) => {
            let unusable = || format!("cannot use the adapter {}", folder.path().display());
            let adapter = Adapter::load_from(&folder, &model.config).with_context(unusable)?;
            let format = ThoughtFormat::of(&folder).with_context(unusable)?;
            (Some(adapter), format)
        }
    };
    let unusable = |what: &str, folder: &Folder| {
        let path = folder.path();
        format!(
            "cannot use the {what} {} (--{what} none does without)",
            path.display()
        )
    };
    let mut hashes = HeadHashes::default();
    let short = |file: &HeadFile| Some(file.hash().to_string()[..16].to_owned());
    let switcher = switcher
        .map(|folder| -> Result<Switcher> {
            let why = || unusable("switcher", &folder);
            let file = HeadFile::load_from(&folder).with_context(why)?;
            hashes.switcher = short(&file);
            Switcher::new(&file, &model.hash()?, model.config.hidden_size).with_context(why)
        })
        .transpose()?;
    let verifier = verifier
        .map(|folder| -> Result<VerifierHead> {
            let why = || unusable("verifier", &folder);
            let file = HeadFile::load_from(&folder).with_context(why)?;
            hashes.verifier = short(&file);
            VerifierHead::new(&file, &model).with_context(why)
        })
        .transpose()?;
    Ok(Opened {
        name,
        model: Arc::new(model),
        adapter,
        format,
        switcher,
        verifier,
        hashes,
    })
}

fn load_model(path: &str, offline: bool) -> Result<Model> {
    let options = LoadOptions {
        offline,
        progress: Screen::stderr().live,
    };
    Model::load_with(path, options).with_context(|| format!("cannot load the model {path}"))
}

fn text(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

/// How many tokens of KV a command needs at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// Streams that run at the same time.
    pub(crate) streams: usize,
    /// Prompts that run at the same time.
    pub(crate) prompts: usize,
    /// The most tokens of one response, if it is known.
    pub(crate) response: Option<usize>,
}

impl Need {
    /// One prompt, one answer.
    pub(crate) fn one(thinking: &ThinkingArgs) -> Self {
        let limit = [thinking.max_tokens, thinking.budget];
        Self {
            streams: 1,
            prompts: 1,
            response: limit.into_iter().flatten().min(),
        }
    }

    /// A conversation that grows.
    pub(crate) fn conversation() -> Self {
        Self {
            streams: 1,
            prompts: 1,
            response: None,
        }
    }

    /// Tokens, for a model with this context.
    fn tokens(self, context: usize) -> usize {
        let whole = context.min(MAX_CONTEXT_TOKENS);
        let tail = self.response.unwrap_or(STREAM_TOKENS).clamp(64, whole);
        // The prompts' own tokens, then what each stream writes; one block per stream is lost to rounding.
        let first = if self.prompts == 1 {
            whole
        } else {
            self.prompts * tail.max(whole / 4)
        };
        first + (self.streams.saturating_sub(1)) * (tail + 32)
    }
}

/// The engine's options for this model.
pub(crate) fn engine_options(
    model: &Model,
    threads: usize,
    format: &FormatArgs,
    kv_tokens: usize,
    sequences: usize,
) -> EngineOptions {
    let own = EngineOptions::for_model(&model.config);
    EngineOptions {
        threads: if threads == 0 { own.threads } else { threads },
        isa: format.isa.unwrap_or(own.isa),
        weights: match format.weights {
            WeightsArg::Stored => WeightFormat::Stored,
            WeightsArg::Q8 => WeightFormat::Q8,
            WeightsArg::Q4 => WeightFormat::Q4,
        },
        adapters: match format.adapter_weights {
            AdapterWeightsArg::Stored => AdapterFormat::Stored,
            AdapterWeightsArg::Q8 => AdapterFormat::Q8,
        },
        kv: match format.kv {
            KvArg::Int8 => KvFormat::Int8,
            KvArg::F16 => KvFormat::F16,
            KvArg::F32 => KvFormat::F32,
        },
        kv_tokens,
        max_sequences: sequences.max(1),
        max_batch_tokens: own.max_batch_tokens.max(sequences),
        ..own
    }
}

/// An engine with the model in it.
pub(crate) fn reasoner(
    opened: Opened,
    args: &EngineArgs,
    thinking: &ThinkingArgs,
    need: &Need,
) -> Result<Reasoner> {
    let model = opened.model;
    let kv_tokens = args
        .kv_tokens
        .unwrap_or_else(|| need.tokens(model.config.max_position_embeddings));
    let options = engine_options(&model, args.threads, &args.format, kv_tokens, need.streams);
    let engine = Engine::new(Arc::clone(&model), options).context("cannot set the engine up")?;
    let mut format = opened.format;
    if let Some(phrase) = &thinking.answer_phrase {
        format.closing = phrase.replace("\\n", "\n");
    }
    if let Some(line) = &thinking.budget_line {
        format.budget_line = (line != "none").then(|| line.clone());
    }
    if thinking.soft_budget.is_some() && format.budget_line.is_none() {
        bail!(
            "--soft-budget has no line to stand in: the adapter names none; give one with --budget-line, for example \"Use at most {{B}} tokens.\""
        );
    }
    let mut reasoner = Reasoner::new(model, engine, opened.adapter, format)?;
    if let Some(switcher) = opened.switcher {
        reasoner = reasoner.with_switcher(switcher);
    }
    if let Some(verifier) = opened.verifier {
        reasoner = reasoner.with_verifier(verifier);
    }
    Ok(reasoner)
}

/// What the flag says, or else the reasoner.
pub(crate) fn think(reasoner: &Reasoner, flag: Option<ThinkArg>) -> Think {
    match flag {
        Some(ThinkArg::On) => Think::On,
        Some(ThinkArg::Off) => Think::Off,
        Some(ThinkArg::Auto) => Think::Auto,
        None => reasoner.default_think(),
    }
}

/// A query by the flags; what they leave open comes from the model's generation_config.json.
pub(crate) fn query(
    reasoner: &Reasoner,
    input: Input,
    thinking: &ThinkingArgs,
    sampling: &SamplingArgs,
) -> Query {
    let query = Query {
        sampling: merge(&reasoner.model().generation, sampling),
        seed: sampling.seed,
        max_tokens: thinking.max_tokens,
        budget: thinking.budget,
        named_budget: thinking.soft_budget.or(thinking.budget),
        answer_reserve: thinking.answer_reserve,
        min_think: thinking.min_think.map(|tokens| MinThink {
            continuation: thinking.continuation.clone(),
            ..MinThink::new(tokens)
        }),
        stop_loops: thinking.stop_loops,
        ..Query::greedy(input, think(reasoner, thinking.think))
    };
    let effort = thinking.reasoning_effort.map(|effort| match effort {
        EffortArg::None => Effort::None,
        EffortArg::Minimal => Effort::Minimal,
        EffortArg::Low => Effort::Low,
        EffortArg::Medium => Effort::Medium,
        EffortArg::High => Effort::High,
        EffortArg::Xhigh => Effort::Xhigh,
    });
    match effort {
        Some(effort) => query.with_effort(effort, reasoner.format()),
        None => query,
    }
}

/// `query` with streams, scores and a vote by the flags.
pub(crate) fn with_vote(query: Query, args: &VoteArgs) -> Query {
    let n = usize::from(args.n);
    let scoring = match args.verify {
        None => Scoring::Off,
        Some(VerifyArg::Head) => Scoring::Verifier,
        Some(VerifyArg::Genrm) => Scoring::GenRm,
    };
    let vote = match args.vote {
        Some(VoteArg::Majority) => Some(Aggregate::Majority),
        Some(VoteArg::Weighted) => Some(Aggregate::Weighted),
        Some(VoteArg::Best) => Some(Aggregate::BestOfN),
        Some(VoteArg::None) => None,
        None if n == 1 => None,
        None if scoring == Scoring::Off => Some(Aggregate::Majority),
        None => Some(Aggregate::Weighted),
    };
    let early_stop = match args.early_stop {
        EarlyStopArg::Off => None,
        EarlyStopArg::Exact => Some(EarlyStop::Exact),
        EarlyStopArg::Confidence(wanted) => Some(EarlyStop::Confidence(wanted)),
    };
    Query {
        n,
        scale_n: args.scale_n,
        scoring,
        vote,
        early_stop: early_stop.filter(|_| vote.is_some()),
        waves: args.waves,
        ..query
    }
}

/// Flags first, then the model's own settings, which count only if it samples at all.
fn merge(model: &GenerationConfig, flags: &SamplingArgs) -> Sampling {
    let samples = model.do_sample.unwrap_or(model.temperature.is_some());
    let greedy = Sampling::greedy();
    let own = |value: Option<f32>| value.filter(|_| samples);
    Sampling {
        temperature: flags
            .temperature
            .or(own(model.temperature))
            .unwrap_or(if samples { 1.0 } else { greedy.temperature }),
        top_k: flags
            .top_k
            .or(model.top_k.filter(|_| samples).map(|k| k as usize))
            .unwrap_or(greedy.top_k),
        top_p: flags.top_p.or(own(model.top_p)).unwrap_or(greedy.top_p),
        min_p: flags.min_p.or(own(model.min_p)).unwrap_or(greedy.min_p),
        repetition_penalty: flags
            .repetition_penalty
            .or(model.repetition_penalty)
            .unwrap_or(greedy.repetition_penalty),
        presence_penalty: flags.presence_penalty.unwrap_or(greedy.presence_penalty),
        frequency_penalty: flags.frequency_penalty.unwrap_or(greedy.frequency_penalty),
        logit_bias: flags.logit_bias.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    fn flags(args: &[&str]) -> SamplingArgs {
        Flags::parse_from(std::iter::once(&"x").chain(args)).sampling
    }

    #[test]
    fn flags_win_over_the_models_settings() {
        let model = GenerationConfig {
            do_sample: Some(true),
            temperature: Some(0.7),
            top_k: Some(20),
            ..GenerationConfig::default()
        };
        let merged = merge(&model, &flags(&["--temperature", "0.2"]));
        assert_eq!((merged.temperature, merged.top_k), (0.2, 20));
    }

    #[test]
    fn a_model_that_does_not_sample_is_greedy() {
        let model = GenerationConfig {
            do_sample: Some(false),
            temperature: Some(0.7),
            top_p: Some(0.5),
            ..GenerationConfig::default()
        };
        let merged = merge(&model, &flags(&[]));
        assert_eq!((merged.temperature, merged.top_p), (0.0, 1.0));
        assert_eq!(
            merge(&GenerationConfig::default(), &flags(&[])).temperature,
            0.0
        );
    }

    #[test]
    fn kv_grows_with_the_streams() {
        let one = Need::conversation().tokens(1024);
        assert_eq!(one, 1024);
        let many = Need {
            streams: 8,
            ..Need::conversation()
        };
        assert!(many.tokens(1024) >= 8 * 1024);
        assert!(Need::conversation().tokens(1 << 20) == MAX_CONTEXT_TOKENS);
    }
}
