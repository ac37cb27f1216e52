//! Shows an answer while it comes: the thought dimmed and folded, then the answer's text.
//!
//! Folding redraws the last lines of the thought in place and replaces them by one line when it is over; the region is
//! bounded, so it never runs out of the screen. In a pipe only the answer's text is written, unless the thought is asked for.
//! With several streams each has a line while they run. Without a vote each answer is shown whole, in order, as soon as it and all
//! before it are done; with one, the winner is shown at the end, and the votes.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use edgethink_reason::{Answer, Choice, Event, FinishReason, ThoughtEnd};

use crate::args::ShowThought;
use crate::screen::{LiveRegion, Screen, harmless, wrapped_tail};

const FOLD_ROWS: usize = 6;
const FRAME: Duration = Duration::from_millis(40);

/// The running view of one query.
#[derive(Debug)]
pub(crate) struct Show<W: Write> {
    out: W,
    screen: Screen,
    thought: ShowThought,
    streams: Vec<StreamView>,
    region: LiveRegion,
    started: Instant,
    last_frame: Option<Instant>,
    /// The streams vote, and only the winner is shown.
    votes: bool,
    /// Streams shown completely (several streams without a vote).
    printed: usize,
    ends_with_newline: bool,
}

#[derive(Debug, Clone, Default)]
struct StreamView {
    reasoning: String,
    content: String,
    thinking: bool,
    thought: Option<Folded>,
    finished: Option<FinishReason>,
    score: Option<f32>,
}

#[derive(Debug, Clone, Copy)]
struct Folded {
    tokens: usize,
    seconds: f64,
    end: ThoughtEnd,
}

impl Folded {
    fn line(self) -> String {
        if self.tokens == 0 && self.end == ThoughtEnd::Budget {
            return "▸ the budget has no room for a thought".to_owned();
        }
        let plural = if self.tokens == 1 { "" } else { "s" };
        let cut = self.cut().map_or(String::new(), |why| format!(", {why}"));
        format!(
            "▸ thought for {} token{plural}, {:.1} s{cut}",
            self.tokens, self.seconds
        )
    }

    /// Why it did not end by itself.
    fn cut(self) -> Option<&'static str> {
        match self.end {
            ThoughtEnd::Model => None,
            ThoughtEnd::Budget => Some("cut by the budget"),
            ThoughtEnd::Loop => Some("cut because it repeated itself"),
            ThoughtEnd::Caller => Some("ended on request"),
            ThoughtEnd::Turn => Some("closed because the turn ended inside it"),
        }
    }
}

impl StreamView {
    fn begun(&self) -> bool {
        self.finished.is_some() || !self.reasoning.is_empty() || !self.content.is_empty()
    }

    /// What it does, within `width` columns.
    fn line(&self, index: usize, width: usize) -> String {
        let what = match self.finished {
            Some(FinishReason::Decided) => "not needed any more",
            Some(FinishReason::Cancelled) => "stopped",
            Some(_) => "answers",
            None if self.thinking => "thinks",
            None => "writes",
        };
        let score = self
            .score
            .map_or(String::new(), |score| format!(", score {score:.2}"));
        let head = format!("{:>2} {what}{score}: ", index + 1);
        let text = if self.thinking {
            &self.reasoning
        } else {
            &self.content
        };
        let text = text.replace('\n', " ");
        let room = width.saturating_sub(head.chars().count()).max(1);
        let tail = wrapped_tail(text.trim(), room, 1).pop().unwrap_or_default();
        let line = format!("{head}{tail}");
        wrapped_tail(&line, width.max(1), usize::MAX / (width + 1))
            .into_iter()
            .next()
            .unwrap_or_default()
    }
}

impl<W: Write> Show<W> {
    pub(crate) fn new(
        out: W,
        screen: Screen,
        thought: Option<ShowThought>,
        n: usize,
        votes: bool,
    ) -> Self {
        Self {
            out,
            screen,
            thought: thought.unwrap_or(if screen.live {
                ShowThought::Fold
            } else {
                ShowThought::Hide
            }),
            streams: vec![StreamView::default(); n],
            region: LiveRegion::default(),
            started: Instant::now(),
            last_frame: None,
            votes,
            printed: 0,
            ends_with_newline: true,
        }
    }

