//! From a request of the responses API to an [`Ask`], and from an answer to a reply.

use edgethink_reason::{Choice, FinishReason, Input, Think};
use serde_json::Value;

use super::types::{
    Echo, FunctionChoice, FunctionTool, Include, Incomplete, InputItem, InputItems, OutputItem,
    OutputPart, ResponseError, ResponseObject, ResponsesRequest, ResponsesUsage, SummaryPart,
};
use crate::app::App;
use crate::ask::{Ask, Named, Thinking};
use crate::chat::convert::{Must, conversation, form, grammar, logprobs, offered};
use crate::chat::types::{ChatMessage, Function, Role, TokenLogprob, Tool, ToolCall, ToolMode};
use crate::error::ApiError;
use crate::tools::{self, Call};
use crate::wire::Asked;
use crate::worker::handle::Outcome;

impl ResponsesRequest {
    /// What the request asks for.
    pub(crate) fn into_ask(self, app: &App) -> Result<Ask, ApiError> {
        let tools: Vec<Tool> = self.tools.iter().flatten().map(Tool::from).collect();
        let format = self.text.as_ref().and_then(|text| text.format.as_ref());
        let format = format.and_then(|format| grammar(format.kind, format.schema.as_ref()));
        let must = match &self.tool_choice {
            Some(FunctionChoice::Mode(ToolMode::Required)) => Must::CallAny,
            Some(FunctionChoice::One(one)) => Must::Call(&one.name),
            _ => Must::Nothing,
        };
        let grammar = form(format, &tools, must)?;
        let told = if self.has_tools() {
            offered(&tools)
        } else {
            Vec::new()
        };
        let effort = self.reasoning.as_ref().and_then(|it| it.effort);
        let auto = effort.filter(|it| it.effort().is_none());
        let messages = messages(self.instructions, self.input);
        if messages.is_empty() {
            return Err(ApiError::bad("input", "input is empty; give a question"));
        }
        let (messages, template) = conversation(messages, &told, app)?;
        if let Some(extension) = &self.edgethink {
            extension.of_one_answer()?;
        }
        let asks = self.include.as_ref();
        let asks = asks.is_some_and(|list| list.contains(&Include::Logprobs));
        let top_logprobs = self.top_logprobs.or(asks.then_some(0));
        Ok(Ask {
            template,
            thinking: Thinking {
                think: Named::of("reasoning.effort", auto.map(|_| Think::Auto)),
                effort: Named::of("reasoning.effort", effort.and_then(|it| it.effort())),
                budgets: Vec::new(),
            },
            max_tokens: Named::of("max_output_tokens", self.max_output_tokens),
            temperature: self.temperature,
            top_p: self.top_p,
            top_logprobs: Named::of("top_logprobs", top_logprobs),
            grammar,
            extension: self.edgethink,
            ..Ask::new(self.model, Input::Messages(messages))
        })
    }

    /// Whether calls are looked for in the answer.
    pub(crate) fn has_tools(&self) -> bool {
        let none = matches!(self.tool_choice, Some(FunctionChoice::Mode(ToolMode::None)));
        !none && self.tools.as_ref().is_some_and(|tools| !tools.is_empty())
    }
}

impl From<&FunctionTool> for Tool {
    fn from(tool: &FunctionTool) -> Self {
        Self {
            kind: tool.kind,
            function: Function {
                name: tool.name.clone(),
                description: tool.description.clone(),
                parameters: tool.parameters.clone(),
                strict: tool.strict,
            },
        }
    }
}

/// The conversation; calls of one turn are one message.
fn messages(instructions: Option<String>, input: InputItems) -> Vec<ChatMessage> {
    let system = instructions.map(|text| ChatMessage::text(Role::System, text));
    let mut out: Vec<ChatMessage> = system.into_iter().collect();
    let items = match input {
        InputItems::Text(text) => {
            out.push(ChatMessage::text(Role::User, text));
            return out;
        }
        InputItems::Items(items) if items.is_empty() => return Vec::new(),
        InputItems::Items(items) => items,
    };
    for item in items {
        match item {
            InputItem::Message(message) => {
                out.push(ChatMessage::text(message.role, message.content.0));
            }
            InputItem::Call(call) => {
                let call = ToolCall::earlier(call.call_id, call.name, call.arguments);
                let calls = out.last_mut().and_then(|last| last.tool_calls.as_mut());
                match calls {
                    Some(calls) => calls.push(call),
                    None => out.push(ChatMessage::calls(None, vec![call])),
                }
            }
            InputItem::Output(output) => {
                out.push(ChatMessage::result(output.call_id, output.output.0));
            }
            InputItem::Reasoning(_) => {}
        }
    }
    out
}

