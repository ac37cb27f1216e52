//! `POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's API, thoughts as thinking blocks, errors in its shape.

pub(crate) mod convert;
pub(crate) mod stream;
pub(crate) mod types;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use edgethink_reason::{Input, Query, Think};
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::ask::Prepared;
use crate::chat::convert::offered;
use crate::chat::types::Tool;
use crate::extract::Body;
use crate::sse;
use convert::InItsShape;
use stream::MessageStream;
use types::{CountRequest, CountResponse, MessageObject, MessagesError, MessagesRequest};

/// A JSON body whose errors have Anthropic's shape.
#[derive(Debug)]
pub(crate) struct ItsBody<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ItsBody<T> {
    type Rejection = InItsShape;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let Body(value) = Body::from_request(request, state).await?;
        Ok(Self(value))
    }
}

/// Answers a conversation; with `stream`, as named server-sent events.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "Anthropic",
    request_body = MessagesRequest,
    responses(
        (status = 200, description = "The reply, or its events", content((MessageObject = "application/json"), (String = "text/event-stream"))),
        (status = 400, description = "A field is wrong, and is named", body = MessagesError),
        (status = 404, description = "No such model", body = MessagesError),
        (status = 503, description = "Too many requests wait, or the server is shutting down", body = MessagesError),
    )
)]
pub(crate) async fn create(
    State(app): State<App>,
    ItsBody(request): ItsBody<MessagesRequest>,
) -> Result<Response, InItsShape> {
    let streams = request.stream.unwrap_or(false);
    let has_tools = request.has_tools();
    let ask = request.into_ask(&app)?;
    let Prepared {
        query,
        blocks,
        asked,
        ..
    } = app.prepare(ask).await?;
    let ticket = app.submit(query, blocks).await?;
    let id = format!("msg_{}", ticket.id);
    if streams {
        let chunks = MessageStream::new(app, id, asked, has_tools);
        return Ok(sse::respond(ticket, chunks));
    }
    let outcome = ticket.outcome().await?;
    let reply = convert::reply(&app, id, &asked, has_tools, &outcome);
    Ok(Json(reply).into_response())
}

/// Counts the tokens of a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    tag = "Anthropic",
    request_body = CountRequest,
    responses(
        (status = 200, description = "How many", body = CountResponse),
        (status = 400, description = "A field is wrong, and is named", body = MessagesError),
        (status = 404, description = "No such model", body = MessagesError),
    )
)]
pub(crate) async fn count_tokens(
    State(app): State<App>,
    ItsBody(request): ItsBody<CountRequest>,
) -> Result<Json<CountResponse>, InItsShape> {
    app.resolve(request.model.as_deref())?;
    let tools: Vec<Tool> = request.tools.iter().flatten().map(Tool::from).collect();
    let (messages, template) =
        convert::read(request.system, request.messages, &offered(&tools), &app)?;
    let query = Query {
        template,
        ..Query::greedy(Input::Messages(messages), Think::Off)
    };
    let input_tokens = app.prompt_tokens(&query)?;
    Ok(Json(CountResponse { input_tokens }))
}
