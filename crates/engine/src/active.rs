//! A request under way: its streams and what they still owe their caller.

use std::collections::VecDeque;

use crate::mask::TokenMask;
use crate::request::{FinishReason, HiddenStates, Request, RequestId, TokenId};
use crate::rng::Draws;
use crate::sampler::Occurrences;
use crate::sequence::SeqId;

/// State of one request.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) id: RequestId,
    pub(crate) request: Request,
    /// Tokens that a stream may have in all, prompt included: `max_tokens` or the context, whichever ends first.
    pub(crate) limit: usize,
    /// Whether the limit is the context.
    pub(crate) limit_is_context: bool,
    /// Tokens that end a stream.
    pub(crate) stop: Vec<TokenId>,
    pub(crate) streams: Vec<Stream>,
    /// Whether the prompt's KV is computed and the streams are forked.
    pub(crate) prefilled: bool,
    /// Tokens that the cache had when the prompt began.
    pub(crate) cached: Option<usize>,
}

/// State of one stream. Its tokens are the sequence's, in the scheduler.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) done: bool,
    /// Tokens, prompt included, that were reported. Tokens behind were forced and wait for their log-probability.
    pub(crate) scored: usize,
    /// Tokens to take instead of sampling.
    pub(crate) forced: VecDeque<TokenId>,
    /// The tokens that it may choose from; `None` for all.
    pub(crate) allowed: Option<TokenMask>,
    /// What penalties look at; empty if there are none.
    pub(crate) seen: Occurrences,
    pub(crate) draws: Draws,
    /// First position whose hidden state is still owed; `usize::MAX` for none.
    pub(crate) hidden_next: usize,
}

impl Active {
    pub(crate) fn new(id: RequestId, request: Request, context: usize, eos: &[TokenId]) -> Self {
        let prompt = request.prompt.len();
        let wanted = prompt.saturating_add(request.max_tokens);
        let mut stop = request.stop_tokens.clone();
        if !request.ignore_eos {
            stop.extend_from_slice(eos);
        }
        let seen = if request.sampling.has_penalties() {
            Occurrences::new(&request.prompt)
        } else {
            Occurrences::default()
        };
        let all = request.hidden == HiddenStates::All;
        let stream = |stream: usize| Stream {
            done: false,
            scored: prompt,
            forced: VecDeque::new(),
            allowed: None,
            seen: seen.clone(),
            draws: Draws::new(request.seed, request.first_stream.wrapping_add(stream)),
            hidden_next: match request.hidden.first(prompt) {
                Some(first) if stream == 0 => first,
                _ if all => prompt,
                _ => usize::MAX,
            },
        };
        let streams = (0..request.n).map(stream).collect();
        let (limit, limit_is_context) = (wanted.min(context), context < wanted);
        Active {
            id,
            request,
            limit,
            limit_is_context,
            stop,
            streams,
            prefilled: false,
            cached: None,
        }
    }

    /// The scheduler's name of a stream.
    pub(crate) fn seq(&self, stream: usize) -> SeqId {
        SeqId {
            request: self.id.0,
            stream: u32::try_from(stream).expect("streams are few"),
        }
    }

    /// Streams that still run.
    pub(crate) fn live(&self) -> usize {
        self.streams.iter().filter(|s| !s.done).count()
    }

    /// Positions before `end` whose hidden state a stream owes, once they are computed.
    pub(crate) fn hidden_end(&self, end: usize) -> usize {
        if self.request.hidden == HiddenStates::All {
            end
        } else {
            end.min(self.request.prompt.len())
        }
    }

    /// Whether a stream ends with the token that it just reported, and why.
    pub(crate) fn ends(&self, stream: usize, token: TokenId, forced: bool) -> Option<FinishReason> {
        if !forced && self.stop.contains(&token) {
            return Some(FinishReason::Stop);
        }
        if self.streams[stream].scored < self.limit {
            return None;
        }
        Some(if self.limit_is_context {
            FinishReason::Context
        } else {
            FinishReason::Length
        })
    }
}
