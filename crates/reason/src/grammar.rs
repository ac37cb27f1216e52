//! Answers in a given form: JSON, or JSON after a schema (OpenAI's `response_format`).
//!
//! The grammar is the answer's alone; a thought before it is free. Before each token of the answer, `llguidance` says which tokens can
//! follow, and the engine chooses among those. Forced tokens are no part of the form: they are the end of a thought.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use edgethink_engine::TokenMask;
use edgethink_model::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::error::ReasonError;

/// The white space that may stand between the parts of a JSON text: one space, or a new line with its indent. A small model would fill
/// its budget with more.
const WHITESPACE: &str = "( |\\n {0,8})";

/// The form of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema (JSON Schema, draft 2020-12) accepts.
    JsonSchema(Value),
}

impl Grammar {
    fn schema(&self) -> Result<Value, ReasonError> {
        let mut schema = match self {
            Self::JsonObject => json!({"type": "object"}),
            Self::JsonSchema(schema) => schema.clone(),
        };
        let object = schema
            .as_object_mut()
            .ok_or_else(|| refused("a JSON schema is an object, such as {\"type\": \"object\"}"))?;
        object.insert(
            "x-guidance".to_owned(),
            json!({"whitespace_pattern": WHITESPACE}),
        );
        Ok(schema)
    }
}

fn refused(why: impl Into<String>) -> ReasonError {
    ReasonError::Grammar { why: why.into() }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: impl std::fmt::Display) -> ReasonError {
    refused(error.to_string())
}

/// Compiles grammars for one vocabulary.
pub(crate) struct Compiler(ParserFactory);

impl Compiler {
    /// `eos` end an answer that could also go on; `tags` have no place in one.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        eos: &[u32],
        tags: impl IntoIterator<Item = u32>,
    ) -> Result<Self, ReasonError> {
        let mut words = tokenizer.token_bytes()?;
        for tag in tags {
            words[tag as usize].clear();
        }
        let known: Vec<u32> = eos
            .iter()
            .copied()
            .filter(|&id| (id as usize) < words.len())
            .collect();
        let (Some(&first), Ok(size)) = (known.first(), u32::try_from(words.len())) else {
            return Err(refused("the model has no token that ends its turn"));
        };
        let trie = TokTrie::from(&TokRxInfo::new(size, first), &words).with_eos_tokens(&known);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(failed)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self(factory))
    }

    /// The beginning of an answer in this form.
    pub(crate) fn guide(&self, grammar: &Grammar) -> Result<Guide, ReasonError> {
        let schema = TopLevelGrammar::from_json_schema(grammar.schema()?);
        let parser = catch_unwind(AssertUnwindSafe(|| self.0.create_parser(schema)));
        let parser = parser.map_err(|_| refused("its compiler failed"))?;
        Ok(Guide(Matcher::new(Ok(parser.map_err(failed)?))))
    }
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compiler")
    }
}

/// How far an answer is within its form.
#[derive(Clone)]
pub(crate) struct Guide(Matcher);

impl Guide {
    /// The tokens that can follow.
    pub(crate) fn allowed(&mut self) -> Result<TokenMask, ReasonError> {
        let mask = self.0.compute_mask_or_eos().map_err(failed)?;
        Ok(TokenMask::from_words(mask.as_slice()))
    }

    /// Takes the next token.
    pub(crate) fn take(&mut self, token: u32) -> Result<(), ReasonError> {
        self.0.consume_token(token).map_err(failed)
    }

    /// Nothing can follow.
    pub(crate) fn complete(&self) -> bool {
        self.0.is_stopped()
    }
}

impl std::fmt::Debug for Guide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Guide").field(&self.complete()).finish()
    }
}
