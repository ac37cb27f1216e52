//! The final answer in a response.
//!
//! Only the visible part counts. In it, in this order:
//! 1. of `\boxed{}`, "Final answer" and `####` the one that stands last (a box within "Final answer: ..." is that answer);
//! 2. the last "Answer:" or "the answer is";
//! 3. without any marker, what `fallback` finds in the last line.
//!
//! The last one, not the first: a response often repeats its examples or its doubts (sglang-jax issue 1409). What was cut off
//! is no answer: an open box, or a marker with nothing after it, gives none.

use crate::compare::equal;
use crate::fallback;
use crate::text::clean;
use crate::visible::visible;

/// How an answer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// `\boxed{42}`
    Boxed,
    /// "Final answer: 42", also bold, also as a heading over the answer.
    FinalAnswer,
    /// `#### 42`, as GSM8K writes it (<https://arxiv.org/abs/2110.14168>).
    Hashes,
    /// "Answer: 42", "the answer is 42".
    Answer,
    /// No marker: the last line is an answer, or short enough to be one.
    LastLine,
    /// No marker: the last formula between dollar signs in the last line.
    LastFormula,
    /// No marker: the last number of the text.
    LastNumber,
}

/// A final answer as it was written, and how it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extracted<'a> {
    /// The answer, without what stands around it.
    pub text: &'a str,
    /// The rule that found it.
    pub how: How,
}

/// The final answer of a response, from its visible part. `None` if there is none or the thought was not closed.
#[must_use]
pub fn extract(response: &str) -> Option<Extracted<'_>> {
    let shown = visible(response)?;
    // ASCII case only: the offsets stay those of the text.
    let lower = shown.to_ascii_lowercase();
    let strong = [
        boxed(shown),
        labelled(shown, &lower, "final answer").map(|found| found.how(How::FinalAnswer)),
        hashes(shown),
    ];
    let found = strong.into_iter().flatten().max_by_key(|found| found.end);
    let found = found.or_else(|| {
        ["answer", "answers"]
            .iter()
            .filter_map(|word| labelled(shown, &lower, word))
            .max_by_key(|found| found.end)
    });
    let (text, how) = match found {
        Some(found) => (found.text?, found.how),
        None => fallback::find(shown)?,
    };
    let text = match how {
        How::FinalAnswer | How::Answer => fallback::said(clean(text)),
        _ => clean(text),
    };
    (!text.is_empty()).then_some(Extracted { text, how })
}

/// Does the response give the wanted answer? The only definition of a right answer, for reward, evaluation and voting.
#[must_use]
pub fn is_correct(response: &str, want: &str) -> bool {
    extract(response).is_some_and(|found| equal(found.text, want))
}

/// The inside of the last fenced code block of the visible part. `None` if there is none or it was cut off.
#[must_use]
pub fn code_block(response: &str) -> Option<&str> {
    const FENCE: &str = "```";
    let shown = visible(response)?;
    let mut block = None;
    let mut open: Option<usize> = None;
    let mut at = 0;
    for line in shown.split_inclusive('\n') {
        let begins = line.trim_start().starts_with(FENCE);
        match open {
            None if begins => open = Some(at + line.len()),
            Some(start) if line.trim() == FENCE => {
                block = Some(&shown[start..at]);
                open = None;
            }
            _ => {}
        }
        at += line.len();
    }
    block.filter(|_| open.is_none())
}

/// A marker: where it ends, and the answer behind it (`None`: it was cut off).
struct Found<'a> {
    text: Option<&'a str>,
    end: usize,
    how: How,
}

impl Found<'_> {
    fn how(self, how: How) -> Self {
        Self { how, ..self }
    }
}

/// The last `\boxed{...}` or `\fbox{...}`, braces matched; also `\boxed 5`.
fn boxed(shown: &str) -> Option<Found<'_>> {
    let (at, len) = ["\\boxed", "\\fbox"]
        .iter()
        .filter_map(|sign| shown.rfind(sign).map(|at| (at, sign.len())))
        .max()?;
    let rest = &shown[at + len..];
    let inside = rest.trim_start();
    let start = shown.len() - inside.len();
    let text = if inside.starts_with('{') {
        closing(inside).map(|end| &inside[1..end])
    } else {
        let end = inside.find(|c: char| c.is_whitespace() || c == '$');
        let word = &inside[..end.unwrap_or(inside.len())];
        (!word.is_empty()).then_some(word)
    };
    Some(Found {
        text,
        // Where the box ends, so that a marker after it stands later and one around it earlier.
        end: start + text.map_or(0, str::len),
        how: How::Boxed,
    })
}

