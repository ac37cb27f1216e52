//! One query in flight: its streams, its counts and its times, and the answer that they become.

use std::sync::Arc;
use std::time::Instant;

use edgethink_engine::{Request, RequestId};
use edgethink_model::tokenizer::Detokenizer;

use crate::answer::{AdapterUse, Answer, BudgetUse, Decision, ThoughtEnd, Timings, Usage};
use crate::decide::Undecided;
use crate::event::{Event, QueryId};
use crate::form::Form;
use crate::grammar::Guide;
use crate::query::{Query, Scoring};
use crate::split::Part;
use crate::stream::{Stream, StreamRules};
use crate::thinker::Thinker;
use crate::verifier::Reply;
use crate::vote::{Aggregate, Ballot, EarlyStop, needed, tally};

/// A query in one mode, thinking or not, ready for the engine.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What is given to the engine, but for the streams.
    pub(crate) request: Request,
    pub(crate) rules: StreamRules,
    pub(crate) thinker: Arc<Thinker>,
    pub(crate) thinks: bool,
    pub(crate) adapter: AdapterUse,
    pub(crate) budget: Option<BudgetUse>,
}

/// A stream that was begun.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Where its tokens come from: a request and the stream of it. A continued stream is a request of its own.
    pub(crate) handle: (RequestId, usize),
    pub(crate) stream: Stream,
    pub(crate) detokenizer: Detokenizer,
    /// How far its answer is within the form that was asked for.
    pub(crate) form: Option<Form>,
    /// Sum of its tokens' log-probabilities, nats.
    pub(crate) logprob: f64,
    /// Its final answer, once it has ended with one.
    pub(crate) answer: Option<String>,
    pub(crate) score: Score,
}

/// How far the scoring of an answer is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Score {
    /// There is nothing to score, or not yet.
    None,
    /// The request is under way, and this came of it.
    Asked(Reply),
    Given(f32),
}

/// What becomes of the streams' answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judging {
    pub(crate) scoring: Scoring,
    pub(crate) vote: Option<Aggregate>,
    pub(crate) early_stop: Option<EarlyStop>,
    pub(crate) waves: bool,
    pub(crate) scale_n: bool,
}

impl Judging {
    pub(crate) fn of(query: &Query) -> Self {
        Self {
            scoring: query.scoring,
            vote: query.vote,
            early_stop: query.early_stop,
            waves: query.waves,
            scale_n: query.scale_n,
        }
    }
}

/// A query in flight.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) query: QueryId,
    pub(crate) prepared: Prepared,
    /// The other mode, while the switcher has not decided.
    pub(crate) undecided: Option<Box<Undecided>>,
    pub(crate) decision: Option<Decision>,
    pub(crate) judging: Judging,
    /// Streams that may be begun in all.
    pub(crate) n: usize,
    pub(crate) lanes: Vec<Lane>,
    /// The form of the answers, at its beginning.
    pub(crate) guide: Option<Guide>,
    pub(crate) ignore_eos: bool,
    /// Log-probabilities are those of the distribution that was drawn from.
    pub(crate) drawn_logprobs: bool,
    pub(crate) usage: Usage,
    pub(crate) submitted: Instant,
    pub(crate) prefilled: Option<Instant>,
    pub(crate) first_token: Option<Instant>,
    pub(crate) last_token: Option<Instant>,
}

impl Lane {
    /// It has ended and what it says is known.
    pub(crate) fn settled(&self) -> bool {
        self.stream.finished().is_some() && !matches!(self.score, Score::Asked(_))
    }

    /// Mean log-probability of its tokens before temperature, nats.
    pub(crate) fn mean_logprob(&self) -> Option<f32> {
        let tokens = self.stream.token_ids().len();
        (tokens > 0).then(|| (self.logprob / tokens as f64) as f32)
    }

    fn score(&self) -> Option<f32> {
        match self.score {
            Score::Given(score) => Some(score),
            Score::None | Score::Asked(_) => None,
        }
    }
}

