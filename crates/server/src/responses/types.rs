//! The wire types of `/v1/responses`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::chat::types::{Content, EffortWord, FormatKind, Role, TokenLogprob, ToolKind, ToolMode};
use crate::extension::Extension;
use crate::wire::Summary;

/// A request. Fields that are not listed are refused by name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResponsesRequest {
    /// The base's name, an adapter's, or an alias; left out: the base.
    pub(crate) model: Option<String>,
    pub(crate) input: InputItems,
    /// Put in front as the system's turn.
    pub(crate) instructions: Option<String>,
    /// Tokens of the response at most, its thought included.
    #[schema(minimum = 1)]
    pub(crate) max_output_tokens: Option<i64>,
    #[schema(minimum = 0, maximum = 2)]
    pub(crate) temperature: Option<f64>,
    #[schema(maximum = 1)]
    pub(crate) top_p: Option<f64>,
    pub(crate) reasoning: Option<ReasoningParam>,
    pub(crate) text: Option<TextParam>,
    pub(crate) tools: Option<Vec<FunctionTool>>,
    pub(crate) tool_choice: Option<FunctionChoice>,
    pub(crate) stream: Option<bool>,
    /// What this server adds to the API.
    pub(crate) edgethink: Option<Extension>,
    /// Accepted; nothing is stored.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) store: Option<bool>,
    /// Comes back with the reply.
    #[schema(value_type = Option<Object>)]
    pub(crate) metadata: Option<Map<String, Value>>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) user: Option<String>,
    /// Accepted; several calls may always come.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) parallel_tool_calls: Option<bool>,
    /// What else is sent.
    pub(crate) include: Option<Vec<Include>>,
    /// Log-probabilities with so many alternatives.
    #[schema(minimum = 0, maximum = 20)]
    pub(crate) top_logprobs: Option<i64>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) prompt_cache_key: Option<String>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) service_tier: Option<String>,
    /// Accepted: `disabled` is what happens, a prompt that does not fit is refused.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) truncation: Option<Truncation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
pub(crate) enum Include {
    /// Log-probabilities of the answer's tokens.
    #[serde(rename = "message.output_text.logprobs")]
    Logprobs,
    /// Accepted; the thought is always sent, and as it is.
    #[serde(rename = "reasoning.encrypted_content")]
    Thought,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Truncation {
    Disabled,
}

/// A question, or the items of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text or a list of items: message, function_call, function_call_output, reasoning"
)]
pub(crate) enum InputItems {
    Text(String),
    Items(Vec<InputItem>),
}

/// One item of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum InputItem {
    Call(InputCall),
    Output(InputOutput),
    Reasoning(InputReasoning),
    Message(InputMessage),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputMessage {
    #[serde(rename = "type")]
    #[expect(dead_code, reason = "its only value means this")]
    pub(crate) kind: Option<MessageKind>,
    pub(crate) role: Role,
    pub(crate) content: Content,
    #[expect(dead_code, reason = "clients send items back whole")]
    pub(crate) id: Option<String>,
    #[expect(dead_code, reason = "clients send items back whole")]
    pub(crate) status: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageKind {
    Message,
}

/// A call that the model made earlier.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputCall {
    #[serde(rename = "type")]
    #[expect(dead_code, reason = "its only value means this")]
    pub(crate) kind: CallKind,
    pub(crate) call_id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
    #[expect(dead_code, reason = "clients send items back whole")]
    pub(crate) id: Option<String>,
    #[expect(dead_code, reason = "clients send items back whole")]
    pub(crate) status: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallKind {
    FunctionCall,
}

/// What the tool said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputOutput {
    #[serde(rename = "type")]
    #[expect(dead_code, reason = "its only value means this")]
    pub(crate) kind: OutputKind,
    pub(crate) call_id: String,
    pub(crate) output: Content,
    #[expect(dead_code, reason = "clients send items back whole")]
    pub(crate) id: Option<String>,
    #[expect(dead_code, reason = "clients send items back whole")]
    pub(crate) status: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutputKind {
    FunctionCallOutput,
}

/// An earlier thought; it is left out of the prompt.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct InputReasoning {
    #[serde(rename = "type")]
    #[expect(dead_code, reason = "its only value means this")]
    pub(crate) kind: ReasoningKind,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReasoningKind {
    Reasoning,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReasoningParam {
    pub(crate) effort: Option<EffortWord>,
    /// Accepted; the thought itself is sent.
    pub(crate) summary: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextParam {
    pub(crate) format: Option<TextFormat>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) verbosity: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextFormat {
    #[serde(rename = "type")]
    pub(crate) kind: FormatKind,
    #[schema(value_type = Option<Object>)]
    pub(crate) schema: Option<Value>,
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) name: Option<String>,
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) description: Option<String>,
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) strict: Option<bool>,
}

