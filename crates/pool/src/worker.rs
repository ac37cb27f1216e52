//! What a worker thread does, how a thread waits, and how a nested call is recognised.

use std::cell::Cell;

use crate::job::Shared;

/// Pauses before yielding: about 40 to 140 cycles each, so some tens of microseconds in all.
const SPINS: u32 = 1500;
/// Yields before sleeping.
const YIELDS: u32 = 64;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a task of some pool.
pub(crate) fn inside_task() -> bool {
    INSIDE.get()
}

/// Marks this thread as inside a task until dropped.
pub(crate) struct TaskScope(());

impl TaskScope {
    pub(crate) fn enter() -> Self {
        INSIDE.set(true);
        Self(())
    }
}

impl Drop for TaskScope {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// Spin, then yield, then give up.
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(0)
    }

    /// Waits a little; false once it is time to sleep.
    pub(crate) fn wait(&mut self) -> bool {
        if self.0 < SPINS {
            std::hint::spin_loop();
        } else if self.0 < SPINS + YIELDS {
            std::thread::yield_now();
        } else {
            return false;
        }
        self.0 += 1;
        true
    }
}

/// The life of a worker.
pub(crate) fn main(shared: &Shared) {
    let mut last_epoch = 0;
    let mut backoff = Backoff::new();
    while !shared.stopped() {
        if shared.visit(&mut last_epoch) {
            backoff = Backoff::new();
        } else if !backoff.wait() {
            shared.sleep(last_epoch);
            backoff = Backoff::new();
        }
    }
}
