//! The one thread that owns the reasoner: takes queries between steps, gives events to whoever asked, ends what nobody waits for.
//!
//! ```text
//! handler --submit--> queue (FIFO, bounded) --admitted by KV blocks--> reasoner --events--> handler
//! ```
//!
//! [`handle`] is the handlers' side, [`queue`] decides who is next. Everything that runs is in one batch; a request that is dropped by
//! its client is cancelled wherever it is.

pub(crate) mod handle;
pub(crate) mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use edgethink_reason::{Event, QueryId, ReasonError, Reasoner};

use crate::error::{ApiError, told};
use crate::metrics::Metrics;
use handle::{Command, Outcome, Shared, Submission, TicketId, Update};
use queue::Queue;

/// A request that the reasoner works on.
#[derive(Debug)]
struct Running {
    submission: Submission,
    admitted: Instant,
    /// Nobody waits for it any more; it is on its way out.
    over: bool,
    /// Most KV blocks that all running requests held together while it ran.
    blocks_peak: usize,
    /// When each stream last gave text.
    spoke: BTreeMap<usize, Instant>,
}

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Worker {
    reasoner: Reasoner,
    commands: Receiver<Command>,
    queue: Queue,
    running: BTreeMap<QueryId, Running>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

impl Worker {
    pub(crate) fn new(
        reasoner: Reasoner,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let blocks = reasoner.engine().stats().blocks_total;
        Self {
            reasoner,
            commands,
            queue: Queue::new(blocks),
            running: BTreeMap::new(),
            shared,
            metrics,
        }
    }

    /// Works until nobody can ask any more, or the engine fails; then whoever waits is told.
    pub(crate) fn run(mut self) -> Result<(), ReasonError> {
        let ended = self.work();
        if let Err(error) = &ended {
            let error = ApiError::internal(told(error));
            for running in self.running.values() {
                running.submission.tell(Update::Failed(error.clone()));
            }
            for submission in self.queue.drain() {
                submission.tell(Update::Failed(error.clone()));
            }
        }
        ended
    }

    fn work(&mut self) -> Result<(), ReasonError> {
        loop {
            if self.running.is_empty() && self.queue.is_empty() {
                self.observe();
                match self.commands.recv() {
                    Ok(command) => self.take(command),
                    Err(_) => return Ok(()),
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            self.expire();
            self.admit();
            if !self.running.is_empty() {
                let events = self.reasoner.step()?;
                // Before anybody hears of it: whoever has an answer finds it counted.
                self.observe();
                for (query, event) in events {
                    self.deliver(query, event);
                }
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => {
                self.queue.push(*submission);
                self.admit();
                if let Some(last) = self.queue.last() {
                    last.tell(Update::Queued);
                }
            }
            Command::Cancel(id) => {
                if self.queue.remove(id).is_some() {
                    self.shared.left_queue();
                    self.metrics.cancelled.increment(1);
                } else if let Some(query) = self.query(id) {
                    self.cancel(query);
                }
            }
            // Whoever does not wait for a reply needs none.
            Command::EndThought { id, stream, reply } => {
                let query = self.query(id).ok_or(ReasonError::UnknownQuery);
                let ended = query.and_then(|query| self.reasoner.end_thought(query, stream));
                let _ = reply.send(ended);
            }
            Command::Load {
                name,
                adapter,
                format,
                replace,
                reply,
            } => {
                let done = if replace {
                    self.reasoner.replace_adapter(&name, *adapter, format)
                } else {
                    self.reasoner.load_adapter(&name, *adapter, format)
                };
                let _ = reply.send(done);
            }
            Command::Unload { name, reply } => {
                let _ = reply.send(self.reasoner.unload_adapter(&name));
            }
        }
    }

    /// Ends what is out of time.
    fn expire(&mut self) {
        let now = Instant::now();
        for submission in self.queue.expired(now) {
            self.shared.left_queue();
            self.metrics.expired.increment(1);
            submission.tell(Update::Failed(submission.late()));
        }
        let late = |(&query, running): (&QueryId, &Running)| {
            (!running.over && running.submission.deadline <= now).then_some(query)
        };
        let late: Vec<QueryId> = self.running.iter().filter_map(late).collect();
        for query in late {
            self.metrics.expired.increment(1);
            let submission = &self.running[&query].submission;
            submission.tell(Update::Failed(submission.late()));
            self.cancel(query);
        }
    }

    /// Begins what has room, in the order of arrival.
    fn admit(&mut self) {
        while let Some(submission) = self.queue.next() {
            let admitted = Instant::now();
            let query = match self.reasoner.submit(&submission.query) {
                Ok(query) => query,
                Err(error) => {
                    self.queue.release(submission.blocks);
                    self.shared.left_queue();
                    submission.tell(Update::Failed(error.into()));
                    continue;
                }
            };
            let waited = admitted.duration_since(submission.arrived);
            self.metrics.queue_seconds.record(waited);
            submission.tell(Update::Started);
            let running = Running {
                submission,
                admitted,
                over: false,
                blocks_peak: 0,
                spoke: BTreeMap::new(),
            };
            self.running.insert(query, running);
            // In this order, so that it is at every moment in one of the two.
            self.shared.observe(self.running.len());
            self.shared.left_queue();
        }
    }

    fn deliver(&mut self, query: QueryId, event: Event) {
        let Some(running) = self.running.get_mut(&query) else {
            return;
        };
        running.observe(&event, &self.metrics);
        let update = match event {
            Event::Answered(answer) => {
                let Some(running) = self.finish(query) else {
                    return;
                };
                if running.over {
                    return;
                }
                self.metrics.answered(&answer);
                let outcome = Outcome {
                    answer: *answer,
                    queued: running.admitted.duration_since(running.submission.arrived),
                    blocks_peak: running.blocks_peak,
                };
                running.submission.tell(Update::Done(Box::new(outcome)));
                return;
            }
            Event::Failed(error) => {
                if let Some(running) = self.finish(query).filter(|running| !running.over) {
                    self.metrics.failed.increment(1);
                    running.submission.tell(Update::Failed(error.into()));
                }
                return;
            }
            event => Update::Event(event),
        };
        if !running.over && !running.submission.tell(update) {
            self.cancel(query);
        }
    }

    fn finish(&mut self, query: QueryId) -> Option<Running> {
        let running = self.running.remove(&query)?;
        self.queue.release(running.submission.blocks);
        Some(running)
    }

    /// Ends a query whose client is gone or was told; its blocks are free at once, and its entry goes with its last event.
    fn cancel(&mut self, query: QueryId) {
        if let Some(running) = self.running.get_mut(&query)
            && !running.over
        {
            running.over = true;
            self.metrics.cancelled.increment(1);
            self.reasoner.cancel(query);
        }
    }

    fn query(&self, id: TicketId) -> Option<QueryId> {
        let found = self
            .running
            .iter()
            .find(|(_, running)| running.submission.id == id && !running.over);
        found.map(|(&query, _)| query)
    }

    /// Counters and gauges, after every step and before a rest.
    fn observe(&mut self) {
        let stats = self.reasoner.engine().stats();
        for running in self.running.values_mut() {
            running.blocks_peak = running.blocks_peak.max(stats.blocks_held);
        }
        self.shared.observe(self.running.len());
        self.metrics
            .observe(&stats, self.running.len(), self.queue.len());
    }
}

impl Drop for Worker {
    /// However it ends, nobody may wait for it: a panic ends the server too.
    fn drop(&mut self) {
        self.shared.fail();
    }
}

impl Running {
    /// Times of the first text and between texts.
    fn observe(&mut self, event: &Event, metrics: &Metrics) {
        let (Event::Reasoning { stream, .. } | Event::Content { stream, .. }) = event else {
            return;
        };
        let now = Instant::now();
        if self.spoke.is_empty() {
            let since = now.duration_since(self.submission.arrived);
            metrics.ttft_seconds.record(since);
        }
        if let Some(last) = self.spoke.insert(*stream, now) {
            metrics.inter_token_seconds.record(now.duration_since(last));
        }
    }
}
