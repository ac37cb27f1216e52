//! Chat templates: the Jinja program that comes with a model, run with limits on steps and output.
//!
//! A template is untrusted input. It sees the messages, the special tokens and the options, and nothing else; there is no
//! access to files or to the program. Behaviour follows transformers' `apply_chat_template`.

mod clock;
mod functions;

use std::fmt;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, merge_maps};
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use thiserror::Error;

/// Work one rendering may do. minijinja charges 1 per instruction and per 64 bytes that are read or written, so that this
/// also limits the output, to 128 MB. A chat of 100,000 tokens takes some ten thousand.
const FUEL: u64 = 2_000_000;
/// Bytes of a template; known ones are below 30 kB.
const MOST_SOURCE: usize = 1 << 20;

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text.
    pub content: String,
    /// The thought of an assistant's message, apart from its answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reasoning_content: Option<String>,
    /// What else the template may read of it, such as `tool_calls`. Data files do not set it.
    #[serde(flatten, skip_deserializing)]
    pub extra: Map<String, serde_json::Value>,
}

impl Message {
    /// A message without a thought.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            reasoning_content: None,
            extra: Map::new(),
        }
    }
}

/// What a rendering is asked for.
#[derive(Debug, Clone, Default)]
pub struct RenderOptions {
    /// Whether to end with the header of the assistant's next message.
    pub add_generation_prompt: bool,
    /// More variables, such as `enable_thinking` or `tools`.
    pub extra: Map<String, serde_json::Value>,
}

/// A template does not compile or did not run to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A syntax error.
    #[error("does not compile: {0:#}")]
    Syntax(#[source] minijinja::Error),
    /// The source is longer than any template.
    #[error("has {size} bytes; the limit is {MOST_SOURCE}")]
    TooLong {
        /// Bytes of the source.
        size: usize,
    },
    /// The template itself refused the messages (`raise_exception`).
    #[error("the chat template refuses these messages: {0}")]
    Refused(String),
    /// Running it failed, or it took too many steps or wrote too much.
    #[error("the chat template failed: {0:#}")]
    Run(#[source] minijinja::Error),
}

/// A compiled chat template. Cloning shares it.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    special: Arc<Map<String, serde_json::Value>>,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Compiles `source`. `special` holds the variables for special tokens: `bos_token`, `eos_token`, and so on.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] or [`TemplateError::TooLong`].
    pub fn new(
        source: &str,
        special: Map<String, serde_json::Value>,
    ) -> Result<Self, TemplateError> {
        if source.len() > MOST_SOURCE {
            return Err(TemplateError::TooLong { size: source.len() });
        }
        let mut environment = Environment::new();
        // The whitespace rules of transformers.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(TemplateError::Syntax)?;
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(100);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        functions::install(&mut environment);
        environment
            .add_template_owned(NAME, functions::without_generation_tags(source))
            .map_err(TemplateError::Syntax)?;
        Ok(Self {
            environment: Arc::new(environment),
            source: source.into(),
            special: Arc::new(special),
        })
    }

    /// The text that the model is given for `messages`.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] if the template raised an exception, [`TemplateError::Run`] for every other failure.
    pub fn render(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<String, TemplateError> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(TemplateError::Run)?;
        let variables = merge_maps([
            context! {
                messages => Value::from(Serde(messages)),
                add_generation_prompt => options.add_generation_prompt,
            },
            Value::from(Serde(&options.extra)),
            Value::from(Serde(&*self.special)),
        ]);
        template
            .render(variables)
            .map_err(|error| match functions::raised(&error) {
                Some(message) => TemplateError::Refused(message),
                None => TemplateError::Run(error),
            })
    }

    /// What `add_generation_prompt` adds at the end, for example `<|im_start|>assistant\n`. Adapters begin here.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn generation_prompt(&self) -> Result<String, TemplateError> {
        self.generation_prompt_with(&Map::new())
    }

    /// As [`ChatTemplate::generation_prompt`], with more variables.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn generation_prompt_with(
        &self,
        extra: &Map<String, serde_json::Value>,
    ) -> Result<String, TemplateError> {
        let messages = [Message::new("user", "x")];
        let render = |add_generation_prompt| {
            self.render(
                &messages,
                &RenderOptions {
                    add_generation_prompt,
                    extra: extra.clone(),
                },
            )
        };
        let (with, without) = (render(true)?, render(false)?);
        Ok(with.strip_prefix(&without).unwrap_or_default().to_owned())
    }

    /// The variables for special tokens: `bos_token`, `eos_token`, and so on.
    pub fn special(&self) -> &Map<String, serde_json::Value> {
        &self.special
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatTemplate({} bytes)", self.source.len())
    }
}
