//! `POST /v1/chat/completions`: [`types`] on the wire, [`convert`] to and from the reasoner, [`stream`] as chunks.

pub(crate) mod convert;
pub(crate) mod stream;
pub(crate) mod types;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::ask::Prepared;
use crate::error::{ApiError, ErrorBody};
use crate::extract::Body;
use crate::sse;
use crate::worker::handle::{Command, TicketId};
use stream::ChatStream;
use types::{ChatChunk, ChatRequest, ChatResponse};

/// Answers a conversation; with `stream`, chunk by chunk as server-sent events.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "OpenAI",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The reply, or its chunks", content((ChatResponse = "application/json"), (ChatChunk = "text/event-stream"))),
        (status = 400, description = "A field is wrong, and is named", body = ErrorBody),
        (status = 401, description = "No key, or none of the server's", body = ErrorBody),
        (status = 404, description = "No such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 415, description = "The body is no JSON", body = ErrorBody),
        (status = 503, description = "Too many requests wait, or the server is shutting down", body = ErrorBody),
        (status = 504, description = "The request's time is over", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    Body(request): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    let streams = request.stream.unwrap_or(false);
    let options = request.stream_options.as_ref();
    let include_usage = options.and_then(|it| it.include_usage).unwrap_or(false);
    let has_tools = request.has_tools();
    let ask = request.into_ask(&app)?;
    let Prepared {
        query,
        blocks,
        asked,
        ..
    } = app.prepare(ask).await?;
    let ticket = app.submit(query, blocks).await?;
    let id = format!("chatcmpl-{}", ticket.id);
    let created = crate::now();
    if !streams {
        let outcome = ticket.outcome().await?;
        let response = convert::response(&app, id, created, &asked, has_tools, &outcome);
        return Ok(Json(response).into_response());
    }
    let chunks = ChatStream {
        app,
        id,
        created,
        asked,
        has_tools,
        include_usage,
        choices: BTreeMap::new(),
    };
    Ok(sse::respond(ticket, chunks))
}

/// Which thoughts to end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndThoughtRequest {
    /// The choice; left out or `null` for all of them.
    #[schema(minimum = 0)]
    pub(crate) index: Option<usize>,
}

/// How many were ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndThoughtResponse {
    pub(crate) ended: usize,
}

/// Ends the open thoughts of a running request now; their answers follow.
#[utoipa::path(
    post,
    path = "/v1/chat/completions/{id}/end_thought",
    tag = "edgethink",
    params(("id" = String, Path, description = "The `id` of the chunks")),
    request_body = EndThoughtRequest,
    responses(
        (status = 200, description = "How many thoughts were open", body = EndThoughtResponse),
        (status = 404, description = "No such request runs", body = ErrorBody),
    )
)]
pub(crate) async fn end_thought(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(request): Body<EndThoughtRequest>,
) -> Result<Json<EndThoughtResponse>, ApiError> {
    let unknown = || {
        let message = format!("no request {id:?} is running");
        ApiError::not_found("unknown_completion", message)
    };
    let ticket = TicketId::parse(&id).ok_or_else(unknown)?;
    let stream = request.index;
    let ended = app.worker.ask(|reply| Command::EndThought {
        id: ticket,
        stream,
        reply,
    });
    let ended = ended.await?;
    Ok(Json(EndThoughtResponse { ended }))
}
