//! A tokenizer as the keys of a GGUF file: the other direction of this module.
//!
//! llama.cpp knows ways of cutting text by name (`tokenizer.ggml.pre`), so a byte-level tokenizer is written only when its own cut is one
//! of them; with another name the tokens would be plausible and wrong. A SentencePiece tokenizer is written with a score per token:
//! the rank of the merge that makes it. Both are refused with the reason where the file would not mean the same.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::bpe::{self, Cut};
use crate::gguf::error::GgufError;
use crate::gguf::writer::{Entry, GgufWriter};
use crate::{ChatTemplate, Config, GenerationConfig, Tokenizer};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Adds the keys of tokenizer, special tokens and chat template.
///
/// # Errors
/// [`GgufError::Unwritable`] for a tokenizer that the format cannot say.
pub(in crate::gguf) fn write(
    file: &mut GgufWriter<'_>,
    config: &Config,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    generation: &GenerationConfig,
) -> Result<(), GgufError> {
    let failed = |error: &dyn std::fmt::Display| unsupported(error.to_string());
    let json = tokenizer.to_json().map_err(|e| failed(&e))?;
    let json: Json = serde_json::from_str(&json).map_err(|e| failed(&e))?;
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(unsupported(format!(
            "its model is {}; only BPE is written",
            model["type"]
        )));
    }
    let merges = merges(model)?;
    let (tokens, types) = tokens(&json, config.vocab_size)?;
    if model["byte_fallback"] == true {
        file.key("tokenizer.ggml.model", &Entry::String("llama"))?;
        file.key("tokenizer.ggml.pre", &Entry::String("default"))?;
        file.key(
            "tokenizer.ggml.scores",
            &Entry::F32s(&scores(&tokens, &types, &merges)?),
        )?;
        file.key(
            "tokenizer.ggml.add_space_prefix",
            &Entry::Bool(space_prefix(&json)?),
        )?;
    } else {
        file.key("tokenizer.ggml.model", &Entry::String("gpt2"))?;
        file.key("tokenizer.ggml.pre", &Entry::String(pre(&json)?))?;
        let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
        let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
        file.key("tokenizer.ggml.merges", &Entry::Strings(&merges))?;
    }
    let texts: Vec<&str> = tokens.iter().map(String::as_str).collect();
    file.key("tokenizer.ggml.tokens", &Entry::Strings(&texts))?;
    file.key("tokenizer.ggml.token_type", &Entry::I32s(&types))?;
    special(file, &json, tokenizer, template, generation)?;
    if let Some(template) = template {
        file.key("tokenizer.chat_template", &Entry::String(template.source()))?;
    }
    Ok(())
}

/// Ids of the special tokens, and which of them a text gets on its own.
fn special(
    file: &mut GgufWriter<'_>,
    json: &Json,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    generation: &GenerationConfig,
) -> Result<(), GgufError> {
    let named = |name: &str| {
        let text = template?.special().get(name)?.as_str()?;
        tokenizer.token_id(text)
    };
    let unk = json["model"]["unk_token"].as_str();
    let unk = unk.and_then(|text| tokenizer.token_id(text));
    // The template's own end of a turn first; llama.cpp and we stop at every one of them.
    let mut ends = generation.eos_token_ids.clone();
    if let Some(eos) = named("eos_token") {
        ends.retain(|&id| id != eos);
        ends.insert(0, eos);
    }
    let end = |i: usize| ends.get(i).copied();
    let bos = named("bos_token").or(generation.bos_token_id);
    // What the tokenizer itself puts around a text, whatever the other files say of BOS.
    let alone = tokenizer.encode("", true);
    let alone = alone.map_err(|error| unsupported(error.to_string()))?;
    let (bos, add_bos, add_eos) = match alone[..] {
        [] => (bos, false, false),
        [one] if end(0) == Some(one) && bos != Some(one) => (bos, false, true),
        [first] => (Some(first), true, false),
        [first, last] if end(0) == Some(last) => (Some(first), true, true),
        _ => {
            return Err(unsupported(format!(
                "it puts the tokens {alone:?} around a text; only one BOS and one EOS can be written"
            )));
        }
    };
    for (name, id) in [
        ("bos", bos),
        ("eos", end(0)),
        ("eot", end(1)),
        ("eom", end(2)),
        ("unknown", unk.or_else(|| named("unk_token"))),
        ("padding", named("pad_token").or(generation.pad_token_id)),
    ] {
        if let Some(id) = id {
            file.key(&format!("tokenizer.ggml.{name}_token_id"), &Entry::U32(id))?;
        }
    }
    file.key("tokenizer.ggml.add_bos_token", &Entry::Bool(add_bos))?;
    file.key("tokenizer.ggml.add_eos_token", &Entry::Bool(add_eos))
}

