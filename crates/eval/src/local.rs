//! The reasoner of this program under test: many queries at once through one engine.

use std::collections::BTreeMap;

use edgethink_model::Message;
use edgethink_reason::{Answer, Event, FinishReason, Input, Query, QueryId, Reasoner, ThoughtEnd};

use crate::error::EvalError;
use crate::subject::{Ask, Reply, Sample, Subject, Take};

/// A reasoner and how it is asked.
#[derive(Debug)]
pub struct Local<'a> {
    /// The model.
    pub reasoner: &'a mut Reasoner,
    /// Everything but the prompt and the seed.
    pub query: Query,
    /// Instructions in front of every prompt.
    pub system: Option<String>,
    /// Queries that run at the same time.
    pub batch: usize,
}

impl Subject for Local<'_> {
    fn answer(
        &mut self,
        asks: &[Ask<'_>],
        stop: &(dyn Fn() -> bool + Sync),
        take: &mut Take<'_>,
    ) -> Result<bool, EvalError> {
        let (template, system) = (&self.query, self.system.as_deref());
        let query = |_: &Reasoner, at: usize| Query {
            input: input(&asks[at].question.messages, system),
            seed: asks[at].seed,
            ..template.clone()
        };
        let mut on = true;
        let stop = || stop();
        let done = each_answer(
            self.reasoner,
            asks.len(),
            self.batch,
            query,
            stop,
            |at, answer| {
                on = take(at, reply(answer))?;
                Ok::<bool, EvalError>(on)
            },
        )?;
        Ok(done && on)
    }
}

/// A conversation, behind instructions if there are any.
pub fn input(messages: &[Message], system: Option<&str>) -> Input {
    let system = system.map(|text| Message::new("system", text));
    Input::Messages(system.into_iter().chain(messages.iter().cloned()).collect())
}

/// Runs `count` queries, `batch` at a time; `take` gets each answer as it is ready, and ends the run with false. Returns false if it or
/// `stop` did.
///
/// # Errors
/// A query that is refused or fails, a broken engine, and what `take` says.
pub fn each_answer<E: From<EvalError>>(
    reasoner: &mut Reasoner,
    count: usize,
    batch: usize,
    query: impl Fn(&Reasoner, usize) -> Query,
    stop: impl Fn() -> bool,
    mut take: impl FnMut(usize, &Answer) -> Result<bool, E>,
) -> Result<bool, E> {
    let failed = |at: usize| {
        move |source| EvalError::Answer {
            question: at + 1,
            source,
        }
    };
    let mut flying: BTreeMap<QueryId, usize> = BTreeMap::new();
    let mut next = 0;
    while next < count || !flying.is_empty() {
        if stop() {
            return Ok(false);
        }
        while flying.len() < batch && next < count {
            let query = query(reasoner, next);
            let id = reasoner.submit(&query).map_err(failed(next))?;
            flying.insert(id, next);
            next += 1;
        }
        for (id, event) in reasoner.step().map_err(EvalError::from)? {
            match event {
                Event::Answered(answer) => {
                    if let Some(at) = flying.remove(&id)
                        && !take(at, &answer)?
                    {
                        return Ok(false);
                    }
                }
                Event::Failed(error) => {
                    let at = flying.remove(&id).unwrap_or(0);
                    return Err(failed(at)(error).into());
                }
                _ => {}
            }
        }
    }
    Ok(true)
}

fn reply(answer: &Answer) -> Reply {
    let winner = answer.vote.as_ref().map(|vote| vote.winner());
    let samples = answer.choices.iter().map(|choice| Sample {
        text: choice.text.clone(),
        reasoning: choice.reasoning.clone(),
        completion_tokens: choice.token_ids.len(),
        reasoning_tokens: choice.reasoning_tokens,
        finish_reason: choice.finish_reason.as_str().to_owned(),
        thought_closed: choice
            .thought_closed
            .map(|end| ThoughtEnd::as_str(end).to_owned()),
        budget_forced: choice.budget_forced,
        continued: choice.continued,
        score: choice.score,
        chosen: match winner {
            Some(winner) => winner == Some(choice.index),
            // Nobody voted, so everybody speaks; a stream that was not needed does not.
            None => choice.finish_reason != FinishReason::Decided,
        },
    });
    let timings = &answer.timings;
    Reply {
        samples: samples.collect(),
        prompt_tokens: answer.usage.prompt_tokens,
        query_tokens: answer.usage.completion_tokens,
        verifier_tokens: answer.usage.verifier_tokens,
        switch: answer
            .decision
            .map(|decision| (decision.score, decision.thinks)),
        ttft_ms: Some(timings.ttft_ms),
        decode_tps: Some(timings.decode_tps).filter(|rate| *rate > 0.0),
        seconds: timings.total_ms / 1000.0,
    }
}
