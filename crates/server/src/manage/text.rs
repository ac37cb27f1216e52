//! `/tokenize`, `/detokenize` and `/apply-template`: the tokenizer and the chat template by themselves.

use axum::Json;
use axum::extract::State;
use edgethink_model::RenderOptions;
use edgethink_model::tokenizer::Tokenizer;
use edgethink_reason::ReasonError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::chat::convert::{conversation, offered};
use crate::chat::types::{ChatMessage, Tool};
use crate::error::{ApiError, ErrorBody};
use crate::extract::Body;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    pub(crate) content: String,
    /// Put the model's first token in front, if it has one.
    pub(crate) add_special: Option<bool>,
    /// Objects with the tokens' texts instead of bare ids.
    pub(crate) with_pieces: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenizeResponse {
    pub(crate) tokens: Vec<TokenWire>,
}

/// An id, or an id with its text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum TokenWire {
    Id(u32),
    Piece { id: u32, piece: String },
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokenizeRequest {
    pub(crate) tokens: Vec<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DetokenizeResponse {
    pub(crate) content: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateRequest {
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) tools: Option<Vec<Tool>>,
    /// End with the head of the assistant's turn; on unless it is switched off.
    pub(crate) add_generation_prompt: Option<bool>,
    /// What the template is told of thinking.
    pub(crate) enable_thinking: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TemplateResponse {
    pub(crate) prompt: String,
}

impl App {
    fn tokenizer(&self) -> Result<&Tokenizer, ApiError> {
        let tokenizer = self.model.tokenizer.as_ref();
        tokenizer.ok_or_else(|| ReasonError::NoTokenizer.into())
    }
}

fn tokenizer_failed(field: &'static str, error: &dyn std::error::Error) -> ApiError {
    ApiError::bad(field, crate::error::told(error))
}

/// Text to tokens.
#[utoipa::path(
    post,
    path = "/tokenize",
    tag = "Management",
    request_body = TokenizeRequest,
    responses(
        (status = 200, description = "The tokens", body = TokenizeResponse),
        (status = 400, description = "A field is wrong, and is named", body = ErrorBody),
    )
)]
pub(crate) async fn tokenize(
    State(app): State<App>,
    Body(request): Body<TokenizeRequest>,
) -> Result<Json<TokenizeResponse>, ApiError> {
    let tokenizer = app.tokenizer()?;
    let add_special = request.add_special.unwrap_or(false);
    let ids = tokenizer
        .encode(&request.content, add_special)
        .map_err(|error| tokenizer_failed("content", &error))?;
    let with_pieces = request.with_pieces.unwrap_or(false);
    let token = |id| {
        if !with_pieces {
            return Ok(TokenWire::Id(id));
        }
        let piece = tokenizer.decode(&[id], false);
        let piece = piece.map_err(|error| tokenizer_failed("content", &error))?;
        Ok(TokenWire::Piece { id, piece })
    };
    let tokens: Result<_, ApiError> = ids.into_iter().map(token).collect();
    Ok(Json(TokenizeResponse { tokens: tokens? }))
}

/// Tokens to text.
#[utoipa::path(
    post,
    path = "/detokenize",
    tag = "Management",
    request_body = DetokenizeRequest,
    responses(
        (status = 200, description = "The text", body = DetokenizeResponse),
        (status = 400, description = "A field is wrong, and is named", body = ErrorBody),
    )
)]
pub(crate) async fn detokenize(
    State(app): State<App>,
    Body(request): Body<DetokenizeRequest>,
) -> Result<Json<DetokenizeResponse>, ApiError> {
    let size = app.facts.vocab_size;
    let foreign = request.tokens.iter().position(|&id| id as usize >= size);
    if let Some(at) = foreign {
        let message = format!("the vocabulary has {size} tokens");
        return Err(ApiError::bad(format!("tokens[{at}]"), message));
    }
    let content = app
        .tokenizer()?
        .decode(&request.tokens, false)
        .map_err(|error| tokenizer_failed("tokens", &error))?;
    Ok(Json(DetokenizeResponse { content }))
}

/// Messages to the text that the model is given.
#[utoipa::path(
    post,
    path = "/apply-template",
    tag = "Management",
    request_body = TemplateRequest,
    responses(
        (status = 200, description = "The text", body = TemplateResponse),
        (status = 400, description = "A field is wrong, and is named", body = ErrorBody),
    )
)]
pub(crate) async fn apply_template(
    State(app): State<App>,
    Body(request): Body<TemplateRequest>,
) -> Result<Json<TemplateResponse>, ApiError> {
    let tools = offered(request.tools.as_deref().unwrap_or_default());
    let (messages, mut extra) = conversation(request.messages, &tools, &app)?;
    if let Some(enabled) = request.enable_thinking {
        extra.insert("enable_thinking".to_owned(), enabled.into());
    }
    let template = app.model.template.as_ref().ok_or(ReasonError::NoTemplate)?;
    let options = RenderOptions {
        add_generation_prompt: request.add_generation_prompt.unwrap_or(true),
        extra,
    };
    let prompt = template
        .render(&messages, &options)
        .map_err(ReasonError::from)?;
    Ok(Json(TemplateResponse { prompt }))
}
