//! Owns the engine, runs any number of queries at once, and turns its tokens into text, events and answers.
//!
//! [`Reasoner::submit`] takes a query, [`Reasoner::step`] does the next piece of work for all of them and says what happened,
//! [`Reasoner::cancel`] ends one. [`Reasoner::answer`] does all that for a single query. One thread owns it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use edgethink_engine::{Engine, Event as EngineEvent, FinishReason as EngineFinish, RequestId};
use edgethink_model::tokenizer::Tokenizer;
use edgethink_model::{Adapter, Model};

use crate::answer::{Answer, FinishReason};
use crate::decide::Switching;
use crate::drive::Drawn;
use crate::error::ReasonError;
use crate::event::{Event, QueryId};
use crate::format::ThoughtFormat;
use crate::grammar::Compiler;
use crate::job::Job;
use crate::prompt::template_can_think;
use crate::query::{Query, Think};
use crate::switcher::Switcher;
use crate::thinker::Thinker;
use crate::verifier::{GenRm, Verifier, VerifierHead};

/// A model, its engine, perhaps an adapter, and the queries in flight.
#[derive(Debug)]
pub struct Reasoner {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) engine: Engine,
    pub(crate) own: Arc<Thinker>,
    pub(crate) named: BTreeMap<String, Arc<Thinker>>,
    /// Unloaded, but queries still run with them.
    pub(crate) retired: Vec<Arc<Thinker>>,
    /// Made with the first grammar.
    pub(crate) compiler: Option<Compiler>,
    pub(crate) jobs: BTreeMap<QueryId, Job>,
    /// Whose a request of the engine is, and what it is for.
    pub(crate) routes: BTreeMap<RequestId, (QueryId, Route)>,
    pub(crate) switching: Option<Switching>,
    pub(crate) verifier: Option<Verifier>,
    pub(crate) genrm: Verifier,
    pub(crate) next_query: u64,
}

