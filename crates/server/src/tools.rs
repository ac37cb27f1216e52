//! Tool calls: given to the model through its chat template, found again in what it writes.
//!
//! Two spellings are known: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` (Hermes, Qwen) anywhere in the answer, and a
//! bare object `{"name": ..., "parameters": {...}}` as the whole answer (Llama 3, and answers bound to a grammar). A template that
//! knows no tools gets them as text in the system turn, in the Hermes spelling.

use edgethink_model::Message;
use serde_json::{Map, Value, json};

/// Opens a call in the Hermes spelling.
const OPEN: &str = "<tool_call>";
/// Closes it.
const CLOSE: &str = "</tool_call>";
/// Llama 3 may write this in front of a bare object.
const PYTHON_TAG: &str = "<|python_tag|>";

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// JSON text, as OpenAI's API has it.
    pub(crate) arguments: String,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Call(Call),
}

/// Tells text and calls apart while an answer is streamed. One per choice.
#[derive(Debug, Clone)]
pub(crate) struct ToolSplitter {
    /// The request has tools; otherwise everything is text.
    active: bool,
    /// Text whose meaning is not known yet.
    held: String,
    /// Something was given out.
    begun: bool,
}

impl ToolSplitter {
    pub(crate) fn new(active: bool) -> Self {
        Self {
            active,
            held: String::new(),
            begun: false,
        }
    }

    /// Takes the next text; returns what is decided.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        if !self.active {
            return vec![Piece::Text(text.to_owned())];
        }
        self.held.push_str(text);
        let mut out = Vec::new();
        if !self.begun && may_be_bare(&self.held) {
            return out;
        }
        while let Some(at) = self.held.find(OPEN) {
            let Some(end) = self.held[at..].find(CLOSE).map(|n| at + n) else {
                self.give(at, &mut out);
                return out;
            };
            let body = self.held[at + OPEN.len()..end].to_owned();
            let whole = end + CLOSE.len();
            match parse(&body) {
                Some(call) => {
                    self.give(at, &mut out);
                    self.held.drain(..whole - at);
                    self.begun = true;
                    out.push(Piece::Call(call));
                }
                None => self.give_all(whole, &mut out),
            }
        }
        let partial = (1..OPEN.len())
            .rev()
            .find(|&n| self.held.ends_with(&OPEN[..n]));
        let safe = self.held.len() - partial.unwrap_or(0);
        self.give(safe, &mut out);
        out
    }

    /// The answer is over: returns what was held back.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        let bare = held.trim().trim_start_matches(PYTHON_TAG).trim();
        let unclosed = bare.strip_prefix(OPEN).unwrap_or(bare);
        if self.active
            && (!self.begun || unclosed != bare)
            && let Some(call) = parse(unclosed)
        {
            return vec![Piece::Call(call)];
        }
        if held.is_empty() || (self.begun && self.active && held.trim().is_empty()) {
            return Vec::new();
        }
        vec![Piece::Text(held)]
    }

    /// Gives out the text before `at` but for white space at its end, which may stand before a call. What is left begins the held text.
    fn give(&mut self, at: usize, out: &mut Vec<Piece>) {
        let keep = self.held[..at].trim_end().len();
        let rest = self.held.split_off(keep);
        let text = std::mem::replace(&mut self.held, rest);
        if !text.is_empty() {
            self.begun = true;
            out.push(Piece::Text(text));
        }
        if self.held[at - keep..].starts_with(OPEN) {
            self.held.drain(..at - keep);
        }
    }

    fn give_all(&mut self, bytes: usize, out: &mut Vec<Piece>) {
        let rest = self.held.split_off(bytes);
        let text = std::mem::replace(&mut self.held, rest);
        self.begun = true;
        out.push(Piece::Text(text));
    }
}

/// The whole answer may still become a bare object.
fn may_be_bare(held: &str) -> bool {
    let text = held.trim_start();
    text.starts_with('{') || PYTHON_TAG.starts_with(text) || text.starts_with(PYTHON_TAG)
}

/// Text and calls of a whole answer.
pub(crate) fn split(text: &str, active: bool) -> (String, Vec<Call>) {
    let mut splitter = ToolSplitter::new(active);
    let mut pieces = splitter.push(text);
    pieces.extend(splitter.finish());
    let mut content = String::new();
    let mut calls = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => content.push_str(&text),
            Piece::Call(call) => calls.push(call),
        }
    }
    (content, calls)
}

/// The call that an object says.
fn parse(body: &str) -> Option<Call> {
    let value: Map<String, Value> = serde_json::from_str(body.trim()).ok()?;
    let name = value
        .get("name")?
        .as_str()
        .filter(|name| !name.is_empty())?;
    let arguments = value.get("arguments").or_else(|| value.get("parameters"));
    let arguments = match arguments {
        Some(Value::String(text)) => text.clone(),
        Some(value @ Value::Object(_)) => value.to_string(),
        None => "{}".to_owned(),
        Some(_) => return None,
    };
    Some(Call {
        name: name.to_owned(),
        arguments,
    })
}