impl Job {
    /// Nothing is left to wait for.
    pub(crate) fn done(&self) -> bool {
        self.undecided.is_none()
            && self.lanes.len() == self.n
            && self.lanes.iter().all(Lane::settled)
    }

    /// Streams that have not voted yet.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = usize> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(index, lane)| (!lane.settled()).then_some(index))
    }

    /// How many more votes the early stop needs at least; `None` if every stream is to run to its end.
    pub(crate) fn votes_needed(&self) -> Option<usize> {
        let (vote, rule) = (self.judging.vote?, self.judging.early_stop?);
        let outstanding = self.n - self.lanes.len() + self.unsettled().count();
        Some(needed(vote, &self.ballots(), outstanding, rule))
    }

    /// What the streams that have voted say. Where nothing is scored every vote counts 1; where answers are, one without a score has
    /// no vote.
    pub(crate) fn ballots(&self) -> Vec<Ballot<'_>> {
        let lanes = self.lanes.iter().enumerate();
        lanes
            .filter(|(_, lane)| lane.settled())
            .filter_map(|(stream, lane)| {
                Some(Ballot {
                    stream,
                    answer: lane.answer.as_deref()?,
                    score: match self.judging.scoring {
                        Scoring::Off => 1.0,
                        Scoring::Verifier | Scoring::GenRm => lane.score()?,
                    },
                })
            })
            .collect()
    }

    /// The final result; every stream has ended.
    pub(crate) fn into_answer(self) -> Answer {
        let now = Instant::now();
        let ms = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1e3;
        let rate = |count: usize, ms: f64| {
            if count > 0 && ms > 0.0 {
                count as f64 * 1e3 / ms
            } else {
                0.0
            }
        };
        let vote = self.judging.vote;
        let vote = vote.map(|aggregate| tally(aggregate, &self.ballots()));
        let n = self.lanes.len();
        let choices: Vec<_> = self
            .lanes
            .into_iter()
            .enumerate()
            .map(|(i, lane)| {
                let score = lane.score();
                lane.stream.into_choice(i, score)
            })
            .collect();
        let mut usage = self.usage;
        usage.completion_tokens = choices.iter().map(|choice| choice.token_ids.len()).sum();
        usage.reasoning_tokens = choices.iter().map(|choice| choice.reasoning_tokens).sum();
        let decode = match (self.first_token, self.last_token) {
            (Some(first), Some(last)) => {
                rate(usage.completion_tokens.saturating_sub(n), ms(first, last))
            }
            _ => 0.0,
        };
        let fresh = usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens);
        Answer {
            vote,
            decision: self.decision,
            budget: self.prepared.budget,
            usage,
            timings: Timings {
                ttft_ms: self.first_token.map_or(0.0, |at| ms(self.submitted, at)),
                prefill_tps: self
                    .prefilled
                    .map_or(0.0, |at| rate(fresh, ms(self.submitted, at))),
                decode_tps: decode,
                total_ms: ms(self.submitted, now),
            },
            adapter: self.prepared.adapter,
            choices,
        }
    }
}

/// Turns what the stream found into events.
pub(crate) fn emit(stream: &mut Stream, index: usize, ended: Option<usize>, out: &mut Vec<Event>) {
    let logprobs = stream.take_logprobs().into_iter();
    out.extend(logprobs.map(|logprob| Event::Logprob {
        stream: index,
        logprob,
    }));
    let mut ended = ended;
    let end = stream.closed().unwrap_or(ThoughtEnd::Model);
    for part in stream.take() {
        match part {
            Part::Reasoning(text) => out.push(Event::Reasoning {
                stream: index,
                text,
            }),
            Part::Content(text) => {
                if let Some(tokens) = ended.take() {
                    out.push(Event::ThoughtEnded {
                        stream: index,
                        tokens,
                        end,
                    });
                }
                out.push(Event::Content {
                    stream: index,
                    text,
                });
            }
        }
    }
    if let Some(tokens) = ended {
        out.push(Event::ThoughtEnded {
            stream: index,
            tokens,
            end,
        });
    }
}
