//! Splits streamed text into thought and answer at `<think>` and `</think>`.
//!
//! The tags may arrive as one special token (then [`ThoughtSplitter::open`] and [`ThoughtSplitter::close`] are called) or as
//! plain text cut at any byte. Text that could be the start of a tag is held back until the next piece decides it.
//! White space around the tags is dropped: `<think>\nA\n</think>\n\nB` gives the thought `A` and the answer `B`.
//! Called by `stream` once per token.

/// The texts that open and close a thought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// Opens a thought, `<think>` for every family so far.
    pub open: String,
    /// Closes a thought, `</think>`.
    pub close: String,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            open: "<think>".into(),
            close: "</think>".into(),
        }
    }
}

/// A piece of text whose place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text inside a thought.
    Reasoning(String),
    /// Text of the answer.
    Content(String),
}

/// Where the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nothing but white space so far: a thought may still open.
    Start,
    /// Inside a thought.
    Thought,
    /// In the answer.
    Answer,
}

/// The incremental splitter of one stream.
#[derive(Debug, Clone)]
pub struct ThoughtSplitter {
    tags: Tags,
    place: Place,
    /// Text not given out yet: a possible tag, or white space whose place is not known.
    held: String,
    /// Drop white space until the first visible character (set after each tag).
    trim_start: bool,
}

impl ThoughtSplitter {
    /// `inside`: the prompt itself ends in an open thought, as DeepSeek-style templates do.
    pub fn new(tags: Tags, inside: bool) -> Self {
        Self {
            tags,
            place: if inside { Place::Thought } else { Place::Start },
            held: String::new(),
            trim_start: inside,
        }
    }

    /// Where the stream is, as far as the text seen decides it.
    pub fn place(&self) -> Place {
        self.place
    }

    /// How many bytes at the end may be the beginning of the tag that is awaited: of `close` in a thought, of `open` elsewhere.
    pub fn partial_tag_bytes(&self) -> usize {
        partial(&self.held, self.awaited())
    }

    /// The thought opens here: the tokenizer has the tag as one token.
    pub fn open(&mut self, out: &mut Vec<Part>) {
        if self.place == Place::Answer {
            self.give(self.held.len(), out);
        }
        self.enter(Place::Thought);
    }

    /// The thought closes here: the tokenizer has the tag as one token.
    pub fn close(&mut self, out: &mut Vec<Part>) {
        self.give(self.held.trim_end().len(), out);
        self.enter(Place::Answer);
    }

    /// Takes the next text and appends what is decided to `out`.
    pub fn push(&mut self, text: &str, out: &mut Vec<Part>) {
        self.held.push_str(text);
        loop {
            if self.trim_start {
                let visible = self.held.trim_start();
                self.held.drain(..self.held.len() - visible.len());
                if self.held.is_empty() {
                    return;
                }
            }
            let Some(at) = self.held.find(self.awaited()) else {
                break;
            };
            let tag = self.awaited().len();
            let before = &self.held[..at];
            let keep = match self.place {
                Place::Thought => before.trim_end().len(),
                Place::Start if before.trim().is_empty() => 0,
                Place::Start | Place::Answer => at,
            };
            let rest = self.held.split_off(at + tag);
            self.give(keep, out);
            self.enter(match self.place {
                Place::Thought => Place::Answer,
                Place::Start | Place::Answer => Place::Thought,
            });
            self.held = rest;
        }
        let safe = self.held.len() - self.partial_tag_bytes();
        match self.place {
            // White space before a thought's end is dropped, so it waits for what follows it.
            Place::Thought => self.give(self.held[..safe].trim_end().len(), out),
            Place::Start if self.held[..safe].trim().is_empty() => {}
            Place::Start | Place::Answer => self.give(safe, out),
        }
    }

    /// The stream is over: gives out what was held back. An unclosed thought stays a thought.
    pub fn finish(&mut self, out: &mut Vec<Part>) {
        let keep = match self.place {
            Place::Thought => self.held.trim_end().len(),
            Place::Start | Place::Answer => self.held.len(),
        };
        self.give(keep, out);
        self.held.clear();
    }

    fn awaited(&self) -> &str {
        match self.place {
            Place::Thought => &self.tags.close,
            Place::Start | Place::Answer => &self.tags.open,
        }
    }

