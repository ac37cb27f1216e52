//! The hard budget (METHOD 3): a limit on the whole response at which the thought is cut and an answer is forced.
//!
//! ```text
//! |<---------------------- response limit = min(budget, room in the context) ---------------------->|
//! |<think> thought ................ thought limit |\n</think>\n\n**Final answer:** | reserve: the answer |
//! ```
//!
//! Tokens for the closing phrase and for the answer are reserved inside the limit, so an answer always comes. A budget that
//! is smaller than the closing phrase and the least reserve (0 and 1 are) ends the thought at once and is exceeded by
//! exactly those tokens: an answer of zero tokens is no answer. An answer that is still blank when only the phrase and one
//! token fit is begun with the phrase too. Paper §4, hard token limit; the wording is ours.
//! Called by `stream`.

use crate::split::{Place, Tags};

/// The least number of tokens kept for the answer.
pub const MIN_RESERVE_TOKENS: usize = 16;
/// The most; a share of an eighth lies between the two.
pub const MAX_RESERVE_TOKENS: usize = 512;

/// The limits of one request, in tokens of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetPlan {
    /// A thought still open after this many tokens is cut.
    pub thought_tokens: usize,
    /// An answer still blank after this many tokens is begun with the closing phrase.
    pub blank_tokens: usize,
    /// The response ends here at the latest.
    pub response_tokens: usize,
}

impl BudgetPlan {
    /// Plans a `budget` for a prompt that leaves `room` tokens in the context, with a closing phrase of `closing` tokens.
    ///
    /// `reserve` overrides the tokens kept for the answer. Returns `None` if the room is too small for the closing phrase
    /// and one token of answer.
    pub fn new(budget: usize, room: usize, closing: usize, reserve: Option<usize>) -> Option<Self> {
        if room <= closing {
            return None;
        }
        let limit = budget.min(room);
        let reserve = reserve
            .unwrap_or((limit / 8).clamp(MIN_RESERVE_TOKENS, MAX_RESERVE_TOKENS))
            .max(1);
        let least = room.min(closing.saturating_add(reserve.min(MIN_RESERVE_TOKENS)));
        let response_tokens = limit.max(least);
        Some(Self {
            thought_tokens: limit.saturating_sub(closing.saturating_add(reserve)),
            blank_tokens: response_tokens - closing - 1,
            response_tokens,
        })
    }
}

/// The text that makes an answer come from where the stream is: the whole closing phrase, or what of it is still to come.
///
/// `partial` bytes of the awaited tag are written already; the text goes on after them. In an answer it is the part behind the
/// tag, or `None` if there is nothing but white space in it.
pub(crate) fn closing_text(
    tags: &Tags,
    closing: &str,
    place: Place,
    partial: usize,
) -> Option<String> {
    let after = closing
        .split_once(tags.close.as_str())
        .map_or("", |(_, after)| after);
    match place {
        Place::Answer => (!after.trim().is_empty()).then(|| after.to_owned()),
        Place::Start => Some(format!("{}{closing}", &tags.open[partial..])),
        Place::Thought if partial == 0 => Some(closing.to_owned()),
        Place::Thought => Some(format!("{}{after}", &tags.close[partial..])),
    }
}

/// The white space that `text` begins with.
pub(crate) fn leading_blank(text: &str) -> &str {
    &text[..text.len() - text.trim_start().len()]
}

/// What ends a thought and begins no answer: the closing phrase up to its tag, and the white space behind it.
pub(crate) fn bare_closing(tags: &Tags, closing: &str) -> String {
    closing
        .split_once(tags.close.as_str())
        .map_or_else(String::new, |(before, after)| {
            format!("{before}{}{}", tags.close, leading_blank(after))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::DEFAULT_CLOSING;

    #[test]
    fn the_thought_the_phrase_and_the_answer_fit_in_the_budget() {
        for budget in [64, 100, 1000, 4000, 6000] {
            let plan = BudgetPlan::new(budget, 32_768, 9, None).expect("there is room");
            assert_eq!(plan.response_tokens, budget);
            assert_eq!(plan.blank_tokens + 9 + 1, budget);
            let left = plan.response_tokens - plan.thought_tokens;
            assert!(left >= 9 + MIN_RESERVE_TOKENS, "{budget}: {left} left");
            assert!(plan.thought_tokens >= budget / 2, "{budget}: {plan:?}");
        }
    }

    #[test]
    fn tiny_budgets_think_nothing_and_still_answer() {
        for budget in [0, 1, 9, 24] {
            let plan = BudgetPlan::new(budget, 1000, 9, None).expect("there is room");
            assert_eq!(plan.thought_tokens, 0);
            assert_eq!(plan.response_tokens, 9 + MIN_RESERVE_TOKENS);
        }
    }

    #[test]
    fn a_budget_larger_than_the_context_is_the_context() {
        let plan = BudgetPlan::new(usize::MAX, 200, 9, None).expect("there is room");
        assert_eq!(plan.response_tokens, 200);
        assert_eq!(plan.thought_tokens, 200 - 9 - 25);
    }

    #[test]
    fn a_nearly_full_context_answers_with_what_is_left_or_refuses() {
        let plan = BudgetPlan::new(1000, 12, 9, None).expect("three tokens are left");
        assert_eq!((plan.thought_tokens, plan.response_tokens), (0, 12));
        assert_eq!(BudgetPlan::new(1000, 9, 9, None), None);
        assert_eq!(BudgetPlan::new(1000, 0, 9, None), None);
    }

    #[test]
    fn the_reserve_can_be_set() {
        let plan = BudgetPlan::new(100, 1000, 10, Some(40)).expect("there is room");
        assert_eq!((plan.thought_tokens, plan.response_tokens), (50, 100));
        let plan = BudgetPlan::new(100, 1000, 10, Some(usize::MAX)).expect("there is room");
        assert_eq!((plan.thought_tokens, plan.response_tokens), (0, 100));
    }

    #[test]
    fn a_bare_closing_ends_the_thought_and_says_nothing() {
        let tags = Tags::default();
        assert_eq!(bare_closing(&tags, DEFAULT_CLOSING), "\n</think>\n\n");
        assert_eq!(bare_closing(&tags, "</think>So: "), "</think>");
        assert_eq!(bare_closing(&tags, "stop </think> "), "stop </think> ");
    }

    #[test]
    fn closing_goes_on_after_a_half_written_tag() {
        let tags = Tags::default();
        let close = |place, partial| closing_text(&tags, DEFAULT_CLOSING, place, partial);
        assert_eq!(close(Place::Thought, 0).as_deref(), Some(DEFAULT_CLOSING));
        assert_eq!(
            close(Place::Thought, 3).as_deref(),
            Some("hink>\n\n**Final answer:** ")
        );
        assert_eq!(
            close(Place::Start, 0),
            Some(format!("<think>{DEFAULT_CLOSING}"))
        );
        assert_eq!(
            close(Place::Start, 3),
            Some(format!("ink>{DEFAULT_CLOSING}"))
        );
        assert_eq!(
            close(Place::Answer, 0).as_deref(),
            Some("\n\n**Final answer:** ")
        );
        assert_eq!(closing_text(&tags, "</think>\n\n", Place::Answer, 0), None);
    }
}