/// What a reply says of itself whatever becomes of it.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) asked: Asked,
    pub(crate) echo: Echo,
}

impl Head {
    /// The reply while it is written.
    pub(crate) fn begun(&self) -> ResponseObject {
        ResponseObject {
            id: self.id.clone(),
            object: "response",
            created_at: self.created,
            status: "in_progress",
            model: self.asked.model.clone(),
            output: Vec::new(),
            usage: None,
            error: None,
            incomplete_details: None,
            echo: self.echo.clone(),
            parallel_tool_calls: true,
            truncation: "disabled",
            store: false,
            edgethink: None,
        }
    }

    /// The reply with `output`, complete.
    pub(crate) fn ended(
        &self,
        app: &App,
        outcome: &Outcome,
        output: Vec<OutputItem>,
    ) -> ResponseObject {
        let cut = |choice: &Choice| choice.finish_reason == FinishReason::Length;
        let cut = outcome.answer.choices.first().is_some_and(cut);
        ResponseObject {
            status: if cut { "incomplete" } else { "completed" },
            incomplete_details: cut.then_some(Incomplete {
                reason: "max_output_tokens",
            }),
            output,
            usage: Some(ResponsesUsage::from(&outcome.answer.usage)),
            edgethink: serde_json::to_value(app.summary(outcome, &self.asked)).ok(),
            ..self.begun()
        }
    }

    /// The reply that failed.
    pub(crate) fn failed(&self, error: &ApiError) -> ResponseObject {
        ResponseObject {
            status: "failed",
            error: Some(ResponseError {
                code: "server_error",
                message: error.message.clone(),
            }),
            ..self.begun()
        }
    }
}

/// An id with a prefix, as the API has them.
pub(crate) fn id(prefix: &str) -> String {
    format!("{prefix}_{:032x}", rand::random::<u128>())
}

/// A thought as an item.
pub(crate) fn reasoning_item(id: String, text: String) -> OutputItem {
    OutputItem::Reasoning {
        id,
        summary: vec![SummaryPart::SummaryText { text }],
        status: "completed",
    }
}

/// A text as an item.
pub(crate) fn message_item(id: String, text: String, logprobs: Vec<TokenLogprob>) -> OutputItem {
    OutputItem::Message {
        id,
        role: "assistant",
        status: "completed",
        content: vec![text_part(text, logprobs)],
    }
}

/// A text as a part.
pub(crate) fn text_part(text: String, logprobs: Vec<TokenLogprob>) -> OutputPart {
    OutputPart::OutputText {
        text,
        annotations: Vec::new(),
        logprobs,
    }
}

/// A call as an item.
pub(crate) fn call_item(id: String, call_id: String, call: Call) -> OutputItem {
    OutputItem::FunctionCall {
        id,
        call_id,
        name: call.name,
        arguments: call.arguments,
        status: "completed",
    }
}

/// The items of an answer.
pub(crate) fn output(app: &App, choice: &Choice, has_tools: bool) -> Vec<OutputItem> {
    let mut items = Vec::new();
    if !choice.reasoning.is_empty() {
        items.push(reasoning_item(id("rs"), choice.reasoning.clone()));
    }
    let (text, calls) = tools::split(&choice.text, has_tools);
    if !text.is_empty() || calls.is_empty() {
        let logprobs = logprobs(app, choice).map_or_else(Vec::new, |all| all.content);
        items.push(message_item(id("msg"), text, logprobs));
    }
    let calls = calls.into_iter();
    items.extend(calls.map(|call| call_item(id("fc"), id("call"), call)));
    items
}

/// Any value as the `item` of an event.
pub(crate) fn value(item: &impl serde::Serialize) -> Value {
    serde_json::to_value(item).unwrap_or_default()
}
