//! A prompt's way to its score: rows come out of prefill, are averaged, and the average is judged.
//!
//! [`Reading`] is for a pipeline that encodes the prompt anyway: it asks the engine for `HiddenStates::PromptFrom(reading.from())`,
//! gives every piece to [`Reading::take`], and has the score from [`Reading::finish`] when the prompt is encoded. [`averages`] and
//! [`score`] run an engine for nothing else, for training and evaluation.

use std::collections::BTreeMap;

use edgethink_engine::{Engine, Event, HiddenStates, Request, RequestId};

use super::{Averages, Averaging, Running, Switcher, SwitcherError};

/// One prompt that is being read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    running: Running,
    from: usize,
    end: usize,
    /// The averages at the chunk boundaries that were passed.
    passed: Vec<Running>,
}

impl Reading {
    /// Begins with the first `end` tokens of a prompt; what is known of them need not come again.
    pub fn new(switcher: &Switcher, known: &mut Averages, prompt: &[u32], end: usize) -> Self {
        let end = end.min(prompt.len());
        let fresh = || Running::new(switcher.averaging(), switcher.hidden_size());
        Self::from_running(known.longest(&prompt[..end]).unwrap_or_else(fresh), end)
    }

    fn from_running(running: Running, end: usize) -> Self {
        Self {
            from: running.tokens(),
            running,
            end,
            passed: Vec::new(),
        }
    }

    /// The first position whose state it needs. It needs none where this is the end.
    pub fn from(&self) -> usize {
        self.from
    }

    /// The position behind the last that it needs.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Reads the states `[n, E]` of consecutive tokens; what it has read or does not need is left out.
    ///
    /// # Errors
    /// [`SwitcherError::Gap`] if tokens are missing before them, [`SwitcherError::Rows`].
    pub fn take(&mut self, first_position: usize, rows: &[f32]) -> Result<(), SwitcherError> {
        let width = self.running.width();
        let next = self.running.tokens();
        if first_position > next && next < self.end {
            return Err(SwitcherError::Gap {
                expected: next,
                found: first_position,
            });
        }
        if !rows.len().is_multiple_of(width) {
            let values = rows.len();
            return Err(SwitcherError::Rows { values, width });
        }
        let behind = first_position + rows.len() / width;
        for position in next..behind.min(self.end) {
            let at = (position - first_position) * width;
            self.running.push(&rows[at..at + width])?;
            if self.running.at_boundary() {
                self.passed.push(self.running.clone());
            }
        }
        Ok(())
    }

    /// The average of the whole prompt, `[E]`.
    ///
    /// # Errors
    /// [`SwitcherError::Unread`] before all states came, [`SwitcherError::NoTokens`], [`SwitcherError::NotFinite`].
    pub fn average(&self) -> Result<Vec<f32>, SwitcherError> {
        let read = self.running.tokens();
        if read < self.end {
            let wanted = self.end;
            return Err(SwitcherError::Unread { read, wanted });
        }
        self.running.average()
    }

    /// The score, once all is read; the averages on the way are kept for other prompts.
    ///
    /// # Errors
    /// As [`Reading::average`], and [`SwitcherError::NotFinite`] of the score.
    pub fn finish(
        self,
        switcher: &Switcher,
        known: &mut Averages,
        prompt: &[u32],
    ) -> Result<f32, SwitcherError> {
        let score = switcher.score(&self.average()?)?;
        known.insert(prompt, self.passed);
        Ok(score)
    }
}

/// Prompts that are encoded at the same time.
const IN_FLIGHT: usize = 64;

/// The averages `[E]` of many prompts, in their order, by the base in `engine`, which must be idle. `done` is told after each prompt how
/// many tokens it had, and says whether to go on; `None` if it said no.
///
/// # Errors
/// A prompt that the engine refuses, or states that are not finite. The engine is idle again.
pub fn averages(
    engine: &mut Engine,
    averaging: Averaging,
    prompts: &[&[u32]],
    mut done: impl FnMut(usize) -> bool,
) -> Result<Option<Vec<Vec<f32>>>, SwitcherError> {
    let mut flying = BTreeMap::new();
    let results = read_all(engine, averaging, prompts, &mut flying, &mut done);
    for &id in flying.keys() {
        // A request that has failed is not known any more.
        let _ = engine.cancel(id);
    }
    if !flying.is_empty() {
        engine.step()?;
    }
    results
}

/// A prompt's place in the list, and how far it is.
type Flying = BTreeMap<RequestId, (usize, Reading)>;

fn read_all(
    engine: &mut Engine,
    averaging: Averaging,
    prompts: &[&[u32]],
    flying: &mut Flying,
    done: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<Vec<Vec<f32>>>, SwitcherError> {
    let width = engine.model().config.hidden_size;
    let mut results = vec![Vec::new(); prompts.len()];
    let mut next = 0;
    while next < prompts.len() || !flying.is_empty() {
        while flying.len() < IN_FLIGHT && next < prompts.len() {
            let request = Request {
                hidden: HiddenStates::Prompt,
                ..Request::greedy(prompts[next].to_vec(), 0)
            };
            let running = Running::new(averaging, width);
            let reading = Reading::from_running(running, prompts[next].len());
            flying.insert(engine.submit(request)?, (next, reading));
            next += 1;
        }
        for event in engine.step()? {
            let id = event.request();
            match event {
                Event::Hidden {
                    first_position,
                    data,
                    ..
                } => {
                    if let Some((_, reading)) = flying.get_mut(&id) {
                        reading.take(first_position, &data)?;
                    }
                }
                Event::Finished { .. } => {
                    if let Some((index, reading)) = flying.remove(&id) {
                        results[index] = reading.average()?;
                        if !done(prompts[index].len()) {
                            return Ok(None);
                        }
                    }
                }
                Event::Failed { error, .. } => return Err(error.into()),
                Event::Prefilled { .. } | Event::Token { .. } => {}
            }
        }
    }
    Ok(Some(results))
}

/// The score of one prompt, read by an idle engine for nothing else.
///
/// # Errors
/// As [`averages`].
pub fn score(
    engine: &mut Engine,
    switcher: &Switcher,
    prompt: &[u32],
) -> Result<f32, SwitcherError> {
    let read = &prompt[..switcher.reads(prompt)];
    let all = averages(engine, switcher.averaging(), &[read], |_| true)?;
    let average = all.and_then(|mut all| all.pop());
    switcher.score(&average.ok_or(SwitcherError::NoTokens)?)
}
