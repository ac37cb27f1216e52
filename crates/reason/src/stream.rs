//! The text side of one stream: from tokens to thought and answer, with its stop strings, its budget and its counts.
//!
//! Knows no engine. Each token goes through [`Stream::token`]; the text found is read with [`Stream::take`],
//! [`Stream::wants_closing`] tells when the closing phrase has to be forced, and [`Stream::wants_more`] when a thought ends too
//! early. Called by [`crate::Reasoner`].

use crate::answer::{Choice, FinishReason, ThoughtEnd, TokenLogprob};
use crate::budget::{BudgetPlan, closing_text, leading_blank};
use crate::loops::LoopDetector;
use crate::split::{Part, Place, Tags, ThoughtSplitter};
use crate::stop::StopMatcher;

/// What a token is for the splitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The single token that opens a thought.
    Open,
    /// The single token that closes it.
    Close,
    /// Ends the turn: part of neither thought nor answer.
    End,
    /// Anything else: its text counts.
    Text,
}

/// One token of a stream and what it stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// The token.
    pub(crate) token: u32,
    /// What it is.
    pub(crate) kind: Kind,
    /// The text that became complete with it.
    pub(crate) text: &'a str,
}

/// The least thought, with its continuation as tokens.
#[derive(Debug, Clone)]
pub(crate) struct LeastThought {
    /// Tokens of the thought that are enough.
    pub(crate) tokens: usize,
    /// What replaces an end that comes too early.
    pub(crate) continuation: Vec<u32>,
    /// How often at most.
    pub(crate) times: usize,
    /// The stream must not be longer than this after a continuation.
    pub(crate) limit: usize,
}

/// How the streams of one query read their tokens.
#[derive(Debug, Clone)]
pub(crate) struct StreamRules {
    /// The thought's tags; `None` leaves the text whole.
    pub(crate) tags: Option<Tags>,
    /// The prompt ends in an open thought.
    pub(crate) inside: bool,
    /// Stop strings, none empty.
    pub(crate) stops: Vec<String>,
    /// The hard limit, if one is set.
    pub(crate) budget: Option<BudgetPlan>,
    /// The least thought, if one is set.
    pub(crate) least: Option<LeastThought>,
    /// A thought that repeats itself is closed.
    pub(crate) stop_loops: bool,
    /// Log-probabilities are kept.
    pub(crate) logprobs: bool,
    /// What is written to end a thought.
    pub(crate) closing: String,
}

/// The log-probabilities of a stream. `taken <= placed <= all.len()`.
#[derive(Debug, Default)]
struct Logprobs {
    all: Vec<TokenLogprob>,
    /// Of these it is known whether they belong to the thought: white space at the beginning waits for what follows it.
    placed: usize,
    /// Of these, so many were given out.
    taken: usize,
}

/// One stream's state.
#[derive(Debug)]
pub(crate) struct Stream {
    splitter: Option<ThoughtSplitter>,
    tags: Tags,
    closing: String,
    stop: StopMatcher,
    budget: Option<BudgetPlan>,
    least: Option<LeastThought>,
    loops: Option<LoopDetector>,
    token_ids: Vec<u32>,
    logprobs: Option<Logprobs>,
    reasoning: String,
    content: String,
    fresh: Vec<Part>,
    reasoning_tokens: usize,
    /// Tokens at the end that may belong to the closing tag: they are no part of the thought once it closes.
    tag_tokens: usize,
    /// The thought repeats itself.
    looping: bool,
    /// The caller wants the answer now.
    enough: bool,
    /// The model ended its turn.
    turn_ended: bool,
    /// The answer has more than white space.
    visible: bool,
    /// Why the closing phrase was forced, once it was.
    forced: Option<ThoughtEnd>,
    /// Why the thought ended.
    closed: Option<ThoughtEnd>,
    continued: usize,
    finished: Option<FinishReason>,
}

impl Stream {
    pub(crate) fn new(rules: &StreamRules) -> Self {
        let tags = rules.tags.clone().unwrap_or_default();
        Self {
            splitter: rules
                .tags
                .as_ref()
                .map(|tags| ThoughtSplitter::new(tags.clone(), rules.inside)),
            tags,
            closing: rules.closing.clone(),
            stop: StopMatcher::new(&rules.stops),
            budget: rules.budget,
            least: rules.least.clone(),
            loops: rules.stop_loops.then(LoopDetector::default),
            token_ids: Vec::new(),
            logprobs: rules.logprobs.then(Logprobs::default),
            reasoning: String::new(),
            content: String::new(),
            fresh: Vec::new(),
            reasoning_tokens: 0,
            tag_tokens: 0,
            looping: false,
            enough: false,
            turn_ended: false,
            visible: false,
            forced: None,
            closed: None,
            continued: 0,
            finished: None,
        }
    }

