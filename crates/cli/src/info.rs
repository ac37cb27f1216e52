//! `edgethink info`: what is in a model and its adapter.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use edgethink_model::{Adapter, Linear, Model, Tensor};
use edgethink_reason::ThoughtFormat;
use serde::Serialize;

use crate::args::InfoArgs;
use crate::info_cpu;
use crate::open::{self, Opened};

/// Everything there is to say; the JSON form is this, field by field.
#[derive(Debug, Serialize)]
struct Info {
    model: String,
    architecture: &'static str,
    parameters: usize,
    weight_bytes: u64,
    /// Stored bytes and tensors by number format.
    formats: BTreeMap<String, Stored>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    tie_word_embeddings: bool,
    /// KV cache of one token, with 8-bit keys and values and one scale for each head.
    kv_bytes_per_token_int8: usize,
    kv_bytes_per_token_f16: usize,
    tokenizer: Option<TokenizerInfo>,
    chat_template: bool,
    generation_prompt: Option<String>,
    adapter: Option<AdapterInfo>,
}

#[derive(Debug, Default, Serialize)]
struct Stored {
    tensors: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct TokenizerInfo {
    tokens: usize,
    eos: Vec<String>,
    /// The thought's tags are single tokens.
    think_tokens: bool,
}

#[derive(Debug, Serialize)]
struct AdapterInfo {
    name: String,
    /// `masked` starts at the invocation, `plain` at the first token.
    kind: &'static str,
    rank: usize,
    parameters: usize,
    matched: usize,
    linears: usize,
    targets: Vec<&'static str>,
    invocation: Option<String>,
    invocation_tokens: Option<Vec<u32>>,
    hash: String,
    /// How a budget is named in the prompt, if the adapter was trained so.
    budget_line: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &InfoArgs) -> Result<ExitCode> {
    if args.cpu {
        return info_cpu::run(args.json);
    }
    let opened = open::open(&args.model)?;
    let info = Info::of(&opened);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&info)?)?;
    } else {
        write!(out, "{}", info.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Info {
    fn of(opened: &Opened) -> Self {
        let model = &opened.model;
        let config = &model.config;
        let mut formats: BTreeMap<String, Stored> = BTreeMap::new();
        for (_, tensor) in model.weights.named() {
            let stored = formats.entry(tensor.dtype.to_string()).or_default();
            stored.tensors += 1;
            stored.bytes += stored_bytes(tensor);
        }
        let heads = config.num_hidden_layers * config.num_key_value_heads * 2;
        Self {
            model: opened.name.clone(),
            architecture: config.family.architecture(),
            parameters: config.parameters(),
            weight_bytes: formats.values().map(|stored| stored.bytes).sum(),
            formats,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            vocab_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            tie_word_embeddings: config.tie_word_embeddings,
            kv_bytes_per_token_int8: heads * (config.head_dim + size_of::<f32>()),
            kv_bytes_per_token_f16: heads * config.head_dim * 2,
            tokenizer: tokenizer(model),
            chat_template: model.template.is_some(),
            generation_prompt: model
                .template
                .as_ref()
                .and_then(|template| template.generation_prompt().ok()),
            adapter: opened
                .adapter
                .as_ref()
                .map(|adapter| adapter_info(model, adapter, &opened.format)),
        }
    }

    fn text(&self) -> String {
        let mut lines: Vec<(&str, String)> = vec![
            ("model", self.model.clone()),
            ("architecture", self.architecture.to_owned()),
            ("parameters", count(self.parameters)),
            ("weights", bytes(self.weight_bytes)),
        ];
        for (format, stored) in &self.formats {
            let tensors = if stored.tensors == 1 {
                "tensor"
            } else {
                "tensors"
            };
            lines.push((
                "",
                format!(
                    "{format}: {} in {} {tensors}",
                    bytes(stored.bytes),
                    stored.tensors
                ),
            ));
        }
        lines.extend([
            (
                "layers",
                format!(
                    "{} of hidden size {}, ffn {}",
                    self.num_hidden_layers, self.hidden_size, self.intermediate_size
                ),
            ),
            (
                "heads",
                format!(
                    "{} query, {} key/value, of size {}",
                    self.num_attention_heads, self.num_key_value_heads, self.head_dim
                ),
            ),
            (
                "context",
                format!("{} tokens", self.max_position_embeddings),
            ),
            (
                "KV per token",
                format!(
                    "{} int8, {} f16",
                    bytes(self.kv_bytes_per_token_int8 as u64),
                    bytes(self.kv_bytes_per_token_f16 as u64)
                ),
            ),
            (
                "vocabulary",
                format!(
                    "{}{}",
                    self.vocab_size,
                    if self.tie_word_embeddings {
                        ", output tied to input"
                    } else {
                        ""
                    }
                ),
            ),
        ]);
        match &self.tokenizer {
            None => lines.push(("tokenizer", "none".to_owned())),
            Some(tokenizer) => {
                let tags = if tokenizer.think_tokens {
                    ", thought tags are tokens"
                } else {
                    ""
                };
                let eos = tokenizer.eos.join(" ");
                lines.push((
                    "tokenizer",
                    format!("{} tokens, ends with {eos}{tags}", tokenizer.tokens),
                ));
            }
        }
        lines.push((
            "chat template",
            if self.chat_template {
                "yes"
            } else {
                "none (use --raw)"
            }
            .to_owned(),
        ));
        if let Some(prompt) = &self.generation_prompt {
            lines.push(("answers after", format!("{prompt:?}")));
        }
        match &self.adapter {
            None => lines.push(("adapter", "none".to_owned())),
            Some(adapter) => lines.extend(adapter.lines()),
        }
        lines
            .iter()
            .map(|(name, value)| format!("{name:14}  {value}\n"))
            .collect()
    }
}

impl AdapterInfo {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let kind = match &self.invocation {
            Some(text) => format!("masked: the base encodes everything before {text:?}"),
            None => {
                "plain: it runs from the first token, nothing is shared with the base".to_owned()
            }
        };
        let mut lines = vec![
            ("adapter", self.name.clone()),
            ("", kind),
            (
                "",
                format!("rank {}, {} parameters", self.rank, count(self.parameters)),
            ),
            (
                "",
                format!(
                    "{} of {} linear layers: {}",
                    self.matched,
                    self.linears,
                    self.targets.join(" ")
                ),
            ),
            ("", format!("sha256 {}", self.hash)),
        ];
        if let Some(line) = &self.budget_line {
            lines.push(("", format!("a budget is named by {line:?}")));
        }
        lines
    }
}

fn tokenizer(model: &Model) -> Option<TokenizerInfo> {
    let tokenizer = model.tokenizer.as_ref()?;
    let eos = &model.generation.eos_token_ids;
    Some(TokenizerInfo {
        tokens: tokenizer.vocab_size(),
        eos: eos
            .iter()
            .map(|&id| tokenizer.token(id).unwrap_or_else(|| id.to_string()))
            .collect(),
        think_tokens: tokenizer.token_id("<think>").is_some()
            && tokenizer.token_id("</think>").is_some(),
    })
}

fn adapter_info(model: &Model, adapter: &Adapter, format: &ThoughtFormat) -> AdapterInfo {
    let has = |linear: Linear| {
        adapter
            .layers
            .iter()
            .any(|pairs| pairs[linear as usize].is_some())
    };
    let decode = |tokens: &Vec<u32>| {
        let text = model
            .tokenizer
            .as_ref()
            .and_then(|t| t.decode(tokens, false).ok());
        text.unwrap_or_else(|| format!("{tokens:?}"))
    };
    AdapterInfo {
        name: adapter.name.clone(),
        kind: if adapter.invocation.is_some() {
            "masked"
        } else {
            "plain"
        },
        rank: adapter.rank_max,
        parameters: adapter.parameters(),
        matched: adapter.matched,
        linears: adapter.layers.len() * Linear::ALL.len(),
        targets: Linear::ALL
            .into_iter()
            .filter(|&l| has(l))
            .map(Linear::short_name)
            .collect(),
        invocation: adapter.invocation.as_ref().map(decode),
        invocation_tokens: adapter.invocation.clone(),
        hash: adapter.hash.to_string(),
        budget_line: format.budget_line.clone(),
    }
}

fn stored_bytes(tensor: &Tensor) -> u64 {
    (tensor.rows() * tensor.row_size()) as u64
}

/// 1234567 as `1,234,567`.
pub(crate) fn count(value: impl TryInto<u64>) -> String {
    let digits = value.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that leaves one to four digits.
pub(crate) fn bytes(value: u64) -> String {
    let mut size = value as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{value} B")
    } else {
        format!("{size:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(count(0_usize), "0");
        assert_eq!(count(999_usize), "999");
        assert_eq!(count(1_234_567_u64), "1,234,567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }
}
