//! The pocket tokenizer: byte-level BPE with the splitting rule of Qwen2, so every digit is a token, and the ChatML files around it.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder};

use crate::PocketError;

/// The pattern of Qwen2's tokenizer.json: `\p{N}` alone keeps digits apart.
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Special tokens in the order of their ids, which start at 0.
pub const SPECIAL_TOKENS: [&str; 5] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
];

/// The files that [`train_tokenizer`] writes.
pub(crate) const TOKENIZER_FILES: [&str; 4] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// The chat template: ChatML, with earlier thoughts dropped from the history.
pub const CHAT_TEMPLATE: &str = include_str!("../assets/chat_template.jinja");

/// Trains the tokenizer on `texts` and writes tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json to `dir`.
///
/// # Errors
/// If training fails or a file cannot be written.
pub fn train_tokenizer(
    texts: impl Iterator<Item = String> + Send,
    vocab_size: usize,
    dir: &Path,
) -> Result<(), PocketError> {
    let fail = |e: tokenizers::Error| PocketError::Tokenizer {
        reason: e.to_string(),
    };
    let special = |text: &str, special: bool| AddedToken::from(text, special).normalized(false);
    let specials: Vec<AddedToken> = SPECIAL_TOKENS.iter().map(|t| special(t, true)).collect();
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(specials)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let split = Split::new(
        SplitPattern::Regex(QWEN2_PATTERN.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(fail)?;
    let pre = Sequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)),
    ]);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(pre))
        .with_post_processor(Some(ByteLevel::new(false, false, false)))
        .with_decoder(Some(ByteLevel::new(false, false, false)))
        .build()
        .map_err(fail)?;
    tokenizer.train(&mut trainer, texts).map_err(fail)?;
    // As in Qwen3, the think tags are single tokens but not "special": decoding keeps them.
    let mut json: serde_json::Value =
        serde_json::from_str(&tokenizer.to_string(true).map_err(fail)?)?;
    if let Some(added) = json.get_mut("added_tokens").and_then(|a| a.as_array_mut()) {
        for token in added {
            if token["content"]
                .as_str()
                .is_some_and(|c| c.contains("think>"))
            {
                token["special"] = serde_json::Value::Bool(false);
            }
        }
    }
    std::fs::create_dir_all(dir)?;
    std::fs::write(
        dir.join("tokenizer.json"),
        serde_json::to_string_pretty(&json)? + "\n",
    )?;
    std::fs::write(
        dir.join("tokenizer_config.json"),
        serde_json::to_string_pretty(&tokenizer_config())? + "\n",
    )?;
    std::fs::write(dir.join("chat_template.jinja"), CHAT_TEMPLATE)?;
    std::fs::write(
        dir.join("generation_config.json"),
        serde_json::to_string_pretty(&generation_config())? + "\n",
    )?;
    Ok(())
}

fn tokenizer_config() -> serde_json::Value {
    let mut decoder = serde_json::Map::new();
    for (id, content) in SPECIAL_TOKENS.iter().enumerate() {
        let special = !content.contains("think>");
        decoder.insert(
            id.to_string(),
            serde_json::json!({"content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": special}),
        );
    }
    serde_json::json!({
        "add_prefix_space": false,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": null,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 1024,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": false,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
        "chat_template": CHAT_TEMPLATE,
    })
}

fn generation_config() -> serde_json::Value {
    serde_json::json!({ "eos_token_id": [2, 0], "pad_token_id": 0, "do_sample": false })
}
