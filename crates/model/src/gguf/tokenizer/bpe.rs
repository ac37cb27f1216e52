//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`): vocabulary and merges as they stand, and the way of cutting text into words that
//! `tokenizer.ggml.pre` names.
//!
//! The patterns are those of the models' own tokenizer.json files. A name that is not listed is refused: with the wrong pattern the
//! tokens would be plausible and wrong.

use serde_json::{Value as Json, json};
use tokenizers::models::bpe::BPE;

use super::{Parts, Tokens, build, post_processor, unsupported, vocabulary};
use crate::gguf::error::GgufError;
use crate::gguf::value::Metadata;

/// Qwen2 and Qwen3: digits one by one.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Llama 3: digits by threes.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's Tekken.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a value of `tokenizer.ggml.pre` means.
struct Pre {
    /// Unicode normalization, if any.
    nfc: bool,
    /// How text is cut.
    cut: Cut,
    /// A word that is a token needs no merges.
    ignore_merges: bool,
    /// Whether BOS is added when the file does not say.
    add_bos: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// By this pattern.
    Pattern(&'static str),
    /// As GPT-2.
    Gpt2,
    /// Digits alone, the rest as GPT-2.
    DigitsThenGpt2,
}

fn pre(name: &str) -> Option<Pre> {
    let plain = |cut| Pre {
        nfc: false,
        cut,
        ignore_merges: false,
        add_bos: false,
    };
    match name {
        "qwen2" => Some(Pre {
            nfc: true,
            ..plain(Cut::Pattern(QWEN2))
        }),
        "deepseek-r1-qwen" => Some(plain(Cut::Pattern(QWEN2))),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" => Some(Pre {
            ignore_merges: true,
            add_bos: true,
            ..plain(Cut::Pattern(LLAMA3))
        }),
        "tekken" => Some(Pre {
            ignore_merges: true,
            add_bos: true,
            ..plain(Cut::Pattern(TEKKEN))
        }),
        "smollm" => Some(plain(Cut::DigitsThenGpt2)),
        "gpt-2" | "phi-2" => Some(plain(Cut::Gpt2)),
        _ => None,
    }
}

/// The cut by a pattern that is one of ours.
pub(super) fn pattern(text: &str) -> Option<Cut> {
    let known = [QWEN2, LLAMA3, TEKKEN].into_iter();
    known.filter(|p| *p == text).map(Cut::Pattern).next()
}

/// The value of `tokenizer.ggml.pre` that means this.
pub(super) fn name_of(cut: &Cut, nfc: bool, ignore_merges: bool) -> Option<&'static str> {
    let names = [
        "qwen2",
        "deepseek-r1-qwen",
        "llama-bpe",
        "tekken",
        "smollm",
        "gpt-2",
    ];
    names.into_iter().find(|name| {
        pre(name).is_some_and(|p| p.cut == *cut && p.nfc == nfc && p.ignore_merges == ignore_merges)
    })
}

/// The parts of the tokenizer.
pub(super) fn parts(meta: &Metadata<'_>, tokens: &Tokens<'_>) -> Result<Parts, GgufError> {
    let name = meta.text("tokenizer.ggml.pre")?;
    let Some(pre) = name.and_then(pre) else {
        let name = name.unwrap_or("absent");
        return Err(unsupported(format!(
            "tokenizer.ggml.pre is {name:?}; supported are qwen2, deepseek-r1-qwen, llama-bpe, tekken, smollm and gpt-2"
        )));
    };
    let key = "tokenizer.ggml.merges";
    let merges = Metadata::need(key, meta.texts(key)?)?;
    let merges = merges.iter().map(|merge| split_merge(merge));
    let model = BPE::builder()
        .vocab_and_merges(vocabulary(tokens), merges.collect::<Result<_, _>>()?)
        .ignore_merges(pre.ignore_merges);
    let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex });
    let pre_tokenizer = match pre.cut {
        Cut::Pattern(pattern) => json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
            byte_level(false),
        ] }),
        Cut::Gpt2 => byte_level(true),
        Cut::DigitsThenGpt2 => json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Digits", "individual_digits": true },
            byte_level(true),
        ] }),
    };
    Ok(Parts {
        model: build(model)?,
        normalizer: if pre.nfc {
            json!({ "type": "NFC" })
        } else {
            Json::Null
        },
        pre_tokenizer,
        post_processor: post_processor(meta, tokens, pre.add_bos)?,
        decoder: byte_level(true),
    })
}

/// A merge is two tokens around a space; the first is not empty.
fn split_merge(merge: &str) -> Result<(String, String), GgufError> {
    let first = merge.chars().next().map_or(0, char::len_utf8);
    match merge[first..].find(' ') {
        Some(at) => Ok((
            merge[..first + at].to_owned(),
            merge[first + at + 1..].to_owned(),
        )),
        None => Err(unsupported(format!(
            "the merge {merge:?} is not two tokens with a space between"
        ))),
    }
}
