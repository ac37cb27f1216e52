//! Owns the engine, runs any number of queries at once, and turns its tokens into text, events and answers.
//!
//! [`Reasoner::submit`] takes a query, [`Reasoner::step`] does the next piece of work for all of them and says what happened,
//! [`Reasoner::cancel`] ends one. [`Reasoner::answer`] does all that for a single query. One thread owns it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use edgethink_engine::{
    AdapterId, AdapterSpan, Engine, Event as EngineEvent, FinishReason as EngineFinish, Request,
    RequestError, RequestId,
};
use edgethink_model::tokenizer::Tokenizer;
use edgethink_model::{Adapter, Model};

use crate::answer::{Answer, FinishReason, TokenLogprob, Usage};
use crate::budget::{BudgetPlan, DEFAULT_CLOSING};
use crate::error::ReasonError;
use crate::event::{Event, QueryId};
use crate::job::{Job, emit};
use crate::prompt::{encode, place_adapter, tag_token, template_can_think};
use crate::query::{Input, Query, Think};
use crate::split::Tags;
use crate::stream::{Kind, Piece, Stream, StreamRules};

/// How the model writes its thoughts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThoughtFormat {
    /// The thought's tags.
    pub tags: Tags,
    /// What is forced when the budget cuts a thought; should hold `tags.close`.
    pub closing: String,
}

impl Default for ThoughtFormat {
    fn default() -> Self {
        Self {
            tags: Tags::default(),
            closing: DEFAULT_CLOSING.to_owned(),
        }
    }
}

/// A model, its engine, perhaps an adapter, and the queries in flight.
#[derive(Debug)]
pub struct Reasoner {
    model: Arc<Model>,
    tokenizer: Tokenizer,
    engine: Engine,
    adapter: Option<(AdapterId, Adapter)>,
    format: ThoughtFormat,
    open_token: Option<u32>,
    close_token: Option<u32>,
    jobs: BTreeMap<RequestId, Job>,
    next_query: u64,
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
    /// A model without tokenizer, an adapter that the engine refuses.
    pub fn new(
        model: Arc<Model>,
        mut engine: Engine,
        adapter: Option<Adapter>,
        format: ThoughtFormat,
    ) -> Result<Self, ReasonError> {
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

    /// Takes a query; its events come from [`Reasoner::step`].
    ///
    /// # Errors
    /// A query that can have no answer: see [`ReasonError`]. Queries in flight are not affected.
    pub fn submit(&mut self, query: &Query) -> Result<QueryId, ReasonError> {
        query.check()?;
        let submitted = Instant::now();
        let prompt = encode(&self.model, &query.input, query.think, &self.format.tags)?;
        let split = !(matches!(query.input, Input::Raw(_)) && query.think == Think::Off);
        let room = self.room(prompt.tokens.len(), 1)?;
        let plan = match query.budget.filter(|_| query.think == Think::On) {
            None => None,
            Some(budget) => {
                let budget = budget.min(query.max_tokens.unwrap_or(usize::MAX));
                let closing = self.closing_tokens(prompt.inside_thought)?;
                let plan = BudgetPlan::new(budget, room, closing, query.answer_reserve);
                Some(plan.ok_or(self.no_room(prompt.tokens.len(), closing + 1))?)
            }
        };
        // Without a thought the budget is a plain limit.
        let limit = plan.map_or(query.budget.map_or(room, |budget| budget.max(1)), |plan| {
            plan.response_tokens
        });
        let limit = limit.min(room).min(query.max_tokens.unwrap_or(usize::MAX));
        let prompt_tokens = prompt.tokens.len();
        let rules = StreamRules {
            tags: split.then(|| self.format.tags.clone()),
            inside: prompt.inside_thought && query.think == Think::On,
            stops: query.stop.clone(),
            budget: plan,
            logprobs: query.top_logprobs.is_some(),
        };
        let (from, adapter) = place_adapter(self.adapter(), query.think, &prompt.tokens);
        let span = match (from, &self.adapter) {
            (Some(from), Some((id, _))) => Some(AdapterSpan { id: *id, from }),
            _ => None,
        };
        let request = Request {
            adapter: span,
            n: query.n,
            sampling: query.sampling.clone(),
            // With a budget the end of the turn is judged here: inside a thought it must not end the answer.
            ignore_eos: query.ignore_eos || plan.is_some(),
            seed: query.seed,
            top_logprobs: query.top_logprobs,
            ..Request::greedy(prompt.tokens, limit)
        };
        let request = self.engine.submit(request)?;
        let mut job = Job {
            query: QueryId(self.next_query),
            streams: (0..query.n).map(|_| Stream::new(&rules)).collect(),
            detokenizers: (0..query.n)
                .map(|_| self.tokenizer.detokenizer(true))
                .collect(),
            ignore_eos: query.ignore_eos,
            adapter,
            usage: Usage {
                prompt_tokens,
                ..Usage::default()
            },
            submitted,
            prefilled: None,
            first_token: None,
            last_token: None,
        };
        self.next_query += 1;
        for stream in 0..query.n {
            self.force_if_due(request, &mut job, stream)?;
        }
        let query = job.query;
        self.jobs.insert(request, job);
        Ok(query)
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
            let Some(mut job) = self.jobs.remove(&request) else {
                continue;
            };
            let query = job.query;
            let mut events = Vec::new();
            match self.event(request, &mut job, event, &mut events) {
                Ok(()) if job.streams.iter().all(|stream| stream.finished().is_some()) => {
                    events.push(Event::Answered(Box::new(job.into_answer())));
                }
                Ok(()) => {
                    self.jobs.insert(request, job);
                }
                Err(error) => {
                    // After a failure of its own the engine does not know the request any more.
                    let _ = self.engine.cancel(request);
                    events.push(Event::Failed(error));
                }
            }
            out.extend(events.into_iter().map(|event| (query, event)));
        }
        Ok(out)
    }

