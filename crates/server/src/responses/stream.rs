//! From the reasoner's events to the named events of a streamed response.
//!
//! Each item is announced, filled by deltas, and closed: first the thought (as a reasoning summary), then the text, then the calls.

use edgethink_reason::Event;
use serde_json::{Value, json};

use super::convert::{Head, call_item, id, message_item, reasoning_item, text_part, value};
use super::types::OutputItem;
use crate::app::App;
use crate::chat::types::{Logprobs, TokenLogprob};
use crate::error::ApiError;
use crate::sse::{Chunks, Frame};
use crate::tools::{Piece, ToolSplitter};
use crate::worker::handle::Outcome;

/// One streamed response.
#[derive(Debug)]
pub(crate) struct ResponseStream {
    app: App,
    head: Head,
    tools: ToolSplitter,
    sequence: u64,
    begun: bool,
    open: Option<Open>,
    items: Vec<OutputItem>,
    /// Log-probabilities that wait for the next text.
    logprobs: Logprobs,
}

/// The item that is being filled.
#[derive(Debug)]
struct Open {
    id: String,
    thought: bool,
    text: String,
    logprobs: Vec<TokenLogprob>,
}

impl ResponseStream {
    pub(crate) fn new(app: App, head: Head, has_tools: bool) -> Self {
        Self {
            app,
            head,
            tools: ToolSplitter::new(has_tools),
            sequence: 0,
            begun: false,
            open: None,
            items: Vec::new(),
            logprobs: Logprobs::default(),
        }
    }

