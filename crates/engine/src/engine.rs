//! The engine: one owner submits requests and calls [`Engine::step`] until it is idle.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use edgethink_engine::{Engine, EngineOptions, Event, Request};
//! # use edgethink_model::Model;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Arc::new(Model::load("models/pocket")?);
//! let options = EngineOptions::for_model(&model.config);
//! let mut engine = Engine::new(model, options)?;
//! engine.submit(Request::greedy(vec![1, 2, 3], 16))?;
//! while !engine.idle() {
//!     for event in engine.step()? {
//!         if let Event::Token { token, .. } = event {
//!             println!("{token}");
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use edgethink_model::{Adapter, Model};

use crate::active::Active;
use crate::adapters::AdapterSet;
use crate::error::{EngineError, RequestError};
use crate::mask::TokenMask;
use crate::options::EngineOptions;
use crate::profile::{Part, PartTime};
use crate::request::{AdapterId, AdapterSpan, Event, FinishReason, Request, RequestId};
use crate::runner::Runner;
use crate::scheduler::{Limits, Scheduler};
use crate::sequence::{OwnerSpan, Sequence};
use crate::stats::{Counters, EngineStats};

/// Streams of one request at most.
pub const MAX_STREAMS: usize = 1024;

/// A model with its KV, its adapters and the requests under way.
#[derive(Debug)]
pub struct Engine {
    pub(crate) model: Arc<Model>,
    pub(crate) options: EngineOptions,
    pub(crate) runner: Runner,
    pub(crate) scheduler: Scheduler,
    pub(crate) adapters: AdapterSet,
    pub(crate) requests: BTreeMap<u64, Active>,
    /// Events that happened outside a step.
    pub(crate) events: Vec<Event>,
    pub(crate) counters: Counters,
    next: u64,
}

