//! One query in flight: its streams, its counts and its times, and the answer that they become.

use std::time::Instant;

use edgethink_engine::{Request, RequestId};
use edgethink_model::tokenizer::Detokenizer;

use crate::answer::{AdapterUse, Answer, BudgetUse, ThoughtEnd, Timings, Usage};
use crate::event::{Event, QueryId};
use crate::split::Part;
use crate::stream::Stream;

/// Where a stream runs in the engine: the request, and the stream of it.
pub(crate) type Handle = (RequestId, usize);

/// A query in flight.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) query: QueryId,
    /// What was given to the engine; a continued stream is a request of its own.
    pub(crate) request: Request,
    /// Per stream: where its tokens come from.
    pub(crate) handles: Vec<Handle>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) detokenizers: Vec<Detokenizer>,
    pub(crate) ignore_eos: bool,
    pub(crate) adapter: AdapterUse,
    pub(crate) budget: Option<BudgetUse>,
    pub(crate) usage: Usage,
    pub(crate) submitted: Instant,
    pub(crate) prefilled: Option<Instant>,
    pub(crate) first_token: Option<Instant>,
    pub(crate) last_token: Option<Instant>,
}

impl Job {
    /// The final result; every stream has ended.
    pub(crate) fn into_answer(self) -> Answer {
        let now = Instant::now();
        let ms = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e3;
        let rate = |count: usize, ms: f64| {
            if count > 0 && ms > 0.0 {
                count as f64 * 1e3 / ms
            } else {
                0.0
            }
        };
        let n = self.streams.len();
        let choices: Vec<_> = self
            .streams
            .into_iter()
            .enumerate()
            .map(|(i, stream)| stream.into_choice(i))
            .collect();
        let mut usage = self.usage;
        usage.completion_tokens = choices.iter().map(|choice| choice.token_ids.len()).sum();
        usage.reasoning_tokens = choices.iter().map(|choice| choice.reasoning_tokens).sum();
        let decode = match (self.first_token, self.last_token) {
            (Some(first), Some(last)) => {
                rate(usage.completion_tokens.saturating_sub(n), ms(first, last))
            }
            _ => 0.0,
        };
        let fresh = usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens);
        Answer {
            budget: self.budget,
            usage,
            timings: Timings {
                ttft_ms: self.first_token.map_or(0.0, |at| ms(self.submitted, at)),
                prefill_tps: self
                    .prefilled
                    .map_or(0.0, |at| rate(fresh, ms(self.submitted, at))),
                decode_tps: decode,
                total_ms: ms(self.submitted, now),
            },
            adapter: self.adapter,
            choices,
        }
    }
}

/// Turns what the stream found into events.
pub(crate) fn emit(stream: &mut Stream, index: usize, ended: Option<usize>, out: &mut Vec<Event>) {
    let mut ended = ended;
    let end = stream.closed().unwrap_or(ThoughtEnd::Model);
    for part in stream.take() {
        match part {
            Part::Reasoning(text) => out.push(Event::Reasoning {
                stream: index,
                text,
            }),
            Part::Content(text) => {
                if let Some(tokens) = ended.take() {
                    out.push(Event::ThoughtEnded {
                        stream: index,
                        tokens,
                        end,
                    });
                }
                out.push(Event::Content {
                    stream: index,
                    text,
                });
            }
        }
    }
    if let Some(tokens) = ended {
        out.push(Event::ThoughtEnded {
            stream: index,
            tokens,
            end,
        });
    }
}
