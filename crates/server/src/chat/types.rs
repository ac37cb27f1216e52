//! The wire types of `/v1/chat/completions`: here the request, in `tool` functions and their calls, in `reply` what is sent back.

mod reply;
mod tool;

use std::collections::BTreeMap;
use std::fmt;

use edgethink_reason::Effort;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::extension::Extension;
pub(crate) use reply::{
    ChatChoice, ChatChunk, ChatResponse, ChunkChoice, ChunkNote, Delta, Logprobs, Reply, Scored,
    ThoughtEnded, TokenLogprob, TopLogprob,
};
pub(crate) use tool::{CalledFunction, Function, Tool, ToolCall, ToolChoice, ToolKind, ToolMode};

/// A request. Fields that are not listed are refused by name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatRequest {
    /// The base's name, an adapter's, or an alias; left out: the base.
    pub(crate) model: Option<String>,
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
    /// Tokens of a response at most, its thought included.
    #[schema(minimum = 1)]
    pub(crate) max_completion_tokens: Option<i64>,
    /// The older name of `max_completion_tokens`.
    #[schema(minimum = 1)]
    pub(crate) max_tokens: Option<i64>,
    /// Choices: parallel streams from one encoded prompt.
    #[schema(minimum = 1)]
    pub(crate) n: Option<i64>,
    /// The same seed gives the same answer; left out: another one each time.
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
    /// Token ids and what is added to their logits.
    pub(crate) logit_bias: Option<BTreeMap<String, f64>>,
    /// Goes on to `max_tokens` whatever the model says, as in vLLM and llama.cpp: for measurements.
    pub(crate) ignore_eos: Option<bool>,
    pub(crate) logprobs: Option<bool>,
    #[schema(minimum = 0, maximum = 20)]
    pub(crate) top_logprobs: Option<i64>,
    pub(crate) reasoning_effort: Option<EffortWord>,
    pub(crate) chat_template_kwargs: Option<TemplateKwargs>,
    /// A hard limit on the whole response in tokens; -1 for none, 0 answers without a thought.
    #[schema(minimum = -1)]
    pub(crate) thinking_token_budget: Option<i64>,
    /// As `thinking_token_budget`.
    #[schema(minimum = -1)]
    pub(crate) thinking_budget: Option<i64>,
    /// As `thinking_token_budget`.
    #[schema(minimum = -1)]
    pub(crate) thinking_budget_tokens: Option<i64>,
    /// As `thinking_token_budget`.
    #[schema(minimum = -1)]
    pub(crate) reasoning_budget_tokens: Option<i64>,
    /// Anthropic's switch and budget.
    pub(crate) thinking: Option<ThinkingParam>,
    pub(crate) response_format: Option<ResponseFormat>,
    pub(crate) tools: Option<Vec<Tool>>,
    pub(crate) tool_choice: Option<ToolChoice>,
    /// Accepted; several calls may always come.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) parallel_tool_calls: Option<bool>,
    /// What this server adds to the API.
    pub(crate) edgethink: Option<Extension>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) user: Option<String>,
    /// Accepted; nothing is stored.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) store: Option<bool>,
    /// Accepted and not used.
    #[schema(value_type = Option<Object>)]
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) metadata: Option<Map<String, Value>>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) service_tier: Option<String>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) safety_identifier: Option<String>,
    /// Accepted; every prefix is cached.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) prompt_cache_key: Option<String>,
}

/// One message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatMessage {
    pub(crate) role: Role,
    pub(crate) content: Option<Content>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) name: Option<String>,
    /// An earlier thought; it is left out of the prompt.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) reasoning_content: Option<String>,
    /// As `reasoning_content`.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) reasoning: Option<String>,
    /// Calls of an assistant's message.
    pub(crate) tool_calls: Option<Vec<ToolCall>>,
    /// The call that a tool's message answers.
    pub(crate) tool_call_id: Option<String>,
    /// Accepted and not used: clients send replies back whole.
    #[schema(value_type = Option<Object>)]
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) refusal: Option<Value>,
    /// Accepted and not used.
    #[schema(value_type = Option<Vec<Object>>)]
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) annotations: Option<Vec<Value>>,
}

