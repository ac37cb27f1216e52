//! What the user sees of a response: the text after the end of thinking.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// The text after the last `</think>`; all of it if no thought was opened.
///
/// `None` if a thought was opened and never closed: it was cut off, and what stands in it is no answer
/// (lm-evaluation-harness issue 3382 grades it as one). Where the prompt itself ends in `<think>`, the caller puts it back in front of
/// the response: without it, a thought that was cut off looks like an answer.
#[must_use]
pub fn visible(response: &str) -> Option<&str> {
    let shown = match response.rfind(CLOSE) {
        Some(at) => &response[at + CLOSE.len()..],
        None => response,
    };
    (!shown.contains(OPEN)).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn only_what_follows_the_last_thought() {
        assert_eq!(visible("42"), Some("42"));
        assert_eq!(visible("<think>1</think> 2"), Some(" 2"));
        assert_eq!(visible("1</think> 2"), Some(" 2"));
        assert_eq!(visible("<think>1</think> 2 <think>3</think>4"), Some("4"));
        assert_eq!(visible("<think>1"), None);
        assert_eq!(visible("<think>1</think> 2 <think>3"), None);
        assert_eq!(visible(""), Some(""));
    }
}
