//! A training run: the loop, its checkpoints, its guard and its records.

pub(crate) mod checkpoint;
mod guard;
mod lanes;
pub(crate) mod plot;
pub(crate) mod record;
pub(crate) mod table;
mod tensorboard;
mod trainer;

pub(crate) use checkpoint::{Checkpoints, Position};
pub(crate) use lanes::{Lanes, lanes_of};
pub(crate) use record::{add_provenance, write_provenance};
pub(crate) use trainer::{Batcher, Job, Learns, LoraLayout, Outcome, Side, run};

use std::path::PathBuf;

/// What a run tells its caller as it goes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Data is being encoded, before the run begins.
    Encoded {
        /// Rows so far.
        rows: u64,
        /// Their tokens.
        tokens: u64,
    },
    /// Rows are being compared with benchmarks.
    Compared {
        /// Rows so far.
        rows: u64,
        /// Those of them that share something with a benchmark.
        contaminated: u64,
    },
    /// The device that trains is ready; not told of the CPU.
    Device {
        /// Its name.
        name: String,
    },
    /// The run begins, or goes on.
    Started {
        /// Values that are trained.
        trainable: usize,
        /// Values in all.
        parameters: usize,
        /// Examples of the training set.
        examples: usize,
        /// Examples left out as too long.
        dropped: usize,
        /// Examples cut to the longest length.
        truncated: usize,
        /// Optimizer steps of the whole run.
        steps: u64,
        /// Tokens of the whole run.
        tokens: u64,
        /// Steps that an earlier run has made, and its checkpoint.
        resumed: Option<(u64, PathBuf)>,
    },
    /// An optimizer step was made.
    Step {
        /// Steps made.
        step: u64,
        /// Loss of the step, nats per learnt token.
        loss: f64,
        /// Tokens seen so far.
        tokens: u64,
        /// Tokens per second since the run began.
        tokens_per_second: f64,
        /// Seconds to go at this speed.
        eta_seconds: f64,
        /// Learning rate of the step.
        learning_rate: f64,
        /// Global gradient norm before clipping.
        grad_norm: f64,
    },
    /// A step was left out: its gradient was not finite.
    Skipped {
        /// The step.
        step: u64,
    },
    /// The validation loss, nats per learnt token.
    Evaluated {
        /// Steps made.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// Reinforcement learning begins, or goes on.
    PolicyStarted {
        /// Values that are trained.
        trainable: usize,
        /// Questions.
        questions: usize,
        /// Questions left out as too long.
        dropped: usize,
        /// Steps of the whole run.
        steps: u64,
        /// Steps that an earlier run has made, and its checkpoint.
        resumed: Option<(u64, PathBuf)>,
        /// Who draws the completions: the engine, or how many servers; those that do not answer, each in a line with its error.
        rollouts: String,
    },
    /// A step of reinforcement learning was made.
    Policy {
        /// Steps made.
        step: u64,
        /// Mean reward of the step's completions.
        reward: f64,
        /// Share of right answers.
        accuracy: f64,
        /// Mean tokens of a response.
        mean_length: f64,
        /// Mean divergence from the reference, nats per token.
        kl: f64,
        /// Seconds to go at this speed.
        eta_seconds: f64,
        /// Servers that answer, of all that draw completions; `None` if the engine does.
        servers: Option<(usize, usize)>,
    },
    /// Held-out questions were answered.
    Answered {
        /// Steps made.
        step: u64,
        /// Share of right answers.
        accuracy: f64,
        /// Mean tokens of a response.
        mean_length: f64,
        /// Share of these tokens that stands after the thought.
        answer_share: f64,
    },
    /// The adapter was written.
    PolicyFinished {
        /// Its directory.
        path: PathBuf,
        /// Mean reward of the last step.
        reward: f64,
        /// Seconds of this run.
        seconds: f64,
    },
    /// Hidden states of labelled queries are about to be computed, for a head.
    StatesStarted {
        /// Queries to answer at once.
        easy: usize,
        /// Queries to think about.
        hard: usize,
        /// Queries left out because they were there already.
        repeated: usize,
        /// Queries left out as too long.
        dropped: usize,
        /// Values of the head that are trained.
        parameters: usize,
    },
    /// One more query is encoded.
    States {
        /// Queries encoded.
        done: usize,
        /// Of so many.
        of: usize,
        /// Prompt tokens per second.
        tokens_per_second: f64,
        /// Seconds to go at this speed.
        eta_seconds: f64,
    },
    /// A head was written.
    HeadFinished {
        /// Its directory.
        path: PathBuf,
        /// How well it tells held-out queries apart.
        auroc: f64,
        /// Seconds of the run.
        seconds: f64,
    },
    /// Responses for a verifier are drawn, or those of an earlier run found.
    VerifierStarted {
        /// Questions to learn from.
        questions: usize,
        /// Questions to measure with.
        held_out: usize,
        /// Questions left out as too long.
        dropped: usize,
        /// Responses wanted.
        samples: usize,
        /// Responses that an earlier run has drawn.
        found: usize,
        /// There were responses of other settings; they are replaced.
        replaced: bool,
    },
    /// More responses were drawn and graded.
    Sampled {
        /// Responses there are.
        done: usize,
        /// Responses wanted.
        total: usize,
        /// Share of right ones among those of this run.
        accuracy: f64,
        /// Tokens of responses per second.
        tokens_per_second: f64,
        /// Seconds to go at this speed.
        eta_seconds: f64,
    },
    /// The verifier was written.
    VerifierFinished {
        /// Its directory.
        path: PathBuf,
        /// Responses learnt from.
        samples: usize,
        /// Area under the ROC curve on held-out questions.
        auroc: Option<f64>,
        /// Expected calibration error on them.
        ece: f64,
        /// Seconds of this run.
        seconds: f64,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps made.
        step: u64,
        /// Its directory.
        path: PathBuf,
    },
    /// The result was written.
    Finished {
        /// Its directory.
        path: PathBuf,
        /// Mean loss of the last steps, nats per learnt token.
        loss: f64,
        /// Seconds of this run.
        seconds: f64,
    },
}

/// The caller's side of a run: it is told what happens, and may stop the run.
pub trait Progress {
    /// Called for each event, in order.
    fn event(&mut self, event: &Event);
    /// Asked before each optimizer step; `true` writes a checkpoint and ends the run.
    fn stop(&mut self) -> bool {
        false
    }
}

/// One of several processes: only the caller of the one that leads hears what happens; each may stop the run.
pub(crate) struct FromLeader<'a> {
    pub leads: bool,
    pub progress: &'a mut dyn Progress,
}

impl Progress for FromLeader<'_> {
    fn event(&mut self, event: &Event) {
        if self.leads {
            self.progress.event(event);
        }
    }
    fn stop(&mut self) -> bool {
        self.progress.stop()
    }
}

/// A run that tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _: &Event) {}
}
