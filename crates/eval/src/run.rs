//! Asks what is not answered yet, and keeps every answer.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::code::Sandbox;
use crate::error::EvalError;
use crate::question::{Question, Truth};
use crate::store::Store;
use crate::subject::{Ask, Subject};

/// Between the seeds of repeats: more than any data set has rows, so that no two queries share one.
const REPEAT_SEEDS: u64 = 1 << 32;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The task's name.
    pub task: &'a str,
    /// Its questions.
    pub questions: &'a [Question],
    /// How often each is asked.
    pub repeats: usize,
    /// Seed of the first question; every other has its own.
    pub seed: u64,
    /// Where programs run; `None` if they may not.
    pub sandbox: Option<&'a Sandbox>,
}

impl<'a> Plan<'a> {
    /// Every query, with its seed.
    fn asks(self) -> impl Iterator<Item = Ask<'a>> {
        let ask = move |repeat: usize| {
            self.questions.iter().map(move |question| Ask {
                question,
                repeat,
                seed: self
                    .seed
                    .wrapping_add(question.index as u64 + repeat as u64 * REPEAT_SEEDS),
            })
        };
        (0..self.repeats).flat_map(ask)
    }

    /// Queries in all.
    pub fn queries(&self) -> usize {
        self.questions.len() * self.repeats
    }

    /// Queries that the store has already.
    pub fn done(&self, store: &Store) -> usize {
        self.asks().filter(|ask| self.is_done(store, ask)).count()
    }

    fn is_done(&self, store: &Store, ask: &Ask<'_>) -> bool {
        store.has(self.task, ask.question.index, ask.repeat)
    }

    /// Asks what is open. `each` is told of every query whether it was right, as it is done. Returns false if `stop` ended it.
    ///
    /// # Errors
    /// A model that fails, a store that cannot be written, a program that cannot be run.
    pub fn run(
        &self,
        store: &mut Store,
        subject: &mut dyn Subject,
        stop: &(dyn Fn() -> bool + Sync),
        mut each: impl FnMut(bool),
    ) -> Result<bool, EvalError> {
        let asks: Vec<Ask<'_>> = self
            .asks()
            .filter(|ask| !self.is_done(store, ask))
            .collect();
        if self.sandbox.is_none()
            && asks
                .iter()
                .any(|ask| matches!(ask.question.truth, Truth::Program(_)))
        {
            return Err(EvalError::Code(format!(
                "task {} judges programs by running them; allow it with --run-code",
                self.task
            )));
        }
        let stopped = AtomicBool::new(false);
        let done = subject.answer(&asks, stop, &mut |at, reply| {
            let judge = |truth: &Truth, text: &str| match (truth, self.sandbox) {
                (Truth::Program(program), Some(sandbox)) => sandbox.passes(program, text),
                _ => Ok(false),
            };
            let records = reply.records(self.task, &asks[at], judge)?;
            let right = crate::record::QueryRecords(&records).accuracy() > 0.5;
            store.add(records)?;
            each(right);
            let on = !stop();
            stopped.fetch_or(!on, Ordering::Relaxed);
            Ok(on)
        })?;
        Ok(done && !stopped.into_inner())
    }
}
