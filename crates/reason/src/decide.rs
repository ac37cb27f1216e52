//! Think or not: the switcher reads the prompt while it is encoded, and the query goes on in the mode that it chooses (METHOD 4).
//!
//! The base encodes the prompt as for an answer at once, and its hidden states go to the switcher. A query that needs no thought has
//! its first token in the very pass that ends the prompt: deciding costs it no pass. For one that does, the adapter's generation
//! prompt is encoded behind the shared part, whose KV is there.

use crate::answer::Decision;
use crate::error::ReasonError;
use crate::event::Event;
use crate::job::{Job, Prepared};
use crate::query::{Query, Think};
use crate::reasoner::Reasoner;
use crate::switcher::{Averages, Reading, Switcher};

/// Averages that are kept for later turns, 16 E bytes each.
const KEPT_AVERAGES: usize = 256;

/// A switcher and what it knows of earlier prompts.
#[derive(Debug)]
pub(crate) struct Switching {
    pub(crate) switcher: Switcher,
    averages: Averages,
}

impl Switching {
    pub(crate) fn new(switcher: Switcher) -> Self {
        Self {
            averages: Averages::new(switcher.averaging(), KEPT_AVERAGES),
            switcher,
        }
    }
}

/// A query whose mode is not chosen yet.
#[derive(Debug)]
pub(crate) struct Undecided {
    /// The query as it goes on if it thinks.
    on: Prepared,
    pub(crate) reading: Reading,
}

impl Reasoner {
    /// The query as it begins, and what the switcher needs if that is to choose.
    pub(crate) fn begin_mode(
        &mut self,
        query: &Query,
    ) -> Result<(Prepared, Option<Box<Undecided>>), ReasonError> {
        if query.think != Think::Auto {
            return Ok((self.prepare(query, query.think)?, None));
        }
        let (off, on) = (
            self.prepare(query, Think::Off)?,
            self.prepare(query, Think::On)?,
        );
        let Switching { switcher, averages } =
            self.switching.as_mut().ok_or(ReasonError::NoSwitcher)?;
        let prompt = &off.request.prompt;
        let reading = Reading::new(switcher, averages, prompt, switcher.reads(prompt));
        Ok((off, Some(Box::new(Undecided { on, reading }))))
    }

    /// The prompt is encoded: asks the switcher, and changes the mode if the query is to think.
    pub(crate) fn decide(
        &mut self,
        job: &mut Job,
        out: &mut Vec<Event>,
    ) -> Result<(), ReasonError> {
        let Some(undecided) = job.undecided.take() else {
            return Ok(());
        };
        let Undecided { on, reading } = *undecided;
        let Switching { switcher, averages } =
            self.switching.as_mut().ok_or(ReasonError::NoSwitcher)?;
        let score = reading.finish(switcher, averages, &job.prepared.request.prompt)?;
        let decision = Decision {
            score,
            threshold: switcher.threshold(),
            thinks: switcher.thinks(score),
        };
        job.decision = Some(decision);
        out.push(Event::Decided(decision));
        if job.judging.scale_n {
            job.n = streams(decision, job.n);
        }
        if decision.thinks {
            self.drop_lanes(job);
            job.usage.prompt_tokens = on.request.prompt.len();
            job.prepared = on;
            self.begin_streams(job)?;
        }
        Ok(())
    }
}

/// How many of at most `most` streams a query with this score gets: one at the threshold, all of them at 1, one without a thought.
fn streams(decision: Decision, most: usize) -> usize {
    let Decision {
        score,
        threshold,
        thinks,
    } = decision;
    if !thinks || threshold >= 1.0 {
        return 1;
    }
    let share = f64::from(score - threshold) / f64::from(1.0 - threshold);
    1 + (share * (most - 1) as f64).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_score_gets_more_streams() {
        let at = |score: f32| {
            let decision = Decision {
                score,
                threshold: 0.25,
                thinks: score >= 0.25,
            };
            streams(decision, 8)
        };
        assert_eq!([0.0, 0.24, 0.25, 0.625, 1.0].map(at), [1, 1, 1, 5, 8]);
        let all = Decision {
            score: 1.0,
            threshold: 1.0,
            thinks: true,
        };
        assert_eq!(streams(all, 8), 1, "a threshold of 1 leaves no scale");
    }
}
