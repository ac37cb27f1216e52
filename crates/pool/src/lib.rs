//! A pool of worker threads for the engine: one safe primitive, disjoint work by index.
//!
//! [`Pool::run`] calls a closure once for every index below `n`, on the calling thread and on the workers, and returns when all
//! calls have returned. Indices are handed out one at a time, so uneven work balances itself. Nothing is allocated per call.
//!
//! A worker that has nothing to do spins for some tens of microseconds (the gap between two layers of a decode step), then yields,
//! then sleeps until the next call. A worker that the system does not schedule never holds a call up: it only takes part in a call
//! once it has joined it, and the caller waits for those alone.
//!
//! ```
//! let pool = edgethink_pool::Pool::new(2)?;
//! let mut squares = [0; 10];
//! pool.for_each_mut(&mut squares, |i, square| *square = i * i);
//! assert_eq!(squares[9], 81);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Which thread runs which index is not defined, so results must not depend on it. The engine's kernels do not.

mod job;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use job::Shared;

/// A fixed set of worker threads. Dropping the pool ends and joins them.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Serialises calls of [`Pool::run`] from several threads: there is one job slot.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool that computes on `threads` threads, the caller of [`Pool::run`] being one of them. `0` counts as 1.
    ///
    /// # Errors
    /// The system's error when a worker thread cannot be started; those already started are ended.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let mut pool = Self {
            shared: Arc::new(Shared::new()),
            workers: Vec::new(),
            turn: Mutex::new(()),
        };
        for index in 1..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let name = format!("edgethink-{index}");
            pool.workers.push(
                std::thread::Builder::new()
                    .name(name)
                    .spawn(move || worker::main(&shared))?,
            );
        }
        Ok(pool)
    }

    /// Number of threads that compute, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(i)` once for every `i` in `0..n`, in no defined order, and returns when all have returned.
    ///
    /// A call from inside a task runs its indices on the thread it is made on. Calls from several threads take turns.
    ///
    /// # Panics
    /// With the payload of the first task that panicked, after every running task has returned; indices not yet begun are skipped.
    pub fn run<F: Fn(usize) + Sync>(&self, n: usize, task: F) {
        if self.workers.is_empty() || n <= 1 || worker::inside_task() {
            (0..n).for_each(task);
            return;
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let panic = self.shared.run(n, &task);
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Calls `task(i, &mut items[i])` once for every item, like [`Pool::run`].
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn for_each_mut<T: Send, F: Fn(usize, &mut T) + Sync>(&self, items: &mut [T], task: F) {
        job::for_each_mut(self, items, &task);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shut_down();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so it can only fail by a defect here; dropping must not panic.
            let _ = catch_unwind(AssertUnwindSafe(|| worker.join()));
        }
    }
}
