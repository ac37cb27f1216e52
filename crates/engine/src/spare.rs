//! Memory that a task has touched and leaves to the next: new pages cost more than most tasks.

use std::sync::Mutex;

/// What tasks have left, as many as ran at once.
#[derive(Debug)]
pub(crate) struct Spare<T>(Mutex<Vec<T>>);

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Spare<T> {
    /// Runs a task with what another one has left, or with something new.
    pub(crate) fn with<R>(&self, task: impl FnOnce(&mut T) -> R) -> R {
        let locked = || self.0.lock().expect("nothing panics under the lock");
        let mut spare = locked().pop().unwrap_or_default();
        let result = task(&mut spare);
        locked().push(spare);
        result
    }
}
