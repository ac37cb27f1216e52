//! The wire types of `/v1/completions`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::chat::types::{Stop, StreamOptions};
use crate::wire::{LlamaTimings, Summary, Usage};

/// A request. Fields that are not listed are refused by name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletionRequest {
    /// The base's name or an alias; a raw text is never thought about.
    pub(crate) model: Option<String>,
    /// Text that goes to the model as it is.
    pub(crate) prompt: Stop,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
    /// 16 if it is left out, as in OpenAI's API.
    #[schema(minimum = 1)]
    pub(crate) max_tokens: Option<i64>,
    #[schema(minimum = 1)]
    pub(crate) n: Option<i64>,
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Option<Stop>,
    #[schema(minimum = 0, maximum = 2)]
    pub(crate) temperature: Option<f64>,
    #[schema(maximum = 1)]
    pub(crate) top_p: Option<f64>,
    /// 0 and -1 keep all.
    #[schema(minimum = -1)]
    pub(crate) top_k: Option<i64>,
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) min_p: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    pub(crate) presence_penalty: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    pub(crate) frequency_penalty: Option<f64>,
    pub(crate) repetition_penalty: Option<f64>,
    pub(crate) logit_bias: Option<BTreeMap<String, f64>>,
    /// Goes on to `max_tokens` whatever the model says, as in vLLM and llama.cpp: for measurements.
    pub(crate) ignore_eos: Option<bool>,
    /// Log-probabilities with so many alternatives.
    #[schema(minimum = 0, maximum = 20)]
    pub(crate) logprobs: Option<i64>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) user: Option<String>,
}

/// A whole reply, or one piece of a streamed one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionResponse {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timings: Option<LlamaTimings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) edgethink: Option<Summary>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    pub(crate) index: usize,
    pub(crate) text: String,
    pub(crate) logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`; `null` while the choice runs.
    pub(crate) finish_reason: Option<&'static str>,
}

/// Log-probabilities in nats, one entry per token.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    pub(crate) tokens: Vec<String>,
    pub(crate) token_logprobs: Vec<f32>,
    pub(crate) top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Where each token begins in the text, characters.
    pub(crate) text_offset: Vec<usize>,
}
