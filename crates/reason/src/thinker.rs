//! Who thinks: an adapter, or the base itself, and how its thoughts are written.
//!
//! A reasoner has one thinker of its own and any number of named ones, which can come and go while it runs.

use std::sync::Arc;

use edgethink_engine::{AdapterId, Engine, RequestError};
use edgethink_model::Adapter;
use edgethink_model::tokenizer::Tokenizer;

use crate::error::ReasonError;
use crate::format::ThoughtFormat;
use crate::prompt::tag_token;
use crate::reasoner::Reasoner;

/// An adapter in the engine, with the form of its thoughts.
#[derive(Debug)]
pub(crate) struct Thinker {
    pub(crate) adapter: Option<(AdapterId, Adapter)>,
    pub(crate) format: ThoughtFormat,
    /// The tokens of its tags, where they are single tokens.
    pub(crate) open_token: Option<u32>,
    pub(crate) close_token: Option<u32>,
}

impl Thinker {
    pub(crate) fn new(
        engine: &mut Engine,
        tokenizer: &Tokenizer,
        adapter: Option<Adapter>,
        format: ThoughtFormat,
    ) -> Result<Self, ReasonError> {
        format.check()?;
        let adapter = match adapter {
            Some(adapter) => Some((engine.load_adapter(&adapter)?, adapter)),
            None => None,
        };
        Ok(Self {
            adapter,
            open_token: tag_token(tokenizer, &format.tags.open),
            close_token: tag_token(tokenizer, &format.tags.close),
            format,
        })
    }

    pub(crate) fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref().map(|(_, adapter)| adapter)
    }
}

impl Reasoner {
    /// Loads an adapter that queries can name ([`crate::Query::adapter`]).
    ///
    /// # Errors
    /// [`ReasonError::AdapterExists`], an adapter that does not fit the model, a format that closes no thought.
    pub fn load_adapter(
        &mut self,
        name: &str,
        adapter: Adapter,
        format: ThoughtFormat,
    ) -> Result<(), ReasonError> {
        if self.named.contains_key(name) {
            return Err(ReasonError::AdapterExists { name: name.into() });
        }
        let thinker = Thinker::new(&mut self.engine, &self.tokenizer, Some(adapter), format)?;
        self.named.insert(name.to_owned(), Arc::new(thinker));
        Ok(())
    }

    /// Forgets a named adapter. Queries that run with it go on; its memory is given back when the last of them has ended.
    ///
    /// # Errors
    /// [`ReasonError::UnknownAdapter`].
    pub fn unload_adapter(&mut self, name: &str) -> Result<(), ReasonError> {
        let unknown = || ReasonError::UnknownAdapter { name: name.into() };
        let thinker = self.named.remove(name).ok_or_else(unknown)?;
        self.retired.push(thinker);
        self.forget_retired()
    }

    /// Puts an adapter in the place of the named one, or loads it where there is none. Queries that run go on with what they began with.
    ///
    /// # Errors
    /// As [`Reasoner::load_adapter`]; the old one stays then.
    pub fn replace_adapter(
        &mut self,
        name: &str,
        adapter: Adapter,
        format: ThoughtFormat,
    ) -> Result<(), ReasonError> {
        let thinker = Thinker::new(&mut self.engine, &self.tokenizer, Some(adapter), format)?;
        let old = self.named.insert(name.to_owned(), Arc::new(thinker));
        self.retired.extend(old);
        self.forget_retired()
    }

    /// Gives back the adapters that were unloaded and that no query uses any more.
    pub(crate) fn forget_retired(&mut self) -> Result<(), ReasonError> {
        let mut kept = Vec::new();
        for thinker in std::mem::take(&mut self.retired) {
            let idle = Arc::strong_count(&thinker) == 1;
            match &thinker.adapter {
                Some((id, _)) if idle => match self.engine.unload_adapter(*id) {
                    Err(RequestError::AdapterBusy { .. }) => kept.push(thinker),
                    done => done?,
                },
                _ if idle => {}
                _ => kept.push(thinker),
            }
        }
        self.retired = kept;
        Ok(())
    }

    /// The named adapters and how they write their thoughts, by name.
    pub fn adapters(&self) -> impl Iterator<Item = (&str, &Adapter, &ThoughtFormat)> {
        let named = self.named.iter();
        named.filter_map(|(name, thinker)| {
            Some((name.as_str(), thinker.adapter()?, &thinker.format))
        })
    }

    /// The thinker of this name, or the reasoner's own.
    pub(crate) fn thinker(&self, name: Option<&str>) -> Result<Arc<Thinker>, ReasonError> {
        let Some(name) = name else {
            return Ok(Arc::clone(&self.own));
        };
        let unknown = || ReasonError::UnknownAdapter { name: name.into() };
        Ok(Arc::clone(self.named.get(name).ok_or_else(unknown)?))
    }
}
