//! The handlers' side of the worker: a [`Handle`] to submit with, and a [`Ticket`] that brings the updates of one request.
//!
//! A ticket that is dropped before its end cancels the request: that is how a client's disconnect reaches the engine.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use edgethink_model::Adapter;
use edgethink_reason::{Answer, Event, Query, ReasonError, Reasoner, ThoughtFormat};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::Worker;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::options::Limits;

/// Names a request. Drawn at random, since whoever knows it may end its thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TicketId(pub(crate) u128);

impl std::fmt::Display for TicketId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl TicketId {
    /// The id that a client gives back, behind whatever its API puts in front.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.rsplit(['-', '_']).next()?;
        let plain = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        u128::from_str_radix(digits, 16)
            .ok()
            .filter(|_| plain)
            .map(Self)
    }

    fn random() -> Self {
        Self(rand::random())
    }
}

/// What the worker is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Box<Submission>),
    Cancel(TicketId),
    /// Ends the open thoughts of a request, of one stream or all; the reply is how many.
    EndThought {
        id: TicketId,
        stream: Option<usize>,
        reply: oneshot::Sender<Result<usize, ReasonError>>,
    },
    /// Loads an adapter under a name, or puts it in the place of the one that has it.
    Load {
        name: String,
        adapter: Box<Adapter>,
        format: ThoughtFormat,
        replace: bool,
        reply: oneshot::Sender<Result<(), ReasonError>>,
    },
    /// Forgets a named adapter.
    Unload {
        name: String,
        reply: oneshot::Sender<Result<(), ReasonError>>,
    },
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Update {
    /// It waits for room.
    Queued,
    /// The reasoner has it.
    Started,
    /// Something happened in it; never its end.
    Event(Event),
    /// It is answered: the last update.
    Done(Box<Outcome>),
    /// It is refused or failed: the last update.
    Failed(ApiError),
}

/// An answer, and what the server knows of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    /// How long it waited for room.
    pub(crate) queued: Duration,
    /// Most KV blocks held by all running requests while it ran.
    pub(crate) blocks_peak: usize,
}

/// A request on its way to the reasoner.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: TicketId,
    pub(crate) query: Query,
    /// KV blocks that it is expected to fill.
    pub(crate) blocks: usize,
    pub(crate) arrived: Instant,
    pub(crate) deadline: Instant,
    updates: UnboundedSender<Update>,
}

impl Submission {
    /// Whether somebody still listens.
    pub(crate) fn tell(&self, update: Update) -> bool {
        self.updates.send(update).is_ok()
    }

    /// The error of one that is out of time.
    pub(crate) fn late(&self) -> ApiError {
        ApiError::deadline(self.deadline.duration_since(self.arrived).as_secs())
    }

    #[cfg(test)]
    pub(crate) fn for_tests(id: u128, blocks: usize, time: Duration) -> Self {
        use edgethink_reason::{Input, Think};
        let arrived = Instant::now();
        Self {
            id: TicketId(id),
            query: Query::greedy(Input::Raw("x".to_owned()), Think::Off),
            blocks,
            arrived,
            deadline: arrived + time,
            updates: unbounded_channel().0,
        }
    }
}

/// What both sides see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    waiting: AtomicUsize,
    running: AtomicUsize,
    draining: AtomicBool,
    failed: AtomicBool,
}

impl Shared {
    fn enter_queue(&self, limit: usize) -> bool {
        let more = |waiting| (waiting < limit).then_some(waiting + 1);
        self.waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .is_ok()
    }

    pub(super) fn left_queue(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn observe(&self, running: usize) {
        self.running.store(running, Ordering::Release);
    }

    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

/// Submits requests. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// The worker's thread.
pub(crate) type WorkerThread = JoinHandle<Result<(), ReasonError>>;

impl Handle {
    /// Starts the worker. It ends when every handle and ticket is gone.
    pub(crate) fn start(
        reasoner: Reasoner,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, WorkerThread)> {
        let (commands, receiver) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let worker = Worker::new(reasoner, receiver, Arc::clone(&shared), metrics);
        let thread = std::thread::Builder::new()
            .name("edgethink-engine".to_owned())
            .spawn(move || worker.run())?;
        Ok((Self { commands, shared }, thread))
    }

    /// Gives `query` to the worker, with the KV blocks that it is expected to fill.
    ///
    /// Returns when the reasoner has accepted it or it waits in the queue.
    pub(crate) async fn submit(
        &self,
        query: Query,
        blocks: usize,
        limits: &Limits,
    ) -> Result<Ticket, ApiError> {
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(ApiError::draining());
        }
        if !self.shared.enter_queue(limits.queue) {
            return Err(ApiError::queue_full(limits.queue));
        }
        let (updates, receiver) = unbounded_channel();
        let arrived = Instant::now();
        let id = TicketId::random();
        let submission = Submission {
            id,
            query,
            blocks,
            arrived,
            deadline: arrived + limits.deadline,
            updates,
        };
        let mut ticket = Ticket {
            id,
            updates: receiver,
            handle: self.clone(),
            over: false,
        };
        self.send(Command::Submit(Box::new(submission)))?;
        match ticket.next().await {
            Update::Failed(error) => Err(error),
            _ => Ok(ticket),
        }
    }

    /// Asks the worker something and waits for its reply.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ReasonError>>) -> Command,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        Ok(answer.await.map_err(|_| engine_gone())??)
    }

    fn send(&self, command: Command) -> Result<(), ApiError> {
        self.commands.send(command).map_err(|_| engine_gone())
    }

    /// Takes no new requests from now on.
    pub(crate) fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Nothing runs and nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        let zero = |count: &AtomicUsize| count.load(Ordering::Acquire) == 0;
        zero(&self.shared.waiting) && zero(&self.shared.running)
    }

    /// The worker has ended.
    pub(crate) fn is_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }
}

fn engine_gone() -> ApiError {
    ApiError::internal("the engine has stopped; restart the server")
}

/// One request's updates. Dropping it before the end cancels the request.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) id: TicketId,
    updates: UnboundedReceiver<Update>,
    handle: Handle,
    over: bool,
}

impl Ticket {
    /// The next update; after the last one an error.
    pub(crate) async fn next(&mut self) -> Update {
        let update = self
            .updates
            .recv()
            .await
            .unwrap_or_else(|| Update::Failed(engine_gone()));
        self.over |= matches!(update, Update::Done(_) | Update::Failed(_));
        update
    }

    /// The last update has come.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Waits for the answer.
    pub(crate) async fn outcome(mut self) -> Result<Outcome, ApiError> {
        loop {
            match self.next().await {
                Update::Done(outcome) => return Ok(*outcome),
                Update::Failed(error) => return Err(error),
                Update::Queued | Update::Started | Update::Event(_) => {}
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.over {
            // A worker that is gone has nothing to cancel.
            let _ = self.handle.send(Command::Cancel(self.id));
        }
    }
}
