//! What is not an answer: whether the server lives, what it is, its counters, its models, its adapters, its tokenizer.

pub(crate) mod adapters;
pub(crate) mod models;
pub(crate) mod props;
pub(crate) mod text;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::{ApiError, ErrorBody};

/// Whether the server lives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, `draining` or `failed`.
    pub(crate) status: &'static str,
}

/// 200 while requests are taken, 503 while the server shuts down.
#[utoipa::path(
    get,
    path = "/health",
    tag = "Management",
    responses(
        (status = 200, description = "Requests are taken", body = Health),
        (status = 503, description = "The server is shutting down", body = Health),
    )
)]
pub(crate) async fn health(State(app): State<App>) -> Response {
    let (code, status) = if app.worker.is_failed() {
        (StatusCode::SERVICE_UNAVAILABLE, "failed")
    } else if app.worker.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else {
        (StatusCode::OK, "ok")
    };
    (code, Json(Health { status })).into_response()
}

/// Counters, gauges and histograms for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "Management",
    responses(
        (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"),
        (status = 401, description = "No key, or none of the server's", body = ErrorBody),
    )
)]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, app.metrics.render()).into_response()
}

/// Embeddings are not what this server makes.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "OpenAI",
    responses((status = 404, description = "Not offered", body = ErrorBody))
)]
pub(crate) async fn embeddings() -> ApiError {
    ApiError::not_found(
        "unsupported_endpoint",
        "this server makes no embeddings; it answers chats (/v1/chat/completions)",
    )
}

/// A path that is not known.
pub(crate) async fn unknown(uri: axum::http::Uri) -> ApiError {
    let path = uri.path();
    ApiError::not_found(
        "unknown_endpoint",
        format!("there is no {path}; /openapi.json lists what there is"),
    )
}

/// A path that is known, under another method.
pub(crate) async fn wrong_method(method: axum::http::Method) -> ApiError {
    ApiError::with_code(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not what this path takes; /openapi.json lists what it does"),
    )
}
