//! A batch of completions as the trainer sees it: which are learnt from, their tokens, and what each token weighs.

use super::{
    objective::{Term, Token, normaliser},
    questions::Prompt,
    recipe::ObjectiveRecipe,
    rollout::Completion,
};
use crate::{data::Dataset, ops::Score};

/// The completions of a step that are learnt from.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Prompts with completions; the weights are those of the completions' tokens.
    pub set: Dataset,
    /// Advantage of each example.
    pub advantages: Vec<f32>,
    /// Tokens of each example's completion.
    pub lengths: Vec<usize>,
    /// Log-probability of each completion token when it was drawn, one example after the other.
    pub sampled: Vec<f32>,
}

impl Batch {
    /// Adds a completion.
    pub(crate) fn push(
        &mut self,
        prompt: &Prompt,
        completion: &Completion,
        advantage: f32,
        adapter_from: usize,
    ) {
        let tokens: Vec<u32> = [&prompt.tokens[..], &completion.tokens].concat();
        let weights = (0..tokens.len()).map(|i| f32::from(u8::from(i >= prompt.tokens.len())));
        self.set.push(&tokens, weights, adapter_from);
        self.advantages.push(advantage);
        self.lengths.push(completion.tokens.len());
        self.sampled.extend_from_slice(&completion.logprobs);
    }

    /// All examples.
    pub(crate) fn examples(&self) -> Vec<usize> {
        (0..self.advantages.len()).collect()
    }

    /// Gives each completion token the weight of its term, and returns the terms with the loss. `now`, `old` and `reference` are the
    /// trainer's scores of all completion tokens, one example after the other.
    pub(crate) fn weigh(
        &self,
        now: &[Score],
        old: &[Score],
        reference: &[Score],
        recipe: &ObjectiveRecipe,
        cap: usize,
    ) -> (Dataset, Vec<Term>, f64) {
        let factors = normaliser(recipe.loss, &self.lengths, cap);
        let mut set = self.set.clone();
        let mut terms = Vec::with_capacity(now.len());
        let (mut at, mut loss) = (0, 0.0);
        for (index, example) in self.set.examples.iter().enumerate() {
            let (length, factor) = (self.lengths[index], factors[index]);
            let end = example.start + example.len;
            for weight in &mut set.weights[end - length..end] {
                let token = Token {
                    now: now[at].logprob,
                    old: old[at].logprob,
                    sampled: self.sampled[at],
                    reference: reference[at].logprob,
                };
                let term = token.term(self.advantages[index], recipe);
                loss += f64::from(factor * term.loss);
                *weight = factor * term.weight;
                terms.push(term);
                at += 1;
            }
        }
        (set, terms, loss)
    }
}
