//! Text from a stream of tokens.
//!
//! A token may be a part of a character, and its text may depend on the token before it (a leading space). So the last
//! few tokens are decoded again with each new one, and text is given out when it ends in a whole character.

use super::{Tokenizer, TokenizerError};

/// Decodes tokens one by one. What [`Detokenizer::push`] and [`Detokenizer::finish`] give, joined, is the text.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    ids: Vec<u32>,
    /// Where decoding begins: a little before the text that was not given out yet.
    context: usize,
    /// Tokens before this one were given out.
    done: usize,
}

/// A character has at most 4 bytes, so more tokens than this without one are no beginning of a character.
const MOST_HELD: usize = 8;

impl Detokenizer {
    pub(super) fn new(tokenizer: Tokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            ids: Vec::new(),
            context: 0,
            done: 0,
        }
    }

    /// Adds a token and gives the text that became certain; it may be empty.
    ///
    /// # Errors
    /// The message of the tokenizer library.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let (text, given) = self.pending()?;
        let unfinished =
            text.ends_with(char::REPLACEMENT_CHARACTER) && self.ids.len() - self.done < MOST_HELD;
        if unfinished || text.len() <= given {
            return Ok(String::new());
        }
        let new = new_text(&text, given);
        self.context = self.done;
        self.done = self.ids.len();
        if self.context > 64 {
            self.ids.drain(..self.context);
            self.done -= self.context;
            self.context = 0;
        }
        Ok(new)
    }

    /// The rest: an unfinished character, as U+FFFD. The decoder can then be used for a new text.
    ///
    /// # Errors
    /// The message of the tokenizer library.
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        let (text, given) = self.pending()?;
        self.ids.clear();
        (self.context, self.done) = (0, 0);
        Ok(new_text(&text, given))
    }

    /// Text from `context` on, and how many bytes of it were given out.
    fn pending(&self) -> Result<(String, usize), TokenizerError> {
        let text = self
            .tokenizer
            .decode(&self.ids[self.context..], self.skip_special)?;
        let given = self
            .tokenizer
            .decode(&self.ids[self.context..self.done], self.skip_special)?;
        Ok((text, given.len()))
    }
}

fn new_text(text: &str, given: usize) -> String {
    text.get(given..).unwrap_or_default().to_owned()
}
