//! Text to tokens and back: the tokenizer of Hugging Face, and an incremental decoder that never emits half a character.

mod bytes;
mod detokenizer;

use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

use serde::de::IgnoredAny;
use thiserror::Error;

pub use detokenizer::Detokenizer;

/// The message of the tokenizer library.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TokenizerError(Box<dyn std::error::Error + Send + Sync>);

/// A tokenizer. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
}

impl Tokenizer {
    /// Reads a tokenizer.json.
    ///
    /// # Errors
    /// If the file cannot be read or is no tokenizer.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let bytes = std::fs::read(path).map_err(|e| TokenizerError(Box::new(e)))?;
        Self::from_json(&bytes)
    }

    /// Reads the text of a tokenizer.json.
    ///
    /// # Errors
    /// If it is no tokenizer.
    pub fn from_json(text: &[u8]) -> Result<Self, TokenizerError> {
        // The library panics on some damaged files (an `unwrap` while it reads decoders), so the JSON is checked first,
        // and what still panics is an error too.
        let text = std::str::from_utf8(text).map_err(|e| TokenizerError(Box::new(e)))?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|e| TokenizerError(Box::new(e)))?;
        match catch_unwind(|| tokenizers::Tokenizer::from_bytes(text)) {
            Ok(tokenizer) => tokenizer.map_err(TokenizerError)?.try_into(),
            Err(_) => Err(TokenizerError("the file is damaged".into())),
        }
    }

    /// Token ids of `text`. Special tokens that are written out in the text become their ids; `add_special` adds those
    /// of the tokenizer's own template (such as a BOS), which a chat template has written already.
    ///
    /// # Errors
    /// The message of the tokenizer library.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, add_special)
            .map_err(TokenizerError)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`; `skip_special` leaves special tokens out. Ids without a token give nothing.
    ///
    /// # Errors
    /// The message of the tokenizer library.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner.decode(ids, skip_special).map_err(TokenizerError)
    }

    /// An incremental decoder.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer {
        Detokenizer::new(self.clone(), skip_special)
    }

    /// Id of a token written exactly so, such as `<|im_end|>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether the token is special (left out by `skip_special`).
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }

    /// Number of tokens, the added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token with the largest id.
    pub fn last_token(&self) -> Option<(String, u32)> {
        self.inner
            .get_vocab(true)
            .into_iter()
            .max_by_key(|&(_, id)| id)
    }

    /// The text of a tokenizer.json.
    ///
    /// # Errors
    /// The message of the tokenizer library.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        self.inner.to_string(true).map_err(TokenizerError)
    }
}

impl TryFrom<tokenizers::Tokenizer> for Tokenizer {
    type Error = TokenizerError;

    /// Takes a tokenizer of the library. Truncation and padding that it may carry are switched off: they would cut a
    /// prompt in silence.
    fn try_from(mut inner: tokenizers::Tokenizer) -> Result<Self, TokenizerError> {
        inner.with_truncation(None).map_err(TokenizerError)?;
        inner.with_padding(None);
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}
