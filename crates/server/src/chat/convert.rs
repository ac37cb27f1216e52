//! From a chat request to an [`Ask`], and from an answer to a reply.

use edgethink_model::Message;
use edgethink_reason::{Choice, FinishReason, Grammar, Input, Think};
use serde_json::{Map, Value, json};

use super::types::{
    CalledFunction, ChatChoice, ChatMessage, ChatRequest, ChatResponse, FormatKind, Logprobs,
    Reply, Role, ThinkingKind, TokenLogprob, Tool, ToolCall, ToolChoice, ToolKind, ToolMode,
    TopLogprob,
};
use crate::app::App;
use crate::ask::{Ask, Named, Thinking};
use crate::error::ApiError;
use crate::tools::{self, Call};
use crate::wire::{Asked, LlamaTimings, Usage};
use crate::worker::handle::Outcome;

impl ChatRequest {
    /// What the request asks for.
    pub(crate) fn into_ask(self, app: &App) -> Result<Ask, ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::bad(
                "messages",
                "messages is empty; give a question",
            ));
        }
        self.only_what_is_done()?;
        let thinking = self.thinking();
        let max_tokens = match (self.max_completion_tokens, self.max_tokens) {
            (Some(new), Some(old)) if new != old => {
                let message = "max_tokens is the older name of max_completion_tokens; give one";
                return Err(ApiError::bad("max_tokens", message));
            }
            (new, old) => Named::of("max_completion_tokens", new).or(Named::of("max_tokens", old)),
        };
        let top_logprobs = match (self.logprobs, self.top_logprobs) {
            (Some(true), top) => Named::of("top_logprobs", Some(top.unwrap_or(0))),
            (_, None | Some(0)) => None,
            (_, Some(_)) => {
                let message = "top_logprobs needs logprobs to be true";
                return Err(ApiError::bad("top_logprobs", message));
            }
        };
        let tools = self.offered();
        let grammar = self.grammar()?;
        let (messages, template) = conversation(self.messages, &tools, app)?;
        Ok(Ask {
            template,
            thinking,
            n: self.n,
            seed: self.seed,
            max_tokens,
            stop: self.stop.map(|stop| stop.0).unwrap_or_default(),
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_penalty: self.repetition_penalty,
            logit_bias: self.logit_bias.unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            top_logprobs,
            grammar,
            extension: self.edgethink,
            ..Ask::new(self.model, Input::Messages(messages))
        })
    }

    /// Tools that the model is told of.
    fn offered(&self) -> Vec<Value> {
        if self.tool_choice == Some(ToolChoice::Mode(ToolMode::None)) {
            return Vec::new();
        }
        offered(self.tools.as_deref().unwrap_or_default())
    }

    /// Whether calls are looked for in the answer.
    pub(crate) fn has_tools(&self) -> bool {
        !self.offered().is_empty()
    }

    /// The form that the answer must have: the format's, or that of a call which has to come.
    fn grammar(&self) -> Result<Option<Grammar>, ApiError> {
        let format = self.response_format.as_ref();
        let format = format.and_then(|format| {
            let schema = format.json_schema.as_ref().map(|it| &it.schema);
            grammar(format.kind, schema)
        });
        let must = match &self.tool_choice {
            Some(ToolChoice::Mode(ToolMode::Required)) => Must::CallAny,
            Some(ToolChoice::One(one)) => Must::Call(&one.function.name),
            _ => Must::Nothing,
        };
        form(format, self.tools.as_deref().unwrap_or_default(), must)
    }

    fn only_what_is_done(&self) -> Result<(), ApiError> {
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            let message = "stream_options needs stream to be true";
            return Err(ApiError::bad("stream_options", message));
        }
        let named = |tool: &Tool| {
            let name = &tool.function.name;
            !name.is_empty() && name.len() <= 64
        };
        let tools = self.tools.as_deref().unwrap_or_default();
        if let Some(at) = tools.iter().position(|tool| !named(tool)) {
            let field = format!("tools[{at}].function.name");
            return Err(ApiError::bad(field, "a name has 1 to 64 characters"));
        }
        match &self.tool_choice {
            Some(ToolChoice::Mode(ToolMode::Required)) if tools.is_empty() => {
                return Err(ApiError::bad(
                    "tool_choice",
                    "there are no tools to choose from",
                ));
            }
            Some(ToolChoice::One(one)) => {
                let name = &one.function.name;
                if !tools.iter().any(|tool| tool.function.name == *name) {
                    let message = format!("{name:?} is none of the tools");
                    return Err(ApiError::bad("tool_choice.function.name", message));
                }
            }
            _ => {}
        }
        match &self.response_format {
            Some(format)
                if format.kind == FormatKind::JsonSchema && format.json_schema.is_none() =>
            {
                let message = "response_format.json_schema: the schema is missing";
                Err(ApiError::bad("response_format.json_schema", message))
            }
            Some(format)
                if format.kind != FormatKind::JsonSchema && format.json_schema.is_some() =>
            {
                let message = "a schema needs the type json_schema";
                Err(ApiError::bad("response_format.json_schema", message))
            }
            _ => Ok(()),
        }
    }

    /// Thinking and budget under all their names.
    fn thinking(&self) -> Thinking {
        let kwargs = self.chat_template_kwargs.as_ref();
        let on_or_off = |on: bool| if on { Think::On } else { Think::Off };
        let enabled = kwargs.and_then(|kwargs| kwargs.enable_thinking);
        let enabled = Named::of(
            "chat_template_kwargs.enable_thinking",
            enabled.map(on_or_off),
        );
        let typed = self.thinking.as_ref().map(|thinking| match thinking.kind {
            ThinkingKind::Enabled => Think::On,
            ThinkingKind::Disabled => Think::Off,
            ThinkingKind::Adaptive => Think::Auto,
        });
        let effort = self.reasoning_effort;
        let auto = effort.filter(|effort| effort.effort().is_none());
        let auto = Named::of("reasoning_effort", auto.map(|_| Think::Auto));
        let typed_budget = self.thinking.as_ref().and_then(|it| it.budget_tokens);
        let budgets = [
            ("thinking_token_budget", self.thinking_token_budget),
            ("thinking_budget", self.thinking_budget),
            ("thinking_budget_tokens", self.thinking_budget_tokens),
            ("reasoning_budget_tokens", self.reasoning_budget_tokens),
            ("thinking.budget_tokens", typed_budget),
        ];
        Thinking {
            think: enabled.or(Named::of("thinking.type", typed)).or(auto),
            effort: Named::of("reasoning_effort", effort.and_then(|it| it.effort())),
            budgets: budgets
                .into_iter()
                .filter_map(|(name, value)| Named::of(name, value))
                .collect(),
        }
    }
}

