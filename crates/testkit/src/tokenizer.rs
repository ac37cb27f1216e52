//! A small byte-level BPE tokenizer, made here so that no test needs a file: all bytes, the special tokens of Qwen, and
//! some merges for common English pieces.

use serde_json::{Value, json};

/// Tokens of [`tokenizer_json`].
pub const TOKENS: usize = 256 + SPECIAL_TOKENS.len() + MERGES.len();

/// The last ids, from [`FIRST_SPECIAL`] on. `<|im_end|>` and `<|endoftext|>` end a sequence.
pub const SPECIAL_TOKENS: [&str; 5] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
];

/// Id of the first special token, `<|endoftext|>`.
pub const FIRST_SPECIAL: usize = 256 + MERGES.len();

/// Pairs in order of rank; `Ġ` is the space. Each merged piece is a token, from id 256 on.
const MERGES: [(&str, &str); 40] = [
    ("t", "h"),
    ("Ġ", "a"),
    ("i", "n"),
    ("Ġ", "th"),
    ("e", "r"),
    ("o", "n"),
    ("r", "e"),
    ("Ġ", "s"),
    ("a", "t"),
    ("Ġth", "e"),
    ("e", "n"),
    ("o", "r"),
    ("Ġ", "w"),
    ("Ġ", "c"),
    ("i", "s"),
    ("o", "u"),
    ("i", "t"),
    ("Ġ", "m"),
    ("in", "g"),
    ("l", "l"),
    ("Ġ", "b"),
    ("Ġ", "p"),
    ("Ġ", "f"),
    ("e", "d"),
    ("a", "n"),
    ("s", "er"),
    ("h", "e"),
    ("he", "ll"),
    ("hell", "o"),
    ("u", "ser"),
    ("a", "r"),
    ("e", "s"),
    ("as", "s"),
    ("a", "s"),
    ("ass", "is"),
    ("assis", "t"),
    ("assist", "an"),
    ("assistan", "t"),
    ("Ġ", "d"),
    ("Ġ", "i"),
];

/// ChatML with an optional system message; with `enable_thinking` false the generation prompt holds an empty thought,
/// and earlier thoughts are left out of the history.
pub const CHAT_TEMPLATE: &str = "\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' and loop.last and message.reasoning_content -%}
{{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
";

/// The text of its tokenizer.json.
pub fn tokenizer_json() -> String {
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255u8 {
        vocab.insert(byte_symbol(byte).to_string(), Value::from(byte));
    }
    for (i, (left, right)) in MERGES.iter().enumerate() {
        vocab.insert(format!("{left}{right}"), Value::from(256 + i));
    }
    let added: Vec<Value> = SPECIAL_TOKENS
        .iter()
        .enumerate()
        .map(|(i, token)| {
            // As in Qwen3, the marks of thinking are not special: they stay in the decoded text.
            let special = !token.contains("think");
            json!({ "id": FIRST_SPECIAL + i, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special })
        })
        .collect();
    let merges: Vec<Value> = MERGES
        .iter()
        .map(|(left, right)| json!([left, right]))
        .collect();
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                   "vocab": vocab, "merges": merges },
    });
    tokenizer.to_string()
}

/// GPT-2's printable stand-in of a byte: printable ones stand for themselves, the others for U+0100 and up, in order.
fn byte_symbol(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count();
    char::from_u32(256 + before as u32).expect("at most U+0143")
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgethink_model::Tokenizer;

    #[test]
    fn text_of_any_kind_comes_back() {
        let tokenizer = Tokenizer::from_json(tokenizer_json().as_bytes()).unwrap();
        assert_eq!(tokenizer.vocab_size(), TOKENS);
        assert_eq!(tokenizer.token_id("<|im_end|>"), Some(298));
        for text in [
            "hello there, assistant",
            "12 + 3 = 15\n\n\t",
            "naïve — 日本語 🦀",
            "<|im_start|>user\nhi<|im_end|>",
        ] {
            let ids = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        }
        assert_eq!(tokenizer.encode("hello", false).unwrap().len(), 1);
        assert_eq!(
            tokenizer
                .encode("<|im_start|>assistant\n", false)
                .unwrap()
                .len(),
            3
        );
        assert_eq!(byte_symbol(b' '), 'Ġ');
    }

    #[test]
    fn the_stream_of_tokens_gives_the_same_text() {
        let tokenizer = Tokenizer::from_json(tokenizer_json().as_bytes()).unwrap();
        let text = "naïve — 日本語 🦀 the assistant is thinking 🤖🤖";
        let ids = tokenizer.encode(text, false).unwrap();
        let mut stream = tokenizer.detokenizer(false);
        let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')));
        pieces.push(stream.finish().unwrap());
        assert_eq!(pieces.concat(), text);
    }
}