#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FunctionTool {
    #[serde(rename = "type")]
    pub(crate) kind: ToolKind,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub(crate) parameters: Option<Map<String, Value>>,
    pub(crate) strict: Option<bool>,
}

/// `auto`, `none`, `required`, or one function.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected \"auto\", \"none\", \"required\" or a function"
)]
pub(crate) enum FunctionChoice {
    Mode(ToolMode),
    One(NamedFunction),
}

#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedFunction {
    #[serde(rename = "type")]
    pub(crate) kind: ToolKind,
    pub(crate) name: String,
}

/// A reply.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponseObject {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created_at: u64,
    /// `in_progress`, `completed`, `incomplete` or `failed`.
    pub(crate) status: &'static str,
    pub(crate) model: String,
    pub(crate) output: Vec<OutputItem>,
    pub(crate) usage: Option<ResponsesUsage>,
    pub(crate) error: Option<ResponseError>,
    pub(crate) incomplete_details: Option<Incomplete>,
    #[serde(flatten)]
    pub(crate) echo: Echo,
    pub(crate) parallel_tool_calls: bool,
    pub(crate) truncation: &'static str,
    pub(crate) store: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Summary>)]
    pub(crate) edgethink: Option<Value>,
}

/// What a reply repeats of its request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Echo {
    pub(crate) instructions: Option<String>,
    pub(crate) max_output_tokens: Option<i64>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) reasoning: ReasoningParam,
    pub(crate) tool_choice: FunctionChoice,
    pub(crate) tools: Vec<FunctionTool>,
    pub(crate) metadata: Map<String, Value>,
}

impl From<&ResponsesRequest> for Echo {
    fn from(request: &ResponsesRequest) -> Self {
        let choice = request.tool_choice.clone();
        Self {
            instructions: request.instructions.clone(),
            max_output_tokens: request.max_output_tokens,
            temperature: request.temperature,
            top_p: request.top_p,
            reasoning: request.reasoning.clone().unwrap_or_default(),
            tool_choice: choice.unwrap_or(FunctionChoice::Mode(ToolMode::Auto)),
            tools: request.tools.clone().unwrap_or_default(),
            metadata: request.metadata.clone().unwrap_or_default(),
        }
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponseError {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Incomplete {
    pub(crate) reason: &'static str,
}

/// A part of a reply.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputItem {
    Reasoning {
        id: String,
        summary: Vec<SummaryPart>,
        status: &'static str,
    },
    Message {
        id: String,
        role: &'static str,
        status: &'static str,
        content: Vec<OutputPart>,
    },
    FunctionCall {
        id: String,
        call_id: String,
        name: String,
        arguments: String,
        status: &'static str,
    },
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum SummaryPart {
    SummaryText { text: String },
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum OutputPart {
    OutputText {
        text: String,
        annotations: Vec<String>,
        /// Empty unless they were asked for.
        logprobs: Vec<TokenLogprob>,
    },
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ResponsesUsage {
    pub(crate) input_tokens: usize,
    pub(crate) input_tokens_details: InputDetails,
    pub(crate) output_tokens: usize,
    pub(crate) output_tokens_details: OutputDetails,
    pub(crate) total_tokens: usize,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct InputDetails {
    pub(crate) cached_tokens: usize,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct OutputDetails {
    pub(crate) reasoning_tokens: usize,
}

impl From<&edgethink_reason::Usage> for ResponsesUsage {
    fn from(usage: &edgethink_reason::Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: usage.cached_tokens,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails {
                reasoning_tokens: usage.reasoning_tokens,
            },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}
