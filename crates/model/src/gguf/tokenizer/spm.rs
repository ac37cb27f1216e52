//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`): Llama 2, Mistral 7B, TinyLlama.
//!
//! The file has a score per token instead of merges. As in transformers' conversion, every way to cut a token into two tokens is a
//! merge, and merges are ranked by the score of what they make. Characters outside the vocabulary fall back to byte tokens.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use tokenizers::models::bpe::{BPE, Merges};

use super::{
    Parts, TokenType, Tokens, build, post_processor, special_token, unsupported, vocabulary,
};
use crate::gguf::error::GgufError;
use crate::gguf::value::Metadata;

/// Longest token that may be cut, in bytes; SentencePiece's own limit is far below.
const MAX_TOKEN: usize = 1024;

/// The parts of the tokenizer.
pub(super) fn parts(meta: &Metadata<'_>, tokens: &Tokens<'_>) -> Result<Parts, GgufError> {
    let scores = scores(meta, tokens)?;
    let prefix = meta
        .boolean("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let unknown = special_token(meta, tokens, "tokenizer.ggml.unknown_token_id")?;
    let by_type = || {
        tokens
            .texts
            .iter()
            .zip(&tokens.types)
            .find(|(_, kind)| **kind == TokenType::Unknown)
            .map(|(text, _)| *text)
    };
    let mut normalizers =
        vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let mut model = BPE::builder()
        .vocab_and_merges(vocabulary(tokens), merges(tokens, &scores)?)
        .fuse_unk(true)
        .byte_fallback(true);
    if let Some(unknown) = unknown.or_else(by_type) {
        model = model.unk_token(unknown.to_owned());
    }
    Ok(Parts {
        model: build(model)?,
        normalizer: json!({ "type": "Sequence", "normalizers": normalizers }),
        pre_tokenizer: Json::Null,
        post_processor: post_processor(meta, tokens, true)?,
        decoder: json!({ "type": "Sequence", "decoders": decoders }),
    })
}

fn scores(meta: &Metadata<'_>, tokens: &Tokens<'_>) -> Result<Vec<f64>, GgufError> {
    let key = "tokenizer.ggml.scores";
    let scores = Metadata::need(key, meta.numbers(key)?)?;
    let finite: Option<Vec<f64>> = scores.iter().map(|v| v.as_f64()).collect();
    match finite {
        Some(scores) if scores.len() == tokens.texts.len() => Ok(scores),
        Some(scores) => Err(unsupported(format!(
            "{} scores for {} tokens",
            scores.len(),
            tokens.texts.len()
        ))),
        None => Err(unsupported("a score is not a finite number".to_owned())),
    }
}

/// Merges in the order of transformers' `generate_merges`: by score, then by the lengths of the two parts, all descending, and
/// otherwise by the ids of the parts.
fn merges(tokens: &Tokens<'_>, scores: &[f64]) -> Result<Merges, GgufError> {
    let normal = |id: &usize| tokens.types[*id] == TokenType::Normal;
    let ids: HashMap<&str, usize> = (0..tokens.texts.len())
        .filter(normal)
        .map(|id| (tokens.texts[id], id))
        .collect();
    let mut merges = Vec::new();
    for id in (0..tokens.texts.len()).filter(normal) {
        let text = tokens.texts[id];
        if text.len() > MAX_TOKEN {
            return Err(unsupported(format!(
                "token {id} has {} bytes; the limit is {MAX_TOKEN}",
                text.len()
            )));
        }
        let cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        let mut local: Vec<(usize, usize)> = cuts
            .filter_map(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?)))
            .collect();
        local.sort_unstable();
        merges.extend(
            local
                .into_iter()
                .map(|(left, right)| (scores[id], left, right)),
        );
    }
    let chars: Vec<usize> = tokens
        .texts
        .iter()
        .map(|text| text.chars().count())
        .collect();
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then(chars[b.1].cmp(&chars[a.1]))
            .then(chars[b.2].cmp(&chars[a.2]))
    });
    let text = |id: usize| tokens.texts[id].to_owned();
    let texts = merges.into_iter();
    Ok(texts
        .map(|(_, left, right)| (text(left), text(right)))
        .collect())
}
