//! One step: completions drawn and judged, then learnt from.

use edgethink_model::Tokenizer;

use super::{
    batch::Batch,
    guard::Seen,
    objective::{NO_SIGNAL, Term, advantages, deviation},
    policy::Policy,
    questions::{Prompt, Questions},
    recipe::GrpoRecipe,
    reward::Outcome,
    rollout::{Completion, Draws, RolloutBackend, ServerCount},
};
use crate::{
    base_model::NamedTensors,
    device::Device,
    error::TrainError,
    gradient,
    net::{Slots, Spec},
    ops::Score,
    optimizer::{self, AdamW},
    params::{Param, generator},
    process_group::Line,
    run::{Batcher, Lanes, Side},
};

/// A completion and what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    pub completion: Completion,
    pub text: String,
    pub correct: bool,
    /// Tokens of the visible answer.
    pub answer_tokens: usize,
    /// Each reward of the recipe, before its weight.
    pub rewards: Vec<f64>,
    /// Their weighted sum.
    pub reward: f32,
}

/// Share of the tokens of completions that stands after the thought.
pub(crate) fn answer_share<'a>(completions: impl Iterator<Item = &'a Judged>) -> f64 {
    let (mut answers, mut all) = (0, 0);
    for judged in completions {
        answers += judged.answer_tokens;
        all += judged.completion.tokens.len();
    }
    answers as f64 / all.max(1) as f64
}

/// The completions of one prompt.
#[derive(Debug)]
pub(crate) struct Group {
    pub prompt: Prompt,
    pub members: Vec<Judged>,
    /// Advantage of each; all zero without signal.
    pub advantages: Vec<f32>,
}

/// Everything that was drawn for a step.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub groups: Vec<Group>,
    /// Names of the rewards.
    pub names: Vec<&'static str>,
    /// Place in the stream of questions after it.
    pub next: u64,
    /// Version of the policy that drew them.
    pub version: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// The servers that drew them, if servers did.
    pub servers: Option<ServerCount>,
    cap: usize,
    mask_truncated: bool,
}

/// Judges a completion by the recipe's rewards.
pub(crate) fn judge(
    recipe: &GrpoRecipe,
    tokenizer: &Tokenizer,
    completion: Completion,
    budget: usize,
    answer: &str,
) -> Result<Judged, TrainError> {
    let text = tokenizer
        .decode(&completion.tokens, true)
        .map_err(TrainError::engine)?;
    // An unclosed thought has no answer.
    let visible = edgethink_grader::visible(&text);
    let answer_tokens = match visible {
        Some(visible) => tokenizer
            .encode(visible, false)
            .map_err(TrainError::engine)?
            .len(),
        None => 0,
    };
    let outcome = Outcome {
        correct: completion.ended && edgethink_grader::is_correct(&text, answer),
        tokens: completion.tokens.len(),
        budget,
        cap: recipe.rollout.max_completion_tokens,
    };
    let rewards: Vec<f64> = recipe.reward.iter().map(|r| r.of(&outcome)).collect();
    let sum: f64 = rewards
        .iter()
        .zip(&recipe.reward)
        .map(|(value, reward)| value * reward.weight())
        .sum();
    Ok(Judged {
        completion,
        text,
        correct: outcome.correct,
        answer_tokens,
        rewards,
        reward: sum as f32,
    })
}

/// Draws the completions of a step by `version` of the policy, which the backend has in place. With resampling, further questions replace groups without signal.
pub(crate) fn draw(
    recipe: &GrpoRecipe,
    tokenizer: &Tokenizer,
    questions: &Questions<'_>,
    backend: &mut dyn RolloutBackend,
    version: u64,
    from: u64,
) -> Result<Drawn, TrainError> {
    use rand::Rng;
    let rollout = &recipe.rollout;
    let mut drawn = Drawn {
        groups: Vec::new(),
        names: recipe.reward.iter().map(|r| r.name()).collect(),
        next: from,
        version,
        seconds: 0.0,
        servers: None,
        cap: rollout.max_completion_tokens,
        mask_truncated: recipe.objective.mask_truncated,
    };
    for _ in 0..=rollout.resample {
        let wanted = rollout.questions_per_step.saturating_sub(drawn.signals());
        if wanted == 0 {
            break;
        }
        let prompts = questions.prompts(recipe.seed, drawn.next, wanted)?;
        let draws = Draws {
            n: rollout.group,
            temperature: rollout.temperature,
            cap: rollout.max_completion_tokens,
            seed: generator(recipe.seed, &format!("completions {}", drawn.next)).random(),
        };
        drawn.next += wanted as u64;
        let groups = backend.draw(&prompts, draws)?;
        let before = drawn.servers.unwrap_or_default().retried;
        drawn.servers = backend.servers().map(|count| ServerCount {
            retried: before + count.retried,
            ..count
        });
        for (prompt, completions) in prompts.into_iter().zip(groups) {
            let answer = &questions.list[prompt.question].answer;
            let members = completions
                .into_iter()
                .map(|c| Completion { version, ..c })
                .map(|c| judge(recipe, tokenizer, c, prompt.budget, answer))
                .collect::<Result<Vec<_>, _>>()?;
            let rewards: Vec<f32> = members.iter().map(|m| m.reward).collect();
            drawn.groups.push(Group {
                advantages: advantages(&rewards, recipe.objective.scale_rewards),
                prompt,
                members,
            });
        }
    }
    Ok(drawn)
}