/// The schema of a call of `name`, for an answer that must be one.
pub(crate) fn call_schema(name: &str, mut parameters: Map<String, Value>) -> Value {
    parameters.entry("type").or_insert_with(|| "object".into());
    json!({
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": false,
    })
}

/// An assistant's calls as templates read them: the arguments are an object, not its text.
pub(crate) fn for_template(id: &str, call: &Call) -> Value {
    let arguments = serde_json::from_str(&call.arguments)
        .unwrap_or_else(|_| Value::String(call.arguments.clone()));
    json!({
        "id": id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    })
}

/// Puts tools and calls into plain messages, for a template that knows neither.
pub(crate) fn as_text(messages: Vec<Message>, tools: &[Value]) -> Vec<Message> {
    let mut out: Vec<Message> = messages.into_iter().map(plain).collect();
    if tools.is_empty() {
        return out;
    }
    let list: Vec<String> = tools.iter().map(Value::to_string).collect();
    let text = format!(
        "You may call one or more functions to assist with the user query.\n\n\
         You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{}\n</tools>\n\n\
         For each function call, return a json object with function name and arguments within {OPEN}{CLOSE} XML tags:\n\
         {OPEN}\n{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n{CLOSE}",
        list.join("\n")
    );
    match out.first_mut().filter(|first| first.role == "system") {
        Some(system) => system.content = format!("{}\n\n{text}", system.content),
        None => out.insert(0, Message::new("system", text)),
    }
    out
}

/// A message whose calls and results are text.
fn plain(mut message: Message) -> Message {
    if message.role == "tool" {
        let content = format!("<tool_response>\n{}\n</tool_response>", message.content);
        return Message::new("user", content);
    }
    let calls = message.extra.remove("tool_calls");
    let calls = calls.as_ref().and_then(Value::as_array);
    for call in calls.into_iter().flatten() {
        let body = &call["function"];
        if !message.content.is_empty() {
            message.content.push('\n');
        }
        message
            .content
            .push_str(&format!("{OPEN}\n{body}\n{CLOSE}"));
    }
    message.extra.clear();
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &str) -> Call {
        Call {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }
    }

    #[test]
    fn every_cut_finds_the_same_calls() {
        let one = r#"<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>"#;
        let add = || call("add", r#"{"a":1}"#);
        let cases = [
            ("just text", "just text", vec![]),
            (one, "", vec![add()]),
            (
                &format!("Let me see.\n{one}\n{one}"),
                "Let me see.",
                vec![add(), add()],
            ),
            (
                r#"{"name": "now", "parameters": {}}"#,
                "",
                vec![call("now", "{}")],
            ),
            (
                r#"<|python_tag|>{"name": "now"}"#,
                "",
                vec![call("now", "{}")],
            ),
            (r#"{"a": 1}"#, r#"{"a": 1}"#, vec![]),
            (
                "<tool_call>no json</tool_call> then",
                "<tool_call>no json</tool_call> then",
                vec![],
            ),
            ("a < b <tool", "a < b <tool", vec![]),
            (
                r#"x <tool_call>{"name": "add", "arguments": {"a": 1}}"#,
                "x",
                vec![add()],
            ),
        ];
        for (text, content, calls) in cases {
            for size in 1..=text.len() {
                let mut splitter = ToolSplitter::new(true);
                let chars: Vec<char> = text.chars().collect();
                let mut pieces = Vec::new();
                for piece in chars.chunks(size) {
                    pieces.extend(splitter.push(&piece.iter().collect::<String>()));
                }
                pieces.extend(splitter.finish());
                let (mut got, mut found) = (String::new(), Vec::new());
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => got.push_str(&text),
                        Piece::Call(call) => found.push(call),
                    }
                }
                assert_eq!(
                    (got.trim_end(), &found),
                    (content, &calls),
                    "{text:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn without_tools_everything_is_text() {
        let text = r#"<tool_call>{"name": "add"}</tool_call>"#;
        assert_eq!(split(text, false), (text.to_owned(), vec![]));
    }

    #[test]
    fn a_plain_template_reads_tools_as_text() {
        let mut asked = Message::new("assistant", "");
        asked.extra.insert(
            "tool_calls".to_owned(),
            json!([for_template("call_1", &call("add", r#"{"a":1}"#))]),
        );
        let messages = vec![
            Message::new("user", "1 + 1?"),
            asked,
            Message::new("tool", "2"),
        ];
        let out = as_text(messages, &[json!({"type": "function"})]);
        let roles: Vec<&str> = out.iter().map(|m| m.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert!(out[0].content.contains(r#"{"type":"function"}"#));
        assert_eq!(split(&out[2].content, true).1, [call("add", r#"{"a":1}"#)]);
        assert_eq!(out[3].content, "<tool_response>\n2\n</tool_response>");
    }
}
