//! The wire types of `/v1/completions`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::chat::types::{Stop, StreamOptions};
use crate::wire::{LlamaTimings, Summary, Usage};

/// What goes on: one text, or one list of token ids; a list of one of them is taken as well.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, a list of token ids, or a list of such lists"
)]
pub(crate) enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Lists(Vec<Vec<u32>>),
}

/// What a log-probability is of, in vLLM's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogprobsMode {
    /// The model's own distribution, before temperature and filters: the default.
    RawLogprobs,
    /// The distribution that the token was drawn from. Alternatives are not given with it.
    ProcessedLogprobs,
}

/// A request. Fields that are not listed are refused by name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletionRequest {
    /// The base's name, an adapter's, or an alias. The base goes on with the text as it is; a masked adapter acts from its invocation
    /// on, and a plain one on all of it. Without a name it is the base.
    pub(crate) model: Option<String>,
    /// What goes to the model as it is: a text, or a list of token ids.
    pub(crate) prompt: Prompt,
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
    /// What the log-probabilities are of. In vLLM it is set when the server starts (`--logprobs-mode`).
    pub(crate) logprobs_mode: Option<LogprobsMode>,
    /// `prompt_token_ids` and `token_ids` in every choice, as in vLLM. The token that ends the turn is among them, and among the
    /// log-probabilities.
    pub(crate) return_token_ids: Option<bool>,
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
    /// Tokens of the prompt, if they were asked for; of a streamed reply in the first piece of a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_token_ids: Option<Vec<u32>>,
    /// Tokens of the choice, or of this piece of it, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_ids: Option<Vec<u32>>,
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
