//! The network and its text side, as they come from files: a model directory, or a config and a tokenizer directory.

use std::path::{Path, PathBuf};

use edgethink_model::{ChatTemplate, Config, GenerationConfig, Linear, Model, Tensor, Tokenizer};
use serde_json::{Map, Value};

use crate::{
    error::TrainError,
    net::Spec,
    params::{self, Param},
    recipe::ModelRecipe,
};

/// Files that belong to the text side and are copied beside a trained model.
const TEXT_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "vocab.json",
];

/// A network's tensors by name, in the order of its slots.
pub(crate) type NamedTensors = Vec<(String, Tensor)>;

/// The same in f32. Each tensor goes when it is read.
pub(crate) fn in_f32(weights: NamedTensors) -> Vec<Param> {
    let read = |(name, tensor): (String, Tensor)| Param::read(name, &tensor);
    weights.into_iter().map(read).collect()
}

/// Everything that a training starts from.
#[derive(Debug)]
pub(crate) struct Start {
    pub config: Config,
    pub spec: Spec,
    pub weights: NamedTensors,
    pub text: Text,
}

/// The text side of a model.
#[derive(Debug)]
pub(crate) struct Text {
    pub dir: PathBuf,
    pub tokenizer: Tokenizer,
    pub template: Option<ChatTemplate>,
    pub eos: Vec<u32>,
}

/// Loads what `[model]` names.
///
/// # Errors
/// [`TrainError`] that names the file and the remedy.
pub(crate) fn load(recipe: &ModelRecipe, seed: u64) -> Result<Start, TrainError> {
    match (&recipe.base, &recipe.config, &recipe.tokenizer) {
        (Some(dir), _, _) => from_model(dir),
        (None, Some(config), Some(tokenizer)) => {
            let text = read(config)?;
            let parsed = Config::from_json(&text).map_err(|source| TrainError::Config {
                path: config.clone(),
                source,
            })?;
            let text = load_text(tokenizer)?;
            check_vocab(&parsed, &text.tokenizer, &text.dir)?;
            let spec = spec(&parsed);
            let std = recipe.init_std.unwrap_or(0.02);
            let weights = params::init(&spec, std, seed)
                .into_iter()
                .map(Param::stored)
                .collect();
            Ok(Start {
                config: parsed,
                spec,
                weights,
                text,
            })
        }
        // The recipe's own check refuses the rest.
        _ => Err(TrainError::Unfit {
            path: PathBuf::from("[model]"),
            problem: "needs either config and tokenizer, or base".to_owned(),
        }),
    }
}

fn from_model(dir: &Path) -> Result<Start, TrainError> {
    let model = Model::load(&dir.to_string_lossy())?;
    let (spec, weights) = network(&model);
    let missing = |what: &str| TrainError::Unfit {
        path: dir.to_owned(),
        problem: format!("has no {what}"),
    };
    let text = Text {
        dir: dir.to_owned(),
        tokenizer: model.tokenizer.ok_or_else(|| missing("tokenizer.json"))?,
        template: model.template,
        eos: model.generation.eos_token_ids,
    };
    check_vocab(&model.config, &text.tokenizer, dir)?;
    Ok(Start {
        config: model.config,
        spec,
        weights,
        text,
    })
}

/// The network of a loaded model; its tensors share the model's bytes.
pub(crate) fn network(model: &Model) -> (Spec, NamedTensors) {
    let spec = spec(&model.config);
    let weights = spec
        .tensors()
        .into_iter()
        .zip(model.weights.named())
        .map(|((name, _), (found, tensor))| {
            debug_assert_eq!(name, found, "both list the tensors in the same order");
            (name, tensor.clone())
        })
        .collect();
    (spec, weights)
}

/// Sizes and switches for the network from a model's config.
pub(crate) fn spec(config: &Config) -> Spec {
    let rope = config.rope();
    Spec {
        hidden: config.hidden_size,
        ffn: config.intermediate_size,
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        vocab: config.vocab_size,
        eps: config.rms_norm_eps,
        tied: config.tie_word_embeddings,
        biases: Linear::ALL.map(|l| config.has_bias(l)),
        qk_norm: config.qk_norm,
        window: config.sliding_window,
        inv_freq: rope.inv_freq,
        rope_factor: rope.attention_factor,
    }
}

/// Every token of the tokenizer has a row in the embedding.
pub(crate) fn check_vocab(
    config: &Config,
    tokenizer: &Tokenizer,
    dir: &Path,
) -> Result<(), TrainError> {
    match tokenizer.last_token() {
        Some((token, id)) if id as usize >= config.vocab_size => Err(TrainError::Unfit {
            path: dir.to_owned(),
            problem: format!(
                "token {token:?} has id {id}, but the config's vocab_size is {}; make them equal",
                config.vocab_size
            ),
        }),
        _ => Ok(()),
    }
}

pub(crate) fn read(path: &Path) -> Result<String, TrainError> {
    std::fs::read_to_string(path).map_err(|source| TrainError::Read {
        path: path.to_owned(),
        source,
    })
}

fn load_text(dir: &Path) -> Result<Text, TrainError> {
    let path = dir.join("tokenizer.json");
    let tokenizer =
        Tokenizer::from_file(&path).map_err(|source| TrainError::Tokenizer { path, source })?;
    let path = dir.join("tokenizer_config.json");
    let map: Map<String, Value> = if path.is_file() {
        serde_json::from_str(&read(&path)?).map_err(|e| TrainError::Unfit {
            path: path.clone(),
            problem: e.to_string(),
        })?
    } else {
        Map::new()
    };
    let special: Map<String, Value> = map
        .iter()
        .filter(|(name, value)| name.ends_with("_token") && value.is_string())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let jinja = dir.join("chat_template.jinja");
    let source = if jinja.is_file() {
        Some((jinja.clone(), read(&jinja)?))
    } else {
        let inline = map.get("chat_template").and_then(Value::as_str);
        inline.map(|text| (path, text.to_owned()))
    };
    let template = match source {
        None => None,
        Some((path, text)) => Some(
            ChatTemplate::new(&text, special.clone())
                .map_err(|source| TrainError::Template { path, source })?,
        ),
    };
    let path = dir.join("generation_config.json");
    let mut eos = Vec::new();
    if path.is_file() {
        eos = GenerationConfig::from_json(read(&path)?.as_bytes(), &path)?.eos_token_ids;
    }
    if eos.is_empty() {
        let token = special.get("eos_token").and_then(Value::as_str);
        eos.extend(token.and_then(|t| tokenizer.token_id(t)));
    }
    Ok(Text {
        dir: dir.to_owned(),
        tokenizer,
        template,
        eos,
    })
}

/// Copies the text side's files to `dir`.
///
/// # Errors
/// [`TrainError::Write`].
pub(crate) fn copy_text_files(from: &Path, dir: &Path) -> Result<(), TrainError> {
    for name in TEXT_FILES {
        let source = from.join(name);
        let target = dir.join(name);
        if source.is_file() && source != target {
            std::fs::copy(&source, &target).map_err(|source| TrainError::Write {
                path: target,
                source,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
