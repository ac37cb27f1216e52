//! From messages to tokens, and to the place where the adapter starts.
//!
//! A masked adapter runs from its invocation (for Qwen `<|im_start|>assistant\n`) at its last occurrence; everything before is
//! encoded by the base, so both modes share its KV (METHOD 2). A plain LoRA runs from the first token.

use edgethink_model::template::{ChatTemplate, RenderOptions};
use edgethink_model::tokenizer::Tokenizer;
use edgethink_model::{Adapter, Model};
use serde_json::{Map, Value};

use crate::answer::AdapterUse;
use crate::error::ReasonError;
use crate::query::{Input, Think};
use crate::split::Tags;

/// The encoded prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens, `[T]`.
    pub tokens: Vec<u32>,
    /// Its text ends in a thought that the response goes on with.
    pub inside_thought: bool,
}

/// An opening tag with white space behind it is shorter than this, tokens.
const TAG_TOKENS: usize = 32;

/// The switch that templates of hybrid models read.
const TEMPLATE_SWITCH: &str = "enable_thinking";

/// Whether the model's own template can switch thinking on and off.
pub fn template_can_think(template: Option<&ChatTemplate>) -> bool {
    template.is_some_and(|template| template.source().contains(TEMPLATE_SWITCH))
}

/// `input` with `line` as the last line of its last user turn; the line that was written, if there is a place for it.
///
/// The line stands before the adapter's start, so the base encodes it, and everything up to it is shared with any other budget.
pub fn name_budget(input: Input, line: Option<String>) -> (Input, Option<String>) {
    match (input, line) {
        (Input::Messages(mut messages), Some(line)) => {
            let last = messages.iter_mut().rfind(|m| m.role == "user");
            let written = last.map(|message| {
                message.content = format!("{}\n{line}", message.content);
                line
            });
            (Input::Messages(messages), written)
        }
        (input, _) => (input, None),
    }
}

/// Renders and tokenizes `input`, with more `variables` for the template. The generation prompt is the end of it.
///
/// # Errors
/// No tokenizer, no template for messages, a template that refuses the messages, an empty prompt.
pub fn encode(
    model: &Model,
    input: &Input,
    think: Think,
    tags: &Tags,
    variables: &Map<String, Value>,
) -> Result<Prompt, ReasonError> {
    let tokenizer = model.tokenizer.as_ref().ok_or(ReasonError::NoTokenizer)?;
    let (text, tokens) = match input {
        Input::Messages(messages) => {
            let template = model.template.as_ref().ok_or(ReasonError::NoTemplate)?;
            let mut options = RenderOptions {
                add_generation_prompt: true,
                extra: variables.clone(),
            };
            options
                .extra
                .insert(TEMPLATE_SWITCH.to_owned(), (think == Think::On).into());
            let text = template.render(messages, &options)?;
            // The template has written the special tokens already.
            let tokens = tokenizer.encode(&text, false)?;
            (text, tokens)
        }
        Input::Raw(text) => (text.clone(), tokenizer.encode(text, true)?),
        // Only the end is looked at.
        Input::Tokens(tokens) => {
            let last = &tokens[tokens.len().saturating_sub(TAG_TOKENS)..];
            (tokenizer.decode(last, false)?, tokens.clone())
        }
    };
    if tokens.is_empty() {
        return Err(ReasonError::EmptyPrompt);
    }
    Ok(Prompt {
        tokens,
        inside_thought: ends_inside(&text, tags),
    })
}

/// The last opening tag has no closing tag behind it, and nothing but white space follows it.
fn ends_inside(text: &str, tags: &Tags) -> bool {
    text.trim_end().ends_with(&tags.open)
}

/// Where `adapter` starts in the prompt, if it starts at all, and what that means for sharing.
pub fn place_adapter(
    adapter: Option<&Adapter>,
    think: Think,
    tokens: &[u32],
) -> (Option<usize>, AdapterUse) {
    let Some(adapter) = adapter.filter(|_| think == Think::On) else {
        return (None, AdapterUse::Base);
    };
    match adapter.start(tokens) {
        None => (None, AdapterUse::NotInvoked),
        Some(_) if adapter.invocation.is_none() => (Some(0), AdapterUse::Plain),
        Some(from) => (
            Some(from),
            AdapterUse::Masked {
                shared_tokens: from,
            },
        ),
    }
}

/// The single token a tag is, if the tokenizer has it as one.
pub(crate) fn tag_token(tokenizer: &Tokenizer, tag: &str) -> Option<u32> {
    tokenizer.token_id(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgethink_model::Message;

    #[test]
    fn a_budget_is_the_last_line_of_the_last_user_turn() {
        let messages = ["system", "user", "assistant", "user", "tool"]
            .map(|role| Message::new(role, format!("{role}'s")))
            .to_vec();
        let line = || Some("Use 5.".to_owned());
        let (named, written) = name_budget(Input::Messages(messages.clone()), line());
        assert_eq!(written, line());
        let mut expected = messages.clone();
        expected[3].content = "user's\nUse 5.".to_owned();
        assert_eq!(named, Input::Messages(expected));
        for input in [
            Input::Messages(messages[..1].to_vec()),
            Input::Raw("text".to_owned()),
        ] {
            assert_eq!(name_budget(input.clone(), line()), (input, None));
        }
        let unnamed = Input::Messages(messages);
        assert_eq!(name_budget(unnamed.clone(), None), (unnamed, None));
    }

    #[test]
    fn only_an_open_thought_at_the_very_end_counts() {
        let tags = Tags::default();
        for (text, inside) in [
            ("<|assistant|>\n<think>\n", true),
            ("<|assistant|>\n<think>\n\n</think>\n\n", false),
            ("<|assistant|>\n", false),
            ("say <think> please\n<|assistant|>\n", false),
        ] {
            assert_eq!(ends_inside(text, &tags), inside, "{text:?}");
        }
    }
}