/// What must come of the tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Must<'a> {
    Nothing,
    CallAny,
    Call(&'a str),
}

/// The form of an answer in this format.
pub(crate) fn grammar(kind: FormatKind, schema: Option<&Value>) -> Option<Grammar> {
    match kind {
        FormatKind::Text => None,
        FormatKind::JsonObject => Some(Grammar::JsonObject),
        FormatKind::JsonSchema => Some(Grammar::JsonSchema(schema?.clone())),
    }
}

/// The form of an answer: `format`, or that of a call which must come.
pub(crate) fn form(
    format: Option<Grammar>,
    tools: &[Tool],
    must: Must<'_>,
) -> Result<Option<Grammar>, ApiError> {
    if must == Must::Nothing {
        return Ok(format);
    }
    if format.is_some() {
        let message = "an answer that must be a call cannot have another form";
        return Err(ApiError::bad("response_format", message));
    }
    let tools = tools.iter().map(|tool| &tool.function);
    let asked = tools.filter(|tool| match must {
        Must::Call(name) => tool.name == name,
        Must::CallAny | Must::Nothing => true,
    });
    let forms: Vec<Value> = asked
        .map(|tool| tools::call_schema(&tool.name, tool.parameters.clone().unwrap_or_default()))
        .collect();
    if forms.is_empty() {
        let message = "it names none of the tools";
        return Err(ApiError::bad("tool_choice", message));
    }
    Ok(Some(Grammar::JsonSchema(json!({"anyOf": forms}))))
}

/// The tools as a template reads them.
pub(crate) fn offered(tools: &[Tool]) -> Vec<Value> {
    let tools = tools.iter();
    tools
        .filter_map(|tool| serde_json::to_value(tool).ok())
        .collect()
}

/// Messages and template variables for a conversation with tools.
pub(crate) fn conversation(
    messages: Vec<ChatMessage>,
    tools: &[Value],
    app: &App,
) -> Result<(Vec<Message>, Map<String, Value>), ApiError> {
    let messages = messages.into_iter().enumerate();
    let messages: Result<Vec<Message>, ApiError> =
        messages.map(|(at, message)| message.read(at)).collect();
    let source = app.model.template.as_ref().map_or("", |it| it.source());
    let mut template = Map::new();
    let mut messages = messages?;
    if !source.contains("tools") {
        messages = tools::as_text(messages, tools);
    } else if !tools.is_empty() {
        template.insert("tools".to_owned(), tools.to_vec().into());
    }
    Ok((messages, template))
}

