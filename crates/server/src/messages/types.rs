//! The wire types of `/v1/messages`, Anthropic's API.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::chat::types::{Content, ThinkingParam};
use crate::extension::Extension;
use crate::wire::Summary;

/// A request. Fields that are not listed are refused by name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagesRequest {
    /// The base's name, an adapter's, or an alias.
    pub(crate) model: Option<String>,
    pub(crate) messages: Vec<InputMessage>,
    /// Tokens of the response at most, its thought included.
    #[schema(minimum = 1)]
    pub(crate) max_tokens: i64,
    /// Instructions in front.
    pub(crate) system: Option<Content>,
    pub(crate) stop_sequences: Option<Vec<String>>,
    pub(crate) stream: Option<bool>,
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) temperature: Option<f64>,
    #[schema(maximum = 1)]
    pub(crate) top_p: Option<f64>,
    #[schema(minimum = 0)]
    pub(crate) top_k: Option<i64>,
    pub(crate) thinking: Option<ThinkingParam>,
    pub(crate) tools: Option<Vec<ToolParam>>,
    pub(crate) tool_choice: Option<Choose>,
    /// What this server adds to the API.
    pub(crate) edgethink: Option<Extension>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    #[schema(value_type = Option<Object>)]
    pub(crate) metadata: Option<Map<String, Value>>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) service_tier: Option<String>,
}

/// A conversation whose tokens are to be counted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CountRequest {
    pub(crate) model: Option<String>,
    pub(crate) messages: Vec<InputMessage>,
    pub(crate) system: Option<Content>,
    #[expect(dead_code, reason = "a thought changes nothing of the prompt")]
    pub(crate) thinking: Option<ThinkingParam>,
    pub(crate) tools: Option<Vec<ToolParam>>,
    #[expect(dead_code, reason = "a choice changes nothing of the prompt")]
    pub(crate) tool_choice: Option<Choose>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CountResponse {
    pub(crate) input_tokens: usize,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputMessage {
    pub(crate) role: Role,
    pub(crate) content: Blocks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    User,
    Assistant,
}

/// A text, or blocks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text or a list of blocks: text, thinking, tool_use, tool_result"
)]
pub(crate) enum Blocks {
    Text(String),
    List(Vec<Block>),
}

/// A part of a message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Block {
    Text {
        text: String,
        #[expect(dead_code, reason = "accepted: every prefix is cached")]
        #[schema(value_type = Option<Object>)]
        cache_control: Option<Value>,
        #[expect(dead_code, reason = "clients send blocks back whole")]
        #[schema(value_type = Option<Object>)]
        citations: Option<Value>,
    },
    /// An earlier thought; it is left out of the prompt.
    Thinking {
        #[expect(dead_code, reason = "left out of the prompt")]
        thinking: String,
        #[expect(dead_code, reason = "nothing is signed")]
        signature: Option<String>,
    },
    ToolUse {
        id: String,
        name: String,
        #[schema(value_type = Object)]
        input: Map<String, Value>,
        #[expect(dead_code, reason = "accepted: every prefix is cached")]
        #[schema(value_type = Option<Object>)]
        cache_control: Option<Value>,
    },
    ToolResult {
        tool_use_id: String,
        content: Option<Content>,
        #[expect(dead_code, reason = "the content says so")]
        is_error: Option<bool>,
        #[expect(dead_code, reason = "accepted: every prefix is cached")]
        #[schema(value_type = Option<Object>)]
        cache_control: Option<Value>,
    },
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolParam {
    #[serde(rename = "type")]
    #[expect(dead_code, reason = "its only value means this")]
    pub(crate) kind: Option<CustomKind>,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// A JSON schema.
    #[schema(value_type = Object)]
    pub(crate) input_schema: Map<String, Value>,
    #[expect(dead_code, reason = "accepted: every prefix is cached")]
    #[schema(value_type = Option<Object>)]
    pub(crate) cache_control: Option<Value>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CustomKind {
    Custom,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choose {
    #[serde(rename = "type")]
    pub(crate) kind: ChooseKind,
    /// With `tool`: which.
    pub(crate) name: Option<String>,
    /// Accepted; several calls may always come.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) disable_parallel_tool_use: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChooseKind {
    Auto,
    Any,
    Tool,
    None,
}

/// A reply.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct MessageObject {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) role: &'static str,
    pub(crate) model: String,
    pub(crate) content: Vec<OutputBlock>,
    /// `end_turn`, `stop_sequence`, `max_tokens` or `tool_use`; `null` while it is written.
    pub(crate) stop_reason: Option<&'static str>,
    pub(crate) stop_sequence: Option<String>,
    pub(crate) usage: MessagesUsage,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Summary>)]
    pub(crate) edgethink: Option<Value>,
}

/// A part of a reply.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputBlock {
    Thinking {
        thinking: String,
        /// Nothing is signed.
        signature: String,
    },
    Text {
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[schema(value_type = Object)]
        input: Value,
    },
}

#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct MessagesUsage {
    /// Tokens of the prompt whose KV had to be computed.
    pub(crate) input_tokens: usize,
    /// Those whose KV was there already.
    pub(crate) cache_read_input_tokens: usize,
    pub(crate) cache_creation_input_tokens: usize,
    pub(crate) output_tokens: usize,
}

impl From<&edgethink_reason::Usage> for MessagesUsage {
    fn from(usage: &edgethink_reason::Usage) -> Self {
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        Self {
            input_tokens: usage.prompt_tokens - cached,
            cache_read_input_tokens: cached,
            cache_creation_input_tokens: 0,
            output_tokens: usage.completion_tokens,
        }
    }
}

/// Anthropic's error body.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessagesError {
    /// `error`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) error: MessagesErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessagesErrorDetail {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Names the field that is wrong.
    pub(crate) message: String,
}
