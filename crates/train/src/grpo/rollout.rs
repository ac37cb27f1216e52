//! Completions drawn by our own engine: the groups of a step share their prompts' KV, and the adapter is put in place, never merged.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use edgethink_engine::{
    AdapterId, AdapterSpan, Engine, EngineOptions, Event, FinishReason, Isa, Request, Sampling,
};
use edgethink_model::{Adapter, Model};

use super::{questions::Prompt, recipe::RolloutRecipe};
use crate::error::TrainError;

/// One completion.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Completion {
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the distribution that it was drawn from.
    pub logprobs: Vec<f32>,
    /// It ended by itself, not at the cap.
    pub ended: bool,
}

/// The engine with the policy's adapter.
#[derive(Debug)]
pub(crate) struct Sampler {
    engine: Engine,
    adapter: AdapterId,
}

/// What to draw for each prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws {
    /// Completions of each prompt.
    pub n: usize,
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Tokens of a completion at most.
    pub cap: usize,
    /// Seed of the first prompt; the others count up.
    pub seed: u64,
}

impl Sampler {
    /// An engine on `model` with room for the recipe's streams.
    ///
    /// # Errors
    /// [`TrainError::Engine`], or [`TrainError::Unfit`] for a context that is too short.
    pub(crate) fn new(
        model: Arc<Model>,
        base: &Path,
        adapter: &Adapter,
        recipe: &RolloutRecipe,
        prompt_tokens: usize,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let context = model.config.max_position_embeddings;
        let longest = prompt_tokens + recipe.max_completion_tokens;
        if longest > context {
            return Err(TrainError::Unfit {
                path: base.to_owned(),
                problem: format!(
                    "has a context of {context} tokens, but [data] max_prompt_tokens and [rollout] max_completion_tokens need {longest}"
                ),
            });
        }
        let options = EngineOptions {
            threads,
            isa: Isa::detect(),
            weights: recipe.weights.into(),
            kv: recipe.kv.into(),
            kv_tokens: recipe.max_sequences * longest,
            max_sequences: recipe.max_sequences,
            ..EngineOptions::for_model(&model.config)
        };
        let mut engine = Engine::new(model, options).map_err(TrainError::engine)?;
        let adapter = engine.load_adapter(adapter).map_err(TrainError::engine)?;
        Ok(Self { engine, adapter })
    }

    /// Puts the trained adapter in place of the one before.
    ///
    /// # Errors
    /// [`TrainError::Engine`].
    pub(crate) fn update(&mut self, adapter: &Adapter) -> Result<(), TrainError> {
        self.engine
            .replace_adapter(self.adapter, adapter)
            .map_err(TrainError::engine)
    }

    /// Draws `draws.n` completions for each prompt. `start` tells where the adapter begins in a prompt.
    ///
    /// # Errors
    /// [`TrainError::Engine`], also for numbers that are not finite.
    pub(crate) fn draw(
        &mut self,
        prompts: &[Prompt],
        draws: Draws,
        start: impl Fn(&[u32]) -> usize,
    ) -> Result<Vec<Vec<Completion>>, TrainError> {
        let mut places = BTreeMap::new();
        let mut groups = vec![vec![Completion::default(); draws.n]; prompts.len()];
        for (at, prompt) in prompts.iter().enumerate() {
            let request = Request {
                adapter: Some(AdapterSpan::starting(self.adapter, start(&prompt.tokens))),
                n: draws.n,
                sampling: Sampling::temperature(draws.temperature),
                seed: draws.seed.wrapping_add(at as u64),
                ..Request::greedy(prompt.tokens.clone(), draws.cap)
            };
            let id = self.engine.submit(request).map_err(TrainError::engine)?;
            places.insert(id, at);
        }
        while !self.engine.idle() {
            for event in self.engine.step().map_err(TrainError::engine)? {
                let at = places.get(&event.request()).copied().unwrap_or_default();
                match event {
                    Event::Token {
                        stream,
                        token,
                        drawn_logprob,
                        ..
                    } => {
                        let completion = &mut groups[at][stream];
                        completion.tokens.push(token);
                        completion.logprobs.push(drawn_logprob);
                    }
                    Event::Finished { stream, reason, .. } => {
                        groups[at][stream].ended = reason == FinishReason::Stop;
                    }
                    Event::Failed { error, .. } => return Err(TrainError::engine(error)),
                    Event::Prefilled { .. } | Event::Hidden { .. } => {}
                }
            }
        }
        Ok(groups)
    }
}
