//! Owns the engine, runs any number of queries at once, and turns its tokens into text, events and answers.
//!
//! [`Reasoner::submit`] takes a query, [`Reasoner::step`] does the next piece of work for all of them and says what happened,
//! [`Reasoner::cancel`] ends one. [`Reasoner::answer`] does all that for a single query. One thread owns it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use edgethink_engine::{
    AdapterId, Engine, Event as EngineEvent, FinishReason as EngineFinish, Request, RequestError,
    RequestId,
};
use edgethink_model::tokenizer::Tokenizer;
use edgethink_model::{Adapter, Model};

use crate::answer::{Answer, FinishReason, TokenLogprob};
use crate::error::ReasonError;
use crate::event::{Event, QueryId};
use crate::format::ThoughtFormat;
use crate::job::{Job, emit};
use crate::prompt::{tag_token, template_can_think};
use crate::query::{Query, Think};
use crate::stream::{Kind, Piece};

/// A model, its engine, perhaps an adapter, and the queries in flight.
#[derive(Debug)]
pub struct Reasoner {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) engine: Engine,
    pub(crate) adapter: Option<(AdapterId, Adapter)>,
    pub(crate) format: ThoughtFormat,
    open_token: Option<u32>,
    pub(crate) close_token: Option<u32>,
    pub(crate) jobs: BTreeMap<QueryId, Job>,
    /// Whose a request of the engine is: the query, and the stream of it that the request's first one is.
    pub(crate) routes: BTreeMap<RequestId, (QueryId, usize)>,
    pub(crate) next_query: u64,
}

/// A token as the engine gave it.
struct Drawn {
    token: u32,
    logprob: f32,
    top: Vec<(u32, f32)>,
    forced: bool,
}