impl Group {
    fn rewards(&self) -> Vec<f32> {
        self.members.iter().map(|m| m.reward).collect()
    }

    pub(crate) fn deviation(&self) -> f64 {
        deviation(&self.rewards())
    }
}

impl Drawn {
    /// Groups with something to learn from.
    fn signals(&self) -> usize {
        let signal = self.groups.iter().filter(|g| g.deviation() >= NO_SIGNAL);
        signal.count()
    }

    /// All completions.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Judged> {
        self.groups.iter().flat_map(|g| &g.members)
    }

    /// Mean of something over all completions.
    pub(crate) fn mean(&self, of: impl Fn(&Judged) -> f64) -> f64 {
        let n = self.members().count().max(1) as f64;
        self.members().map(of).sum::<f64>() / n
    }

    pub(crate) fn accuracy(&self) -> f64 {
        self.mean(|m| f64::from(u8::from(m.correct)))
    }

    pub(crate) fn mean_length(&self) -> f64 {
        self.mean(|m| m.completion.tokens.len() as f64)
    }

    /// Mean tokens of the visible answers, of those completions that have one.
    pub(crate) fn answer_length(&self) -> Option<f64> {
        let answered = self.members().filter(|m| m.answer_tokens > 0).count();
        let tokens: usize = self.members().map(|m| m.answer_tokens).sum();
        (answered > 0).then(|| tokens as f64 / answered as f64)
    }

    pub(crate) fn clipped(&self) -> f64 {
        self.mean(|m| f64::from(u8::from(!m.completion.ended)))
    }

    pub(crate) fn no_signal(&self) -> f64 {
        1.0 - self.signals() as f64 / self.groups.len().max(1) as f64
    }

    /// What the guard looks at.
    pub(crate) fn seen(&self, learnt: &Learnt) -> Seen {
        Seen {
            best_reward: self
                .members()
                .map(|m| f64::from(m.reward))
                .fold(f64::NEG_INFINITY, f64::max),
            clipped: self.clipped(),
            no_signal: self.no_signal(),
            finite: learnt.finite,
            kl: learnt.kl,
            entropy: learnt.entropy,
            answer_length: self.answer_length(),
        }
    }

    /// The completions that are learnt from: those of groups with a signal, without the truncated ones if they are masked.
    fn batch(&self, policy: &Policy) -> Batch {
        let mut batch = Batch::default();
        for group in self.groups.iter().filter(|g| g.deviation() >= NO_SIGNAL) {
            let start = policy.start(&group.prompt.tokens);
            for (member, &advantage) in group.members.iter().zip(&group.advantages) {
                let completion = &member.completion;
                if completion.tokens.is_empty() || (self.mask_truncated && !completion.ended) {
                    continue;
                }
                batch.push(&group.prompt, completion, advantage, start);
            }
        }
        batch
    }
}

/// What a step of learning looked like.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Learnt {
    pub loss: f64,
    pub grad_norm: f64,
    pub finite: bool,
    /// Tokens of prompts and completions.
    pub tokens: usize,
    /// Mean k3 divergence from the reference, nats per token.
    pub kl: f64,
    /// Mean entropy, nats per token.
    pub entropy: f64,
    /// Share of tokens whose ratio was cut below, and above.
    pub clipped: [f64; 2],
    /// |trainer - sampler| of log-probabilities: mean and largest.
    pub gap: [f64; 2],
    /// Optimizer steps between the policy that drew and the one that learns.
    pub staleness: f64,
    /// exp(trainer - sampler): smallest, mean and largest.
    pub importance: [f64; 3],
}

