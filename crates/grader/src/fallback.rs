//! The answer of a response without any marker.
//!
//! In this order: the last line, if it is mathematics or has at most three words; the last formula of that line; the last number of the text (as lm-evaluation-harness' flexible extraction for GSM8K, but only in the visible part);
//! the last line, whatever it says.

use crate::extract::How;
use crate::parse::parse;
use crate::text::clean;
use crate::token::Commas;

/// Longest line without a number that is an answer in words, in words.
const MAX_WORDS: usize = 3;

pub(crate) fn find(shown: &str) -> Option<(&str, How)> {
    let line = shown
        .lines()
        .rev()
        .map(clean)
        .find(|line| !line.is_empty() && !only_closes(line))?;
    if reads_as_answer(line) {
        return Some((line, How::LastLine));
    }
    if let Some(formula) = last_formula(line) {
        return Some((formula, How::LastFormula));
    }
    if let Some(number) = last_number(shown) {
        return Some((number, How::LastNumber));
    }
    Some((line, How::LastLine))
}

/// A line that only ends a formula or a block.
fn only_closes(line: &str) -> bool {
    matches!(line, "\\]" | "\\)" | "$$" | "$" | "```") || line.starts_with("\\end{")
}

fn reads_as_answer(line: &str) -> bool {
    let words = line.split_whitespace().count();
    if !has_digit(line) {
        return words <= MAX_WORDS;
    }
    match parse(line, Commas::Group) {
        // "July 4, 1776" is short; "Thus, 12 + 30 = 42" says more than an answer.
        Some((expr, _)) if expr.has_text() => words <= MAX_WORDS && !line.contains('$'),
        Some(_) => true,
        None => false,
    }
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Of a sentence with a number in it, "the probability is 1/3", what follows the last "is": only if that is mathematics.
pub(crate) fn said(sentence: &str) -> &str {
    let is_math = |text: &str| parse(text, Commas::Group).is_some_and(|(expr, _)| !expr.has_text());
    if !has_digit(sentence) || is_math(sentence) {
        return sentence;
    }
    let tail = [" is ", " are ", " equals "]
        .iter()
        .filter_map(|verb| sentence.rfind(verb).map(|at| at + verb.len()))
        .max()
        .map(|at| clean(&sentence[at..]));
    tail.filter(|tail| is_math(tail)).unwrap_or(sentence)
}

/// The last `$...$` or `\(...\)` of a line.
fn last_formula(line: &str) -> Option<&str> {
    if let Some(end) = line.rfind("\\)")
        && let Some(start) = line[..end].rfind("\\(")
    {
        return Some(&line[start + 2..end]);
    }
    // An odd dollar sign is money.
    if line.matches('$').count() % 2 == 1 {
        return None;
    }
    let end = line.rfind('$')?;
    let start = line[..end].rfind('$')?;
    Some(line[start + 1..end].trim()).filter(|formula| !formula.is_empty())
}

/// The last number: sign, thousands, decimals, a fraction, a per cent sign.
fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let last = bytes.iter().rposition(u8::is_ascii_digit)?;
    let inside = |at: usize| {
        let between = |set: &[u8]| {
            set.contains(&bytes[at])
                && at > 0
                && bytes[at - 1].is_ascii_digit()
                && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
        };
        bytes[at].is_ascii_digit() || between(b",./")
    };
    let mut start = last;
    while start > 0 && inside(start - 1) {
        start -= 1;
    }
    let free = |at: usize| at == 0 || matches!(bytes[at - 1], b' ' | b'$' | b'-' | b'(' | b'\n');
    if start > 0 && bytes[start - 1] == b'.' && free(start - 1) {
        start -= 1;
    }
    // The exponent of 10^6 and the digit of x2 are no answers.
    let hangs = start > 0
        && (matches!(bytes[start - 1], b'^' | b'_') || bytes[start - 1].is_ascii_alphabetic());
    if hangs {
        return None;
    }
    // A minus, unless it stands between two words or numbers: "3-5" ends in 5.
    let minus = start > 0 && bytes[start - 1] == b'-';
    if minus
        && !(start > 1 && (bytes[start - 2].is_ascii_alphanumeric() || bytes[start - 2] == b')'))
    {
        start -= 1;
    }
    let percent = usize::from(bytes.get(last + 1) == Some(&b'%'));
    Some(&text[start..=last + percent])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number() {
        for (text, number) in [
            ("a 3 b 1,234.50.", "1,234.50"),
            ("it is -7!", "-7"),
            ("rows 3-5", "5"),
            ("costs $12 now", "12"),
            ("so 3/4 of it", "3/4"),
            ("that is 12% of them", "12%"),
            ("so .5", ".5"),
        ] {
            assert_eq!(last_number(text), Some(number), "{text:?}");
        }
        assert_eq!(last_number("none"), None);
        assert_eq!(last_number("about 10^6"), None);
    }

    #[test]
    fn the_last_line() {
        assert_eq!(find("Paris.<|im_end|>"), Some(("Paris", How::LastLine)));
        assert_eq!(find("2 + 2 = 4\nYes."), Some(("Yes", How::LastLine)));
        assert_eq!(
            find("So it is $\\frac12$ here."),
            Some(("\\frac12", How::LastFormula))
        );
        assert_eq!(
            find("So there are 38.\nLet me know if you have any questions!"),
            Some(("38", How::LastNumber))
        );
        assert_eq!(find("Thus, 12 + 30 = 42."), Some(("42", How::LastNumber)));
        assert_eq!(find("So\n\\[\n9\n\\]\n"), Some(("9", How::LastLine)));
        assert_eq!(find(" \n"), None);
    }
}
