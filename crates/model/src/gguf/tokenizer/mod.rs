//! The tokenizer inside a GGUF file, rebuilt as a tokenizer of the `tokenizers` library.
//!
//! `tokenizer.ggml.model` says how it works: `gpt2` is byte-level BPE (see `bpe`), `llama` is SentencePiece BPE (see `spm`). The
//! vocabulary is `tokenizer.ggml.tokens`, with a type per token: control tokens and user-defined ones are matched in the text before
//! anything else, unused ones are left out. Other models of tokenizer are refused by name.

mod bpe;
mod spm;
pub(super) mod write;

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

use super::error::GgufError;
use super::value::{Metadata, Value};
use crate::Tokenizer;

/// What the file says about text.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// Text to tokens and back.
    pub(super) tokenizer: Tokenizer,
    /// Texts of the special tokens, for the chat template.
    pub(super) special: Map<String, Json>,
}

/// Type of a token (`enum llama_token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenType {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The vocabulary with its types; ids are positions.
#[derive(Debug)]
struct Tokens<'a> {
    texts: &'a [&'a str],
    types: Vec<TokenType>,
}

/// Tokens that llama.cpp and we take as ends of an answer when they are control tokens, whatever `eos_token_id` says.
const ENDS: &[&str] = &[
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
];

/// Rebuilds the tokenizer; `None` for a file without one.
///
/// # Errors
/// [`GgufError`] for a tokenizer that is not supported or does not fit the model.
pub(super) fn read(
    meta: &Metadata<'_>,
    vocab_size: usize,
) -> Result<Option<Vocabulary>, GgufError> {
    let model = meta.text("tokenizer.ggml.model")?;
    let (None | Some("none" | "no_vocab")) = model else {
        return tokens(meta, vocab_size)
            .and_then(|tokens| rebuild(meta, model.unwrap_or_default(), &tokens).map(Some));
    };
    Ok(None)
}

/// What a kind of tokenizer is made of. The small parts are in the form of tokenizer.json; the model, which is large, is not.
struct Parts {
    model: BPE,
    normalizer: Json,
    pre_tokenizer: Json,
    post_processor: Option<Json>,
    decoder: Json,
}

fn rebuild(meta: &Metadata<'_>, model: &str, tokens: &Tokens<'_>) -> Result<Vocabulary, GgufError> {
    let parts = match model {
        "gpt2" => bpe::parts(meta, tokens)?,
        "llama" => spm::parts(meta, tokens)?,
        other => {
            return Err(unsupported(format!(
                "tokenizer.ggml.model is {other:?}; supported are gpt2 and llama"
            )));
        }
    };
    let mut special = Map::new();
    for (name, key) in [
        ("bos_token", "tokenizer.ggml.bos_token_id"),
        ("eos_token", "tokenizer.ggml.eos_token_id"),
        ("pad_token", "tokenizer.ggml.padding_token_id"),
        ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ] {
        if let Some(text) = special_token(meta, tokens, key)? {
            special.insert(name.to_owned(), json!(text));
        }
    }
    let tokenizer = assemble(parts, tokens)?;
    Ok(Vocabulary { tokenizer, special })
}

fn assemble(parts: Parts, tokens: &Tokens<'_>) -> Result<Tokenizer, GgufError> {
    let failed = |error: tokenizers::Error| unsupported(error.to_string());
    let mut tokenizer = tokenizers::Tokenizer::new(parts.model);
    let normalizer: Option<NormalizerWrapper> = part(parts.normalizer)?;
    tokenizer.with_normalizer(normalizer).map_err(failed)?;
    tokenizer.with_pre_tokenizer(part::<PreTokenizerWrapper>(parts.pre_tokenizer)?);
    let post_processor = parts.post_processor.unwrap_or(Json::Null);
    tokenizer.with_post_processor(part::<PostProcessorWrapper>(post_processor)?);
    tokenizer.with_decoder(part::<DecoderWrapper>(parts.decoder)?);
    tokenizer.add_tokens(added_tokens(tokens)).map_err(failed)?;
    Tokenizer::try_from(tokenizer).map_err(|error| unsupported(error.to_string()))
}

/// A part of the library from its form in tokenizer.json; nothing for null.
fn part<T: DeserializeOwned>(json: Json) -> Result<Option<T>, GgufError> {
    serde_json::from_value(json).map_err(|error| unsupported(error.to_string()))
}

fn tokens<'a>(meta: &'a Metadata<'a>, vocab_size: usize) -> Result<Tokens<'a>, GgufError> {
    let key = "tokenizer.ggml.tokens";
    let texts = Metadata::need(key, meta.texts(key)?)?;
    if texts.len() > vocab_size {
        return Err(unsupported(format!(
            "it has {} tokens, but the embedding has only {vocab_size} rows",
            texts.len()
        )));
    }
    let types = match meta.numbers("tokenizer.ggml.token_type")? {
        None => vec![TokenType::Normal; texts.len()],
        Some(types) if types.len() != texts.len() => {
            return Err(unsupported(format!(
                "{} token types for {} tokens",
                types.len(),
                texts.len()
            )));
        }
        Some(types) => types
            .iter()
            .map(|v| token_type(&v))
            .collect::<Result<_, _>>()?,
    };
    let mut ids = HashMap::with_capacity(texts.len());
    for (id, text) in texts
        .iter()
        .enumerate()
        .filter(|(id, _)| types[*id] != TokenType::Unused)
    {
        if let Some(first) = ids.insert(*text, id) {
            return Err(unsupported(format!(
                "tokens {first} and {id} are both {text:?}"
            )));
        }
    }
    Ok(Tokens { texts, types })
}