impl ChatMessage {
    /// As the template reads it; `at` is its place, for errors. Earlier thoughts are left out.
    fn read(self, at: usize) -> Result<Message, ApiError> {
        let missing = |field: &str, message: &str| {
            Err(ApiError::bad(format!("messages[{at}].{field}"), message))
        };
        let calls = self.tool_calls.unwrap_or_default();
        let role = match self.role {
            // Templates know no other name for instructions.
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        if self.content.is_none() && (role != "assistant" || calls.is_empty()) {
            return missing("content", "the content is missing");
        }
        if !calls.is_empty() && role != "assistant" {
            return missing("tool_calls", "only an assistant's message has calls");
        }
        if self.tool_call_id.is_some() && role != "tool" {
            return missing("tool_call_id", "only a tool's message answers a call");
        }
        let content = self.content.map(|content| content.0).unwrap_or_default();
        let mut message = Message::new(role, content);
        if !calls.is_empty() {
            let calls = calls.into_iter().map(|call| {
                let body = Call {
                    name: call.function.name,
                    arguments: call.function.arguments,
                };
                tools::for_template(&call.id, &body)
            });
            let calls = Value::Array(calls.collect());
            message.extra.insert("tool_calls".to_owned(), calls);
        }
        if let Some(id) = self.tool_call_id {
            message.extra.insert("tool_call_id".to_owned(), id.into());
        }
        Ok(message)
    }
}

/// A call with an id of its own.
pub(crate) fn tool_call(call: Call, index: Option<usize>) -> ToolCall {
    ToolCall {
        index,
        id: format!("call_{:024x}", rand::random::<u128>() >> 32),
        kind: ToolKind::Function,
        function: CalledFunction {
            name: call.name,
            arguments: call.arguments,
        },
    }
}

/// Why a stream ended, in OpenAI's words.
pub(crate) fn finish_word(reason: FinishReason, calls: bool) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        _ if calls => "tool_calls",
        FinishReason::Stop | FinishReason::Cancelled | FinishReason::Decided => "stop",
    }
}

/// The reply to a request that is not streamed.
pub(crate) fn response(
    app: &App,
    id: String,
    created: u64,
    asked: &Asked,
    has_tools: bool,
    outcome: &Outcome,
) -> ChatResponse {
    let choices = outcome.answer.choices.iter();
    ChatResponse {
        id,
        object: "chat.completion",
        created,
        model: asked.model.clone(),
        choices: choices
            .map(|choice| reply(app, choice, has_tools))
            .collect(),
        usage: Usage::from(&outcome.answer.usage),
        timings: LlamaTimings::from(&outcome.answer),
        edgethink: app.summary(outcome, asked),
    }
}

fn reply(app: &App, choice: &Choice, has_tools: bool) -> ChatChoice {
    let (content, calls) = tools::split(&choice.text, has_tools);
    let finish_reason = finish_word(choice.finish_reason, !calls.is_empty());
    let calls: Vec<ToolCall> = calls
        .into_iter()
        .map(|call| tool_call(call, None))
        .collect();
    let thought = Some(choice.reasoning.clone()).filter(|thought| !thought.is_empty());
    ChatChoice {
        index: choice.index,
        message: Reply {
            role: "assistant",
            content: Some(content).filter(|text| !text.is_empty() || calls.is_empty()),
            reasoning_content: thought.clone(),
            reasoning: thought,
            refusal: None,
            tool_calls: (!calls.is_empty()).then_some(calls),
        },
        logprobs: logprobs(app, choice),
        finish_reason,
    }
}

/// The log-probabilities of a choice, those of its thought apart.
pub(crate) fn logprobs(app: &App, choice: &Choice) -> Option<Logprobs> {
    let all = choice.logprobs.as_ref()?;
    let mut out = Logprobs::default();
    for one in all {
        out.push(app, one);
    }
    Some(out)
}

impl Logprobs {
    /// Appends a token; one that ends the turn is no part of the reply.
    pub(crate) fn push(&mut self, app: &App, one: &edgethink_reason::TokenLogprob) {
        if app.ends_turn(one.token) {
            return;
        }
        let top = one.top.iter().map(|(token, text, logprob)| TopLogprob {
            bytes: app.token_bytes(*token, text),
            token: text.clone(),
            logprob: f64::from(*logprob),
        });
        let said = TokenLogprob {
            token: one.text.clone(),
            logprob: f64::from(one.logp),
            bytes: app.token_bytes(one.token, &one.text),
            top_logprobs: top.collect(),
        };
        if one.thought {
            self.reasoning_content.push(said);
        } else {
            self.content.push(said);
        }
    }

    /// What is there, unless that is nothing.
    pub(crate) fn take(&mut self) -> Option<Self> {
        let some = !self.content.is_empty() || !self.reasoning_content.is_empty();
        some.then(|| std::mem::take(self))
    }
}
