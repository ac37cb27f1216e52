//! Pieces that several APIs send: usage, and the `edgethink` summary of an answer.

use edgethink_reason::{AdapterUse, Answer, Decision, Vote};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{App, Facts};
use crate::worker::handle::Outcome;

/// Token counts in the words of chat completions.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    /// Tokens of all choices, thoughts included.
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) prompt_tokens_details: PromptDetails,
    pub(crate) completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct PromptDetails {
    /// Tokens whose KV was there already.
    pub(crate) cached_tokens: usize,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CompletionDetails {
    /// Tokens of thoughts, without their tags.
    pub(crate) reasoning_tokens: usize,
}

impl From<&edgethink_reason::Usage> for Usage {
    fn from(usage: &edgethink_reason::Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cached_tokens,
            },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: usage.reasoning_tokens,
            },
        }
    }
}

/// Times in the words of llama.cpp, for clients that show its speeds. A rate is 0 where nothing was measured.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct LlamaTimings {
    /// Tokens of the prompt whose KV was there already.
    pub(crate) cache_n: usize,
    /// Tokens of the prompt that were encoded.
    pub(crate) prompt_n: usize,
    pub(crate) prompt_ms: f64,
    pub(crate) prompt_per_second: f64,
    /// Tokens of all choices.
    pub(crate) predicted_n: usize,
    pub(crate) predicted_ms: f64,
    pub(crate) predicted_per_second: f64,
}

impl From<&Answer> for LlamaTimings {
    fn from(answer: &Answer) -> Self {
        let (usage, timings) = (&answer.usage, &answer.timings);
        let ms = |tokens: usize, rate: f64| {
            if rate > 0.0 {
                tokens as f64 * 1e3 / rate
            } else {
                0.0
            }
        };
        let prompt_n = usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens);
        Self {
            cache_n: usage.cached_tokens,
            prompt_n,
            prompt_ms: ms(prompt_n, timings.prefill_tps),
            prompt_per_second: timings.prefill_tps,
            predicted_n: usage.completion_tokens,
            predicted_ms: ms(usage.completion_tokens, timings.decode_tps),
            predicted_per_second: timings.decode_tps,
        }
    }
}

