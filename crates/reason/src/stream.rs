//! The text side of one stream: from tokens to thought and answer, with its stop strings, its budget and its counts.
//!
//! Knows no engine. Each token goes through [`Stream::token`]; the text found is read with [`Stream::take`], and
//! [`Stream::wants_closing`] tells when the budget's phrase has to be forced. Called by [`crate::Reasoner`].

use crate::answer::{Choice, FinishReason, TokenLogprob};
use crate::budget::{BudgetPlan, closing_text};
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
    /// The budget forced it: it is no thought of the model.
    pub(crate) forced: bool,
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
    /// Log-probabilities are kept.
    pub(crate) logprobs: bool,
}

/// One stream's state.
#[derive(Debug)]
pub(crate) struct Stream {
    splitter: Option<ThoughtSplitter>,
    tags: Tags,
    stop: StopMatcher,
    budget: Option<BudgetPlan>,
    token_ids: Vec<u32>,
    logprobs: Option<Vec<TokenLogprob>>,
    reasoning: String,
    content: String,
    fresh: Vec<Part>,
    reasoning_tokens: usize,
    /// Tokens at the end that may belong to the closing tag: they are no part of the thought once it closes.
    tag_tokens: usize,
    forced: bool,
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
            stop: StopMatcher::new(&rules.stops),
            budget: rules.budget,
            token_ids: Vec::new(),
            logprobs: rules.logprobs.then(Vec::new),
            reasoning: String::new(),
            content: String::new(),
            fresh: Vec::new(),
            reasoning_tokens: 0,
            tag_tokens: 0,
            forced: false,
            finished: None,
        }
    }

    /// Takes one token. Returns the thought's token count if it ended here.
    pub(crate) fn token(
        &mut self,
        piece: Piece<'_>,
        logprob: Option<TokenLogprob>,
    ) -> Option<usize> {
        let Piece {
            token,
            kind,
            text,
            forced,
        } = piece;
        self.token_ids.push(token);
        if let (Some(all), Some(one)) = (&mut self.logprobs, logprob) {
            all.push(one);
        }
        let Some(splitter) = &mut self.splitter else {
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
        let ended = if kind == Kind::End {
            None
        } else {
            self.count(before, after, forced)
        };
        for part in parts {
            match part {
                Part::Reasoning(_) => self.fresh.push(part),
                Part::Content(text) => {
                    let shown = self.stop.push(&text);
                    self.show(shown);
                }
            }
        }
        ended
    }

    /// Counts thought tokens; the tags' own tokens are not part of it.
    fn count(&mut self, before: Place, after: Place, forced: bool) -> Option<usize> {
        if before != Place::Thought {
            return None;
        }
        if after == Place::Thought && forced {
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

    /// The text to force now, if the budget's thought limit is reached with the thought still open. Given once.
    pub(crate) fn wants_closing(&mut self, closing: &str) -> Option<String> {
        let plan = self.budget?;
        if self.forced || self.finished.is_some() || self.token_ids.len() < plan.thought_tokens {
            return None;
        }
        let splitter = self.splitter.as_ref()?;
        let text = closing_text(
            &self.tags,
            closing,
            splitter.place(),
            splitter.partial_tag_bytes(),
        )?;
        self.forced = true;
        Some(text)
    }

    /// The turn may not end yet: a budget promises an answer and the thought is still open.
    pub(crate) fn must_answer(&self) -> bool {
        let open = self
            .splitter
            .as_ref()
            .is_some_and(|s| s.place() != Place::Answer);
        open && !self.forced && self.budget.is_some()
    }

    /// The thought ends here, whatever is left of its budget.
    pub(crate) fn use_up(&mut self) {
        if let Some(plan) = &mut self.budget {
            plan.thought_tokens = 0;
        }
    }

    /// The budget's phrase was forced.
    pub(crate) fn forced(&self) -> bool {
        self.forced
    }

    /// Thoughts are told apart from the answer.
    pub(crate) fn splits(&self) -> bool {
        self.splitter.is_some()
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
        let mut parts = Vec::new();
        match &mut self.splitter {
            Some(splitter) => {
                splitter.push(rest, &mut parts);
                splitter.finish(&mut parts);
            }
            None => parts.push(Part::Content(rest.to_owned())),
        }
        for part in parts {
            match part {
                Part::Reasoning(_) => self.fresh.push(part),
                Part::Content(text) => {
                    let shown = self.stop.push(&text);
                    self.show(shown);
                }
            }
        }
        let shown = self.stop.finish();
        self.show(shown);
        self.finished = Some(if self.stop.stopped() {
            FinishReason::Stop
        } else {
            reason
        });
    }

    /// The final form of the stream.
    pub(crate) fn into_choice(mut self, index: usize) -> Choice {
        self.take();
        Choice {
            index,
            text: self.content,
            reasoning: self.reasoning,
            token_ids: self.token_ids,
            logprobs: self.logprobs,
            finish_reason: self.finished.unwrap_or(FinishReason::Cancelled),
            reasoning_tokens: self.reasoning_tokens,
            budget_forced: self.forced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::DEFAULT_CLOSING;

    fn rules(stops: &[&str], budget: Option<BudgetPlan>) -> StreamRules {
        StreamRules {
            tags: Some(Tags::default()),
            inside: false,
            stops: stops.iter().map(|s| (*s).to_owned()).collect(),
            budget,
            logprobs: false,
        }
    }

    fn piece(token: u32, kind: Kind, text: &str) -> Piece<'_> {
        Piece {
            token,
            kind,
            text,
            forced: false,
        }
    }

    /// Feeds texts as tokens 0, 1, ...; forces the closing phrase, as one token per character, when asked for.
    fn run(rules: &StreamRules, tokens: &[&str]) -> Choice {
        let mut stream = Stream::new(rules);
        let mut id = 0;
        let mut queue: Vec<String> = tokens.iter().rev().map(|t| (*t).to_owned()).collect();
        loop {
            if let Some(text) = stream.wants_closing(DEFAULT_CLOSING) {
                queue.extend(text.chars().rev().map(String::from));
            }
            let Some(text) = queue.pop() else { break };
            stream.token(piece(id, Kind::Text, &text), None);
            id += 1;
            if stream.stopped() {
                break;
            }
        }
        stream.finish("", FinishReason::Length);
        stream.into_choice(0)
    }

    #[test]
    fn thought_tokens_are_counted_without_tags() {
        let choice = run(
            &rules(&[], None),
            &["<think>", "\n", "a", " b", "</", "think", ">", "\n\n", "4"],
        );
        assert_eq!(
            (choice.reasoning.as_str(), choice.text.as_str()),
            ("a b", "4")
        );
        assert_eq!(choice.reasoning_tokens, 3);
        assert_eq!(choice.token_ids.len(), 9);
    }

    #[test]
    fn an_unfinished_thought_has_no_answer() {
        let choice = run(&rules(&[], None), &["<think>", "a", " b", "</th"]);
        assert_eq!(
            (choice.reasoning.as_str(), choice.text.as_str()),
            ("a b</th", "")
        );
        assert_eq!(choice.finish_reason, FinishReason::Length);
        assert_eq!(choice.reasoning_tokens, 3);
    }

    #[test]
    fn stop_strings_end_the_answer_and_leave_the_thought_alone() {
        let choice = run(
            &rules(&["END"], None),
            &["<think>", "END", "</think>", "ok E", "ND", " more"],
        );
        assert_eq!(
            (choice.reasoning.as_str(), choice.text.as_str()),
            ("END", "ok ")
        );
        assert_eq!(choice.finish_reason, FinishReason::Stop);
        assert_eq!(choice.token_ids.len(), 5, "nothing is read after the stop");
    }

    #[test]
    fn every_budget_cuts_the_thought_and_leaves_room_for_the_answer() {
        let closing = DEFAULT_CLOSING.chars().count();
        for budget in 0..80 {
            let plan =
                BudgetPlan::new(budget, 1000, closing + "<think>".len(), None).expect("room");
            let thought: Vec<String> = "<think>"
                .chars()
                .map(String::from)
                .chain((0..200).map(|i| format!("w{i} ")))
                .collect();
            let thought: Vec<&str> = thought.iter().map(String::as_str).collect();
            let mut stream = Stream::new(&rules(&[], Some(plan)));
            let mut queue: Vec<String> = thought.iter().rev().map(|t| (*t).to_owned()).collect();
            let mut id = 0;
            while id < plan.response_tokens as u32 {
                if let Some(text) = stream.wants_closing(DEFAULT_CLOSING) {
                    queue = "123".chars().rev().map(String::from).collect();
                    queue.extend(text.chars().rev().map(String::from));
                }
                let Some(text) = queue.pop() else { break };
                stream.token(piece(id, Kind::Text, &text), None);
                id += 1;
            }
            stream.finish("", FinishReason::Length);
            let choice = stream.into_choice(0);
            assert!(
                choice.text.starts_with("**Final answer:** 123"),
                "{budget}: {choice:?}"
            );
            assert!(choice.budget_forced);
            assert!(choice.token_ids.len() <= plan.response_tokens);
        }
    }

    #[test]
    fn a_budget_that_is_not_reached_changes_nothing() {
        let plan = BudgetPlan::new(1000, 5000, 10, None);
        let tokens = ["<think>", "a", "</think>", "4"];
        let with = run(&rules(&[], plan), &tokens);
        let without = run(&rules(&[], None), &tokens);
        assert_eq!(with, without);
    }

    #[test]
    fn single_token_tags_split_and_count() {
        let mut stream = Stream::new(&rules(&[], None));
        assert_eq!(stream.token(piece(9, Kind::Open, ""), None), None);
        assert_eq!(stream.token(piece(1, Kind::Text, "a"), None), None);
        assert_eq!(stream.token(piece(10, Kind::Close, ""), None), Some(1));
        assert_eq!(stream.token(piece(2, Kind::Text, "b"), None), None);
        stream.finish("", FinishReason::Stop);
        let choice = stream.into_choice(3);
        assert_eq!(
            (choice.reasoning.as_str(), choice.text.as_str()),
            ("a", "b")
        );
        assert_eq!(choice.index, 3);
    }
}
