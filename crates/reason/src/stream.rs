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
mod tests {
    use super::*;
    use crate::format::DEFAULT_CLOSING;

    fn rules(stops: &[&str], budget: Option<BudgetPlan>) -> StreamRules {
        StreamRules {
            tags: Some(Tags::default()),
            inside: false,
            stops: stops.iter().map(|s| (*s).to_owned()).collect(),
            budget,
            least: None,
            stop_loops: false,
            logprobs: false,
            closing: DEFAULT_CLOSING.to_owned(),
        }
    }

    fn piece(token: u32, kind: Kind, text: &str) -> Piece<'_> {
        Piece { token, kind, text }
    }

    /// Feeds texts as tokens 0, 1, ...; forces the closing phrase, as one token per character, when asked for.
    fn run(rules: &StreamRules, tokens: &[&str]) -> Choice {
        let mut stream = Stream::new(rules);
        let mut id = 0;
        let mut queue: Vec<String> = tokens.iter().rev().map(|t| (*t).to_owned()).collect();
        loop {
            if let Some(text) = stream.wants_closing() {
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
        stream.into_choice(0, None)
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
                if let Some(text) = stream.wants_closing() {
                    queue = "123".chars().rev().map(String::from).collect();
                    queue.extend(text.chars().rev().map(String::from));
                }
                let Some(text) = queue.pop() else { break };
                stream.token(piece(id, Kind::Text, &text), None);
                id += 1;
            }
            stream.finish("", FinishReason::Length);
            let choice = stream.into_choice(0, None);
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
        let choice = stream.into_choice(3, None);
        assert_eq!(
            (choice.reasoning.as_str(), choice.text.as_str()),
            ("a", "b")
        );
        assert_eq!(choice.index, 3);
    }

    #[test]
    fn a_thought_that_repeats_itself_is_closed() {
        let mut tokens = vec!["<think>", "a"];
        tokens.extend(["so ", "b "].repeat(60));
        let rules = |stop_loops, budget| StreamRules {
            stop_loops,
            ..rules(&[], budget)
        };
        // The ids in `run` grow, so the same texts are no loop to it; here a token's id is its text's.
        let run = |rules: &StreamRules| {
            let mut stream = Stream::new(rules);
            let mut closed_at = None;
            for text in &tokens {
                let id = u32::from(text.as_bytes()[0]);
                stream.token(piece(id, Kind::Text, text), None);
                if let Some(text) = stream.wants_closing() {
                    closed_at = Some(stream.token_ids.len());
                    stream.token(piece(0, Kind::Text, &text), None);
                    stream.token(piece(1, Kind::Text, "7"), None);
                    break;
                }
            }
            stream.finish("", FinishReason::Stop);
            (closed_at, stream.into_choice(0, None))
        };
        let (at, choice) = run(&rules(true, None));
        assert_eq!(at, Some(2 + crate::loops::MIN_LOOP_TOKENS));
        assert_eq!(choice.text, "**Final answer:** 7");
        assert_eq!(choice.thought_closed, Some(ThoughtEnd::Loop));
        assert!(!choice.budget_forced);
        let (at, choice) = run(&rules(false, None));
        assert_eq!((at, choice.thought_closed), (None, None));
        let plan = BudgetPlan::new(60, 1000, 9, None);
        let (at, choice) = run(&rules(true, plan));
        assert_eq!(
            (at, choice.thought_closed, choice.budget_forced),
            (Some(60 - 9 - 16), Some(ThoughtEnd::Budget), true),
            "whichever comes first"
        );
    }

    #[test]
    fn an_early_end_is_replaced_so_often_and_never_past_the_limit() {
        let rules = |tokens, times, limit| StreamRules {
            least: Some(LeastThought {
                tokens,
                continuation: vec![70, 71],
                times,
                limit,
            }),
            ..rules(&[], None)
        };
        // A model that closes its thought after every token.
        let run = |rules: &StreamRules| {
            let mut stream = Stream::new(rules);
            assert_eq!(stream.wants_more(), None, "no thought is open yet");
            stream.token(piece(3, Kind::Open, ""), None);
            loop {
                stream.token(piece(5, Kind::Text, "x"), None);
                let Some(more) = stream.wants_more() else {
                    break;
                };
                for token in more {
                    stream.token(piece(token, Kind::Text, "w"), None);
                }
            }
            stream.token(piece(4, Kind::Close, ""), None);
            stream.finish("", FinishReason::Stop);
            let choice = stream.into_choice(0, None);
            assert_eq!(choice.thought_closed, Some(ThoughtEnd::Model));
            (choice.continued, choice.reasoning_tokens)
        };
        assert_eq!(run(&rules(0, 6, 100)), (0, 1), "long enough");
        assert_eq!(run(&rules(7, 6, 100)), (2, 7), "until it is long enough");
        assert_eq!(run(&rules(100, 3, 100)), (3, 10), "so often");
        assert_eq!(run(&rules(100, 60, 11)), (3, 10), "the tag and 10 tokens");
        assert_eq!(run(&rules(100, 60, 10)), (2, 7), "one less has no room");
    }

    #[test]
    fn a_promised_answer_comes_though_the_model_writes_none() {
        let plan = BudgetPlan::new(100, 1000, 9, None);
        let after = |tokens: &[(Kind, &str)], ends: bool, budget| {
            let mut stream = Stream::new(&rules(&[], budget));
            for &(kind, text) in tokens {
                stream.token(piece(0, kind, text), None);
            }
            if ends {
                stream.end_turn();
            }
            stream.wants_closing()
        };
        let thought = [(Kind::Open, ""), (Kind::Text, "a"), (Kind::Close, "")];
        let phrase = Some("\n\n**Final answer:** ".to_owned());
        assert_eq!(after(&thought, false, plan), None, "it may still come");
        assert_eq!(after(&thought, true, plan), phrase);
        assert_eq!(after(&thought, true, None), None, "nothing was promised");
        assert_eq!(
            after(&thought[..2], true, plan),
            Some(DEFAULT_CLOSING.to_owned())
        );
        let mut blank = thought.to_vec();
        blank.resize(90, (Kind::Text, "\n"));
        assert_eq!(after(&blank[..89], false, plan), None);
        assert_eq!(after(&blank, false, plan), phrase, "the last moment");
        blank[50].1 = "7";
        assert_eq!(after(&blank, false, plan), None, "there is an answer");
    }
}
