//! Who is next: requests in the order of arrival, each with the KV blocks that it is expected to fill.
//!
//! The sum of what runs stays within the pool, so that sequences are rarely preempted; the expectation may be wrong, since the engine
//! loses nothing when it preempts. The first in line is never overtaken, and one that is larger than the pool runs alone.

use std::collections::VecDeque;
use std::time::Instant;

use super::handle::{Submission, TicketId};

/// Requests that wait, and blocks that are promised to those that run.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: VecDeque<Submission>,
    blocks: usize,
    promised: usize,
}

impl Queue {
    pub(crate) fn new(blocks: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            blocks,
            promised: 0,
        }
    }

    pub(crate) fn push(&mut self, submission: Submission) {
        self.waiting.push_back(submission);
    }

    /// The first in line if it has room; its blocks are promised until [`Queue::release`].
    pub(crate) fn next(&mut self) -> Option<Submission> {
        let blocks = self.waiting.front()?.blocks;
        if self.promised > 0 && self.promised + blocks > self.blocks {
            return None;
        }
        self.promised += blocks;
        self.waiting.pop_front()
    }

    /// Gives back what was promised to a request that has ended.
    pub(crate) fn release(&mut self, blocks: usize) {
        self.promised -= blocks;
    }

    pub(crate) fn remove(&mut self, id: TicketId) -> Option<Submission> {
        let at = self.waiting.iter().position(|waiting| waiting.id == id)?;
        self.waiting.remove(at)
    }

    /// Takes out those whose time is over.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<Submission> {
        let late = |waiting: &Submission| waiting.deadline <= now;
        if !self.waiting.iter().any(late) {
            return Vec::new();
        }
        let (gone, left): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(late);
        self.waiting = left.into();
        gone
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Submission> {
        self.waiting.drain(..)
    }

    /// The last in line.
    pub(crate) fn last(&self) -> Option<&Submission> {
        self.waiting.back()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn submission(id: u128, blocks: usize, seconds: u64) -> Submission {
        Submission::for_tests(id, blocks, Duration::from_secs(seconds))
    }

    #[test]
    fn requests_begin_in_order_and_within_the_pool() {
        let mut queue = Queue::new(10);
        for (id, blocks) in [(1, 6), (2, 5), (3, 1), (4, 50)] {
            queue.push(submission(id, blocks, 60));
        }
        let next = |queue: &mut Queue| queue.next().map(|s| s.id.0);
        assert_eq!(next(&mut queue), Some(1));
        assert_eq!(next(&mut queue), None, "5 more do not fit");
        assert_eq!(queue.len(), 3, "and 3 does not overtake 2");
        queue.release(6);
        assert_eq!((next(&mut queue), next(&mut queue)), (Some(2), Some(3)));
        assert_eq!(next(&mut queue), None);
        queue.release(5);
        queue.release(1);
        assert_eq!(next(&mut queue), Some(4), "too large for the pool, alone");
    }

    #[test]
    fn those_who_leave_are_gone() {
        let mut queue = Queue::new(1);
        for (id, seconds) in [(1, 60), (2, 0), (3, 60)] {
            queue.push(submission(id, 1, seconds));
        }
        let gone = queue.expired(Instant::now() + Duration::from_secs(1));
        assert_eq!(gone.iter().map(|s| s.id.0).collect::<Vec<_>>(), [2]);
        assert!(queue.remove(TicketId(2)).is_none());
        assert!(queue.remove(TicketId(1)).is_some());
        assert_eq!(queue.next().map(|s| s.id.0), Some(3));
        assert!(queue.is_empty());
    }
}