/// The place of the brace that closes the one at the start.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// `#### 42` to the end of its line. A heading of four hashes ("#### Step 2") is none.
fn hashes(shown: &str) -> Option<Found<'_>> {
    const SIGN: &str = "####";
    let at = shown.rfind(SIGN)?;
    if shown[..at].ends_with('#') {
        return None;
    }
    let rest = &shown[at + SIGN.len()..];
    let line = rest.lines().next().unwrap_or_default().trim();
    // A heading is words.
    if line.starts_with(|c: char| c.is_alphabetic()) && line.contains(' ') {
        return None;
    }
    Some(Found {
        text: (!line.is_empty()).then_some(line),
        end: at + SIGN.len(),
        how: How::Hashes,
    })
}

/// The last use of the words as a marker: a colon, "is", "=" or the end of the line follows.
fn labelled<'a>(shown: &'a str, lower: &str, words: &str) -> Option<Found<'a>> {
    for (at, _) in lower.rmatch_indices(words) {
        let before = lower[..at].chars().next_back();
        if before.is_some_and(char::is_alphanumeric) {
            continue;
        }
        if let Some(start) = after_label(&lower[at + words.len()..]) {
            let start = at + words.len() + start;
            return Some(Found {
                text: statement(&shown[start..]),
                end: start,
                how: How::Answer,
            });
        }
    }
    None
}

/// How long the sign after a label is: ":", "is", "is:", "=", or stars and the end of a line. `None` if the words were only words.
fn after_label(rest: &str) -> Option<usize> {
    let skip = |text: &str, set: &[char]| text.len() - text.trim_start_matches(set).len();
    let mut at = skip(rest, &[' ', '*', '_']);
    let mut found = false;
    for verb in ["is", "are"] {
        if let Some(after) = rest[at..].strip_prefix(verb)
            && after.starts_with(|c: char| !c.is_alphanumeric())
        {
            at += verb.len();
            at += skip(&rest[at..], &[' ', '*', '_']);
            found = true;
        }
    }
    if rest[at..].starts_with([':', '=', '：']) {
        at += rest[at..].chars().next()?.len_utf8();
        found = true;
    }
    found |= rest[at..].starts_with(['\n', '\r']);
    found.then(|| at + skip(&rest[at..], &[' ', '*', '_', '\n', '\r', '\t']))
}

/// What is said after a label: one line, up to the end of the sentence or to a reason.
fn statement(rest: &str) -> Option<&str> {
    let line = rest.trim_start().lines().next()?.trim();
    // A formula is taken whole, if the line begins with it.
    for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
        if let Some(inside) = line.strip_prefix(open)
            && let Some(end) = inside.find(close)
        {
            let after = &inside[end + close.len()..];
            let stops =
                after.trim_start().is_empty() || after.starts_with(['.', ',', ';', '*', '\n']);
            if stops && !after.trim_start_matches([',', ' ']).starts_with('$') {
                return Some(&inside[..end]);
            }
        }
    }
    let mut end = line.len();
    for stop in [
        ". ",
        ".\t",
        ".** ",
        "! ",
        "? ",
        ", because",
        ", since",
        ", so ",
        ", which",
        " because ",
        " since ",
    ] {
        // "B. Paris" is a choice and its text, not two sentences.
        if let Some(at) = line.find(stop)
            && (at > 1 || !stop.starts_with('.'))
        {
            end = end.min(at);
        }
    }
    let said = line[..end].trim();
    (!said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_matched() {
        let text = r"so \boxed{\frac{1}{\sqrt{2}}}.";
        assert_eq!(
            extract(text),
            Some(Extracted {
                text: r"\frac{1}{\sqrt{2}}",
                how: How::Boxed
            })
        );
        assert_eq!(
            extract(r"\boxed{\{1, 2\}}").map(|e| e.text),
            Some(r"\{1, 2\}")
        );
        assert_eq!(extract(r"\boxed{12"), None, "cut off: it may have been 123");
    }

    #[test]
    fn code_is_taken_from_the_last_closed_block() {
        let text = "<think>```\nno\n```</think>a\n```python\nx = 1\n```\nb\n```\ny = 2\n```\n";
        assert_eq!(code_block(text), Some("y = 2\n"));
        assert_eq!(code_block("```python\nx = 1"), None);
        assert_eq!(code_block("<think>```\nx\n```\n"), None);
        assert_eq!(code_block("no code"), None);
    }
}