    fn enter(&mut self, place: Place) {
        self.place = place;
        self.held.clear();
        self.trim_start = true;
    }

    /// Gives out the first `bytes` of the held text.
    fn give(&mut self, bytes: usize, out: &mut Vec<Part>) {
        if bytes == 0 {
            return;
        }
        let rest = self.held.split_off(bytes);
        let text = std::mem::replace(&mut self.held, rest);
        self.trim_start = false;
        if self.place == Place::Start {
            self.place = Place::Answer;
        }
        match (self.place, out.last_mut()) {
            (Place::Thought, Some(Part::Reasoning(last))) => last.push_str(&text),
            (Place::Thought, _) => out.push(Part::Reasoning(text)),
            (_, Some(Part::Content(last))) => last.push_str(&text),
            _ => out.push(Part::Content(text)),
        }
    }
}

/// Length of the longest proper prefix of `tag` that ends `text`.
pub(crate) fn partial(text: &str, tag: &str) -> usize {
    (1..tag.len())
        .rev()
        .filter(|&n| tag.is_char_boundary(n))
        .find(|&n| text.ends_with(&tag[..n]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of at most `size` characters; returns (thought, answer).
    fn split(text: &str, size: usize, inside: bool) -> (String, String) {
        let mut splitter = ThoughtSplitter::new(Tags::default(), inside);
        let mut out = Vec::new();
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(size) {
            splitter.push(&piece.iter().collect::<String>(), &mut out);
        }
        splitter.finish(&mut out);
        let mut thought = String::new();
        let mut answer = String::new();
        for part in out {
            match part {
                Part::Reasoning(t) => thought.push_str(&t),
                Part::Content(t) => answer.push_str(&t),
            }
        }
        (thought, answer)
    }

    #[test]
    fn every_cut_gives_the_same_parts() {
        let cases = [
            ("<think>\nA b\n\nc\n</think>\n\nB d\n", "A b\n\nc", "B d\n"),
            ("\n <think>A</think>B", "A", "B"),
            ("no thought <b> at all", "", "no thought <b> at all"),
            ("  leading space", "", "  leading space"),
            ("<think></think>x", "", "x"),
            ("<think>\n\n</think>\n\n", "", ""),
            ("<think>a </thin b</think>c", "a </thin b", "c"),
            ("<think>never closed \n", "never closed", ""),
            ("<think>half tag </thi", "half tag </thi", ""),
            ("x < y and <thi", "", "x < y and <thi"),
            ("<think>ä€😀 </think>é", "ä€😀", "é"),
            ("<think>a</think>b <think>c</think>d", "ac", "b d"),
        ];
        for (text, thought, answer) in cases {
            for size in 1..=text.len() {
                let got = split(text, size, false);
                assert_eq!(
                    got,
                    (thought.to_owned(), answer.to_owned()),
                    "{text:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn a_prompt_that_opens_the_thought_starts_inside() {
        for size in 1..8 {
            assert_eq!(
                split("\nA\n</think>\nB", size, true),
                ("A".into(), "B".into())
            );
        }
    }

    #[test]
    fn tags_given_as_tokens_split_too() {
        let mut s = ThoughtSplitter::new(Tags::default(), false);
        let mut out = Vec::new();
        s.push("\n", &mut out);
        s.open(&mut out);
        s.push("\nA ", &mut out);
        s.close(&mut out);
        s.push("\n\n", &mut out);
        s.push("B", &mut out);
        s.finish(&mut out);
        assert_eq!(
            out,
            [Part::Reasoning("A".into()), Part::Content("B".into())]
        );
        assert_eq!(s.place(), Place::Answer);
    }

    #[test]
    fn text_streams_as_soon_as_it_is_decided() {
        let mut s = ThoughtSplitter::new(Tags::default(), false);
        let mut out = Vec::new();
        s.push("<think>one two", &mut out);
        assert_eq!(out, [Part::Reasoning("one two".into())]);
        out.clear();
        s.push(" <", &mut out);
        assert!(out.is_empty(), "white space and a possible tag wait");
        s.push("3", &mut out);
        assert_eq!(out, [Part::Reasoning(" <3".into())]);
    }
}
