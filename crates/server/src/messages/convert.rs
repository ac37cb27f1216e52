//! From a request of Anthropic's API to an [`Ask`], and from an answer to a reply.

use axum::response::{IntoResponse, Response};
use edgethink_reason::{Choice, FinishReason, Input, Think};
use serde_json::Value;

use super::types::{
    Block, Blocks, Choose, ChooseKind, InputMessage, MessageObject, MessagesError,
    MessagesErrorDetail, MessagesRequest, MessagesUsage, OutputBlock, Role, ToolParam,
};
use crate::app::App;
use crate::ask::{Ask, Named, Thinking, within};
use crate::chat::convert::{Must, conversation, form, offered};
use crate::chat::types::{
    ChatMessage, Content, Function, Role as ChatRole, ThinkingKind, Tool, ToolCall, ToolKind,
};
use crate::error::ApiError;
use crate::tools::{self, Call};
use crate::wire::Asked;
use crate::worker::handle::Outcome;

/// An error in Anthropic's shape.
#[derive(Debug)]
pub(crate) struct InItsShape(pub(crate) ApiError);

impl From<ApiError> for InItsShape {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl InItsShape {
    /// The body.
    pub(crate) fn body(&self) -> MessagesError {
        let Self(error) = self;
        // This API has no place for the field, so the message has it.
        let message = match &error.param {
            Some(param) if !param.is_empty() && !error.message.contains(param.as_str()) => {
                format!("{param}: {}", error.message)
            }
            _ => error.message.clone(),
        };
        let kind = match error.status.as_u16() {
            413 => "request_too_large",
            500 => "api_error",
            _ => error.kind(),
        };
        MessagesError {
            kind: "error",
            error: MessagesErrorDetail { kind, message },
        }
    }
}

impl IntoResponse for InItsShape {
    fn into_response(self) -> Response {
        self.0.response_with(self.body())
    }
}

impl MessagesRequest {
    /// What the request asks for.
    pub(crate) fn into_ask(self, app: &App) -> Result<Ask, ApiError> {
        let tools: Vec<Tool> = self.tools.iter().flatten().map(Tool::from).collect();
        let must = must(self.tool_choice.as_ref())?;
        let grammar = form(None, &tools, must)?;
        let told = if self.has_tools() {
            offered(&tools)
        } else {
            Vec::new()
        };
        let (messages, template) = read(self.system, self.messages, &told, app)?;
        let thinking = self.thinking.as_ref();
        if let Some(thinking) = thinking
            && thinking.kind == ThinkingKind::Enabled
        {
            let budget = thinking.budget_tokens.unwrap_or(-1);
            let most = self.max_tokens.saturating_sub(1).max(0);
            within("thinking.budget_tokens", budget.max(0), 0..=most)?;
        }
        if let Some(extension) = &self.edgethink {
            extension.of_one_answer()?;
        }
        let think = thinking.map(|thinking| match thinking.kind {
            ThinkingKind::Enabled => Think::On,
            ThinkingKind::Disabled => Think::Off,
            ThinkingKind::Adaptive => Think::Auto,
        });
        let budget = thinking.and_then(|thinking| thinking.budget_tokens);
        Ok(Ask {
            template,
            thinking: Thinking {
                think: Named::of("thinking.type", think),
                effort: None,
                budgets: Named::of("thinking.budget_tokens", budget)
                    .into_iter()
                    .collect(),
            },
            max_tokens: Named::of("max_tokens", Some(self.max_tokens)),
            stop: self.stop_sequences.unwrap_or_default(),
            stop_name: "stop_sequences",
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            grammar,
            extension: self.edgethink,
            ..Ask::new(self.model, Input::Messages(messages))
        })
    }

    /// Whether calls are looked for in the answer.
    pub(crate) fn has_tools(&self) -> bool {
        let none = |choice: &Choose| choice.kind == ChooseKind::None;
        let tools = self.tools.as_ref().is_some_and(|tools| !tools.is_empty());
        tools && !self.tool_choice.as_ref().is_some_and(none)
    }
}

fn must(choice: Option<&Choose>) -> Result<Must<'_>, ApiError> {
    Ok(match choice {
        Some(Choose {
            kind: ChooseKind::Any,
            ..
        }) => Must::CallAny,
        Some(Choose {
            kind: ChooseKind::Tool,
            name,
            ..
        }) => {
            let missing = || ApiError::bad("tool_choice.name", "the tool's name is missing");
            Must::Call(name.as_deref().ok_or_else(missing)?)
        }
        _ => Must::Nothing,
    })
}

impl From<&ToolParam> for Tool {
    fn from(tool: &ToolParam) -> Self {
        Self {
            kind: ToolKind::Function,
            function: Function {
                name: tool.name.clone(),
                description: tool.description.clone(),
                parameters: Some(tool.input_schema.clone()),
                strict: None,
            },
        }
    }
}