/// Texts and types by id; ids without a token are named `[PAD7]`, as llama.cpp's converter does.
fn tokens(json: &Json, vocab_size: usize) -> Result<(Vec<String>, Vec<i32>), GgufError> {
    let mut texts: Vec<Option<String>> = vec![None; vocab_size];
    let mut types = vec![UNUSED; vocab_size];
    let mut put = |text: &str, id: &Json, kind: i32| {
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok());
        match place.filter(|&id| id < vocab_size) {
            Some(id) => {
                texts[id] = Some(text.to_owned());
                types[id] = kind;
                Ok(())
            }
            None => Err(unsupported(format!(
                "the token {text:?} has the id {id}, but the embedding has {vocab_size} rows"
            ))),
        }
    };
    let model = &json["model"];
    let spm = model["byte_fallback"] == true;
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        let kind = match text.as_str() {
            text if spm && is_byte(text) => BYTE,
            text if model["unk_token"] == text => UNKNOWN,
            _ => NORMAL,
        };
        put(text, id, kind)?;
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let text = token["content"].as_str().unwrap_or_default();
        let kind = match token["special"] == true {
            _ if spm && model["unk_token"] == text => UNKNOWN,
            true => CONTROL,
            false => USER_DEFINED,
        };
        put(text, &token["id"], kind)?;
    }
    let texts = texts.into_iter().enumerate();
    let texts = texts.map(|(id, text)| text.unwrap_or_else(|| format!("[PAD{id}]")));
    Ok((texts.collect(), types))
}

/// Whether a token stands for one byte: `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    digits.is_some_and(|d| d.len() == 2 && u8::from_str_radix(d, 16).is_ok())
}

/// Merges in order of rank: `"a b"` in older files, `["a", "b"]` in newer ones.
fn merges(model: &Json) -> Result<Vec<(String, String)>, GgufError> {
    let pair = |merge: &Json| {
        let (a, b) = match merge {
            Json::String(text) => text.split_once(' ')?,
            Json::Array(pair) => (pair.first()?.as_str()?, pair.get(1)?.as_str()?),
            _ => return None,
        };
        // The file has one string per merge, with a space between.
        (!a.contains(' ') && !b.contains(' ')).then(|| (a.to_owned(), b.to_owned()))
    };
    let list = model["merges"].as_array().map_or(&[][..], Vec::as_slice);
    let all: Option<Vec<_>> = list.iter().map(pair).collect();
    all.ok_or_else(|| unsupported("a merge is not two tokens without spaces".to_owned()))
}

/// The name under which llama.cpp knows this tokenizer's way of cutting text.
fn pre(json: &Json) -> Result<&'static str, GgufError> {
    let nfc = match &json["normalizer"] {
        Json::Null => false,
        normalizer if normalizer["type"] == "NFC" => true,
        other => return Err(unsupported(format!("it normalizes text by {other}"))),
    };
    let unknown = || {
        unsupported(format!(
            "llama.cpp has no name for its way of cutting text, {}",
            json["pre_tokenizer"]
        ))
    };
    let steps = match &json["pre_tokenizer"] {
        sequence if sequence["type"] == "Sequence" => sequence["pretokenizers"].as_array(),
        one => {
            return match byte_level(one) {
                Some(true) => named(&Cut::Gpt2, nfc, json).ok_or_else(unknown),
                _ => Err(unknown()),
            };
        }
    };
    let cut = match steps.map_or(&[][..], Vec::as_slice) {
        [digits, rest] if digits["type"] == "Digits" => (digits["individual_digits"] == true
            && byte_level(rest) == Some(true))
        .then_some(Cut::DigitsThenGpt2),
        [split, rest] if split["type"] == "Split" && byte_level(rest) == Some(false) => {
            let pattern = split["pattern"]["Regex"].as_str();
            let plain = split["behavior"] == "Isolated" && split["invert"] == false;
            pattern.filter(|_| plain).and_then(bpe::pattern)
        }
        [only] if byte_level(only) == Some(true) => Some(Cut::Gpt2),
        _ => None,
    };
    cut.and_then(|cut| named(&cut, nfc, json))
        .ok_or_else(unknown)
}

