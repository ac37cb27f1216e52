//! A bar with the time that is left; on a stderr that is no terminal, a line now and then.

use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(30);

/// Work of a known size.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    last_line: Instant,
    what: String,
}

impl Progress {
    /// `len` pieces of `what`, of which `done` are there already.
    pub(crate) fn new(what: &str, len: usize, done: usize) -> Result<Self> {
        let style = ProgressStyle::with_template(
            "{prefix}: {bar:30} {pos}/{len}, {msg}{elapsed}, {eta} left",
        )?;
        let bar = ProgressBar::new(len as u64).with_style(style);
        bar.set_prefix(what.to_owned());
        bar.set_position(done as u64);
        bar.reset_eta();
        Ok(Self {
            bar,
            last_line: Instant::now(),
            what: what.to_owned(),
        })
    }

    /// One more is done.
    pub(crate) fn went(&mut self, message: &str) {
        self.bar.set_message(format!("{message}, "));
        self.bar.inc(1);
        if self.bar.is_hidden() && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let (done, len) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let left = self.bar.eta().as_secs();
            eprintln!("{}: {done} of {len}, {message}, {left} s left", self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