/// Messages and template variables of a conversation in blocks.
pub(crate) fn read(
    system: Option<Content>,
    messages: Vec<InputMessage>,
    tools: &[Value],
    app: &App,
) -> Result<
    (
        Vec<edgethink_model::Message>,
        serde_json::Map<String, Value>,
    ),
    ApiError,
> {
    if messages.is_empty() {
        return Err(ApiError::bad(
            "messages",
            "messages is empty; give a question",
        ));
    }
    let system = system.map(|text| ChatMessage::text(ChatRole::System, text.0));
    let mut out: Vec<ChatMessage> = system.into_iter().collect();
    for (at, message) in messages.into_iter().enumerate() {
        take(message, at, &mut out)?;
    }
    conversation(out, tools, app)
}

/// The chat messages of one message: results of tools come first, each as a message of its own.
fn take(message: InputMessage, at: usize, out: &mut Vec<ChatMessage>) -> Result<(), ApiError> {
    let role = match message.role {
        Role::User => ChatRole::User,
        Role::Assistant => ChatRole::Assistant,
    };
    let blocks = match message.content {
        Blocks::Text(text) => {
            out.push(ChatMessage::text(role, text));
            return Ok(());
        }
        Blocks::List(blocks) => blocks,
    };
    let (mut texts, mut calls, mut results) = (Vec::new(), Vec::new(), 0);
    for (nth, block) in blocks.into_iter().enumerate() {
        let misplaced = |what: &str| {
            let field = format!("messages[{at}].content[{nth}]");
            Err(ApiError::bad(field, format!("only {what}")))
        };
        match block {
            Block::Text { text, .. } => texts.push(text),
            Block::Thinking { .. } if role == ChatRole::User => {
                return misplaced("the assistant thinks");
            }
            Block::Thinking { .. } => {}
            Block::ToolUse { .. } if role == ChatRole::User => {
                return misplaced("the assistant uses tools");
            }
            Block::ToolUse {
                id, name, input, ..
            } => {
                calls.push(ToolCall::earlier(
                    id,
                    name,
                    Value::Object(input).to_string(),
                ));
            }
            Block::ToolResult { .. } if role == ChatRole::Assistant => {
                return misplaced("the user has results of tools");
            }
            Block::ToolResult {
                tool_use_id,
                content,
                ..
            } => {
                results += 1;
                let text = content.map(|content| content.0).unwrap_or_default();
                out.push(ChatMessage::result(tool_use_id, text));
            }
        }
    }
    let text = texts.join("\n");
    if !calls.is_empty() {
        out.push(ChatMessage::calls(Some(text), calls));
    } else if !text.is_empty() || results == 0 {
        out.push(ChatMessage::text(role, text));
    }
    Ok(())
}

/// Why the reply ended, in Anthropic's words.
pub(crate) fn stop_word(choice: &Choice, calls: bool) -> &'static str {
    match choice.finish_reason {
        FinishReason::Length => "max_tokens",
        _ if choice.stop.is_some() => "stop_sequence",
        _ if calls => "tool_use",
        FinishReason::Stop | FinishReason::Cancelled | FinishReason::Decided => "end_turn",
    }
}

/// A call as a block.
pub(crate) fn call_block(call: Call) -> OutputBlock {
    OutputBlock::ToolUse {
        id: format!("toolu_{:032x}", rand::random::<u128>()),
        name: call.name,
        input: serde_json::from_str(&call.arguments).unwrap_or_default(),
    }
}

/// The reply before anything is written.
pub(crate) fn begun(id: String, asked: &Asked) -> MessageObject {
    MessageObject {
        id,
        kind: "message",
        role: "assistant",
        model: asked.model.clone(),
        content: Vec::new(),
        stop_reason: None,
        stop_sequence: None,
        usage: MessagesUsage::default(),
        edgethink: None,
    }
}

/// The whole reply.
pub(crate) fn reply(
    app: &App,
    id: String,
    asked: &Asked,
    has_tools: bool,
    outcome: &Outcome,
) -> MessageObject {
    let choice = outcome.answer.choices.first();
    let (content, stop) = choice.map_or((Vec::new(), "end_turn"), |it| blocks(it, has_tools));
    MessageObject {
        content,
        stop_reason: Some(stop),
        stop_sequence: choice.and_then(|choice| choice.stop.clone()),
        usage: MessagesUsage::from(&outcome.answer.usage),
        edgethink: serde_json::to_value(app.summary(outcome, asked)).ok(),
        ..begun(id, asked)
    }
}

fn blocks(choice: &Choice, has_tools: bool) -> (Vec<OutputBlock>, &'static str) {
    let mut blocks = Vec::new();
    if !choice.reasoning.is_empty() {
        blocks.push(OutputBlock::Thinking {
            thinking: choice.reasoning.clone(),
            signature: String::new(),
        });
    }
    let (text, calls) = tools::split(&choice.text, has_tools);
    let stop = stop_word(choice, !calls.is_empty());
    if !text.is_empty() {
        blocks.push(OutputBlock::Text { text });
    }
    blocks.extend(calls.into_iter().map(call_block));
    (blocks, stop)
}