impl Engine {
    /// Loads the weights into the form that the options ask for.
    ///
    /// # Errors
    /// [`EngineError`] for options out of range, weights that cannot be read or quantized, or a model that the kernels cannot run.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Result<Self, EngineError> {
        options.validate()?;
        let runner = Runner::new(&model, &options)?;
        let scheduler = Scheduler::new(Limits {
            blocks: options.blocks(),
            max_batch_tokens: options.max_batch_tokens,
            max_sequences: options.max_sequences,
            prefix_cache: options.prefix_cache,
        });
        Ok(Engine {
            model,
            options,
            runner,
            scheduler,
            adapters: AdapterSet::default(),
            requests: BTreeMap::new(),
            events: Vec::new(),
            counters: Counters::default(),
            next: 0,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The options.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Tokens of prompt and completion that one stream can have: the model's context or the KV cache, whichever is smaller.
    pub fn context_tokens(&self) -> usize {
        self.model
            .config
            .max_position_embeddings
            .min(self.options.kv_tokens)
    }

    /// Measures from now on where the time of steps goes, or no longer does. Nothing else changes.
    pub fn profile(&mut self, on: bool) {
        self.runner.profile.switch(on);
    }

    /// What the parts of all steps took since the last call; nothing while no profile is measured.
    pub fn take_profile(&mut self) -> Vec<(Part, PartTime)> {
        self.runner.profile.take()
    }

    /// Loads an adapter. Two ids with the same content share KV.
    ///
    /// # Errors
    /// [`RequestError::AdapterShape`] if it does not fit the model, [`RequestError::AdapterWeights`] if it cannot be held as the options ask.
    pub fn load_adapter(&mut self, adapter: &Adapter) -> Result<AdapterId, RequestError> {
        self.adapters.load(adapter, &self.runner.base())
    }

    /// Puts other content under a loaded id: an adapter that is being trained. KV of the old content is not used for the new.
    ///
    /// # Errors
    /// [`RequestError::AdapterBusy`] while a request uses it, or as [`Engine::load_adapter`].
    pub fn replace_adapter(
        &mut self,
        id: AdapterId,
        adapter: &Adapter,
    ) -> Result<(), RequestError> {
        self.check_unused(id)?;
        self.adapters.replace(id, adapter, &self.runner.base())
    }

    /// Forgets an adapter.
    ///
    /// # Errors
    /// [`RequestError::UnknownAdapter`], or [`RequestError::AdapterBusy`] while a request uses it.
    pub fn unload_adapter(&mut self, id: AdapterId) -> Result<(), RequestError> {
        self.check_unused(id)?;
        self.adapters.unload(id)
    }

    fn check_unused(&self, id: AdapterId) -> Result<(), RequestError> {
        let user = self
            .requests
            .values()
            .find(|active| active.request.adapter.is_some_and(|span| span.id == id));
        user.map_or(Ok(()), |active| {
            Err(RequestError::AdapterBusy {
                id,
                request: active.id,
            })
        })
    }

    /// Takes a request. Everything that can be wrong with it is found here, before any work.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn submit(&mut self, request: Request) -> Result<RequestId, RequestError> {
        let span = self.check(&request)?;
        let id = RequestId(self.next);
        self.next += 1;
        let reusable = request
            .hidden
            .first(request.prompt.len())
            .unwrap_or(usize::MAX);
        let sequence = Sequence::new(request.prompt.clone(), span, reusable);
        let active = Active::new(
            id,
            request,
            self.context_tokens(),
            &self.model.generation.eos_token_ids,
        );
        self.scheduler.add(active.seq(0), sequence);
        self.requests.insert(id.0, active);
        Ok(id)
    }

    fn check(&self, request: &Request) -> Result<Option<OwnerSpan>, RequestError> {
        let prompt = request.prompt.len();
        if prompt == 0 {
            return Err(RequestError::EmptyPrompt);
        }
        let context = self.context_tokens();
        if prompt + request.max_tokens.min(1) > context {
            return Err(RequestError::ContextOverflow { prompt, context });
        }
        if request.n == 0 || request.n > MAX_STREAMS {
            return Err(RequestError::Streams {
                n: request.n,
                most: MAX_STREAMS,
            });
        }
        self.known(&request.prompt)?;
        request.sampling.validate(self.model.config.vocab_size)?;
        self.owner_span(request.adapter)
    }

    /// Refuses tokens that the model does not have.
    fn known(&self, tokens: &[u32]) -> Result<(), RequestError> {
        let vocab_size = self.model.config.vocab_size;
        let mut tokens = tokens.iter().enumerate();
        match tokens.find(|&(_, &token)| token as usize >= vocab_size) {
            Some((index, &token)) => Err(RequestError::Token {
                index,
                token,
                vocab_size,
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn owner_span(
        &self,
        adapter: Option<AdapterSpan>,
    ) -> Result<Option<OwnerSpan>, RequestError> {
        let Some(AdapterSpan { id, from, until }) = adapter else {
            return Ok(None);
        };
        Ok(Some(OwnerSpan {
            owner: self.adapters.owner(id)?,
            from,
            until,
        }))
    }

    /// Ends all streams of a request that still run, with [`FinishReason::Cancelled`] in the next step's events. Its blocks are free at
    /// once.
    ///
    /// # Errors
    /// [`RequestError::UnknownRequest`].
    pub fn cancel(&mut self, id: RequestId) -> Result<(), RequestError> {
        let active = self
            .requests
            .get(&id.0)
            .ok_or(RequestError::UnknownRequest { id })?;
        let live: Vec<usize> = (0..active.streams.len())
            .filter(|&s| !active.streams[s].done)
            .collect();
        live.into_iter()
            .try_for_each(|stream| self.cancel_stream(id, stream))
    }

    /// Ends one stream, as [`Engine::cancel`].
    ///
    /// # Errors
    /// [`RequestError::UnknownRequest`] or [`RequestError::UnknownStream`].
    pub fn cancel_stream(&mut self, id: RequestId, stream: usize) -> Result<(), RequestError> {
        self.running_stream(id, stream)?;
        let event = self.finish(id, stream, FinishReason::Cancelled);
        self.events.push(event);
        Ok(())
    }

    /// Makes the next tokens of a stream the given ones, as soon as it would sample; then sampling goes on. They are reported as forced
    /// tokens, count as its own, and end nothing by being stop tokens. Several calls add up.
    ///
    /// # Errors
    /// [`RequestError::UnknownRequest`], [`RequestError::UnknownStream`] or [`RequestError::Token`].
    pub fn force(
        &mut self,
        id: RequestId,
        stream: usize,
        tokens: &[u32],
    ) -> Result<(), RequestError> {
        self.known(tokens)?;
        self.running_stream(id, stream)?.forced.extend(tokens);
        Ok(())
    }

    /// Lets a stream choose from these tokens only, until the next call; `None` lifts it. Forced tokens are not asked. Tokens in the
    /// set keep their probabilities relative to each other.
    ///
    /// # Errors
    /// [`RequestError::UnknownRequest`] or [`RequestError::UnknownStream`].
    pub fn allow(
        &mut self,
        id: RequestId,
        stream: usize,
        tokens: Option<TokenMask>,
    ) -> Result<(), RequestError> {
        self.running_stream(id, stream)?.allowed = tokens;
        Ok(())
    }

    fn running_stream(
        &mut self,
        id: RequestId,
        stream: usize,
    ) -> Result<&mut crate::active::Stream, RequestError> {
        let active = self
            .requests
            .get_mut(&id.0)
            .ok_or(RequestError::UnknownRequest { id })?;
        active
            .streams
            .get_mut(stream)
            .filter(|s| !s.done)
            .ok_or(RequestError::UnknownStream { id, stream })
    }

    /// Marks a stream as ended, frees its blocks, and forgets the request with its last stream.
    pub(crate) fn finish(&mut self, id: RequestId, stream: usize, reason: FinishReason) -> Event {
        let active = self.requests.get_mut(&id.0).expect("the request is known");
        active.streams[stream].done = true;
        let live = active.live();
        // Before the fork, the sequence of stream 0 computes the prompt for all.
        if active.prefilled {
            let seq = active.seq(stream);
            self.scheduler.release(seq, true);
        } else if live == 0 {
            let seq = active.seq(0);
            self.scheduler.release(seq, true);
        }
        if live == 0 {
            self.requests.remove(&id.0);
        }
        Event::Finished {
            request: id,
            stream,
            reason,
        }
    }

    /// Ends a request with an error. What it computed is not kept.
    pub(crate) fn fail(&mut self, id: RequestId, error: RequestError) -> Event {
        let active = self.requests.remove(&id.0).expect("the request is known");
        for stream in 0..active.streams.len() {
            if self.scheduler.get(active.seq(stream)).is_some() {
                self.scheduler.release(active.seq(stream), false);
            }
        }
        Event::Failed { request: id, error }
    }

    /// Whether there is nothing to do and no event to fetch.
    pub fn idle(&self) -> bool {
        self.requests.is_empty() && self.events.is_empty()
    }

    /// Forgets all cached KV that no running request uses.
    pub fn clear_prefix_cache(&mut self) {
        self.scheduler.clear_cache();
    }

    /// Sizes and counts.
    pub fn stats(&self) -> EngineStats {
        let (running, waiting) = self.scheduler.counts();
        let pool = self.scheduler.pool();
        let kv_bytes_per_token = self.runner.kv.bytes_per_token();
        EngineStats {
            weights_bytes: self.runner.weights_bytes(),
            adapters_bytes: self.adapters.size_bytes(),
            kv_bytes_per_token,
            kv_bytes: kv_bytes_per_token * pool.total() * crate::block_pool::BLOCK_TOKENS,
            blocks_total: pool.total(),
            blocks_free: pool.free(),
            blocks_cached: self.scheduler.cached_blocks(),
            blocks_held: pool.total() - pool.free() - self.scheduler.idle_blocks(),
            running,
            waiting,
            preemptions: self.scheduler.preemptions(),
            counters: self.counters,
        }
    }

    /// Panics unless every block is accounted for. For tests.
    pub fn check_invariants(&self) {
        self.scheduler.check_invariants();
    }
}
