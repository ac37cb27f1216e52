//! What a run leaves to look at: metrics with TRL's names, tables of completions, and pictures.

use std::{collections::BTreeMap, fs, path::Path};

use edgethink_model::Tokenizer;
use serde_json::Value;

use super::{
    questions::Questions,
    step::{Drawn, Group, Judged, Learnt, answer_share},
};
use crate::{
    error::TrainError,
    run::{
        plot::{self, Panel},
        record::Records,
        table::{self, Column},
    },
};

/// Metrics of a step, by TRL's names (<https://huggingface.co/docs/trl/grpo_trainer#logged-metrics>).
type Metrics = BTreeMap<String, f64>;

impl Drawn {
    /// The metrics of a step.
    pub(crate) fn metrics(&self, learnt: &Learnt, lr: f64, tokens: u64, seconds: f64) -> Metrics {
        let lengths: Vec<f64> = self
            .members()
            .map(|m| m.completion.tokens.len() as f64)
            .collect();
        let ended: Vec<f64> = self
            .members()
            .filter(|m| m.completion.ended)
            .map(|m| m.completion.tokens.len() as f64)
            .collect();
        let groups = self.groups.len().max(1) as f64;
        let mut all: Vec<(String, f64)> = [
            ("loss", learnt.loss),
            ("grad_norm", learnt.grad_norm),
            ("learning_rate", lr),
            ("num_tokens", tokens as f64),
            ("step_time", seconds),
            ("rollout/seconds", self.seconds),
            ("rollout/staleness", learnt.staleness),
            ("reward", self.mean(|m| f64::from(m.reward))),
            (
                "reward_std",
                self.groups.iter().map(|g| g.deviation()).sum::<f64>() / groups,
            ),
            ("frac_reward_zero_std", self.no_signal()),
            ("accuracy", self.accuracy()),
            ("kl", learnt.kl),
            ("entropy", learnt.entropy),
            ("clip_ratio/low_mean", learnt.clipped[0]),
            ("clip_ratio/high_mean", learnt.clipped[1]),
            (
                "clip_ratio/region_mean",
                learnt.clipped[0] + learnt.clipped[1],
            ),
            ("completions/clipped_ratio", self.clipped()),
            (
                "completions/mean_answer_length",
                self.mean(|m| m.answer_tokens as f64),
            ),
            ("completions/answer_share", answer_share(self.members())),
            ("sampling/sampling_logp_difference/mean", learnt.gap[0]),
            ("sampling/sampling_logp_difference/max", learnt.gap[1]),
            (
                "sampling/importance_sampling_ratio/min",
                learnt.importance[0],
            ),
            (
                "sampling/importance_sampling_ratio/mean",
                learnt.importance[1],
            ),
            (
                "sampling/importance_sampling_ratio/max",
                learnt.importance[2],
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for (kind, list) in [("", &lengths), ("terminated_", &ended)] {
            let n = list.len().max(1) as f64;
            let least = list.iter().copied().reduce(f64::min).unwrap_or(0.0);
            let most = list.iter().copied().fold(0.0, f64::max);
            all.push((
                format!("completions/mean_{kind}length"),
                list.iter().sum::<f64>() / n,
            ));
            all.push((format!("completions/min_{kind}length"), least));
            all.push((format!("completions/max_{kind}length"), most));
        }
        if let Some(servers) = self.servers {
            all.push(("rollout/servers_live".to_owned(), servers.live as f64));
            all.push(("rollout/retried".to_owned(), servers.retried as f64));
        }
        for (i, name) in self.names.iter().enumerate() {
            all.push((format!("rewards/{name}/mean"), self.mean(|m| m.rewards[i])));
        }
        all.into_iter().collect()
    }
}

/// Means of the metrics since the last line of the log.
#[derive(Debug, Default)]
pub(crate) struct Window {
    sums: Metrics,
    steps: u64,
}

impl Window {
    pub(crate) fn add(&mut self, metrics: &Metrics) {
        for (name, value) in metrics {
            *self.sums.entry(name.clone()).or_default() += value;
        }
        // These are places, not amounts.
        for name in ["num_tokens", "learning_rate"] {
            let value = metrics.get(name).copied().unwrap_or(0.0);
            self.sums
                .insert(name.to_owned(), value * (self.steps + 1) as f64);
        }
        self.steps += 1;
    }

    pub(crate) fn note(&mut self, records: &mut Records, step: u64) -> Result<(), TrainError> {
        let n = self.steps.max(1) as f64;
        let values: Vec<(&str, f64)> = self
            .sums
            .iter()
            .map(|(name, sum)| (name.as_str(), sum / n))
            .collect();
        records.note(step, &values)?;
        *self = Self::default();
        Ok(())
    }
}

/// Writes the table of a step's completions, `completions/completions_<step>`, with TRL's columns first.
pub(crate) fn completions(
    dir: &Path,
    step: u64,
    drawn: &Drawn,
    questions: &Questions<'_>,
    tokenizer: &Tokenizer,
) -> Result<(), TrainError> {
    let mut prompts = Vec::new();
    for group in &drawn.groups {
        let prompt = tokenizer
            .decode(&group.prompt.tokens, false)
            .map_err(TrainError::engine)?;
        prompts.extend(vec![prompt; group.members.len()]);
    }
    let rows: Vec<(&Group, &Judged, f32)> = drawn
        .groups
        .iter()
        .flat_map(|g| {
            g.members
                .iter()
                .zip(&g.advantages)
                .map(move |(m, &a)| (g, m, a))
        })
        .collect();
    let text = |of: &dyn Fn(&Group, &Judged) -> String| {
        Column::Text(rows.iter().map(|(g, m, _)| of(g, m)).collect())
    };
    let integer = |of: &dyn Fn(&Group, &Judged) -> usize| {
        Column::Integer(rows.iter().map(|(g, m, _)| of(g, m) as i64).collect())
    };
    let number =
        |of: &dyn Fn(&Judged) -> f64| Column::Number(rows.iter().map(|(_, m, _)| of(m)).collect());
    let flag = |of: &dyn Fn(&Group, &Judged) -> bool| {
        Column::Flag(rows.iter().map(|(g, m, _)| of(g, m)).collect())
    };
    let advantages = rows.iter().map(|(.., advantage)| f64::from(*advantage));
    let mut columns = vec![
        ("step", integer(&|_, _| step as usize)),
        ("prompt", Column::Text(prompts)),
        ("completion", text(&|_, m| m.text.clone())),
    ];
    for (i, name) in drawn.names.iter().enumerate() {
        columns.push((name, number(&|m| m.rewards[i])));
    }
    columns.extend([
        ("advantage", Column::Number(advantages.collect())),
        ("reward", number(&|m| f64::from(m.reward))),
        (
            "answer",
            text(&|g, _| questions.list[g.prompt.question].answer.clone()),
        ),
        ("correct", flag(&|_, m| m.correct)),
        ("ended", flag(&|_, m| m.completion.ended)),
        ("budget", integer(&|g, _| g.prompt.budget)),
        ("budget_named", flag(&|g, _| g.prompt.named)),
        ("tokens", integer(&|_, m| m.completion.tokens.len())),
        ("answer_tokens", integer(&|_, m| m.answer_tokens)),
        (
            "policy_version",
            integer(&|_, m| usize::try_from(m.completion.version).unwrap_or(usize::MAX)),
        ),
    ]);
    let name = format!("completions_{step:05}");
    table::write(&dir.join("completions"), &name, &columns)?;
    Ok(())
}

/// Draws the course of the run and, once both are known, the lengths before and after (the paper's Fig. 4 and 5).
pub(crate) fn draw(dir: &Path) -> Result<(), TrainError> {
    plot::curves(
        dir,
        "training.svg",
        &[
            Panel::new(
                "reward",
                &[("reward", "training"), ("eval_reward", "held out")],
            ),
            Panel::new(
                "accuracy",
                &[("accuracy", "training"), ("eval_accuracy", "held out")],
            ),
            Panel::new(
                "tokens per response",
                &[
                    ("completions/mean_length", "training"),
                    ("eval_completions/mean_length", "held out"),
                ],
            ),
            Panel::new("KL to the reference, nats per token", &[("kl", "training")]),
            Panel::new("entropy, nats per token", &[("entropy", "training")]),
            Panel::new(
                "share of the tokens after the thought",
                &[
                    ("completions/answer_share", "training"),
                    ("eval_completions/answer_share", "held out"),
                ],
            ),
        ],
    )?;
    let lengths = |name: &str| -> Option<Vec<f64>> {
        let text = fs::read_to_string(dir.join(name)).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        value["lengths"]
            .as_array()?
            .iter()
            .map(Value::as_f64)
            .collect()
    };
    if let (Some(before), Some(after)) = (
        lengths("lengths-before.json"),
        lengths("lengths-after.json"),
    ) {
        plot::histogram(
            &dir.join("lengths.svg"),
            "tokens per response, held-out questions",
            &[("before", &before), ("after", &after)],
        )?;
    }
    Ok(())
}
