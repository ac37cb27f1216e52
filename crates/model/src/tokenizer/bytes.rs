//! The bytes that each token stands for: what a grammar sees of a vocabulary.
//!
//! Byte-level vocabularies (GPT-2's alphabet: Qwen, Llama 3) write every byte as a printable character; those of SentencePiece write a
//! space as U+2581 and a byte without a token as `<0x0A>`.

use std::collections::HashMap;

use serde_json::Value;

use super::{Tokenizer, TokenizerError};

/// SentencePiece's mark for a space.
const SPACE: char = '\u{2581}';

impl Tokenizer {
    /// The bytes of every token, `[ids]`. Empty for special tokens and for ids without a token.
    ///
    /// # Errors
    /// A tokenizer whose decoder cannot be read.
    pub fn token_bytes(&self) -> Result<Vec<Vec<u8>>, TokenizerError> {
        let decoder = serde_json::to_value(self.inner.get_decoder())
            .map_err(|error| TokenizerError(error.into()))?;
        let alphabet = is_byte_level(&decoder).then(alphabet);
        let added = self.inner.get_added_tokens_decoder();
        let mut bytes = vec![Vec::new(); self.last_token().map_or(0, |(_, id)| id as usize + 1)];
        for (token, id) in self.inner.get_vocab(true) {
            let written = match (added.get(&id), &alphabet) {
                (Some(added), _) if added.special => continue,
                (Some(_), _) => token.into_bytes(),
                (None, Some(alphabet)) => token
                    .chars()
                    .filter_map(|c| alphabet.get(&c))
                    .copied()
                    .collect(),
                (None, None) => piece(&token),
            };
            bytes[id as usize] = written;
        }
        Ok(bytes)
    }
}

/// Whether a decoder, or one in a sequence of them, reads GPT-2's alphabet.
fn is_byte_level(decoder: &Value) -> bool {
    let parts = decoder["decoders"].as_array();
    decoder["type"] == "ByteLevel" || parts.is_some_and(|parts| parts.iter().any(is_byte_level))
}

/// The character of each byte: itself if it is printable, otherwise the next free one from U+0100 on.
fn alphabet() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = '\u{100}'..;
    let character = |byte: u8| {
        if printable(byte) {
            Some(char::from(byte))
        } else {
            others.next()
        }
    };
    let bytes = 0..=u8::MAX;
    bytes
        .clone()
        .map(character)
        .zip(bytes)
        .filter_map(|(c, byte)| Some((c?, byte)))
        .collect()
}

/// A piece of SentencePiece.
fn piece(token: &str) -> Vec<u8> {
    let hex = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace(SPACE, " ").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_gpt2s() {
        let alphabet = alphabet();
        assert_eq!(alphabet.len(), 256);
        let of = |c| alphabet.get(&c).copied();
        assert_eq!(
            [of('A'), of('Ġ'), of('Ċ'), of('é'), of('ł')].map(Option::unwrap),
            [b'A', b' ', b'\n', 0xe9, 0xa0]
        );
        assert_eq!(of('▁'), None);
    }

    #[test]
    fn pieces_are_bytes_or_text() {
        assert_eq!(piece("<0x0A>"), b"\n");
        assert_eq!(piece("▁the"), b" the");
        assert_eq!(piece("<0xZZ>"), b"<0xZZ>");
    }

    #[test]
    fn the_tokens_of_a_text_have_its_bytes() {
        let json = edgethink_testkit::tokenizer_json();
        let tokenizer = Tokenizer::from_json(json.as_bytes()).expect("a tokenizer");
        let bytes = tokenizer.token_bytes().expect("a decoder");
        assert_eq!(bytes.len(), tokenizer.vocab_size());
        let text = "hello there \u{e9}\u{4e16}\n\t<think>1";
        let tokens = tokenizer.encode(text, false).expect("tokens");
        let joined: Vec<u8> = tokens
            .iter()
            .flat_map(|&id| bytes[id as usize].clone())
            .collect();
        assert_eq!(joined, text.as_bytes());
        let special = tokenizer.token_id("<|im_end|>").expect("a token");
        assert!(bytes[special as usize].is_empty());
    }
}