impl Reasoner {
    /// A reasoner on `engine`, which must run `model`; `adapter` is used by [`Think::On`].
    ///
    /// # Errors
    /// A model without tokenizer, an adapter that the engine refuses, a format that closes no thought.
    pub fn new(
        model: Arc<Model>,
        mut engine: Engine,
        adapter: Option<Adapter>,
        format: ThoughtFormat,
    ) -> Result<Self, ReasonError> {
        format.check()?;
        let tokenizer = model.tokenizer.clone().ok_or(ReasonError::NoTokenizer)?;
        let adapter = match adapter {
            Some(adapter) => Some((engine.load_adapter(&adapter)?, adapter)),
            None => None,
        };
        Ok(Self {
            open_token: tag_token(&tokenizer, &format.tags.open),
            close_token: tag_token(&tokenizer, &format.tags.close),
            model,
            tokenizer,
            engine,
            adapter,
            format,
            jobs: BTreeMap::new(),
            routes: BTreeMap::new(),
            next_query: 0,
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The engine, for its counters.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The adapter that thinks, if there is one.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref().map(|(_, adapter)| adapter)
    }

    /// How its thoughts are written.
    pub fn format(&self) -> &ThoughtFormat {
        &self.format
    }

    /// What the model does best on its own: thinks if it has an adapter, or a template with a switch for it.
    pub fn default_think(&self) -> Think {
        if self.adapter.is_some() || template_can_think(self.model.template.as_ref()) {
            Think::On
        } else {
            Think::Off
        }
    }

    /// Queries that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.jobs.len()
    }

    /// Does the next piece of work and returns what happened, in order.
    ///
    /// # Errors
    /// A broken engine; a single request that fails is an [`Event::Failed`].
    pub fn step(&mut self) -> Result<Vec<(QueryId, Event)>, ReasonError> {
        let mut out = Vec::new();
        for event in self.engine.step()? {
            let request = event.request();
            // Events of a query that was dropped after an error are of no interest.
            let Some(&(query, first)) = self.routes.get(&request) else {
                continue;
            };
            let Some(mut job) = self.jobs.remove(&query) else {
                continue;
            };
            let mut events = Vec::new();
            match self.event(&mut job, first, event, &mut events) {
                Ok(()) if job.streams.iter().all(|stream| stream.finished().is_some()) => {
                    self.routes.retain(|_, (owner, _)| *owner != query);
                    events.push(Event::Answered(Box::new(job.into_answer())));
                }
                Ok(()) => {
                    self.jobs.insert(query, job);
                }
                Err(error) => {
                    self.routes.retain(|_, (owner, _)| *owner != query);
                    self.cancel_requests(&job);
                    events.push(Event::Failed(error));
                }
            }
            out.extend(events.into_iter().map(|event| (query, event)));
        }
        Ok(out)
    }

    /// Ends a query; its streams finish as cancelled with what they have.
    pub fn cancel(&mut self, query: QueryId) {
        if let Some(job) = self.jobs.remove(&query) {
            self.cancel_requests(&job);
            self.jobs.insert(query, job);
        }
    }

    fn cancel_requests(&mut self, job: &Job) {
        for &(request, stream) in &job.handles {
            // A stream that has ended or failed is not known any more, and has nothing left to cancel.
            let _ = self.engine.cancel_stream(request, stream);
        }
    }

    /// Answers one query: gives every event to `on_event`, and ends early when `cancelled` says so.
    ///
    /// # Errors
    /// See [`ReasonError`].
    pub fn answer(
        &mut self,
        query: &Query,
        mut on_event: impl FnMut(&Event),
        cancelled: impl Fn() -> bool,
    ) -> Result<Answer, ReasonError> {
        let id = self.submit(query)?;
        let mut asked = false;
        loop {
            if !asked && cancelled() {
                asked = true;
                self.cancel(id);
            }
            for (query, event) in self.step()? {
                if query != id {
                    continue;
                }
                on_event(&event);
                match event {
                    Event::Answered(answer) => return Ok(*answer),
                    Event::Failed(error) => return Err(error),
                    _ => {}
                }
            }
        }
    }

    /// Takes an event of a request whose first stream is the query's stream `first`.
    fn event(
        &mut self,
        job: &mut Job,
        first: usize,
        event: EngineEvent,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        match event {
            // A continued stream is encoded again; the query's own prompt is the first.
            EngineEvent::Prefilled { .. } if job.prefilled.is_some() => Ok(()),
            EngineEvent::Prefilled {
                prompt_tokens,
                cached_tokens,
                ..
            } => {
                job.prefilled = Some(Instant::now());
                job.usage.cached_tokens = cached_tokens;
                out.push(Event::Prefilled {
                    prompt_tokens,
                    cached_tokens,
                });
                Ok(())
            }
            EngineEvent::Token {
                request,
                stream,
                token,
                logprob,
                top,
                forced,
                ..
            } => {
                let index = first + stream;
                if job.streams[index].finished().is_some()
                    || job.handles[index] != (request, stream)
                {
                    return Ok(()); // sampled before the stop string or the continuation was known
                }
                let drawn = Drawn {
                    token,
                    logprob,
                    top,
                    forced,
                };
                self.drawn(job, index, &drawn, out)
            }
            EngineEvent::Finished {
                request,
                stream,
                reason,
            } => {
                let index = first + stream;
                if job.handles[index] != (request, stream) {
                    return Ok(()); // it goes on as another request
                }
                let reason = match reason {
                    EngineFinish::Stop => FinishReason::Stop,
                    EngineFinish::Length | EngineFinish::Context => FinishReason::Length,
                    EngineFinish::Cancelled => FinishReason::Cancelled,
                };
                self.finish(job, index, reason, out)
            }
            EngineEvent::Failed { error, .. } => Err(error.into()),
            EngineEvent::Hidden { .. } => Ok(()),
        }
    }

    /// One token, and the rules that speak after it.
    fn drawn(
        &mut self,
        job: &mut Job,
        index: usize,
        drawn: &Drawn,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        let ended = self.ends(job.ignore_eos, drawn);
        let closes = Some(drawn.token) == self.close_token;
        if !drawn.forced
            && (ended || closes)
            && let Some(continuation) = job.streams[index].wants_more()
        {
            return self.go_on(job, index, &continuation);
        }
        self.token(job, index, drawn, out)?;
        if ended {
            job.streams[index].end_turn();
        }
        if !job.streams[index].stopped() {
            let forced = self.force_if_due(job, index)?;
            if forced || !ended {
                return Ok(());
            }
        }
        let (request, stream) = job.handles[index];
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
        let now = Instant::now();
        job.first_token.get_or_insert(now);
        job.last_token = Some(now);
        let stream = &mut job.streams[index];
        let detokenizer = &mut job.detokenizers[index];
        let kind = match token {
            _ if self.ends(job.ignore_eos, drawn) => Kind::End,
            _ if !stream.splits() => Kind::Text,
            token if Some(token) == self.open_token => Kind::Open,
            token if Some(token) == self.close_token => Kind::Close,
            _ => Kind::Text,
        };
        let text = match kind {
            Kind::Text => detokenizer.push(token)?,
            Kind::Open | Kind::Close | Kind::End => detokenizer.finish()?,
        };
        let logprob = if stream.keeps_logprobs() {
            Some(self.logprob(drawn)?)
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

    fn logprob(&self, drawn: &Drawn) -> Result<TokenLogprob, ReasonError> {
        let text = |id| self.tokenizer.decode(&[id], false);
        let top: Result<_, ReasonError> = drawn
            .top
            .iter()
            .map(|&(id, logp)| Ok((id, text(id)?, logp)))
            .collect();
        Ok(TokenLogprob {
            token: drawn.token,
            text: text(drawn.token)?,
            logp: drawn.logprob,
            top: top?,
        })
    }

    /// The token ends the turn.
    fn ends(&self, ignore_eos: bool, drawn: &Drawn) -> bool {
        !ignore_eos && !drawn.forced && self.model.generation.eos_token_ids.contains(&drawn.token)
    }

    fn finish(
        &self,
        job: &mut Job,
        index: usize,
        reason: FinishReason,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        let stream = &mut job.streams[index];
        if stream.finished().is_some() {
            return Ok(());
        }
        stream.finish(&job.detokenizers[index].finish()?, reason);
        emit(stream, index, None, out);
        out.push(Event::StreamFinished {
            stream: index,
            reason: stream.finished().unwrap_or(reason),
        });
        Ok(())
    }

    /// Forces the closing phrase if a rule of the stream asks for it; returns whether it did.
    pub(crate) fn force_if_due(
        &mut self,
        job: &mut Job,
        index: usize,
    ) -> Result<bool, ReasonError> {
        let Some(text) = job.streams[index].wants_closing(&self.format.closing) else {
            return Ok(false);
        };
        let tokens = self.tokenizer.encode(&text, false)?;
        let (request, stream) = job.handles[index];
        match self.engine.force(request, stream, &tokens) {
            // It has just ended by itself.
            Err(RequestError::UnknownRequest { .. } | RequestError::UnknownStream { .. }) => {}
            done => done?,
        }
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
        let (old, stream) = job.handles[index];
        // It may have ended with this very token.
        let _ = self.engine.cancel_stream(old, stream);
        let kept = job.streams[index].token_ids();
        let mut prompt = job.request.prompt.clone();
        prompt.extend_from_slice(kept);
        let request = self.engine.submit(Request {
            prompt,
            n: 1,
            max_tokens: job.request.max_tokens - kept.len(),
            first_stream: index,
            ..job.request.clone()
        })?;
        job.handles[index] = (request, 0);
        self.routes.insert(request, (job.query, index));
        self.engine.force(request, 0, continuation)?;
        Ok(())
    }
}
