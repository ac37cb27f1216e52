//! The one job slot of a pool and the protocol by which workers join a job and leave it.
//!
//! All of the pool's `unsafe` is in this file. It rests on one fact: `Shared::run` returns only after the gate was closed and every
//! worker that had joined has left, so a worker that has joined may use what the job points to.
//!
//! The gate is one word: `epoch << 32 | open << 31 | joined`. A worker joins by a compare-exchange that requires `open` and raises
//! `joined`; it leaves by lowering `joined`. Closing clears `open`, after which nobody can join.

#![expect(
    unsafe_code,
    reason = "a closure on the caller's stack is lent to other threads for the length of a call"
)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::Pool;
use crate::worker::{Backoff, TaskScope};

const OPEN: u64 = 1 << 31;
const JOINED: u64 = OPEN - 1;
const EPOCH: u64 = 1 << 32;

/// What a panicking task left.
pub(crate) type Payload = Box<dyn Any + Send>;

/// A borrowed closure without its type: the data pointer and the function that calls it.
#[derive(Clone, Copy)]
struct Job {
    data: *const (),
    call: unsafe fn(*const (), usize),
    n: usize,
}

/// State shared by the caller and the workers of one pool.
pub(crate) struct Shared {
    gate: AtomicU64,
    /// Written only while the gate is closed and `joined` is 0; read only between joining and leaving.
    job: UnsafeCell<Job>,
    next: AtomicUsize,
    panicked: AtomicBool,
    panic: Mutex<Option<Payload>>,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    caller_sleeps: AtomicBool,
    done_lock: Mutex<()>,
    done: Condvar,
}

// SAFETY: `job` is the only field that is not `Sync`. It is written by the one caller that holds the pool's turn while no worker is
// joined, and read by joined workers; the gate's release/acquire pair orders the two. `Job` points to an `F: Sync` closure.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

unsafe fn no_job(_: *const (), _: usize) {}

/// # Safety
/// `data` points to a live `F`.
unsafe fn call<F: Fn(usize) + Sync>(data: *const (), index: usize) {
    // SAFETY: the caller's promise.
    let task = unsafe { &*data.cast::<F>() };
    task(index);
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(Job {
                data: std::ptr::null(),
                call: no_job,
                n: 0,
            }),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            caller_sleeps: AtomicBool::new(false),
            done_lock: Mutex::new(()),
            done: Condvar::new(),
        }
    }

    /// Runs `task` for all indices below `n` with the workers' help. The caller holds the pool's turn.
    pub(crate) fn run<F: Fn(usize) + Sync>(&self, n: usize, task: &F) -> Option<Payload> {
        let job = Job {
            data: std::ptr::from_ref(task).cast(),
            call: call::<F>,
            n,
        };
        // SAFETY: the gate is closed and nobody is joined (the previous call waited for that, and turns are exclusive), so no other
        // thread reads the slot until the gate opens below.
        unsafe { *self.job.get() = job };
        self.next.store(0, Ordering::Relaxed);
        self.panicked.store(false, Ordering::Relaxed);
        let epoch = self.gate.load(Ordering::Relaxed) & !(OPEN | JOINED);
        // Sequentially consistent against `sleepers`: either the sleeper sees the open gate or we see the sleeper.
        self.gate
            .store(epoch.wrapping_add(EPOCH) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
        self.take_indices(job);
        self.close();
        self.panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Closes the gate and waits until every worker that joined has left.
    fn close(&self) {
        self.gate.fetch_and(!OPEN, Ordering::SeqCst);
        let mut backoff = Backoff::new();
        while self.gate.load(Ordering::Acquire) & JOINED != 0 {
            if backoff.wait() {
                continue;
            }
            let mut guard = self
                .done_lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.caller_sleeps.store(true, Ordering::SeqCst);
            while self.gate.load(Ordering::SeqCst) & JOINED != 0 {
                guard = self
                    .done
                    .wait(guard)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            self.caller_sleeps.store(false, Ordering::SeqCst);
        }
    }

    /// A worker's visit: joins the open job unless it is the one of `last_epoch`, helps, leaves. Returns whether it joined.
    pub(crate) fn visit(&self, last_epoch: &mut u64) -> bool {
        let mut gate = self.gate.load(Ordering::Acquire);
        loop {
            if gate & OPEN == 0 || gate >> 32 == *last_epoch {
                return false;
            }
            match self.gate.compare_exchange_weak(
                gate,
                gate + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => break,
                Err(now) => gate = now,
            }
        }
        *last_epoch = gate >> 32;
        // SAFETY: we have joined, so the slot is not written before we leave.
        let job = unsafe { *self.job.get() };
        self.take_indices(job);
        let before = self.gate.fetch_sub(1, Ordering::SeqCst);
        if before & (OPEN | JOINED) == 1 && self.caller_sleeps.load(Ordering::SeqCst) {
            drop(
                self.done_lock
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            self.done.notify_one();
        }
        true
    }

    /// Runs indices until none is left or a task has panicked. The calling thread has joined, or is the caller itself.
    fn take_indices(&self, job: Job) {
        let _scope = TaskScope::enter();
        while !self.panicked.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= job.n {
                return;
            }
            // SAFETY: `job` is the job of the open call (see the contract of this function), whose closure outlives it.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.data, index) }));
            if let Err(payload) = result {
                self.panicked.store(true, Ordering::Relaxed);
                self.panic
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(payload);
            }
        }
    }

    /// Sleeps until a job other than `last_epoch` is open or the pool is shut down.
    pub(crate) fn sleep(&self, last_epoch: u64) {
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let gate = self.gate.load(Ordering::SeqCst);
            if self.stopped() || (gate & OPEN != 0 && gate >> 32 != last_epoch) {
                break;
            }
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Tells every worker to return.
    pub(crate) fn shut_down(&self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }
}

/// The start of a slice whose items are each visited by one task.
struct Start<T>(*mut T);

// SAFETY: sharing it lets another thread reach the items mutably (one at a time each), which is sending them: `T: Send`.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    /// A method, so that closures take the whole of it and not the pointer.
    fn item(&self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

/// Calls `task(i, &mut items[i])` once for every item.
pub(crate) fn for_each_mut<T: Send, F: Fn(usize, &mut T) + Sync>(
    pool: &Pool,
    items: &mut [T],
    task: &F,
) {
    let start = Start(items.as_mut_ptr());
    pool.run(items.len(), |index| {
        // SAFETY: `run` gives every index below the length to one call, so this is the only reference to the item; the slice is
        // mutably borrowed until `run` returns.
        task(index, unsafe { &mut *start.item(index) });
    });
}
