//! Tokenizers that are wrong in one way each. That right ones agree with llama.cpp is tested in `tests/gguf_llama_cpp.rs`.

use crate::gguf::{Entry, Gguf, GgufWriter};

use super::*;

const TOKENS: [&str; 4] = ["a", "b", "ab", "<|end|>"];

/// A file with a small BPE; `change` may replace entries (an empty name drops the key).
fn file(change: &[(&str, Entry<'_>)], drop: &[&str]) -> Vec<u8> {
    let entries: [(&str, Entry<'_>); 6] = [
        ("tokenizer.ggml.model", Entry::String("gpt2")),
        ("tokenizer.ggml.pre", Entry::String("qwen2")),
        ("tokenizer.ggml.tokens", Entry::Strings(&TOKENS)),
        ("tokenizer.ggml.token_type", Entry::I32s(&[1, 1, 1, 3])),
        ("tokenizer.ggml.merges", Entry::Strings(&["a b"])),
        ("tokenizer.ggml.eos_token_id", Entry::U32(3)),
    ];
    let mut writer = GgufWriter::new();
    for (key, entry) in &entries {
        if !drop.contains(key) && !change.iter().any(|(k, _)| k == key) {
            writer.key(key, entry).expect("new");
        }
    }
    for (key, entry) in change {
        writer.key(key, entry).expect("new");
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).expect("memory");
    bytes
}

fn load(bytes: &[u8]) -> Result<Option<Vocabulary>, GgufError> {
    read(&Gguf::parse(bytes).expect("well-formed").metadata, 4)
}

#[test]
fn a_small_bpe_works() {
    let v = load(&file(&[], &[])).expect("supported").expect("there");
    let tokenizer = v.tokenizer;
    assert_eq!(
        tokenizer.encode("abba<|end|>", true).expect("text"),
        [2, 1, 0, 3]
    );
    assert!(tokenizer.is_special(3) && !tokenizer.is_special(2));
    assert_eq!(v.special["eos_token"], "<|end|>");
}

#[test]
fn bos_is_added_when_the_file_says_so() {
    let change = [
        ("tokenizer.ggml.add_bos_token", Entry::Bool(true)),
        ("tokenizer.ggml.bos_token_id", Entry::U32(3)),
    ];
    let v = load(&file(&change, &[]))
        .expect("supported")
        .expect("there");
    let tokenizer = v.tokenizer;
    assert_eq!(tokenizer.encode("a", true).expect("text"), [3, 0]);
    assert_eq!(tokenizer.encode("a", false).expect("text"), [0]);
}

#[test]
fn a_file_without_tokenizer_is_fine() {
    assert!(
        load(&file(&[], &["tokenizer.ggml.model"]))
            .expect("fine")
            .is_none()
    );
    let none = [("tokenizer.ggml.model", Entry::String("none"))];
    assert!(load(&file(&none, &[])).expect("fine").is_none());
}

#[test]
fn what_is_not_supported_is_named() {
    let cases: [(&str, Entry<'_>, &str); 8] = [
        ("tokenizer.ggml.model", Entry::String("t5"), "t5"),
        ("tokenizer.ggml.pre", Entry::String("bloom"), "bloom"),
        (
            "tokenizer.ggml.tokens",
            Entry::Strings(&["a", "b", "a", "c"]),
            "tokens 0 and 2",
        ),
        (
            "tokenizer.ggml.tokens",
            Entry::Strings(&["a", "b", "c", "d", "e"]),
            "5 tokens",
        ),
        (
            "tokenizer.ggml.token_type",
            Entry::I32s(&[1, 1]),
            "2 token types",
        ),
        (
            "tokenizer.ggml.token_type",
            Entry::I32s(&[1, 1, 1, 9]),
            "token type",
        ),
        ("tokenizer.ggml.merges", Entry::Strings(&["ab"]), "merge"),
        (
            "tokenizer.ggml.eos_token_id",
            Entry::U32(4),
            "eos_token_id is 4",
        ),
    ];
    for (key, entry, needle) in cases {
        let message = load(&file(&[(key, entry)], &[]))
            .expect_err(needle)
            .to_string();
        assert!(message.contains(needle), "{needle}: {message}");
    }
    assert!(matches!(
        load(&file(&[], &["tokenizer.ggml.merges"])),
        Err(GgufError::MissingKey { .. })
    ));
    assert!(
        load(&file(&[], &["tokenizer.ggml.pre"]))
            .expect_err("absent")
            .to_string()
            .contains("absent")
    );
}

#[test]
fn ends_are_collected_once() {
    let change = [
        (
            "tokenizer.ggml.tokens",
            Entry::Strings(&["<|im_end|>", "b", "</s>", "<|endoftext|>"]),
        ),
        ("tokenizer.ggml.token_type", Entry::I32s(&[3, 1, 1, 3])),
    ];
    let bytes = file(&change, &[]);
    let ends = end_tokens(&Gguf::parse(&bytes).expect("well-formed").metadata).expect("ids");
    assert_eq!(
        ends,
        [3, 0],
        "eos first, then control tokens; </s> is a normal token here"
    );
}