fn token_type(value: &Value<'_>) -> Result<TokenType, GgufError> {
    match value.as_u64() {
        // 0 is "undefined", which llama.cpp treats like a normal token.
        Some(0 | 1) => Ok(TokenType::Normal),
        Some(2) => Ok(TokenType::Unknown),
        Some(3) => Ok(TokenType::Control),
        Some(4) => Ok(TokenType::UserDefined),
        Some(5) => Ok(TokenType::Unused),
        Some(6) => Ok(TokenType::Byte),
        _ => Err(unsupported(format!("a token type is {}", value.describe()))),
    }
}

/// Control and user-defined tokens, matched in the text before the model sees it; control tokens are special.
fn added_tokens(tokens: &Tokens<'_>) -> Vec<AddedToken> {
    let added = tokens.texts.iter().zip(&tokens.types);
    added
        .filter_map(|(text, kind)| {
            let special = match kind {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined => false,
                _ => return None,
            };
            Some(AddedToken::from(*text, special).normalized(false))
        })
        .collect()
}

/// The text of a special token named by a key; the id must be in the vocabulary.
fn special_token<'a>(
    meta: &Metadata<'_>,
    tokens: &Tokens<'a>,
    key: &str,
) -> Result<Option<&'a str>, GgufError> {
    let Some(id) = meta.token(key)? else {
        return Ok(None);
    };
    match tokens.texts.get(id as usize) {
        Some(text) => Ok(Some(text)),
        None => Err(unsupported(format!(
            "{key} is {id}, but there are {} tokens",
            tokens.texts.len()
        ))),
    }
}

/// Token to id, without the unused ones: what the model of the tokenizer may produce.
fn vocabulary(tokens: &Tokens<'_>) -> Vocab {
    let used = (0u32..)
        .zip(tokens.texts.iter().zip(&tokens.types))
        .filter(|(_, (_, kind))| **kind != TokenType::Unused);
    used.map(|(id, (text, _))| ((*text).to_owned(), id))
        .collect()
}

/// The model of a tokenizer.
fn build(builder: tokenizers::models::bpe::BpeBuilder) -> Result<BPE, GgufError> {
    builder
        .build()
        .map_err(|error| unsupported(error.to_string()))
}

/// A template that puts BOS before and EOS after a text when the file says so; `defaults` are for absent keys.
fn post_processor(
    meta: &Metadata<'_>,
    tokens: &Tokens<'_>,
    add_bos: bool,
) -> Result<Option<Json>, GgufError> {
    let bos = meta
        .boolean("tokenizer.ggml.add_bos_token")?
        .unwrap_or(add_bos);
    let eos = meta
        .boolean("tokenizer.ggml.add_eos_token")?
        .unwrap_or(false);
    let mut single = vec![json!({ "Sequence": { "id": "A", "type_id": 0 } })];
    let mut special = Map::new();
    for (wanted, key, at_end) in [
        (bos, "tokenizer.ggml.bos_token_id", false),
        (eos, "tokenizer.ggml.eos_token_id", true),
    ] {
        if !wanted {
            continue;
        }
        let Some(text) = special_token(meta, tokens, key)? else {
            continue;
        };
        let id = Metadata::need(key, meta.token(key)?)?;
        let place = if at_end { single.len() } else { 0 };
        single.insert(
            place,
            json!({ "SpecialToken": { "id": text, "type_id": 0 } }),
        );
        special.insert(
            text.to_owned(),
            json!({ "id": text, "ids": [id], "tokens": [text] }),
        );
    }
    if special.is_empty() {
        return Ok(None);
    }
    let pair: Vec<Json> = single
        .iter()
        .chain(&single)
        .enumerate()
        .map(|(i, part)| match part.get("Sequence") {
            Some(_) if i >= single.len() => json!({ "Sequence": { "id": "B", "type_id": 1 } }),
            _ => part.clone(),
        })
        .collect();
    Ok(Some(
        json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special }),
    ))
}

/// Ids of the tokens that end an answer: those named by keys, and the control tokens in [`ENDS`].
pub(super) fn end_tokens(meta: &Metadata<'_>) -> Result<Vec<u32>, GgufError> {
    let mut ends = Vec::new();
    for key in [
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",
    ] {
        ends.extend(meta.token(key)?);
    }
    let texts = meta.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    if let Some(types) = meta.numbers("tokenizer.ggml.token_type")? {
        for (id, (text, kind)) in (0u32..).zip(texts.iter().zip(types.iter())) {
            if ENDS.contains(text) && token_type(&kind)? == TokenType::Control {
                ends.push(id);
            }
        }
    }
    // The first is the main one; the rest in order, each once.
    let mut seen = std::collections::HashSet::new();
    ends.retain(|id| seen.insert(*id));
    Ok(ends)
}

fn unsupported(reason: String) -> GgufError {
    GgufError::Tokenizer { reason }
}

#[cfg(test)]
mod tests;
