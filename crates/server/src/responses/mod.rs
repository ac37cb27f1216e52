//! `POST /v1/responses`: OpenAI's newer API. Nothing is stored; a conversation is sent whole.

pub(crate) mod convert;
pub(crate) mod stream;
pub(crate) mod types;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::ask::Prepared;
use crate::error::{ApiError, ErrorBody};
use crate::extract::Body;
use crate::sse;
use convert::Head;
use stream::ResponseStream;
use types::{Echo, ResponseObject, ResponsesRequest};

/// Answers a conversation; with `stream`, as named server-sent events.
#[utoipa::path(
    post,
    path = "/v1/responses",
    tag = "OpenAI",
    request_body = ResponsesRequest,
    responses(
        (status = 200, description = "The reply, or its events", content((ResponseObject = "application/json"), (String = "text/event-stream"))),
        (status = 400, description = "A field is wrong, and is named", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 503, description = "Too many requests wait, or the server is shutting down", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    Body(request): Body<ResponsesRequest>,
) -> Result<Response, ApiError> {
    let streams = request.stream.unwrap_or(false);
    let has_tools = request.has_tools();
    let echo = Echo::from(&request);
    let ask = request.into_ask(&app).map_err(in_its_words)?;
    let prepared = app.prepare(ask).await.map_err(in_its_words)?;
    let Prepared {
        query,
        blocks,
        asked,
        ..
    } = prepared;
    let ticket = app.submit(query, blocks).await.map_err(in_its_words)?;
    let head = Head {
        id: format!("resp_{}", ticket.id),
        created: crate::now(),
        asked,
        echo,
    };
    if streams {
        return Ok(sse::respond(
            ticket,
            ResponseStream::new(app, head, has_tools),
        ));
    }
    let outcome = ticket.outcome().await?;
    let choice = outcome.answer.choices.first();
    let output = choice.map(|choice| convert::output(&app, choice, has_tools));
    let output = output.unwrap_or_default();
    Ok(Json(head.ended(&app, &outcome, output)).into_response())
}

/// The error with this API's names of the fields.
fn in_its_words(mut error: ApiError) -> ApiError {
    if let Some(param) = &mut error.param {
        if param.starts_with("messages") {
            *param = param.replacen("messages", "input", 1);
        } else if param == "response_format" {
            *param = "text.format".to_owned();
        }
    }
    error
}
