//! Keeps an answer within the form that was asked for, token by token ([`crate::grammar`]).
//!
//! The form begins behind the thought. Where a thought must be told from the answer, it is opened by force: a model that began with its
//! answer would write it unguided.

use edgethink_engine::RequestError;

use crate::error::ReasonError;
use crate::grammar::{Compiler, Grammar, Guide};
use crate::job::Job;
use crate::reasoner::Reasoner;
use crate::split::Place;

/// The form of one stream's answer.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    guide: Guide,
    /// The answer has begun.
    answering: bool,
}

impl Form {
    pub(crate) fn new(guide: Guide) -> Self {
        Self {
            guide,
            answering: false,
        }
    }
}

impl Reasoner {
    /// The beginning of an answer in the form `grammar`.
    pub(crate) fn guide(&mut self, grammar: &Grammar) -> Result<Guide, ReasonError> {
        let compiler = match self.compiler.take() {
            Some(compiler) => compiler,
            None => {
                let tags = self.own.open_token.into_iter().chain(self.own.close_token);
                Compiler::new(&self.tokenizer, &self.model.generation.eos_token_ids, tags)?
            }
        };
        self.compiler.insert(compiler).guide(grammar)
    }

    /// The next token that is not forced is the answer's first.
    pub(crate) fn answer_follows(
        &mut self,
        job: &mut Job,
        index: usize,
    ) -> Result<(), ReasonError> {
        if let Some(form) = &mut job.lanes[index].form {
            form.answering = true;
        }
        self.allow(job, index)
    }

    /// A stream begins: its answer does so at once, or behind a thought.
    pub(crate) fn begin_form(&mut self, job: &mut Job, index: usize) -> Result<(), ReasonError> {
        let rules = &job.prepared.rules;
        if job.lanes[index].form.is_none() {
            return Ok(());
        }
        if !job.prepared.thinks {
            return self.answer_follows(job, index);
        }
        if rules.inside {
            return Ok(());
        }
        let open = self
            .tokenizer
            .encode(&job.prepared.thinker.format.tags.open, false)?;
        let (request, stream) = job.lanes[index].handle;
        Ok(self.engine.force(request, stream, &open)?)
    }

    /// A token was taken: the next one of the answer must be one that its form allows. Returns whether the form is complete.
    pub(crate) fn keep_form(
        &mut self,
        job: &mut Job,
        index: usize,
        token: u32,
        forced: bool,
    ) -> Result<bool, ReasonError> {
        let lane = &mut job.lanes[index];
        let Some(form) = &mut lane.form else {
            return Ok(false);
        };
        if form.answering {
            if forced {
                return Ok(false);
            }
            form.guide.take(token)?;
        } else {
            if lane.stream.place() != Some(Place::Answer) {
                return Ok(false);
            }
            form.answering = true;
            // The token that ended the tag may have begun the answer.
            let begun = lane.stream.content().trim_start();
            for token in self.tokenizer.encode(begun, false)? {
                form.guide.take(token)?;
            }
            if begun.is_empty() {
                let blank = self
                    .tokenizer
                    .encode(lane.stream.blank_behind_thought(), false)?;
                let (request, stream) = lane.handle;
                self.engine.force(request, stream, &blank)?;
            }
        }
        if form.guide.complete() {
            return Ok(true);
        }
        self.allow(job, index)?;
        Ok(false)
    }

    fn allow(&mut self, job: &mut Job, index: usize) -> Result<(), ReasonError> {
        let lane = &mut job.lanes[index];
        if let Some(form) = &mut lane.form {
            let (request, stream) = lane.handle;
            let allowed = form.guide.allowed()?;
            match self.engine.allow(request, stream, Some(allowed)) {
                // It has just ended by itself.
                Err(RequestError::UnknownRequest { .. } | RequestError::UnknownStream { .. }) => {}
                done => done?,
            }
        }
        Ok(())
    }
}