impl ChatMessage {
    /// A message of text alone.
    pub(crate) fn text(role: Role, content: String) -> Self {
        Self {
            role,
            content: Some(Content(content)),
            name: None,
            reasoning_content: None,
            reasoning: None,
            tool_calls: None,
            tool_call_id: None,
            refusal: None,
            annotations: None,
        }
    }

    /// An assistant's calls.
    pub(crate) fn calls(content: Option<String>, calls: Vec<ToolCall>) -> Self {
        Self {
            content: content.map(Content),
            tool_calls: Some(calls),
            ..Self::text(Role::Assistant, String::new())
        }
    }

    /// What a tool said.
    pub(crate) fn result(call: String, content: String) -> Self {
        Self {
            tool_call_id: Some(call),
            ..Self::text(Role::Tool, content)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    /// As `system`.
    Developer,
    User,
    Assistant,
    Tool,
}

/// A text, or parts of one.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(value_type = String)]
pub(crate) struct Content(pub(crate) String);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(rename = "type")]
    #[expect(dead_code, reason = "its only values mean text")]
    kind: PartKind,
    text: String,
    /// Clients of other APIs mark what to cache.
    #[expect(dead_code, reason = "accepted and not used")]
    cache_control: Option<Value>,
    #[expect(dead_code, reason = "accepted and not used")]
    annotations: Option<Vec<Value>>,
    #[expect(dead_code, reason = "accepted and not used")]
    logprobs: Option<Vec<Value>>,
    #[expect(dead_code, reason = "accepted and not used")]
    citations: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PartKind {
    Text,
    InputText,
    OutputText,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of text parts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
                let mut texts = Vec::new();
                while let Some(part) = parts.next_element::<Part>()? {
                    texts.push(part.text);
                }
                Ok(Content(texts.join("\n")))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// One stop string, or several.
#[derive(Debug, Clone, PartialEq, Eq, ToSchema)]
#[schema(value_type = Vec<String>)]
pub(crate) struct Stop(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a text or a list of texts")]
        enum Form {
            One(String),
            Many(Vec<String>),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::One(text) => vec![text],
            Form::Many(texts) => texts,
        }))
    }
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// A last chunk with the usage.
    pub(crate) include_usage: Option<bool>,
    /// Accepted; nothing is ever added to hide lengths.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) include_obfuscation: Option<bool>,
}

/// How hard to think. `auto` lets the switcher decide. `off` is `none`, `max` and `ultra` are `xhigh`, as elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EffortWord {
    Auto,
    #[serde(alias = "off")]
    None,
    Minimal,
    Low,
    Medium,
    High,
    #[serde(alias = "max", alias = "ultra")]
    Xhigh,
}

impl EffortWord {
    /// The effort; `None` for `auto`.
    pub(crate) fn effort(self) -> Option<Effort> {
        Some(match self {
            Self::Auto => return None,
            Self::None => Effort::None,
            Self::Minimal => Effort::Minimal,
            Self::Low => Effort::Low,
            Self::Medium => Effort::Medium,
            Self::High => Effort::High,
            Self::Xhigh => Effort::Xhigh,
        })
    }
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateKwargs {
    /// Also `thinking`, as other families' templates call it.
    #[serde(alias = "thinking")]
    pub(crate) enable_thinking: Option<bool>,
}

/// Anthropic's way to switch thinking.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ThinkingParam {
    #[serde(rename = "type")]
    pub(crate) kind: ThinkingKind,
    #[schema(minimum = 0)]
    pub(crate) budget_tokens: Option<i64>,
    /// Accepted; the thought is always sent.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) display: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThinkingKind {
    Enabled,
    Disabled,
    /// The switcher decides.
    Adaptive,
}

/// What the answer must be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponseFormat {
    #[serde(rename = "type")]
    pub(crate) kind: FormatKind,
    pub(crate) json_schema: Option<JsonSchema>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FormatKind {
    Text,
    JsonObject,
    JsonSchema,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonSchema {
    /// For people.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) name: Option<String>,
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) description: Option<String>,
    #[schema(value_type = Object)]
    pub(crate) schema: Value,
    /// Accepted; the schema always binds.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) strict: Option<bool>,
}