/// Whether a step is the byte-level one that adds no space, and if so whether it cuts by GPT-2's pattern.
fn byte_level(step: &Json) -> Option<bool> {
    (step["type"] == "ByteLevel" && step["add_prefix_space"] == false)
        .then(|| step["use_regex"] != false)
}

fn named(cut: &Cut, nfc: bool, json: &Json) -> Option<&'static str> {
    bpe::name_of(cut, nfc, json["model"]["ignore_merges"] == true)
}

/// One score per token, so that the better score is the earlier merge: minus the first rank at which a merge makes the token.
///
/// llama.cpp tries every pair of neighbours that together are a token, so the merges must be all of these, and those of one token
/// must stand together.
fn scores(
    tokens: &[String],
    types: &[i32],
    merges: &[(String, String)],
) -> Result<Vec<f32>, GgufError> {
    let mut rank: HashMap<String, usize> = HashMap::new();
    let mut last = None;
    for (a, b) in merges {
        let whole = format!("{a}{b}");
        let next = rank.len();
        if last.as_ref() != Some(&whole) && rank.insert(whole.clone(), next).is_some() {
            return Err(unsupported(format!(
                "the merges that make {whole:?} do not stand together, so one score per token cannot say their order"
            )));
        }
        last = Some(whole);
    }
    let known: HashSet<(&str, &str)> = merges.iter().map(|(a, b)| (&a[..], &b[..])).collect();
    let normal: HashSet<&str> = tokens
        .iter()
        .zip(types)
        .filter(|(_, kind)| **kind == NORMAL)
        .map(|(text, _)| text.as_str())
        .collect();
    for text in &normal {
        let cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        for (a, b) in cuts {
            if normal.contains(a) && normal.contains(b) && !known.contains(&(a, b)) {
                return Err(unsupported(format!(
                    "{a:?} and {b:?} make a token but are no merge, which SentencePiece files cannot say"
                )));
            }
        }
    }
    let never = -(rank.len() as f32);
    let score = |(text, kind): (&String, &i32)| match (*kind, rank.get(text)) {
        (NORMAL, Some(&rank)) => -(rank as f32),
        (NORMAL, None) => never,
        _ => 0.0,
    };
    Ok(tokens.iter().zip(types).map(score).collect())
}

/// Whether a space is put before a text.
fn space_prefix(json: &Json) -> Result<bool, GgufError> {
    let (normalizer, cut) = (&json["normalizer"], &json["pre_tokenizer"]);
    if cut["type"] == "Metaspace" && normalizer.is_null() {
        return Ok(cut["prepend_scheme"] != "never");
    }
    let steps = match normalizer["normalizers"].as_array() {
        Some(steps) => steps.as_slice(),
        None => std::slice::from_ref(normalizer),
    };
    let spaces = |step: &Json| step["type"] == "Replace" && step["content"] == "▁";
    match steps {
        [prepend, replace] if prepend["type"] == "Prepend" && spaces(replace) => Ok(true),
        [replace] if spaces(replace) => Ok(false),
        _ => Err(unsupported(format!("it normalizes text by {normalizer}"))),
    }
}

fn unsupported(reason: String) -> GgufError {
    GgufError::Unwritable {
        what: "the tokenizer".to_owned(),
        reason,
    }
}