    /// An event with its name and number.
    fn send(&mut self, name: &str, mut body: Value, out: &mut Vec<Frame>) {
        body["type"] = name.into();
        body["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        out.push(Frame::named(name, &body));
    }

    fn begin(&mut self, out: &mut Vec<Frame>) {
        if !std::mem::replace(&mut self.begun, true) {
            let response = value(&self.head.begun());
            for name in ["response.created", "response.in_progress"] {
                self.send(name, json!({"response": response}), out);
            }
        }
    }

    /// Where the item that is open stands.
    fn place(&self, id: &str) -> Value {
        json!({"item_id": id, "output_index": self.items.len()})
    }

    fn add(&mut self, mut item: Value, out: &mut Vec<Frame>) {
        item["status"] = "in_progress".into();
        let body = json!({"output_index": self.items.len(), "item": item});
        self.send("response.output_item.added", body, out);
    }

    fn done_item(&mut self, item: OutputItem, out: &mut Vec<Frame>) {
        let body = json!({"output_index": self.items.len(), "item": value(&item)});
        self.send("response.output_item.done", body, out);
        self.items.push(item);
    }

    /// More of a thought or a text.
    fn text(&mut self, thought: bool, text: &str, out: &mut Vec<Frame>) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.thought != thought)
        {
            self.close(out);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open(thought, out),
        };
        let (name, mut body) = if thought {
            (
                "response.reasoning_summary_text.delta",
                json!({"summary_index": 0}),
            )
        } else {
            let fresh = std::mem::take(&mut self.logprobs.content);
            let body = json!({"content_index": 0, "logprobs": fresh});
            open.logprobs.extend(fresh);
            ("response.output_text.delta", body)
        };
        merge(&mut body, self.place(&open.id));
        body["delta"] = text.into();
        self.send(name, body, out);
        self.open = Some(Open {
            text: open.text + text,
            ..open
        });
    }

    fn open(&mut self, thought: bool, out: &mut Vec<Frame>) -> Open {
        let id = id(if thought { "rs" } else { "msg" });
        let (item, name, mut body) = if thought {
            let part = json!({"type": "summary_text", "text": ""});
            (
                json!({"type": "reasoning", "id": id, "summary": []}),
                "response.reasoning_summary_part.added",
                json!({"summary_index": 0, "part": part}),
            )
        } else {
            let part = value(&text_part(String::new(), Vec::new()));
            (
                json!({"type": "message", "id": id, "role": "assistant", "content": []}),
                "response.content_part.added",
                json!({"content_index": 0, "part": part}),
            )
        };
        self.add(item, out);
        merge(&mut body, self.place(&id));
        self.send(name, body, out);
        Open {
            id,
            thought,
            text: String::new(),
            logprobs: Vec::new(),
        }
    }

    fn close(&mut self, out: &mut Vec<Frame>) {
        let Some(open) = self.open.take() else {
            return;
        };
        let Open {
            id,
            thought,
            text,
            mut logprobs,
        } = open;
        if !thought {
            logprobs.append(&mut self.logprobs.content);
        }
        let place = self.place(&id);
        let ends = if thought {
            let part = json!({"type": "summary_text", "text": text});
            [
                (
                    "response.reasoning_summary_text.done",
                    json!({"summary_index": 0, "text": text}),
                ),
                (
                    "response.reasoning_summary_part.done",
                    json!({"summary_index": 0, "part": part}),
                ),
            ]
        } else {
            let part = value(&text_part(text.clone(), logprobs.clone()));
            [
                (
                    "response.output_text.done",
                    json!({"content_index": 0, "text": text, "logprobs": logprobs}),
                ),
                (
                    "response.content_part.done",
                    json!({"content_index": 0, "part": part}),
                ),
            ]
        };
        for (name, mut body) in ends {
            merge(&mut body, place.clone());
            self.send(name, body, out);
        }
        let item = if thought {
            reasoning_item(id, text)
        } else {
            message_item(id, text, logprobs)
        };
        self.done_item(item, out);
    }

    fn pieces(&mut self, pieces: Vec<Piece>, out: &mut Vec<Frame>) {
        for piece in pieces {
            let call = match piece {
                Piece::Text(text) => {
                    self.text(false, &text, out);
                    continue;
                }
                Piece::Call(call) => call,
            };
            self.close(out);
            let (item_id, call_id) = (id("fc"), id("call"));
            let empty = json!({"type": "function_call", "id": item_id, "call_id": call_id, "name": call.name, "arguments": ""});
            self.add(empty, out);
            for (name, key) in [("delta", "delta"), ("done", "arguments")] {
                let mut body = self.place(&item_id);
                body[key] = call.arguments.clone().into();
                let name = format!("response.function_call_arguments.{name}");
                self.send(&name, body, out);
            }
            self.done_item(call_item(item_id, call_id, call), out);
        }
    }
}

/// Adds the keys of `more` to an object.
fn merge(body: &mut Value, more: Value) {
    if let (Value::Object(body), Value::Object(more)) = (body, more) {
        body.extend(more);
    }
}

impl Chunks for ResponseStream {
    fn event(&mut self, event: Event, out: &mut Vec<Frame>) {
        self.begin(out);
        match event {
            Event::Logprob { stream: 0, logprob } => self.logprobs.push(&self.app, &logprob),
            Event::Reasoning { stream: 0, text } => self.text(true, &text, out),
            Event::Content { stream: 0, text } => {
                let pieces = self.tools.push(&text);
                self.pieces(pieces, out);
            }
            Event::StreamFinished { stream: 0, .. } => {
                let pieces = self.tools.finish();
                self.pieces(pieces, out);
                self.close(out);
            }
            _ => {}
        }
    }

    fn done(&mut self, outcome: &Outcome, out: &mut Vec<Frame>) {
        self.begin(out);
        self.close(out);
        let items = std::mem::take(&mut self.items);
        let response = self.head.ended(&self.app, outcome, items);
        let name = match response.status {
            "incomplete" => "response.incomplete",
            _ => "response.completed",
        };
        self.send(name, json!({"response": value(&response)}), out);
    }

    fn failed(&mut self, error: &ApiError, out: &mut Vec<Frame>) {
        self.begin(out);
        let response = value(&self.head.failed(error));
        self.send("response.failed", json!({"response": response}), out);
    }
}
