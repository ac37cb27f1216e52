//! Held-out questions during a run, greedy: accuracy and length, before the first step, now and then, and after the last.

use std::{path::PathBuf, sync::Arc};

use edgethink_model::Tokenizer;
use serde_json::json;

use super::{
    ahead::{Drawer, Version},
    questions::{Prompt, Questions},
    recipe::GrpoRecipe,
    rollout::Draws,
    step::{Judged, answer_share, judge},
};
use crate::{
    error::TrainError,
    run::{Event, Progress, record::Records},
};

/// The questions of the evaluation; without a validation file it does nothing.
pub(crate) struct Evaluation<'a> {
    recipe: &'a GrpoRecipe,
    tokenizer: &'a Tokenizer,
    set: Option<(&'a Questions<'a>, Vec<Prompt>)>,
}

impl<'a> Evaluation<'a> {
    pub(crate) fn new(
        recipe: &'a GrpoRecipe,
        tokenizer: &'a Tokenizer,
        questions: Option<&'a Questions<'a>>,
    ) -> Result<Self, TrainError> {
        let set = match questions {
            Some(q) => Some((q, q.evaluation(recipe.run.eval_questions)?)),
            None => None,
        };
        Ok(Self {
            recipe,
            tokenizer,
            set,
        })
    }

    /// Has a version of the policy answer all questions and notes what came out, where there are records.
    pub(crate) fn run(
        &mut self,
        version: Arc<Version>,
        drawer: &mut Drawer,
        records: Option<&mut Records>,
        progress: &mut dyn Progress,
    ) -> Result<(), TrainError> {
        let Some((questions, prompts)) = &self.set else {
            return Ok(());
        };
        let draws = Draws {
            n: 1,
            temperature: 0.0,
            cap: self.recipe.rollout.max_completion_tokens,
            seed: 0,
        };
        let step = version.number;
        let answers = drawer.prompts(version, prompts.clone(), draws)?;
        let Some(records) = records else {
            return Ok(());
        };
        let judged = prompts
            .iter()
            .zip(answers)
            .flat_map(|(prompt, answers)| answers.into_iter().map(move |a| (prompt, a)))
            .map(|(prompt, completion)| {
                let answer = &questions.list[prompt.question].answer;
                judge(
                    self.recipe,
                    self.tokenizer,
                    completion,
                    prompt.budget,
                    answer,
                )
            })
            .collect::<Result<Vec<Judged>, _>>()?;
        let n = judged.len().max(1) as f64;
        let mean = |of: &dyn Fn(&Judged) -> f64| judged.iter().map(of).sum::<f64>() / n;
        let accuracy = mean(&|j| f64::from(u8::from(j.correct)));
        let mean_length = mean(&|j| j.completion.tokens.len() as f64);
        let answer_share = answer_share(judged.iter());
        records.note(
            step,
            &[
                ("eval_accuracy", accuracy),
                ("eval_reward", mean(&|j| f64::from(j.reward))),
                ("eval_completions/mean_length", mean_length),
                (
                    "eval_completions/mean_answer_length",
                    mean(&|j| j.answer_tokens as f64),
                ),
                ("eval_completions/answer_share", answer_share),
                (
                    "eval_completions/clipped_ratio",
                    mean(&|j| f64::from(u8::from(!j.completion.ended))),
                ),
            ],
        )?;
        let lengths: Vec<usize> = judged.iter().map(|j| j.completion.tokens.len()).collect();
        let path = lengths_file(self.recipe, step);
        let text = format!("{}\n", json!({"step": step, "lengths": lengths}));
        std::fs::write(&path, text).map_err(|source| TrainError::Write { path, source })?;
        progress.event(&Event::Answered {
            step,
            accuracy,
            mean_length,
            answer_share,
        });
        Ok(())
    }
}

/// Where the lengths of an evaluation's answers stand: those before the run, and the newest.
fn lengths_file(recipe: &GrpoRecipe, step: u64) -> PathBuf {
    let name = if step == 0 {
        "lengths-before.json"
    } else {
        "lengths-after.json"
    };
    recipe.output_dir.join(name)
}
