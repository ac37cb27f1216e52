//! Completions drawn by our own engine in this process: the groups of a step share their prompts' KV, and the adapter is put in place, never
//! merged.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use edgethink_engine::{
    AdapterId, AdapterSpan, Engine, EngineOptions, Event, FinishReason, Isa, Request, Sampling,
};
use edgethink_model::Model;

use super::{Completion, Draws, RolloutBackend};
use crate::{
    error::TrainError,
    grpo::{policy::Policy, questions::Prompt, recipe::RolloutRecipe},
    params::Param,
};

/// The engine with the policy's adapter.
#[derive(Debug)]
pub(crate) struct Sampler<'a> {
    policy: &'a Policy,
    engine: Engine,
    adapter: AdapterId,
    /// Version of the policy that is in place.
    version: u64,
}

impl<'a> Sampler<'a> {
    /// An engine on `model` with room for the recipe's streams, and `version` of the policy.
    ///
    /// # Errors
    /// [`TrainError::Engine`], or [`TrainError::Unfit`] for a context that is too short.
    pub(crate) fn new(
        model: Arc<Model>,
        base: &Path,
        policy: &'a Policy,
        (version, params): (u64, &[Param]),
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
        let adapter = engine
            .load_adapter(&policy.adapter(params)?)
            .map_err(TrainError::engine)?;
        Ok(Self {
            policy,
            engine,
            adapter,
            version,
        })
    }
}

impl RolloutBackend for Sampler<'_> {
    fn update(&mut self, version: u64, params: &[Param]) -> Result<(), TrainError> {
        if version == self.version {
            return Ok(());
        }
        self.version = version;
        self.engine
            .replace_adapter(self.adapter, &self.policy.adapter(params)?)
            .map_err(TrainError::engine)
    }

    fn draw(
        &mut self,
        prompts: &[Prompt],
        draws: Draws,
    ) -> Result<Vec<Vec<Completion>>, TrainError> {
        let mut places = BTreeMap::new();
        let mut groups = vec![vec![Completion::default(); draws.n]; prompts.len()];
        for (at, prompt) in prompts.iter().enumerate() {
            let request = Request {
                adapter: Some(AdapterSpan::starting(
                    self.adapter,
                    self.policy.start(&prompt.tokens),
                )),
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
    fn told(&self) -> String {
        "rollouts by the engine in this process".to_owned()
    }
}