    /// Takes one token. Returns the thought's token count if it ended here.
    pub(crate) fn token(
        &mut self,
        piece: Piece<'_>,
        logprob: Option<TokenLogprob>,
    ) -> Option<usize> {
        let Piece { token, kind, text } = piece;
        self.token_ids.push(token);
        if let (Some(logprobs), Some(one)) = (&mut self.logprobs, logprob) {
            logprobs.all.push(one);
        }
        let Some(splitter) = &mut self.splitter else {
            self.place_logprobs(false);
            let shown = self.stop.push(text);
            self.show(shown);
            return None;
        };
        let before = splitter.place();
        let mut parts = Vec::new();
        if !text.is_empty() {
            splitter.push(text, &mut parts);
        }
        match kind {
            Kind::Open => splitter.open(&mut parts),
            Kind::Close => splitter.close(&mut parts),
            Kind::End | Kind::Text => {}
        }
        let after = splitter.place();
        if after != Place::Start {
            self.place_logprobs([before, after].contains(&Place::Thought));
        }
        let ended = if kind == Kind::End {
            None
        } else {
            self.count(before, after)
        };
        if after == Place::Thought
            && self.forced.is_none()
            && let Some(loops) = &mut self.loops
        {
            self.looping = loops.push(&self.token_ids);
        }
        self.give_out(parts);
        ended
    }

    /// The tokens whose place was open until now are of the thought, or of the answer.
    fn place_logprobs(&mut self, thought: bool) {
        if let Some(logprobs) = &mut self.logprobs {
            for one in &mut logprobs.all[logprobs.placed..] {
                one.thought = thought;
            }
            logprobs.placed = logprobs.all.len();
        }
    }

    /// The log-probabilities whose place was found since the last call.
    pub(crate) fn take_logprobs(&mut self) -> Vec<TokenLogprob> {
        let Some(logprobs) = &mut self.logprobs else {
            return Vec::new();
        };
        let from = std::mem::replace(&mut logprobs.taken, logprobs.placed);
        logprobs.all[from..logprobs.placed].to_vec()
    }

    /// Gives out the parts that the splitter found; stop strings look at the answer only.
    fn give_out(&mut self, parts: Vec<Part>) {
        for part in parts {
            match part {
                Part::Reasoning(_) => self.fresh.push(part),
                Part::Content(text) => {
                    self.visible |= !text.trim().is_empty();
                    let shown = self.stop.push(&text);
                    self.show(shown);
                }
            }
        }
    }

    /// Counts thought tokens; the tags' own tokens are not part of it, nor is the forced closing phrase.
    fn count(&mut self, before: Place, after: Place) -> Option<usize> {
        if before != Place::Thought {
            return None;
        }
        if after == Place::Thought && self.forced.is_some() {
            return None;
        }
        if after == Place::Thought {
            self.reasoning_tokens += 1;
            let partial = self
                .splitter
                .as_ref()
                .map_or(0, ThoughtSplitter::partial_tag_bytes);
            self.tag_tokens = if partial > 0 { self.tag_tokens + 1 } else { 0 };
            return None;
        }
        self.reasoning_tokens -= self.tag_tokens;
        self.tag_tokens = 0;
        self.closed = Some(self.forced.unwrap_or(ThoughtEnd::Model));
        Some(self.reasoning_tokens)
    }

    fn show(&mut self, text: String) {
        if !text.is_empty() {
            self.fresh.push(Part::Content(text));
        }
    }

    /// The text found since the last call.
    pub(crate) fn take(&mut self) -> Vec<Part> {
        let parts = std::mem::take(&mut self.fresh);
        for part in &parts {
            match part {
                Part::Reasoning(text) => self.reasoning.push_str(text),
                Part::Content(text) => self.content.push_str(text),
            }
        }
        parts
    }

