//! The answers' scores and the vote over them: which streams are begun, what scores an answer, when the rest need not be asked
//! (METHOD 5).
//!
//! A stream that has ended with an answer is read once more by the base: its tokens and a short verification prompt behind them. The KV
//! of question and response is in the prefix cache, so only the prompt's own tokens are computed.

use edgethink_engine::{Event as EngineEvent, FinishReason as EngineFinish};

use crate::answer::FinishReason;
use crate::error::ReasonError;
use crate::event::Event;
use crate::job::{Job, Score};
use crate::query::Scoring;
use crate::reasoner::{Reasoner, Route};
use crate::verifier::{Reply, Verifier};

impl Reasoner {
    /// Refuses a scoring that this model cannot do.
    pub(crate) fn check_scoring(&self, scoring: Scoring) -> Result<(), ReasonError> {
        match (scoring, self.scorer(scoring)) {
            (Scoring::Verifier, None) => Err(ReasonError::NoVerifier),
            _ => Ok(()),
        }
    }

    /// What scores answers, if they are to be scored.
    fn scorer(&self, scoring: Scoring) -> Option<&Verifier> {
        match scoring {
            Scoring::Off => None,
            Scoring::Verifier => self.verifier.as_ref(),
            Scoring::GenRm => Some(&self.genrm),
        }
    }

    /// Tokens that scoring puts behind an answer.
    pub(crate) fn scoring_tokens(&self, scoring: Scoring) -> usize {
        self.scorer(scoring)
            .map_or(0, |scorer| scorer.question().len() + scorer.forced().len())
    }

    /// Asks for the score of a stream that has just ended, if it is to have one.
    pub(crate) fn ask_score(&mut self, job: &mut Job, index: usize) -> Result<(), ReasonError> {
        let lane = &job.lanes[index];
        if lane.answer.is_none() {
            return Ok(());
        }
        let mut response = lane.stream.token_ids();
        if let Some((last, before)) = response.split_last()
            && self.model.generation.eos_token_ids.contains(last)
        {
            response = before;
        }
        let Some(scorer) = self.scorer(job.judging.scoring) else {
            return Ok(());
        };
        let given = &job.prepared.request;
        let request = scorer.request(&given.prompt, response, given.adapter);
        let forced = scorer.forced().to_vec();
        let id = self.engine.submit(request)?;
        if !forced.is_empty() {
            self.engine.force(id, 0, &forced)?;
        }
        self.routes
            .insert(id, (job.query, Route::Score { stream: index }));
        let lane = &mut job.lanes[index];
        lane.score = Score::Asked(Reply {
            mean_logprob: lane.mean_logprob(),
            ..Reply::default()
        });
        Ok(())
    }

    /// Takes an event of the request that scores the answer of stream `index`.
    pub(crate) fn score_event(
        &mut self,
        job: &mut Job,
        index: usize,
        event: EngineEvent,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        let Score::Asked(reply) = &mut job.lanes[index].score else {
            return Ok(());
        };
        reply.take(&event);
        match event {
            EngineEvent::Prefilled {
                prompt_tokens,
                cached_tokens,
                ..
            } => {
                let forced = self
                    .scorer(job.judging.scoring)
                    .map_or(0, |s| s.forced().len());
                job.usage.verifier_tokens +=
                    prompt_tokens - cached_tokens + forced.saturating_sub(1);
                Ok(())
            }
            EngineEvent::Finished {
                reason: EngineFinish::Cancelled,
                ..
            } => {
                job.lanes[index].score = Score::None;
                self.settle(job, out)
            }
            EngineEvent::Finished { .. } => {
                let scorer = self
                    .scorer(job.judging.scoring)
                    .ok_or(ReasonError::NoVerifier)?;
                let score = scorer.score(reply)?;
                job.lanes[index].score = Score::Given(score);
                out.push(Event::Scored {
                    stream: index,
                    score,
                });
                self.settle(job, out)
            }
            EngineEvent::Failed { error, .. } => Err(error.into()),
            EngineEvent::Hidden { .. } | EngineEvent::Token { .. } => Ok(()),
        }
    }

    /// How many more streams to begin: all that are left, or as many as can decide the vote beside those that run.
    pub(crate) fn useful_streams(&self, job: &Job) -> usize {
        let left = job.n - job.lanes.len();
        match job.votes_needed() {
            Some(needed) if job.judging.waves => {
                needed.saturating_sub(job.unsettled().count()).min(left)
            }
            _ => left,
        }
    }

    /// A stream has voted: ends the others if the vote is decided, or begins more if those that run cannot decide it.
    pub(crate) fn settle(
        &mut self,
        job: &mut Job,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        let running: Vec<usize> = job.unsettled().collect();
        if running.len() == job.lanes.len() {
            return Ok(());
        }
        match job.votes_needed() {
            None => return Ok(()),
            Some(0) => {}
            Some(_) => return self.begin_streams(job),
        }
        job.n = job.lanes.len();
        for index in running {
            let lane = &mut job.lanes[index];
            if lane.stream.finished().is_some() {
                lane.score = Score::None; // its score would come too late
                continue;
            }
            let (request, stream) = lane.handle;
            // It may have ended with the last token.
            let _ = self.engine.cancel_stream(request, stream);
            self.end(job, index, FinishReason::Decided, out)?;
        }
        Ok(())
    }
}
