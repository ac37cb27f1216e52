//! What `/v1/chat/completions` sends back, whole or in pieces.

use serde::Serialize;
use utoipa::ToSchema;

use super::ToolCall;
use crate::wire::{DecisionWire, LlamaTimings, Summary, Usage};

/// A whole reply.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatResponse {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<ChatChoice>,
    pub(crate) usage: Usage,
    pub(crate) timings: LlamaTimings,
    pub(crate) edgethink: Summary,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    pub(crate) index: usize,
    pub(crate) message: Reply,
    pub(crate) logprobs: Option<Logprobs>,
    /// `stop`, `length` or `tool_calls`.
    pub(crate) finish_reason: &'static str,
}

/// The assistant's message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reply {
    pub(crate) role: &'static str,
    /// `null` if there are only calls.
    pub(crate) content: Option<String>,
    /// The thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<String>,
    /// The same under its other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<String>,
    /// Never set.
    pub(crate) refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_calls: Option<Vec<ToolCall>>,
}

/// Log-probabilities in nats, before temperature and filters.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Logprobs {
    /// Those of the answer's tokens.
    pub(crate) content: Vec<TokenLogprob>,
    /// Those of the thought's tokens, its tags included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reasoning_content: Vec<TokenLogprob>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct TokenLogprob {
    /// Bytes that are no UTF-8 on their own are shown as U+FFFD.
    pub(crate) token: String,
    pub(crate) logprob: f64,
    /// Those of the token: a character may be spread over several.
    pub(crate) bytes: Vec<u8>,
    pub(crate) top_logprobs: Vec<TopLogprob>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct TopLogprob {
    pub(crate) token: String,
    pub(crate) logprob: f64,
    pub(crate) bytes: Vec<u8>,
}

/// One piece of a streamed reply.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatChunk {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) choices: Vec<ChunkChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timings: Option<LlamaTimings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) edgethink: Option<ChunkNote>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChunkChoice {
    pub(crate) index: usize,
    pub(crate) delta: Delta,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<Logprobs>,
    pub(crate) finish_reason: Option<&'static str>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tool_calls: Option<Vec<ToolCall>>,
}

/// What happened besides text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ChunkNote {
    Decision { decision: DecisionWire },
    ThoughtEnded { thought_ended: ThoughtEnded },
    Scored { scored: Scored },
    Summary(Box<Summary>),
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ThoughtEnded {
    pub(crate) index: usize,
    /// Tokens of the thought.
    pub(crate) tokens: usize,
    /// Why: `model`, `budget`, `loop`, `turn` or `caller`.
    pub(crate) end: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Scored {
    pub(crate) index: usize,
    /// From 0 to 1.
    pub(crate) score: f32,
}