    /// Takes the next event.
    pub(crate) fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Prefilled { .. }
            | Event::Decided(_)
            | Event::Logprob { .. }
            | Event::Answered(_)
            | Event::Failed(_) => Ok(()),
            Event::Scored { stream, score } => {
                self.streams[*stream].score = Some(*score);
                if self.several() {
                    self.progress()
                } else {
                    Ok(())
                }
            }
            Event::Reasoning { stream, text } => {
                let text = self.clean(text);
                self.streams[*stream].thinking = true;
                self.streams[*stream].reasoning.push_str(&text);
                if self.several() {
                    return self.progress();
                }
                match self.thought {
                    ShowThought::Full => {
                        let dimmed = self.screen.dim(&text);
                        self.write(&dimmed)
                    }
                    ShowThought::Fold if self.screen.live => self.frame(),
                    ShowThought::Fold | ShowThought::Hide => Ok(()),
                }
            }
            Event::ThoughtEnded {
                stream,
                tokens,
                end,
            } => {
                self.streams[*stream].thinking = false;
                self.streams[*stream].thought = Some(Folded {
                    tokens: *tokens,
                    seconds: self.started.elapsed().as_secs_f64(),
                    end: *end,
                });
                if self.several() {
                    return self.progress();
                }
                self.thought_line(*stream)
            }
            Event::Content { stream, text } => {
                let text = self.clean(text);
                self.streams[*stream].content.push_str(&text);
                if self.several() {
                    return self.progress();
                }
                self.write(&text)
            }
            Event::StreamFinished { stream, reason } => {
                self.streams[*stream].finished = Some(*reason);
                if self.votes && self.several() {
                    self.progress()
                } else if self.several() {
                    self.show_finished()
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Everything has been said: closes the last line; an unfinished thought is named as such.
    pub(crate) fn finish(&mut self, answer: &Answer) -> Result<()> {
        self.region.clear(&mut self.out)?;
        if let [choice] = answer.choices.as_slice()
            && self.streams[0].thinking
        {
            self.unfinished(choice)?;
        }
        if self.votes && self.several() {
            self.winner(answer)?;
        }
        if !self.ends_with_newline {
            self.write("\n")?;
        }
        self.out.flush()?;
        Ok(())
    }

    /// Removes what is only drawn for the moment, after an error.
    pub(crate) fn abandon(&mut self) -> Result<()> {
        self.region.clear(&mut self.out)
    }

    fn unfinished(&mut self, choice: &Choice) -> Result<()> {
        let why = match choice.finish_reason {
            FinishReason::Cancelled | FinishReason::Decided => "stopped",
            FinishReason::Stop => "the turn ended inside it",
            FinishReason::Length => "cut off at the limit, no answer; --budget forces one",
        };
        let line = format!("▸ thought for {} tokens, {why}", choice.reasoning_tokens);
        match self.thought {
            ShowThought::Hide => Ok(()),
            ShowThought::Full => {
                let line = format!("\n\n{}\n", self.screen.dim(&line));
                self.write(&line)
            }
            ShowThought::Fold => {
                let line = format!("{}\n", self.screen.dim(&line));
                self.write(&line)
            }
        }
    }

    /// The thought of the only stream is over.
    fn thought_line(&mut self, stream: usize) -> Result<()> {
        self.region.clear(&mut self.out)?;
        let Some(folded) = self.streams[stream].thought else {
            return Ok(());
        };
        match self.thought {
            ShowThought::Full if folded.tokens > 0 => {
                let cut = folded.cut().map_or(String::new(), |why| {
                    format!("\n{}", self.screen.dim(&format!("▸ {why}")))
                });
                self.write(&format!("{cut}\n\n"))
            }
            ShowThought::Fold => {
                let line = format!("{}\n\n", self.screen.dim(&folded.line()));
                self.write(&line)
            }
            ShowThought::Full | ShowThought::Hide => Ok(()),
        }
    }

    /// Draws the last lines of the thought, at most 25 times a second.
    fn frame(&mut self) -> Result<()> {
        if self.last_frame.is_some_and(|at| at.elapsed() < FRAME) {
            return Ok(());
        }
        self.last_frame = Some(Instant::now());
        let rows = FOLD_ROWS.min(self.screen.height - 2);
        let lines: Vec<String> =
            wrapped_tail(&self.streams[0].reasoning, self.screen.width - 1, rows)
                .iter()
                .map(|line| self.screen.dim(line))
                .collect();
        self.region.draw(&mut self.out, &lines)
    }

    fn several(&self) -> bool {
        self.streams.len() > 1
    }

    /// One line for each stream that has begun, as many as fit; at most 25 times a second.
    fn progress(&mut self) -> Result<()> {
        if !self.screen.live || self.last_frame.is_some_and(|at| at.elapsed() < FRAME) {
            return Ok(());
        }
        self.last_frame = Some(Instant::now());
        let width = self.screen.width - 1;
        let begun = self.streams.iter().enumerate().filter(|(_, s)| s.begun());
        let lines: Vec<String> = begun
            .map(|(index, stream)| self.screen.dim(&stream.line(index, width)))
            .take(self.screen.height.saturating_sub(2).max(1))
            .collect();
        self.region.draw(&mut self.out, &lines)
    }

    /// The answer of the vote, and who voted for what.
    fn winner(&mut self, answer: &Answer) -> Result<()> {
        let Some(vote) = &answer.vote else {
            return Ok(());
        };
        let Some(winner) = vote.winner() else {
            return self.write("no stream came to an answer\n");
        };
        if self.thought == ShowThought::Full && !answer.choices[winner].reasoning.is_empty() {
            let thought = self.clean(&answer.choices[winner].reasoning);
            let thought = format!("{}\n\n", self.screen.dim(&thought));
            self.write(&thought)?;
        }
        let text = self.clean(answer.choices[winner].text.trim_end_matches('\n'));
        self.write(&format!("{text}\n"))?;
        if self.thought == ShowThought::Hide {
            return Ok(());
        }
        let mut lines = String::from("\n");
        for group in &vote.groups {
            let line = format!(
                "▸ {}: {} of {}, weight {:.2}",
                self.clean(&group.answer),
                group.streams.len(),
                answer.choices.len(),
                group.weight
            );
            lines.push_str(&self.screen.dim(&line));
            lines.push('\n');
        }
        self.write(&lines)
    }

    /// Prints the streams that are complete and whose predecessors are printed.
    fn show_finished(&mut self) -> Result<()> {
        while let Some(view) = self.streams.get(self.printed)
            && view.finished.is_some()
        {
            self.region.clear(&mut self.out)?;
            let view = std::mem::take(&mut self.streams[self.printed]);
            let mut text = String::new();
            if self.printed > 0 {
                text.push('\n');
            }
            text.push_str(&self.screen.bold(&format!(
                "[{} of {}]",
                self.printed + 1,
                self.streams.len()
            )));
            if let (Some(folded), ShowThought::Fold) = (view.thought, self.thought) {
                text.push_str(&format!(" {}", self.screen.dim(&folded.line())));
            } else if view.thinking && self.thought != ShowThought::Hide {
                text.push_str(&format!(
                    " {}",
                    self.screen.dim("▸ the thought did not end")
                ));
            }
            text.push('\n');
            if self.thought == ShowThought::Full && !view.reasoning.is_empty() {
                text.push_str(&self.screen.dim(&view.reasoning));
                text.push_str("\n\n");
            }
            text.push_str(view.content.trim_end_matches('\n'));
            text.push('\n');
            self.write(&text)?;
            self.streams[self.printed].finished = view.finished;
            self.printed += 1;
        }
        Ok(())
    }

    fn clean(&self, text: &str) -> String {
        if self.screen.live {
            harmless(text)
        } else {
            text.to_owned()
        }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        if !text.is_empty() {
            self.ends_with_newline = text.ends_with('\n');
            self.out.write_all(text.as_bytes())?;
            self.out.flush()?;
        }
        Ok(())
    }
}

/// The line at the end: what was decided, and what it cost.
pub(crate) fn cost_line(answer: &Answer) -> String {
    let usage = &answer.usage;
    let mut line = String::new();
    if let Some(decision) = answer.decision {
        let (what, sign) = if decision.thinks {
            ("thinks", "at least")
        } else {
            ("answers at once", "below")
        };
        line.push_str(&format!(
            "{what} ({:.3}, {sign} {:.3}), ",
            decision.score, decision.threshold
        ));
    }
    if answer.choices.len() > 1 {
        line.push_str(&format!("{} streams, ", answer.choices.len()));
    }
    line.push_str(&usage.completion_tokens.to_string());
    let budget = answer.budget.as_ref();
    if let Some(budget) = budget.filter(|budget| budget.hard.is_some()) {
        let each = if answer.choices.len() > 1 {
            format!("{} x ", answer.choices.len())
        } else {
            String::new()
        };
        line.push_str(&format!(" of {each}{}", budget.response_tokens));
    }
    line.push_str(" tokens");
    if usage.reasoning_tokens > 0 {
        line.push_str(&format!(" ({} thought", usage.reasoning_tokens));
        let continued: usize = answer.choices.iter().map(|choice| choice.continued).sum();
        match continued {
            0 => {}
            1 => line.push_str(", continued once"),
            times => line.push_str(&format!(", continued {times} times")),
        }
        line.push(')');
    }
    if budget.is_some_and(|budget| budget.line.is_some()) {
        line.push_str(", budget named");
    }
    if usage.verifier_tokens > 0 {
        line.push_str(&format!(", {} to verify", usage.verifier_tokens));
    }
    if let [choice] = answer.choices.as_slice()
        && let Some(score) = choice.score
    {
        line.push_str(&format!(", score {score:.2}"));
    }
    if answer.timings.decode_tps > 0.0 {
        line.push_str(&format!(", {} tokens/s", rate(answer.timings.decode_tps)));
    }
    line.push_str(&format!(
        ", first token {} ms, prompt {}",
        rate(answer.timings.ttft_ms),
        usage.prompt_tokens
    ));
    if usage.cached_tokens > 0 {
        line.push_str(&format!(" ({} cached)", usage.cached_tokens));
    }
    line
}

/// Three figures of a number.
pub(crate) fn rate(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
