//! Functions that a model may call, and its calls.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A function that the model may call.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tool {
    #[serde(rename = "type")]
    pub(crate) kind: ToolKind,
    pub(crate) function: Function,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToolKind {
    Function,
}

#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Function {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// A JSON schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) parameters: Option<Map<String, Value>>,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "accepted and not used")]
    pub(crate) strict: Option<bool>,
}

/// `auto`, `none`, `required`, or one function.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected \"auto\", \"none\", \"required\" or a function"
)]
pub(crate) enum ToolChoice {
    Mode(ToolMode),
    One(NamedTool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToolMode {
    Auto,
    None,
    Required,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedTool {
    #[serde(rename = "type")]
    pub(crate) kind: ToolKind,
    pub(crate) function: FunctionName,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FunctionName {
    pub(crate) name: String,
}

/// A call that the model made.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolCall {
    /// Place among the choice's calls; in streams only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<usize>,
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: ToolKind,
    pub(crate) function: CalledFunction,
}

impl ToolCall {
    /// A call that a client sends back.
    pub(crate) fn earlier(id: String, name: String, arguments: String) -> Self {
        Self {
            index: None,
            id,
            kind: ToolKind::Function,
            function: CalledFunction { name, arguments },
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CalledFunction {
    pub(crate) name: String,
    /// JSON text.
    pub(crate) arguments: String,
}
