//! Loading a model directory: config.json, safetensors, tokenizer, chat template, generation config.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::safetensors;
use crate::json::parse_object_bytes;
use crate::{
    ChatTemplate, Config, Folder, GenerationConfig, LoadError, Model, Source, Tensor, Tokenizer,
    Weights,
};

/// The variables that a chat template knows from tokenizer_config.json.
const SPECIAL_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
];

/// Loads a directory and checks that its parts fit together.
///
/// # Errors
/// [`LoadError`], which names what is wrong and what to do.
pub fn load_dir(dir: &Path) -> Result<Model, LoadError> {
    load_folder(&Folder::disk(dir))
}

/// As [`load_dir`], for a folder that may be inside a bundle.
///
/// # Errors
/// As [`load_dir`].
pub fn load_folder(dir: &Folder) -> Result<Model, LoadError> {
    let config_path = require(dir, "config.json")?;
    let config_text = read(dir, "config.json")?;
    let config = match std::str::from_utf8(&config_text) {
        Ok(text) => Config::from_json(text).map_err(|source| LoadError::Config {
            path: config_path.clone(),
            source,
        })?,
        Err(_) => {
            return Err(LoadError::Field {
                path: config_path,
                field: "(file)".to_owned(),
                expected: "UTF-8 text",
            });
        }
    };
    let tensors = open_weights(dir)?;
    let weights = Weights::from_named(&config, tensors);
    let weights = weights.map_err(|source| LoadError::Weights {
        path: dir.path(),
        source,
    })?;

    let tokenizer = match optional(dir, "tokenizer.json") {
        Some(path) => {
            let tokenizer = Tokenizer::from_json(&read(dir, "tokenizer.json")?);
            Some(tokenizer.map_err(|source| LoadError::Tokenizer { path, source })?)
        }
        None => None,
    };
    let tokenizer_config = TokenizerConfig::read(dir)?;
    let template = tokenizer_config.template(dir)?;
    let mut generation = GenerationConfig::default();
    if let Some(path) = optional(dir, "generation_config.json") {
        generation = GenerationConfig::from_json(&read(dir, "generation_config.json")?, &path)?;
    }
    generation = generation.or(GenerationConfig::from_json(&config_text, &config_path)?);
    if let (true, Some(tokenizer)) = (generation.eos_token_ids.is_empty(), &tokenizer) {
        let eos = tokenizer_config
            .special
            .get("eos_token")
            .and_then(Value::as_str);
        generation
            .eos_token_ids
            .extend(eos.and_then(|token| tokenizer.token_id(token)));
    }
    Model::from_parts(
        config,
        weights,
        tokenizer,
        template,
        generation,
        Source::Directory(dir.path()),
    )
}

fn open_weights(dir: &Folder) -> Result<safetensors::Tensors, LoadError> {
    let tensors = if dir.has("model.safetensors") {
        safetensors::open_in(dir, "model.safetensors")?
    } else {
        match optional(dir, "model.safetensors.index.json") {
            Some(_) => safetensors::open_sharded(dir, "model.safetensors.index.json")?,
            None => return Err(missing(dir, "model.safetensors")),
        }
    };
    // Codes in place are for adapters.
    let floats = |(name, tensor): (String, Tensor)| (name, tensor.floats().into_owned());
    Ok(tensors.into_iter().map(floats).collect())
}

/// What tokenizer_config.json says of templates and special tokens.
struct TokenizerConfig {
    path: PathBuf,
    map: Map<String, Value>,
    /// `bos_token` and so on, as text.
    special: Map<String, Value>,
}

impl TokenizerConfig {
    fn read(dir: &Folder) -> Result<Self, LoadError> {
        let path = dir.path_of("tokenizer_config.json");
        let map = if dir.has("tokenizer_config.json") {
            parse_object_bytes(&read(dir, "tokenizer_config.json")?).map_err(|source| {
                LoadError::Json {
                    path: path.clone(),
                    source,
                }
            })?
        } else {
            Map::new()
        };
        let mut special = Map::new();
        for name in SPECIAL_TOKENS {
            // Plain text, or an object with the text in `content`.
            let value = map.get(name).filter(|v| !v.is_null());
            let text = value.and_then(|v| v.as_str().or_else(|| v.get("content")?.as_str()));
            match (value, text) {
                (_, Some(text)) => drop(special.insert(name.to_owned(), text.into())),
                (None, None) => {}
                (Some(_), None) => {
                    return Err(LoadError::Field {
                        path,
                        field: name.to_owned(),
                        expected: "a token's text",
                    });
                }
            }
        }
        Ok(Self { path, map, special })
    }

    /// chat_template.jinja, or the `chat_template` of tokenizer_config.json (of several, the one named `default`).
    fn template(&self, dir: &Folder) -> Result<Option<ChatTemplate>, LoadError> {
        let wrong = || LoadError::Field {
            path: self.path.clone(),
            field: "chat_template".to_owned(),
            expected: "a template, or a list of templates of which one is named `default`",
        };
        let (path, source) = match (
            optional(dir, "chat_template.jinja"),
            self.map.get("chat_template"),
        ) {
            (Some(path), _) => {
                let text = String::from_utf8(read(dir, "chat_template.jinja")?);
                let text = text.map_err(|_| LoadError::Field {
                    path: path.clone(),
                    field: "(file)".to_owned(),
                    expected: "UTF-8 text",
                })?;
                (path, text)
            }
            (None, None | Some(Value::Null)) => return Ok(None),
            (None, Some(Value::String(text))) => (self.path.clone(), text.clone()),
            (None, Some(Value::Array(list))) => {
                let default = list
                    .iter()
                    .find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"));
                let text = default
                    .and_then(|entry| entry.get("template")?.as_str())
                    .ok_or_else(wrong)?;
                (self.path.clone(), text.to_owned())
            }
            (None, Some(_)) => return Err(wrong()),
        };
        let template = ChatTemplate::new(&source, self.special.clone());
        template
            .map(Some)
            .map_err(|source| LoadError::Template { path, source })
    }
}

fn optional(dir: &Folder, file: &str) -> Option<PathBuf> {
    dir.has(file).then(|| dir.path_of(file))
}

fn require(dir: &Folder, file: &str) -> Result<PathBuf, LoadError> {
    optional(dir, file).ok_or_else(|| missing(dir, file))
}

fn missing(dir: &Folder, file: &str) -> LoadError {
    LoadError::MissingFile {
        dir: dir.path(),
        file: file.to_owned(),
    }
}

fn read(dir: &Folder, file: &str) -> Result<Vec<u8>, LoadError> {
    dir.read(file).map_err(LoadError::io(&dir.path_of(file)))
}
