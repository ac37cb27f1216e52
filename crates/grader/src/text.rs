//! Answers as plain text: what is cut away around an answer, equality of words, and letters of a choice.

/// An answer without what stands around it: white space, markdown stars, quotes, a full stop, tokens that end a message.
pub(crate) fn clean(text: &str) -> &str {
    let mut text = text.trim();
    if is_bare(text) {
        return text;
    }
    loop {
        let before = text.len();
        for token in ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>", "\\\\"] {
            text = text.strip_suffix(token).unwrap_or(text).trim_end();
        }
        text = text
            .trim_end_matches(['.', ',', ';', ':', '。', '．'])
            .trim_end();
        for mark in ["**", "__", "`", "\"", "'", "“", "”", "*"] {
            let inner = text
                .strip_prefix(mark)
                .and_then(|rest| rest.strip_suffix(if mark == "“" { "”" } else { mark }));
            text = inner.unwrap_or(text).trim();
        }
        // A mark that only closes: the marker before the answer took its fellow.
        text = text.strip_suffix("**").unwrap_or(text).trim_end();
        text = text.strip_prefix("**").unwrap_or(text).trim_start();
        text = math(text);
        if text.len() == before {
            return text;
        }
    }
}

/// Whether nothing that [`clean`] cuts can stand around the text, by its first and its last byte: what is cut at the end ends in a
/// sign, and what is cut around it begins with one.
fn is_bare(text: &str) -> bool {
    match text.as_bytes() {
        [first, .., last] | [first @ last] => {
            let letter = last.is_ascii_alphanumeric() || *last == b'}';
            match first {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'+' | b'(' | b'[' | b'{' => {
                    letter || matches!(last, b')' | b']')
                }
                // A formula in `\(...\)` ends in another sign.
                b'\\' => letter,
                _ => false,
            }
        }
        [] => false,
    }
}

/// The inside of `$...$`, `$$...$$`, `\(...\)` or `\[...\]` around all of the text.
fn math(text: &str) -> &str {
    for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
        let inner = text
            .strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close));
        if let Some(inner) = inner
            && !inner.contains(open)
        {
            return inner.trim();
        }
    }
    text
}

/// Words in one string, without articles; an article alone stays.
pub(crate) fn without_articles<S: AsRef<str>>(words: &[S]) -> String {
    let words = words.iter().map(AsRef::as_ref);
    let kept: Vec<&str> = words
        .clone()
        .filter(|word| !matches!(*word, "a" | "an" | "the"))
        .collect();
    if kept.is_empty() {
        words.collect::<Vec<_>>().join(" ")
    } else {
        kept.join(" ")
    }
}

/// Are two normalised texts the same? What programs print for a missing number is equal to nothing; yes is true.
pub(crate) fn same_words(a: &str, b: &str) -> bool {
    let name = |word| match word {
        "true" => "yes",
        "false" => "no",
        other => other,
    };
    !a.is_empty() && !is_no_number(a) && name(a) == name(b)
}

fn is_no_number(word: &str) -> bool {
    matches!(word.trim_start_matches(['+', '-']), "nan" | "inf")
}

/// Equality of two answers that are not mathematics that we can read.
///
/// With LaTeX in them: the same but for white space and sizes. Without: the same words but for case, articles and
/// the punctuation around words.
pub(crate) fn same_text(a: &str, b: &str) -> bool {
    let latex = |text: &str| text.contains(['\\', '{', '^', '_']);
    if latex(a) || latex(b) {
        return squeeze(a) == squeeze(b);
    }
    same_words(&words(a), &words(b))
}