/// The trainer's side: the frozen base, the reference, and what is kept between steps.
#[derive(Debug)]
pub(crate) struct Learner<'a> {
    recipe: &'a GrpoRecipe,
    reference: Vec<Param>,
    side: Side<'a>,
    lanes: Lanes,
    batcher: Batcher<'a>,
}

impl<'a> Learner<'a> {
    pub(crate) fn new(
        recipe: &'a GrpoRecipe,
        device: &'a Device,
        policy: &'a Policy,
        spec: &'a Spec,
        slots: &'a Slots,
        base: NamedTensors,
    ) -> Result<Self, TrainError> {
        let longest = recipe.data.max_prompt_tokens + recipe.rollout.max_completion_tokens;
        Ok(Self {
            recipe,
            reference: policy.params.clone(),
            side: Side::frozen(
                device,
                spec,
                slots,
                &policy.layout,
                base,
                (recipe.run.base_dtype, recipe.run.compute_dtype),
                recipe.run.gradient_checkpointing,
            ),
            lanes: Lanes::new(device, &policy.params)?,
            batcher: Batcher::at_temperature(spec, longest, recipe.rollout.temperature),
        })
    }

    /// Log-probabilities of all completion tokens under an adapter: each process computes those of its share.
    fn score(
        &mut self,
        params: &[Param],
        batch: &Batch,
        line: &mut Line,
    ) -> Result<Vec<Score>, TrainError> {
        let leaves = self.side.leaves(params);
        let pass = self.side.pass(0, 0, false);
        let all = batch.examples();
        let micros = batch
            .set
            .micro_batches(&all, self.recipe.run.micro_batch_tokens);
        let mine = &micros[line.share(micros.len())];
        let scores = self.lanes.map(mine, |range| {
            let micro = self.batcher.batch(&batch.set, &all[range.clone()]);
            gradient::score(&pass, &leaves, &micro)
        });
        self.side.keep(leaves);
        let scores = scores.into_iter().collect::<Result<Vec<_>, _>>()?;
        let bits = |score: &Score| [score.logprob.to_bits(), score.entropy.to_bits()];
        let all = line.concat(scores.iter().flatten().flat_map(bits).collect())?;
        let score = |pair: &[u32]| Score {
            logprob: f32::from_bits(pair[0]),
            entropy: f32::from_bits(pair[1]),
        };
        Ok(all.chunks_exact(2).map(score).collect())
    }

    /// Learns from a step's completions: one optimizer step, or as many as `iterations` says. All processes make the same.
    pub(crate) fn step(
        &mut self,
        drawn: &Drawn,
        policy: &Policy,
        params: &mut [Param],
        adamw: &mut AdamW,
        lr: f64,
        line: &mut Line,
    ) -> Result<Learnt, TrainError> {
        let batch = drawn.batch(policy);
        let mut learnt = Learnt {
            finite: true,
            tokens: batch.set.tokens.len(),
            importance: [1.0; 3],
            ..Learnt::default()
        };
        if batch.advantages.is_empty() {
            return Ok(learnt);
        }
        let old = self.score(params, &batch, line)?;
        if let Some(most) = self.recipe.max_mismatch() {
            mismatch(&old, &batch.sampled, most)?;
        }
        let reference = if self.recipe.objective.beta > 0.0 {
            let reference = std::mem::take(&mut self.reference);
            let scores = self.score(&reference, &batch, line);
            self.reference = reference;
            scores?
        } else {
            old.clone()
        };
        for iteration in 0..self.recipe.objective.iterations {
            let now = if iteration == 0 {
                old.clone()
            } else {
                self.score(params, &batch, line)?
            };
            let (set, terms, loss) =
                batch.weigh(&now, &old, &reference, &self.recipe.objective, drawn.cap);
            let leaves = self.side.leaves(params);
            let pass = self.side.pass(0, 0, false);
            let examples = batch.examples();
            let micros = set.learnt_batches(&examples, self.recipe.run.micro_batch_tokens);
            let mine = &micros[line.share(micros.len())];
            let (mut weighted, sums) =
                self.lanes
                    .accumulate(&pass, &leaves, &self.batcher, &set, mine)?;
            line.sum(&mut weighted, sums)?;
            self.side.keep(leaves);
            let norm = optimizer::global_norm(sums);
            learnt.note(loss, norm, &now, &terms);
            if !(loss.is_finite() && norm.is_finite()) {
                learnt.finite = false;
                break;
            }
            let clip = (self.recipe.optimizer.max_grad_norm / (norm + 1e-6)).min(1.0);
            adamw.step(&self.recipe.optimizer, lr, params, sums, clip as f32);
        }
        Ok(learnt)
    }
}

