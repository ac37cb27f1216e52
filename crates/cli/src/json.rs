//! The JSON forms of results, for scripts. Field names are part of the program's interface.

use edgethink_reason::{AdapterUse, Answer, Choice, Decision, ThoughtEnd, TokenLogprob, Vote};
use serde::Serialize;

/// `ask --json`: one answer's fields on top; with several answers they are under `choices`.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerJson {
    pub(crate) model: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) only: Option<ChoiceJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) choices: Option<Vec<ChoiceJson>>,
    /// `null` if no vote was asked for.
    pub(crate) vote: Option<VoteJson>,
    /// `null` unless the switcher was asked.
    pub(crate) switcher: Option<SwitcherJson>,
    /// `null` if no budget was asked for.
    pub(crate) budget: Option<BudgetJson>,
    pub(crate) usage: UsageJson,
    pub(crate) timings: TimingsJson,
    pub(crate) adapter: AdapterJson,
}

#[derive(Debug, Serialize)]
pub(crate) struct ChoiceJson {
    pub(crate) index: usize,
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) token_ids: Vec<u32>,
    pub(crate) logprobs: Option<Vec<LogprobJson>>,
    pub(crate) finish_reason: &'static str,
    pub(crate) reasoning_tokens: usize,
    /// Why the thought ended: `model`, `budget`, `loop` or `turn` (the model ended its turn inside it); `null` if it did not.
    pub(crate) thought_closed: Option<&'static str>,
    /// The budget forced the answer: it cut the thought, or began an answer that did not come.
    pub(crate) budget_forced: bool,
    /// How often a thought that ended too early was made to go on.
    pub(crate) continued: usize,
    /// What the verifier gives the answer, 0 to 1; `null` if nothing scored it.
    pub(crate) score: Option<f32>,
}

/// The vote over the streams' answers.
#[derive(Debug, Serialize)]
pub(crate) struct VoteJson {
    /// `majority`, `weighted` or `best_of_n`.
    pub(crate) aggregate: &'static str,
    /// The winning answer; `null` if no stream answered.
    pub(crate) answer: Option<String>,
    /// The choice that speaks for it.
    pub(crate) choice: Option<usize>,
    /// Equal answers, the heaviest first.
    pub(crate) groups: Vec<GroupJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct GroupJson {
    pub(crate) answer: String,
    pub(crate) choices: Vec<usize>,
    pub(crate) weight: f64,
}

/// What the switcher said.
#[derive(Debug, Serialize)]
pub(crate) struct SwitcherJson {
    pub(crate) score: f32,
    pub(crate) threshold: f32,
    pub(crate) thinks: bool,
}

impl From<Vote> for VoteJson {
    fn from(vote: Vote) -> Self {
        let choice = vote.winner();
        let groups: Vec<GroupJson> = vote
            .groups
            .into_iter()
            .map(|group| GroupJson {
                answer: group.answer,
                choices: group.streams,
                weight: group.weight,
            })
            .collect();
        Self {
            aggregate: vote.aggregate.as_str(),
            answer: groups.first().map(|group| group.answer.clone()),
            choice,
            groups,
        }
    }
}

impl From<Decision> for SwitcherJson {
    fn from(decision: Decision) -> Self {
        let Decision {
            score,
            threshold,
            thinks,
        } = decision;
        Self {
            score,
            threshold,
            thinks,
        }
    }
}

/// The limits that each answer ran under, in tokens of the response.
#[derive(Debug, Serialize)]
pub(crate) struct BudgetJson {
    /// The hard limit asked for; `null` if a budget was only named.
    pub(crate) tokens: Option<usize>,
    /// The line that named a budget in the prompt; `null` if none was.
    pub(crate) line: Option<String>,
    /// An open thought was to be cut here; `null` without a hard limit or a thought.
    pub(crate) thought_tokens: Option<usize>,
    /// No response is longer: the budget within the context, with room for the least answer.
    pub(crate) response_tokens: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct LogprobJson {
    pub(crate) id: u32,
    pub(crate) token: String,
    pub(crate) logprob: f32,
    pub(crate) top: Vec<TopJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TopJson {
    pub(crate) id: u32,
    pub(crate) token: String,
    pub(crate) logprob: f32,
}

#[derive(Debug, Serialize)]
pub(crate) struct UsageJson {
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) reasoning_tokens: usize,
    /// Computed to score the answers; not part of `completion_tokens`.
    pub(crate) verifier_tokens: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct TimingsJson {
    pub(crate) ttft_ms: f64,
    pub(crate) prefill_tps: f64,
    pub(crate) decode_tps: f64,
    pub(crate) total_ms: f64,
}

/// What the adapter did: `base`, `masked` (with the tokens the base encoded), `plain` or `not_invoked`.
#[derive(Debug, Serialize)]
pub(crate) struct AdapterJson {
    pub(crate) mode: &'static str,
    pub(crate) shared_tokens: usize,
}

impl AnswerJson {
    pub(crate) fn new(model: &str, answer: Answer) -> Self {
        let mut choices: Vec<ChoiceJson> =
            answer.choices.into_iter().map(ChoiceJson::from).collect();
        let only = if choices.len() == 1 {
            choices.pop()
        } else {
            None
        };
        let (mode, shared_tokens) = match answer.adapter {
            AdapterUse::Base => ("base", 0),
            AdapterUse::Masked { shared_tokens } => ("masked", shared_tokens),
            AdapterUse::Plain => ("plain", 0),
            AdapterUse::NotInvoked => ("not_invoked", 0),
        };
        Self {
            model: model.to_owned(),
            choices: only.is_none().then_some(choices),
            only,
            vote: answer.vote.map(VoteJson::from),
            switcher: answer.decision.map(SwitcherJson::from),
            budget: answer.budget.map(|budget| BudgetJson {
                tokens: budget.hard,
                line: budget.line,
                thought_tokens: budget.thought_tokens,
                response_tokens: budget.response_tokens,
            }),
            usage: UsageJson {
                prompt_tokens: answer.usage.prompt_tokens,
                cached_tokens: answer.usage.cached_tokens,
                completion_tokens: answer.usage.completion_tokens,
                reasoning_tokens: answer.usage.reasoning_tokens,
                verifier_tokens: answer.usage.verifier_tokens,
            },
            timings: TimingsJson {
                ttft_ms: answer.timings.ttft_ms,
                prefill_tps: answer.timings.prefill_tps,
                decode_tps: answer.timings.decode_tps,
                total_ms: answer.timings.total_ms,
            },
            adapter: AdapterJson {
                mode,
                shared_tokens,
            },
        }
    }
}

impl From<Choice> for ChoiceJson {
    fn from(choice: Choice) -> Self {
        Self {
            index: choice.index,
            text: choice.text,
            reasoning: choice.reasoning,
            token_ids: choice.token_ids,
            logprobs: choice
                .logprobs
                .map(|all| all.into_iter().map(LogprobJson::from).collect()),
            finish_reason: choice.finish_reason.as_str(),
            reasoning_tokens: choice.reasoning_tokens,
            thought_closed: choice.thought_closed.map(ThoughtEnd::as_str),
            budget_forced: choice.budget_forced,
            continued: choice.continued,
            score: choice.score,
        }
    }
}

impl From<TokenLogprob> for LogprobJson {
    fn from(one: TokenLogprob) -> Self {
        let top = one
            .top
            .into_iter()
            .map(|(id, token, logprob)| TopJson { id, token, logprob });
        Self {
            id: one.token,
            token: one.text,
            logprob: one.logp,
            top: top.collect(),
        }
    }
}
