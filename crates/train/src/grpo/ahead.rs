//! Rollouts beside training: a thread that owns the backend and draws what it is asked for, in order.
//!
//! The rollouts of step t are drawn by version max(t - k, first) of the policy, k being `[rollout] max_staleness` and `first` the step that
//! this run begins with. With k = 0 the trainer waits for each draw; with k = 1 the next step is drawn while the current one is learnt.
//! Which version draws which step, and what is trained in which order, never depends on how fast anything is.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::Scope,
    time::Instant,
};

use edgethink_model::Tokenizer;

use super::{
    questions::{Prompt, Questions},
    recipe::GrpoRecipe,
    rollout::{Completion, Draws, RolloutBackend},
    step::{self, Drawn},
};
use crate::{error::TrainError, params::Param};

/// The policy after so many optimizer steps.
#[derive(Debug)]
pub(crate) struct Version {
    pub number: u64,
    pub params: Vec<Param>,
}

/// What draws and judges the completions of steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub recipe: &'a GrpoRecipe,
    pub tokenizer: &'a Tokenizer,
    pub questions: &'a Questions<'a>,
}

enum Task {
    /// The next step's completions.
    Step(Arc<Version>),
    /// Completions of the evaluation's prompts.
    Prompts(Arc<Version>, Vec<Prompt>, Draws),
}

enum Reply {
    Step(Box<Drawn>),
    Prompts(Vec<Vec<Completion>>),
}

/// The trainer's end of the thread.
pub(crate) struct Drawer {
    tasks: Sender<Task>,
    replies: Receiver<Result<Reply, TrainError>>,
    /// Steps that were drawn while something else was waited for.
    ready: VecDeque<Drawn>,
    over: Arc<AtomicBool>,
}

impl Drop for Drawer {
    fn drop(&mut self) {
        // What is being drawn is not wanted any more.
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Drawer {
    /// Starts the thread; steps are drawn from place `cursor` of the questions on. `over` is set when the drawer is dropped.
    pub(crate) fn start<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        sources: Sources<'env>,
        backend: Box<dyn RolloutBackend + 'env>,
        cursor: u64,
        over: Arc<AtomicBool>,
    ) -> Self {
        let (tasks, asked) = channel();
        let (done, replies) = channel();
        scope.spawn(move || work(sources, backend, cursor, &asked, &done));
        Self {
            tasks,
            replies,
            ready: VecDeque::new(),
            over,
        }
    }

    /// Asks for the next step's completions.
    pub(crate) fn ask(&self, version: Arc<Version>) {
        // A thread that has ended has said why, which is read with the next reply.
        let _ = self.tasks.send(Task::Step(version));
    }

    /// The next step's completions, which were asked for.
    ///
    /// # Errors
    /// Those of the backend.
    pub(crate) fn step(&mut self) -> Result<Drawn, TrainError> {
        match self.ready.pop_front() {
            Some(drawn) => Ok(drawn),
            None => loop {
                if let Reply::Step(drawn) = self.reply()? {
                    return Ok(*drawn);
                }
            },
        }
    }

    /// Completions of some prompts, behind all that was asked for before.
    ///
    /// # Errors
    /// Those of the backend.
    pub(crate) fn prompts(
        &mut self,
        version: Arc<Version>,
        prompts: Vec<Prompt>,
        draws: Draws,
    ) -> Result<Vec<Vec<Completion>>, TrainError> {
        let _ = self.tasks.send(Task::Prompts(version, prompts, draws));
        loop {
            match self.reply()? {
                Reply::Step(drawn) => self.ready.push_back(*drawn),
                Reply::Prompts(completions) => return Ok(completions),
            }
        }
    }

    fn reply(&self) -> Result<Reply, TrainError> {
        // The thread says why it ends, unless it panicked; then the scope goes on with the panic.
        self.replies.recv().unwrap_or(Err(TrainError::Cancelled))
    }
}

/// Draws until nothing more is asked for, or something fails.
fn work(
    sources: Sources<'_>,
    mut backend: Box<dyn RolloutBackend + '_>,
    mut cursor: u64,
    tasks: &Receiver<Task>,
    replies: &Sender<Result<Reply, TrainError>>,
) {
    for task in tasks {
        let reply = match task {
            Task::Step(version) => draw(sources, backend.as_mut(), &version, &mut cursor)
                .map(|drawn| Reply::Step(Box::new(drawn))),
            Task::Prompts(version, prompts, draws) => backend
                .update(version.number, &version.params)
                .and_then(|()| backend.draw(&prompts, draws))
                .map(Reply::Prompts),
        };
        let failed = reply.is_err();
        if replies.send(reply).is_err() || failed {
            return;
        }
    }
}

fn draw(
    sources: Sources<'_>,
    backend: &mut dyn RolloutBackend,
    version: &Version,
    cursor: &mut u64,
) -> Result<Drawn, TrainError> {
    let begun = Instant::now();
    backend.update(version.number, &version.params)?;
    let mut drawn = step::draw(
        sources.recipe,
        sources.tokenizer,
        sources.questions,
        backend,
        version.number,
        *cursor,
    )?;
    *cursor = drawn.next;
    drawn.seconds = begun.elapsed().as_secs_f64();
    Ok(drawn)
}