/// What happened besides the text: the switcher, the vote, the scores, the budget, times and memory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Summary {
    /// What the switcher said; `null` unless it was asked.
    pub(crate) decision: Option<DecisionWire>,
    /// `null` unless a vote was asked for.
    pub(crate) vote: Option<VoteWire>,
    pub(crate) choices: Vec<ChoiceSummary>,
    /// `null` unless a budget was asked for.
    pub(crate) budget: Option<BudgetWire>,
    /// The vote was decided before all streams had ended.
    pub(crate) early_stopped: bool,
    pub(crate) adapter: AdapterWire,
    pub(crate) timings: TimingsWire,
    pub(crate) usage: ExtraUsage,
    pub(crate) kv: KvWire,
    /// The seed of all draws: the same request with it gives the same answer.
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct DecisionWire {
    /// From 0 (answer at once) to 1 (think).
    pub(crate) score: f32,
    /// The least score that gets a thought.
    pub(crate) threshold: f32,
    pub(crate) thinks: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VoteWire {
    /// Index of the winning choice; `null` if none has an answer.
    pub(crate) winner: Option<usize>,
    /// Equal answers, the heaviest first.
    pub(crate) groups: Vec<GroupWire>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GroupWire {
    pub(crate) answer: String,
    pub(crate) votes: usize,
    pub(crate) weight: f64,
    /// Indices of the choices that say so.
    pub(crate) choices: Vec<usize>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChoiceSummary {
    pub(crate) index: usize,
    /// The final answer in the text, as votes compare it.
    pub(crate) answer: Option<String>,
    /// What the verifier gives it, 0 to 1.
    pub(crate) score: Option<f32>,
    pub(crate) reasoning_tokens: usize,
    pub(crate) completion_tokens: usize,
    /// Why the thought ended: `model`, `budget`, `loop`, `turn` or `caller`; `null` if there was none or it did not end.
    pub(crate) thought_closed: Option<&'static str>,
    /// The budget forced the answer.
    pub(crate) budget_forced: bool,
    /// `stop`, `length`, `cancelled` or `decided`.
    pub(crate) finish: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BudgetWire {
    pub(crate) hard: Option<usize>,
    /// A thought that is open after so many tokens is cut.
    pub(crate) thought_tokens: Option<usize>,
    pub(crate) response_tokens: usize,
    /// The line that named it in the prompt.
    pub(crate) line: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdapterWire {
    /// `base`, `masked`, `plain` or `not_invoked`.
    #[serde(rename = "use")]
    pub(crate) used: &'static str,
    pub(crate) name: Option<String>,
    /// Tokens of the prompt that the base encoded for both modes.
    pub(crate) shared_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TimingsWire {
    /// In the queue.
    pub(crate) queue_ms: f64,
    /// From the request's arrival to its first token.
    pub(crate) ttft_ms: f64,
    pub(crate) prefill_tps: f64,
    pub(crate) decode_tps: f64,
    pub(crate) total_ms: f64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExtraUsage {
    /// Tokens computed to score the answers; no part of `completion_tokens`.
    pub(crate) verifier_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KvWire {
    /// Most blocks that all running requests held together while this one ran.
    pub(crate) blocks_used_peak: usize,
    pub(crate) block_tokens: usize,
    pub(crate) block_bytes: usize,
}

impl From<Decision> for DecisionWire {
    fn from(decision: Decision) -> Self {
        Self {
            score: decision.score,
            threshold: decision.threshold,
            thinks: decision.thinks,
        }
    }
}

impl From<&Vote> for VoteWire {
    fn from(vote: &Vote) -> Self {
        let groups = vote.groups.iter().map(|group| GroupWire {
            answer: group.answer.clone(),
            votes: group.streams.len(),
            weight: group.weight,
            choices: group.streams.clone(),
        });
        Self {
            winner: vote.winner(),
            groups: groups.collect(),
        }
    }
}

/// What is known of a request when it begins, for its reply.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The model's name as the client wrote it.
    pub(crate) model: String,
    /// The adapter that thinks if it is to be thought.
    pub(crate) adapter: Option<String>,
    pub(crate) seed: u64,
    /// The request has an `edgethink` object.
    pub(crate) extended: bool,
}

impl Summary {
    pub(crate) fn new(outcome: &Outcome, asked: &Asked, facts: &Facts) -> Self {
        let Outcome {
            answer,
            queued,
            blocks_peak,
        } = outcome;
        let queue_ms = queued.as_secs_f64() * 1e3;
        let decided = |finish: &ChoiceSummary| finish.finish == "decided";
        let choices: Vec<ChoiceSummary> = choices(answer);
        let (used, shared_tokens) = match answer.adapter {
            AdapterUse::Base => ("base", 0),
            AdapterUse::Masked { shared_tokens } => ("masked", shared_tokens),
            AdapterUse::Plain => ("plain", 0),
            AdapterUse::NotInvoked => ("not_invoked", 0),
        };
        Self {
            decision: answer.decision.map(DecisionWire::from),
            vote: answer.vote.as_ref().map(VoteWire::from),
            early_stopped: choices.iter().any(decided),
            choices,
            budget: answer.budget.as_ref().map(|budget| BudgetWire {
                hard: budget.hard,
                thought_tokens: budget.thought_tokens,
                response_tokens: budget.response_tokens,
                line: budget.line.clone(),
            }),
            adapter: AdapterWire {
                used,
                name: asked.adapter.clone().filter(|_| used != "base"),
                shared_tokens,
            },
            timings: TimingsWire {
                queue_ms,
                ttft_ms: queue_ms + answer.timings.ttft_ms,
                prefill_tps: answer.timings.prefill_tps,
                decode_tps: answer.timings.decode_tps,
                total_ms: queue_ms + answer.timings.total_ms,
            },
            usage: ExtraUsage {
                verifier_tokens: answer.usage.verifier_tokens,
            },
            kv: KvWire {
                blocks_used_peak: *blocks_peak,
                block_tokens: facts.block_tokens,
                block_bytes: facts.block_bytes,
            },
            seed: asked.seed,
        }
    }
}

fn choices(answer: &Answer) -> Vec<ChoiceSummary> {
    let of = |choice: &edgethink_reason::Choice| ChoiceSummary {
        index: choice.index,
        answer: edgethink_grader::extract(&choice.text).map(|found| found.text.to_owned()),
        score: choice.score,
        reasoning_tokens: choice.reasoning_tokens,
        completion_tokens: choice.token_ids.len(),
        thought_closed: choice.thought_closed.map(|end| end.as_str()),
        budget_forced: choice.budget_forced,
        finish: choice.finish_reason.as_str(),
    };
    answer.choices.iter().map(of).collect()
}

impl App {
    /// The summary of an answer.
    pub(crate) fn summary(&self, outcome: &Outcome, asked: &Asked) -> Summary {
        Summary::new(outcome, asked, &self.facts)
    }
}
