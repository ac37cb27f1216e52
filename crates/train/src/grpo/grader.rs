pub(crate) fn visible(text: &str) -> Option<&str> {
    match text.rsplit_once("</think>") {
        Some((_, v)) => Some(v),
        None if text.contains("<think>") => None,
        None => Some(text),
    }
}
pub(crate) fn is_correct(text: &str, want: &str) -> bool {
    visible(text)
        .and_then(|v| v.rsplit_once("**Final answer:**"))
        .is_some_and(|(_, a)| a.trim().split('<').next().unwrap_or("").trim() == want)
}