    /// Ends a query; its streams finish as cancelled with what they have.
    pub fn cancel(&mut self, query: QueryId) {
        let request = self.jobs.iter().find(|(_, job)| job.query == query);
        if let Some((&request, _)) = request {
            // A request that has just ended has nothing left to cancel.
            let _ = self.engine.cancel(request);
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

    fn event(
        &mut self,
        request: RequestId,
        job: &mut Job,
        event: EngineEvent,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        match event {
            EngineEvent::Prefilled {
                prompt_tokens,
                cached_tokens,
                ..
            } => {
                job.prefilled.get_or_insert_with(Instant::now);
                job.usage.cached_tokens = cached_tokens;
                out.push(Event::Prefilled {
                    prompt_tokens,
                    cached_tokens,
                });
                Ok(())
            }
            EngineEvent::Token {
                stream,
                token,
                logprob,
                top,
                forced,
                ..
            } => {
                if job.streams[stream].finished().is_some() {
                    return Ok(()); // sampled before the stop string was known
                }
                let drawn = Drawn {
                    token,
                    logprob,
                    top,
                    forced,
                };
                let ended = self.ends(job.ignore_eos, &drawn);
                self.token(job, stream, &drawn, out)?;
                if ended && job.streams[stream].must_answer() {
                    job.streams[stream].use_up();
                } else if ended || job.streams[stream].stopped() {
                    // It may have ended with this very token.
                    let _ = self.engine.cancel_stream(request, stream);
                    return self.finish(job, stream, FinishReason::Stop, out);
                }
                self.force_if_due(request, job, stream)
            }
            EngineEvent::Finished { stream, reason, .. } => {
                let reason = match reason {
                    EngineFinish::Stop => FinishReason::Stop,
                    EngineFinish::Length | EngineFinish::Context => FinishReason::Length,
                    EngineFinish::Cancelled => FinishReason::Cancelled,
                };
                self.finish(job, stream, reason, out)
            }
            EngineEvent::Failed { error, .. } => Err(error.into()),
            EngineEvent::Hidden { .. } => Ok(()),
        }
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
                forced: drawn.forced,
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

    /// Forces the closing phrase if the budget of the stream is used up.
    fn force_if_due(
        &mut self,
        request: RequestId,
        job: &mut Job,
        index: usize,
    ) -> Result<(), ReasonError> {
        if let Some(text) = job.streams[index].wants_closing(&self.format.closing) {
            let tokens = self.tokenizer.encode(&text, false)?;
            match self.engine.force(request, index, &tokens) {
                // It has just ended by itself.
                Err(RequestError::UnknownRequest { .. } | RequestError::UnknownStream { .. }) => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Tokens that forcing an answer takes at most.
    fn closing_tokens(&self, inside: bool) -> Result<usize, ReasonError> {
        let open = if inside {
            ""
        } else {
            self.format.tags.open.as_str()
        };
        Ok(self
            .tokenizer
            .encode(&format!("{open}{}", self.format.closing), false)?
            .len())
    }

    /// Tokens of the context behind the prompt, at least `needed`.
    fn room(&self, prompt: usize, needed: usize) -> Result<usize, ReasonError> {
        let room = self.engine.context_tokens().saturating_sub(prompt);
        if room < needed {
            return Err(self.no_room(prompt, needed));
        }
        Ok(room)
    }

    fn no_room(&self, prompt: usize, needed: usize) -> ReasonError {
        let context = self.engine.context_tokens();
        ReasonError::NoRoom {
            prompt,
            context,
            left: context.saturating_sub(prompt),
            needed,
        }
    }
}
