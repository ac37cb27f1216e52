//! One token of a stream, and what follows from it: text, the end of a thought, a closing phrase, a continuation, the end.

use std::time::Instant;

use edgethink_engine::{Request, RequestError};
use edgethink_grader::extract;

use crate::answer::{FinishReason, TokenLogprob};
use crate::error::ReasonError;
use crate::event::Event;
use crate::job::{Job, emit};
use crate::reasoner::{Reasoner, Route};
use crate::stream::{Kind, Piece};

/// A token as the engine gave it.
pub(crate) struct Drawn {
    pub(crate) token: u32,
    pub(crate) logprob: f32,
    pub(crate) drawn_logprob: f32,
    pub(crate) top: Vec<(u32, f32)>,
    pub(crate) forced: bool,
}

impl Reasoner {
    /// One token, and the rules that speak after it.
    pub(crate) fn drawn(
        &mut self,
        job: &mut Job,
        index: usize,
        drawn: &Drawn,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        let ended = self.ends(job.ignore_eos, drawn);
        let closes = Some(drawn.token) == job.prepared.thinker.close_token;
        if !drawn.forced
            && (ended || closes)
            && let Some(continuation) = job.lanes[index].stream.wants_more()
        {
            return self.go_on(job, index, &continuation);
        }
        self.token(job, index, drawn, out)?;
        let complete = self.keep_form(job, index, drawn.token, drawn.forced)?;
        if ended {
            job.lanes[index].stream.end_turn();
        }
        if !complete && !job.lanes[index].stream.stopped() {
            let forced = self.force_if_due(job, index)?;
            if forced || !ended {
                return Ok(());
            }
        }
        let (request, stream) = job.lanes[index].handle;
        // It may have ended with this very token.
        let _ = self.engine.cancel_stream(request, stream);
        self.finish(job, index, FinishReason::Stop, out)
    }

    fn token(
        &self,
        job: &mut Job,
        index: usize,
        drawn: &Drawn,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        let token = drawn.token;
        let thinker = &job.prepared.thinker;
        let (open, close) = (thinker.open_token, thinker.close_token);
        let now = Instant::now();
        job.first_token.get_or_insert(now);
        job.last_token = Some(now);
        let lane = &mut job.lanes[index];
        lane.logprob += f64::from(drawn.logprob);
        let (stream, detokenizer) = (&mut lane.stream, &mut lane.detokenizer);
        let kind = match token {
            _ if self.ends(job.ignore_eos, drawn) => Kind::End,
            _ if !stream.splits() => Kind::Text,
            token if Some(token) == open => Kind::Open,
            token if Some(token) == close => Kind::Close,
            _ => Kind::Text,
        };
        let text = match kind {
            Kind::Text => detokenizer.push(token)?,
            Kind::Open | Kind::Close | Kind::End => detokenizer.finish()?,
        };
        let logprob = if stream.keeps_logprobs() {
            Some(self.logprob(drawn, job.drawn_logprobs)?)
        } else {
            None
        };
        let ended = stream.token(
            Piece {
                token,
                kind,
                text: &text,
            },
            logprob,
        );
        emit(stream, index, ended, out);
        Ok(())
    }

    fn logprob(&self, drawn: &Drawn, of_the_draw: bool) -> Result<TokenLogprob, ReasonError> {
        let text = |id| self.tokenizer.decode(&[id], false);
        let top: Result<_, ReasonError> = drawn
            .top
            .iter()
            .map(|&(id, logp)| Ok((id, text(id)?, logp)))
            .collect();
        Ok(TokenLogprob {
            token: drawn.token,
            text: text(drawn.token)?,
            logp: if of_the_draw {
                drawn.drawn_logprob
            } else {
                drawn.logprob
            },
            top: top?,
            thought: false, // the stream knows
        })
    }

    /// The token ends the turn.
    fn ends(&self, ignore_eos: bool, drawn: &Drawn) -> bool {
        !ignore_eos && !drawn.forced && self.model.generation.eos_token_ids.contains(&drawn.token)
    }

    /// A stream is over; what it says is scored and counted.
    pub(crate) fn finish(
        &mut self,
        job: &mut Job,
        index: usize,
        reason: FinishReason,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        if job.lanes[index].stream.finished().is_some() {
            return Ok(());
        }
        self.end(job, index, reason, out)?;
        self.ask_score(job, index)?;
        self.settle(job, out)
    }

    /// Closes a stream's text.
    pub(crate) fn end(
        &self,
        job: &mut Job,
        index: usize,
        reason: FinishReason,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        let lane = &mut job.lanes[index];
        let stream = &mut lane.stream;
        stream.finish(&lane.detokenizer.finish()?, reason);
        emit(stream, index, None, out);
        let reason = stream.finished().unwrap_or(reason);
        lane.answer = match reason {
            FinishReason::Stop | FinishReason::Length => {
                extract(stream.content()).map(|found| found.text.to_owned())
            }
            FinishReason::Cancelled | FinishReason::Decided => None,
        };
        out.push(Event::StreamFinished {
            stream: index,
            reason,
        });
        Ok(())
    }

    /// Forces the closing phrase if a rule of the stream asks for it; returns whether it did.
    pub(crate) fn force_if_due(
        &mut self,
        job: &mut Job,
        index: usize,
    ) -> Result<bool, ReasonError> {
        let Some(text) = job.lanes[index].stream.wants_closing() else {
            return Ok(false);
        };
        let tokens = self.tokenizer.encode(&text, false)?;
        let (request, stream) = job.lanes[index].handle;
        match self.engine.force(request, stream, &tokens) {
            // It has just ended by itself.
            Err(RequestError::UnknownRequest { .. } | RequestError::UnknownStream { .. }) => {}
            done => done?,
        }
        self.answer_follows(job, index)?;
        Ok(true)
    }

    /// Takes the last token of a stream back and lets `continuation` follow instead.
    ///
    /// The engine cannot take a token back, so the stream goes on as a request of its own, whose prompt is all that stands; the
    /// prefix cache has its KV. Its draws stay a function of (seed, stream, position).
    fn go_on(
        &mut self,
        job: &mut Job,
        index: usize,
        continuation: &[u32],
    ) -> Result<(), ReasonError> {
        let (old, stream) = job.lanes[index].handle;
        // It may have ended with this very token.
        let _ = self.engine.cancel_stream(old, stream);
        let kept = job.lanes[index].stream.token_ids();
        let given = &job.prepared.request;
        let mut prompt = given.prompt.clone();
        prompt.extend_from_slice(kept);
        let request = self.engine.submit(Request {
            prompt,
            n: 1,
            max_tokens: given.max_tokens - kept.len(),
            first_stream: index,
            ..given.clone()
        })?;
        job.lanes[index].handle = (request, 0);
        let route = Route::Streams { first: index };
        self.routes.insert(request, (job.query, route));
        self.engine.force(request, 0, continuation)?;
        Ok(())
    }
}
