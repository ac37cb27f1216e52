//! From the reasoner's events to Anthropic's: a message of blocks, each begun, filled and ended.

use edgethink_reason::Event;
use serde_json::{Value, json};

use super::convert::{InItsShape, begun, call_block, stop_word};
use super::types::{MessagesUsage, OutputBlock};
use crate::app::App;
use crate::error::ApiError;
use crate::sse::{Chunks, Frame};
use crate::tools::{Piece, ToolSplitter};
use crate::wire::Asked;
use crate::worker::handle::Outcome;

/// One streamed reply.
#[derive(Debug)]
pub(crate) struct MessageStream {
    app: App,
    id: String,
    asked: Asked,
    tools: ToolSplitter,
    begun: bool,
    /// Whether the open block, if there is one, is a thought.
    open: Option<bool>,
    /// Index of the next block.
    block: usize,
    calls: bool,
}

impl MessageStream {
    pub(crate) fn new(app: App, id: String, asked: Asked, has_tools: bool) -> Self {
        Self {
            app,
            id,
            asked,
            tools: ToolSplitter::new(has_tools),
            begun: false,
            open: None,
            block: 0,
            calls: false,
        }
    }

    /// Begins the message, once the prompt's counts are known.
    fn begin(&mut self, usage: MessagesUsage, out: &mut Vec<Frame>) {
        if !std::mem::replace(&mut self.begun, true) {
            let mut message = begun(self.id.clone(), &self.asked);
            message.usage = usage;
            send("message_start", json!({"message": message}), out);
        }
    }

    fn start(&mut self, block: &Value, out: &mut Vec<Frame>) {
        let body = json!({"index": self.block, "content_block": block});
        send("content_block_start", body, out);
    }

    fn delta(&self, delta: &Value, out: &mut Vec<Frame>) {
        let body = json!({"index": self.block, "delta": delta});
        send("content_block_delta", body, out);
    }

    fn stop(&mut self, out: &mut Vec<Frame>) {
        send("content_block_stop", json!({"index": self.block}), out);
        self.block += 1;
    }

    fn close(&mut self, out: &mut Vec<Frame>) {
        if self.open.take().is_some() {
            self.stop(out);
        }
    }

    fn text(&mut self, thought: bool, text: &str, out: &mut Vec<Frame>) {
        if self.open != Some(thought) {
            self.close(out);
            let block = if thought {
                json!({"type": "thinking", "thinking": "", "signature": ""})
            } else {
                json!({"type": "text", "text": ""})
            };
            self.start(&block, out);
            self.open = Some(thought);
        }
        let delta = if thought {
            json!({"type": "thinking_delta", "thinking": text})
        } else {
            json!({"type": "text_delta", "text": text})
        };
        self.delta(&delta, out);
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
            self.calls = true;
            let OutputBlock::ToolUse { id, name, input } = call_block(call) else {
                continue;
            };
            let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
            self.start(&block, out);
            let delta = json!({"type": "input_json_delta", "partial_json": input.to_string()});
            self.delta(&delta, out);
            self.stop(out);
        }
    }
}

/// An event under its name.
fn send(name: &str, mut body: Value, out: &mut Vec<Frame>) {
    body["type"] = name.into();
    out.push(Frame::named(name, &body));
}

impl Chunks for MessageStream {
    fn event(&mut self, event: Event, out: &mut Vec<Frame>) {
        match event {
            Event::Prefilled {
                prompt_tokens,
                cached_tokens,
            } => {
                let usage = edgethink_reason::Usage {
                    prompt_tokens,
                    cached_tokens,
                    ..Default::default()
                };
                self.begin(MessagesUsage::from(&usage), out);
            }
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
        let usage = MessagesUsage::from(&outcome.answer.usage);
        self.begin(usage, out);
        self.close(out);
        let choice = outcome.answer.choices.first();
        let stop = choice.map(|choice| stop_word(choice, self.calls));
        let sequence = choice.and_then(|choice| choice.stop.as_ref());
        let mut body =
            json!({"delta": {"stop_reason": stop, "stop_sequence": sequence}, "usage": usage});
        if self.asked.extended {
            let summary = self.app.summary(outcome, &self.asked);
            body["edgethink"] = serde_json::to_value(summary).unwrap_or_default();
        }
        send("message_delta", body, out);
        send("message_stop", json!({}), out);
    }

    fn failed(&mut self, error: &ApiError, out: &mut Vec<Frame>) {
        let body = InItsShape(error.clone()).body();
        out.push(Frame::named("error", &body));
    }
}
