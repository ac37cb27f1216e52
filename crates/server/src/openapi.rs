//! `GET /openapi.json`: the OpenAPI document, made from the handlers and their types.

use std::sync::OnceLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::{chat, completions, manage, messages, responses};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "edgethink",
        description = "A small language model that thinks when told to, behind the APIs that clients know."
    ),
    paths(
        chat::create,
        chat::end_thought,
        completions::create,
        responses::create,
        messages::create,
        messages::count_tokens,
        manage::models::list,
        manage::models::show,
        manage::embeddings,
        manage::health,
        manage::metrics,
        manage::props::show,
        manage::adapters::load,
        manage::adapters::unload,
        manage::text::tokenize,
        manage::text::detokenize,
        manage::text::apply_template,
    ),
    modifiers(&Key),
    security(("key" = []), ()),
)]
struct Document;

/// The way to give a key.
struct Key;

impl utoipa::Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

/// The document as JSON.
pub(crate) async fn show() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| Document::openapi().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}