fn squeeze(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    'next: while let Some(c) = rest.chars().next() {
        for look in [
            "\\left",
            "\\right",
            "\\displaystyle",
            "\\,",
            "\\!",
            "\\;",
            "\\:",
            "\\ ",
            "$",
        ] {
            if let Some(after) = rest.strip_prefix(look)
                && !(look.len() > 2 && after.starts_with(|c: char| c.is_ascii_alphabetic()))
            {
                rest = after;
                continue 'next;
            }
        }
        if !c.is_whitespace() {
            out.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

fn words(text: &str) -> String {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| {
            word.trim_matches(|c: char| {
                matches!(
                    c,
                    '.' | ',' | ';' | ':' | '!' | '?' | '"' | '\'' | '“' | '”' | '*'
                )
            })
            .to_lowercase()
        })
        .filter(|word| !word.is_empty())
        .collect();
    without_articles(&words)
}

/// The letter of a choice and what follows it: `B`, `(B)`, `B.`, `\textbf{(B)} 5`, `B) Paris`.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    letter: char,
    rest: String,
}

/// Compares two answers as choices: `None` if none of them is a letter of a choice alone.
pub(crate) fn same_choice(a: &str, b: &str) -> Option<bool> {
    // Far shorter than any choice with its text.
    if a.len() > 400 || b.len() > 400 {
        return None;
    }
    let (a, b) = (choice(a)?, choice(b)?);
    if !a.rest.is_empty() && !b.rest.is_empty() {
        return None;
    }
    Some(a.letter == b.letter)
}

/// What only changes the look of a choice.
const LOOKS: [&str; 10] = [
    "\\textbf", "\\text", "\\mathrm", "\\mathbf", "\\boxed", "\\ ", "\\,", "~", "**", "$",
];

/// What follows the looks at the beginning of a text.
fn without_look(text: &str) -> Option<&str> {
    LOOKS.iter().find_map(|look| text.strip_prefix(look))
}

fn choice(text: &str) -> Option<Choice> {
    let mut rest = text.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '{' | '}'));
    while let Some(after) = without_look(rest) {
        rest = after.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '{' | '}'));
    }
    // Most answers are none: this is seen at their first sign.
    if !rest.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '(' | '[')) {
        return None;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = without_look(rest) {
            rest = after;
            continue;
        }
        if !matches!(c, '{' | '}') {
            plain.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    let plain = plain.trim();
    let lower = plain.to_ascii_lowercase();
    let plain = ["option ", "choice ", "answer "]
        .iter()
        .find(|word| lower.starts_with(**word))
        .map_or(plain, |word| plain[word.len()..].trim_start());
    let open = plain.starts_with(['(', '[']);
    let mut chars = plain[usize::from(open)..].chars();
    let letter = chars.next()?;
    let rest = chars.as_str();
    let upper = letter.is_ascii_uppercase() && letter <= 'J';
    let named = lower.len() > plain.len();
    let lower = matches!(letter, 'a'..='d');
    let rest = match rest.chars().next() {
        None if !open => rest,
        Some(')' | ']') if open => &rest[1..],
        Some(')') if !open => &rest[1..],
        Some('.' | ':') if !open && (rest.len() == 1 || rest[1..].starts_with(' ')) => &rest[1..],
        _ => return None,
    };
    let rest = rest.trim();
    // A small letter is a choice only alone or with "option" before it.
    (upper || (lower && (rest.is_empty() || named))).then(|| Choice {
        letter: letter.to_ascii_uppercase(),
        rest: rest.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_an_answer_is_cut() {
        for text in [
            "**42**",
            " 42.",
            "$42$.",
            "\\(42\\)",
            "`42`",
            "42 **",
            "$$42$$",
            "42<|im_end|>",
        ] {
            assert_eq!(clean(text), "42", "{text:?}");
        }
        assert_eq!(clean("$x$ and $y$"), "$x$ and $y$");
    }

    #[test]
    fn choices() {
        for text in [
            "B",
            "(B)",
            "B.",
            "B) Paris",
            "\\textbf{(B)}\\ 5",
            "\\text{B}",
            "b",
            "option B",
        ] {
            assert_eq!(choice(text).map(|c| c.letter), Some('B'), "{text:?}");
        }
        for text in ["Bob", "B+C", "x", "(B, C)", "B2", ""] {
            assert_eq!(choice(text), None, "{text:?}");
        }
    }
}
