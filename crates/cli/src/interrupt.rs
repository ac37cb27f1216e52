//! Ctrl-C: ends an answer cleanly while one is running, and the program otherwise.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

/// Exit code of a program ended by Ctrl-C, as shells count it.
pub(crate) const EXIT_CODE: u8 = 130;

static RUNNING: AtomicBool = AtomicBool::new(false);
static PRESSED: AtomicBool = AtomicBool::new(false);

/// Takes over Ctrl-C. Call once.
pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        let again = PRESSED.swap(true, Ordering::SeqCst);
        if again || !RUNNING.load(Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT_CODE));
        }
    })
    .context("cannot take over Ctrl-C")
}

/// While this lives, the first Ctrl-C only sets [`pressed`].
#[derive(Debug)]
pub(crate) struct Running(());

impl Running {
    /// Starts to hold Ctrl-C back.
    pub(crate) fn start() -> Self {
        PRESSED.store(false, Ordering::SeqCst);
        RUNNING.store(true, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.store(false, Ordering::SeqCst);
    }
}

/// Ctrl-C was pressed since the last [`Running::start`].
pub(crate) fn pressed() -> bool {
    PRESSED.load(Ordering::SeqCst)
}
