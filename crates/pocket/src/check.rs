//! Is an answer right? Only what stands after the end of the thought counts, and an unclosed thought is wrong.

/// What is shown to the user: the text after the last `</think>`, or all of it if no thought was begun.
///
/// `None` if a thought was begun and not closed.
#[must_use]
pub fn visible(response: &str) -> Option<&str> {
    match response.rfind("</think>") {
        Some(at) => Some(&response[at + "</think>".len()..]),
        None if response.contains("<think>") => None,
        None => Some(response),
    }
}

/// The answer within a response: after the last "Final answer:" if there is one, else the whole visible text; normalised.
#[must_use]
pub fn answer(response: &str) -> Option<String> {
    let shown = visible(response)?;
    let marker = "Final answer:";
    let tail = shown
        .rfind(marker)
        .map_or(shown, |at| &shown[at + marker.len()..]);
    Some(normalise(tail))
}

/// True if the response gives the expected answer: equal after [`normalise`], and not empty.
#[must_use]
pub fn is_correct(response: &str, expected: &str) -> bool {
    answer(response).is_some_and(|got| !got.is_empty() && got == normalise(expected))
}

/// Lower case, no markup stars, no special tokens at the end, single spaces, no full stop at the end.
#[must_use]
pub fn normalise(text: &str) -> String {
    let plain = text
        .replace("<|im_end|>", " ")
        .replace("<|endoftext|>", " ")
        .replace('*', "");
    let words: Vec<&str> = plain.split_whitespace().collect();
    words
        .join(" ")
        .to_lowercase()
        .trim_end_matches('.')
        .to_owned()
}