/// What a request of the engine is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Route {
    /// Its streams are the query's, from `first` on.
    Streams { first: usize },
    /// It scores the answer of a stream.
    Score { stream: usize },
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
        let tokenizer = model.tokenizer.clone().ok_or(ReasonError::NoTokenizer)?;
        let own = Thinker::new(&mut engine, &tokenizer, adapter, format)?;
        Ok(Self {
            own: Arc::new(own),
            named: BTreeMap::new(),
            retired: Vec::new(),
            compiler: None,
            genrm: Verifier::GenRm(GenRm::new(&model)?),
            model,
            tokenizer,
            engine,
            jobs: BTreeMap::new(),
            routes: BTreeMap::new(),
            switching: None,
            verifier: None,
            next_query: 0,
        })
    }

    /// With a switcher, for [`Think::Auto`].
    #[must_use]
    pub fn with_switcher(mut self, switcher: Switcher) -> Self {
        self.switching = Some(Switching::new(switcher));
        self
    }

    /// With a verifier, for [`crate::Scoring::Verifier`].
    #[must_use]
    pub fn with_verifier(mut self, head: VerifierHead) -> Self {
        self.verifier = Some(Verifier::Head(head));
        self
    }

    /// The switcher, if there is one.
    pub fn switcher(&self) -> Option<&Switcher> {
        self.switching.as_ref().map(|switching| &switching.switcher)
    }

    /// The verifier, if there is one.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
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
        self.own.adapter()
    }

    /// How its thoughts are written.
    pub fn format(&self) -> &ThoughtFormat {
        &self.own.format
    }

    /// What the model does best on its own: decides if it has a switcher and both modes, thinks if it has an adapter or a template with a
    /// switch for it.
    pub fn default_think(&self) -> Think {
        if self.switching.is_some() {
            Think::Auto
        } else if self.own.adapter.is_some() || template_can_think(self.model.template.as_ref()) {
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
            let Some(&(query, route)) = self.routes.get(&request) else {
                continue;
            };
            let Some(mut job) = self.jobs.remove(&query) else {
                continue;
            };
            let mut events = Vec::new();
            match self.event(&mut job, route, event, &mut events) {
                Ok(()) if job.done() => {
                    self.routes.retain(|_, (owner, _)| *owner != query);
                    events.push(Event::Answered(Box::new(job.into_answer())));
                }
                Ok(()) => {
                    self.jobs.insert(query, job);
                }
                Err(error) => {
                    self.drop_lanes(&mut job);
                    events.push(Event::Failed(error));
                }
            }
            out.extend(events.into_iter().map(|event| (query, event)));
        }
        if !self.retired.is_empty() {
            self.forget_retired()?;
        }
        Ok(out)
    }

    /// Ends a query; its streams finish as cancelled with what they have.
    pub fn cancel(&mut self, query: QueryId) {
        let Some(job) = self.jobs.get_mut(&query) else {
            return;
        };
        // Nothing more is begun.
        job.n = job.lanes.len();
        job.judging.early_stop = None;
        job.undecided = None;
        let requests: Vec<RequestId> = self.requests(query);
        for request in requests {
            // What has just ended or failed has nothing left to cancel.
            let _ = self.engine.cancel(request);
        }
    }

    /// Ends the thoughts of a query that are open now, of one stream or of all; their answers follow. Returns how many there were.
    ///
    /// # Errors
    /// [`ReasonError::UnknownQuery`].
    pub fn end_thought(
        &mut self,
        query: QueryId,
        stream: Option<usize>,
    ) -> Result<usize, ReasonError> {
        let mut job = self.jobs.remove(&query).ok_or(ReasonError::UnknownQuery)?;
        let lanes = 0..job.lanes.len();
        let mut ended = 0;
        let done = lanes
            .filter(|&index| stream.is_none_or(|stream| stream == index))
            .try_for_each(|index| {
                job.lanes[index].stream.enough();
                ended += usize::from(self.force_if_due(&mut job, index)?);
                Ok(())
            });
        self.jobs.insert(query, job);
        done.map(|()| ended)
    }

    /// The requests of a query.
    fn requests(&self, query: QueryId) -> Vec<RequestId> {
        let own = |(&request, &(owner, _)): (&RequestId, &(QueryId, Route))| {
            (owner == query).then_some(request)
        };
        self.routes.iter().filter_map(own).collect()
    }

    /// Ends all requests of a query and forgets its streams; none of their events is read any more.
    pub(crate) fn drop_lanes(&mut self, job: &mut Job) {
        for request in self.requests(job.query) {
            self.routes.remove(&request);
            let _ = self.engine.cancel(request);
        }
        job.lanes.clear();
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

    /// Takes an event of a request of `job`.
    fn event(
        &mut self,
        job: &mut Job,
        route: Route,
        event: EngineEvent,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        match route {
            Route::Streams { first } => self.stream_event(job, first, event, out),
            Route::Score { stream } => self.score_event(job, stream, event, out),
        }
    }

    /// Takes an event of the streams `first..`.
    fn stream_event(
        &mut self,
        job: &mut Job,
        first: usize,
        event: EngineEvent,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        // A stream that goes on as another request is not spoken for by this one.
        let own = |job: &Job, index: usize, handle| {
            job.lanes
                .get(index)
                .is_some_and(|lane| lane.handle == handle)
        };
        match event {
            EngineEvent::Hidden {
                first_position,
                data,
                ..
            } => match &mut job.undecided {
                Some(undecided) => Ok(undecided.reading.take(first_position, &data)?),
                None => Ok(()),
            },
            // Streams that begin later or go on are encoded again; the query's own prompt is the first.
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
                self.decide(job, out)
            }
            EngineEvent::Token {
                request,
                stream,
                token,
                logprob,
                drawn_logprob,
                top,
                forced,
                ..
            } => {
                let index = first + stream;
                if !own(job, index, (request, stream))
                    || job.lanes[index].stream.finished().is_some()
                {
                    return Ok(()); // sampled before the stop string or the continuation was known
                }
                let drawn = Drawn {
                    token,
                    logprob,
                    drawn_logprob,
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
                if !own(job, index, (request, stream)) {
                    return Ok(());
                }
                let reason = match reason {
                    EngineFinish::Stop => FinishReason::Stop,
                    EngineFinish::Length | EngineFinish::Context => FinishReason::Length,
                    EngineFinish::Cancelled => FinishReason::Cancelled,
                };
                self.finish(job, index, reason, out)
            }
            EngineEvent::Failed { error, .. } => Err(error.into()),
        }
    }
}