    /// The text to force now: the thought is over by a rule, or an answer that was promised does not come. Given once.
    pub(crate) fn wants_closing(&mut self) -> Option<String> {
        if self.forced.is_some() || self.finished.is_some() {
            return None;
        }
        let splitter = self.splitter.as_ref()?;
        let len = self.token_ids.len();
        let due = |limit: fn(&BudgetPlan) -> usize| self.budget.is_some_and(|p| len >= limit(&p));
        let why = if splitter.place() == Place::Answer {
            let blank = !self.visible && (due(|p| p.blank_tokens) || self.promised_at_end());
            blank.then_some(ThoughtEnd::Budget)?
        } else if self.enough && splitter.place() == Place::Thought {
            ThoughtEnd::Caller
        } else if self.looping {
            ThoughtEnd::Loop
        } else if due(|p| p.thought_tokens) {
            ThoughtEnd::Budget
        } else if self.promised_at_end() {
            ThoughtEnd::Turn
        } else {
            return None;
        };
        let text = closing_text(
            &self.tags,
            &self.closing,
            splitter.place(),
            splitter.partial_tag_bytes(),
        )?;
        self.forced = Some(why);
        Some(text)
    }

    /// The model ended its turn, but a budget promises an answer.
    fn promised_at_end(&self) -> bool {
        self.turn_ended && self.budget.is_some()
    }

    /// A thought that is open now is to end.
    pub(crate) fn enough(&mut self) {
        self.enough = self.place() == Some(Place::Thought);
    }

    /// Where it is; `None` if thoughts are not told apart.
    pub(crate) fn place(&self) -> Option<Place> {
        self.splitter.as_ref().map(ThoughtSplitter::place)
    }

    /// The model ended its turn with the last token.
    pub(crate) fn end_turn(&mut self) {
        self.turn_ended = true;
    }

    /// The tokens that go in the place of an end of the thought that comes now, if that is too early.
    pub(crate) fn wants_more(&mut self) -> Option<Vec<u32>> {
        let least = self.least.as_ref()?;
        let inside = self.splitter.as_ref()?.place() == Place::Thought;
        let after = self.token_ids.len() + least.continuation.len();
        if !inside
            || self.forced.is_some()
            || self.reasoning_tokens >= least.tokens
            || self.continued >= least.times
            || after >= least.limit
        {
            return None;
        }
        self.continued += 1;
        Some(least.continuation.clone())
    }

    /// Its tokens so far.
    pub(crate) fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Its answer's text so far, as far as it was taken.
    pub(crate) fn content(&self) -> &str {
        &self.content
    }

    /// Why the thought ended.
    pub(crate) fn closed(&self) -> Option<ThoughtEnd> {
        self.closed
    }

    /// Thoughts are told apart from the answer.
    pub(crate) fn splits(&self) -> bool {
        self.splitter.is_some()
    }

    /// The white space that the model writes between a thought and its answer.
    pub(crate) fn blank_behind_thought(&self) -> &str {
        let behind = self.closing.split_once(self.tags.close.as_str());
        behind.map_or("", |(_, behind)| leading_blank(behind))
    }

    /// Log-probabilities are kept.
    pub(crate) fn keeps_logprobs(&self) -> bool {
        self.logprobs.is_some()
    }

    /// A stop string was met.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.stopped()
    }

    /// The reason it ended, once it has.
    pub(crate) fn finished(&self) -> Option<FinishReason> {
        self.finished
    }

    /// The stream is over: `rest` is text still held by the detokenizer.
    pub(crate) fn finish(&mut self, rest: &str, reason: FinishReason) {
        self.place_logprobs(false);
        let mut parts = Vec::new();
        match &mut self.splitter {
            Some(splitter) => {
                splitter.push(rest, &mut parts);
                splitter.finish(&mut parts);
            }
            None => parts.push(Part::Content(rest.to_owned())),
        }
        self.give_out(parts);
        let shown = self.stop.finish();
        self.show(shown);
        self.finished = Some(if self.stop.stopped() {
            FinishReason::Stop
        } else {
            reason
        });
    }

    /// The final form of the stream.
    pub(crate) fn into_choice(mut self, index: usize, score: Option<f32>) -> Choice {
        self.take();
        Choice {
            index,
            text: self.content,
            reasoning: self.reasoning,
            token_ids: self.token_ids,
            logprobs: self.logprobs.map(|logprobs| logprobs.all),
            finish_reason: self.finished.unwrap_or(FinishReason::Cancelled),
            stop: self.stop.met().map(str::to_owned),
            reasoning_tokens: self.reasoning_tokens,
            thought_closed: self.closed,
            budget_forced: matches!(self.forced, Some(ThoughtEnd::Budget | ThoughtEnd::Turn)),
            continued: self.continued,
            score,
        }
    }
}

#[cfg(test)]
mod tests;