/// Refuses a batch whose log-probabilities are not those of the trainer, `most` nats per token on average.
fn mismatch(scores: &[Score], sampled: &[f32], most: f64) -> Result<(), TrainError> {
    let gaps = scores.iter().zip(sampled);
    let gaps = gaps.map(|(score, sampled)| f64::from((score.logprob - sampled).abs()));
    let (mut sum, mut largest) = (0.0, 0.0_f64);
    for gap in gaps {
        sum += gap;
        largest = largest.max(gap);
    }
    let mean = sum / sampled.len().max(1) as f64;
    if mean <= most {
        return Ok(());
    }
    Err(TrainError::Mismatch {
        mean,
        largest,
        most,
    })
}

impl Learnt {
    fn note(&mut self, loss: f64, norm: f64, now: &[Score], terms: &[Term]) {
        let n = terms.len().max(1) as f64;
        let mean = |of: &dyn Fn(&Term) -> f64| terms.iter().map(of).sum::<f64>() / n;
        self.loss = loss;
        self.grad_norm = norm;
        self.kl = mean(&|t| f64::from(t.kl));
        self.entropy = now.iter().map(|s| f64::from(s.entropy)).sum::<f64>() / n;
        self.clipped = [0, 1].map(|side| mean(&|t| f64::from(u8::from(t.clipped[side]))));
        let importance = |t: &Term| f64::from(t.importance);
        let gap = |t: &Term| importance(t).ln().abs();
        self.gap = [mean(&gap), terms.iter().map(gap).fold(0.0, f64::max)];
        self.importance = [
            terms.iter().map(importance).fold(f64::INFINITY, f64::min),
            mean(&importance),
            terms.iter().map(importance).fold(0.0, f64::max),
        ];
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(path)
    }

    const WORK: &str = "Ben = 17. Olga = Ben * 2 = 17 * 2 = 34. Finn = Olga * 3 = 34 * 3 = 102. Hugo = Finn - 11 = 102 - 11 = 91. \
                        Eva = Hugo + 7 = 91 + 7 = 98. ";
    const ANSWER: &str = "**Final answer:** 98";

    /// Completions written by hand, judged as the recipe of the pocket model does: wherever the thinking stands, it is charged in full, and
    /// the share of the tokens after the thought tells where it went.
    #[test]
    fn thinking_on_in_the_answer_gains_nothing() {
        let recipe = GrpoRecipe::load(&repository("recipes/pocket/grpo.toml")).unwrap();
        let tokenizer =
            Tokenizer::from_file(&repository("models/pocket/base/tokenizer.json")).unwrap();
        let judged = |text: &str| {
            let completion = Completion {
                tokens: tokenizer.encode(text, false).unwrap(),
                ended: true,
                ..Completion::default()
            };
            judge(&recipe, &tokenizer, completion, 96, "98").unwrap()
        };
        let long = WORK.repeat(3);
        let honest = judged(&format!("<think>\n{long}\n</think>\n\n{ANSWER}"));
        assert!(honest.correct && honest.completion.tokens.len() > 200);
        assert_eq!(honest.reward, 0.0);
        assert!(answer_share([&honest].into_iter()) < 0.1);
        for moved in [
            format!("<think>\n</think>\n\n{long}\n\n{ANSWER}"),
            format!("<think>\n{WORK}\n</think>\n\n{WORK}{WORK}\n\n{ANSWER}"),
            format!("{long}\n\n{ANSWER}"),
        ] {
            let moved = judged(&moved);
            assert!(moved.correct, "{}", moved.text);
            assert_eq!(moved.reward, 0.0, "{}", moved.text);
            assert!(answer_share([&moved].into_iter()) > 0.5, "{}", moved.text);
        }
        // A second end of the thought hides the thinking from the answer, not from the charge.
        let twice = judged(&format!("<think>\n</think>\n{long}\n</think>\n\n{ANSWER}"));
        assert_eq!(twice.reward, 0.0);
        let short = judged(&format!("<think>\n{WORK}\n</think>\n\n{ANSWER}"));
        assert!(short.correct && short.reward > 0.0, "{short:?}");
    }
}
