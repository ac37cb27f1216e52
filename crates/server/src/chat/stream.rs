//! From the reasoner's events to the chunks of a streamed chat reply.

use std::collections::BTreeMap;

use edgethink_reason::Event;

use super::convert::{finish_word, tool_call};
use super::types::{ChatChunk, ChunkChoice, ChunkNote, Delta, Logprobs, Scored, ThoughtEnded};
use crate::app::App;
use crate::error::ApiError;
use crate::sse::{Chunks, Frame};
use crate::tools::{Piece, ToolSplitter};
use crate::wire::{Asked, DecisionWire, LlamaTimings, Usage};
use crate::worker::handle::Outcome;

/// One streamed reply.
#[derive(Debug)]
pub(crate) struct ChatStream {
    pub(crate) app: App,
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) asked: Asked,
    pub(crate) has_tools: bool,
    pub(crate) include_usage: bool,
    pub(crate) choices: BTreeMap<usize, ChoiceState>,
}

/// One choice of it.
#[derive(Debug)]
pub(crate) struct ChoiceState {
    tools: ToolSplitter,
    calls: usize,
    /// Log-probabilities that wait for the next text: that of a token may be held back.
    logprobs: Logprobs,
}

impl ChatStream {
    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk",
            created: self.created,
            model: self.asked.model.clone(),
            choices,
            usage: None,
            timings: None,
            edgethink: None,
        }
    }

    /// A chunk of a choice, with the log-probabilities of the tokens that came since its last one.
    fn delta(&mut self, index: usize, delta: Delta, finish: Option<&'static str>) -> Frame {
        let state = self.choices.get_mut(&index);
        let choice = ChunkChoice {
            index,
            delta,
            logprobs: state.and_then(|state| state.logprobs.take()),
            finish_reason: finish,
        };
        Frame::data(&self.chunk(vec![choice]))
    }

    fn note(&self, index: usize, note: ChunkNote) -> Frame {
        let choice = ChunkChoice {
            index,
            delta: Delta::default(),
            logprobs: None,
            finish_reason: None,
        };
        Frame::data(&ChatChunk {
            edgethink: Some(note),
            ..self.chunk(vec![choice])
        })
    }

    /// The choice's state; its first mention sends the role.
    fn choice(&mut self, index: usize, out: &mut Vec<Frame>) -> &mut ChoiceState {
        if !self.choices.contains_key(&index) {
            let role = Delta {
                role: Some("assistant"),
                content: Some(String::new()),
                ..Delta::default()
            };
            out.push(self.delta(index, role, None));
        }
        let has_tools = self.has_tools;
        self.choices.entry(index).or_insert_with(|| ChoiceState {
            tools: ToolSplitter::new(has_tools),
            calls: 0,
            logprobs: Logprobs::default(),
        })
    }

    fn pieces(&mut self, index: usize, pieces: Vec<Piece>, out: &mut Vec<Frame>) {
        for piece in pieces {
            let delta = match piece {
                Piece::Text(text) => Delta {
                    content: Some(text),
                    ..Delta::default()
                },
                Piece::Call(call) => {
                    let state = self.choice(index, out);
                    let call = tool_call(call, Some(state.calls));
                    state.calls += 1;
                    Delta {
                        tool_calls: Some(vec![call]),
                        ..Delta::default()
                    }
                }
            };
            out.push(self.delta(index, delta, None));
        }
    }
}

impl Chunks for ChatStream {
    fn event(&mut self, event: Event, out: &mut Vec<Frame>) {
        match event {
            Event::Decided(decision) => {
                let decision = DecisionWire::from(decision);
                out.push(self.note(0, ChunkNote::Decision { decision }));
            }
            Event::Logprob { stream, logprob } => {
                let app = self.app.clone();
                self.choice(stream, out).logprobs.push(&app, &logprob);
            }
            Event::Reasoning { stream, text } => {
                self.choice(stream, out);
                let delta = Delta {
                    reasoning_content: Some(text.clone()),
                    reasoning: Some(text),
                    ..Delta::default()
                };
                out.push(self.delta(stream, delta, None));
            }
            Event::Content { stream, text } => {
                let pieces = self.choice(stream, out).tools.push(&text);
                self.pieces(stream, pieces, out);
            }
            Event::ThoughtEnded {
                stream,
                tokens,
                end,
            } => {
                let thought_ended = ThoughtEnded {
                    index: stream,
                    tokens,
                    end: end.as_str(),
                };
                out.push(self.note(stream, ChunkNote::ThoughtEnded { thought_ended }));
            }
            Event::StreamFinished { stream, reason } => {
                let pieces = self.choice(stream, out).tools.finish();
                self.pieces(stream, pieces, out);
                let calls = self.choice(stream, out).calls > 0;
                let word = finish_word(reason, calls);
                out.push(self.delta(stream, Delta::default(), Some(word)));
            }
            Event::Scored { stream, score } => {
                let scored = Scored {
                    index: stream,
                    score,
                };
                out.push(self.note(stream, ChunkNote::Scored { scored }));
            }
            Event::Prefilled { .. } | Event::Answered(_) | Event::Failed(_) => {}
        }
    }

    fn done(&mut self, outcome: &Outcome, out: &mut Vec<Frame>) {
        if self.include_usage || self.asked.extended {
            let summary = Box::new(self.app.summary(outcome, &self.asked));
            out.push(Frame::data(&ChatChunk {
                usage: Some(Usage::from(&outcome.answer.usage)),
                timings: Some(LlamaTimings::from(&outcome.answer)),
                edgethink: Some(ChunkNote::Summary(summary)),
                ..self.chunk(Vec::new())
            }));
        }
        out.push(Frame::text("[DONE]"));
    }

    fn failed(&mut self, error: &ApiError, out: &mut Vec<Frame>) {
        out.push(Frame::data(&error.body()));
        out.push(Frame::text("[DONE]"));
    }
}
