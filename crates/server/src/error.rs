//! What a client is told when its request cannot be answered: a status and OpenAI's error object, which names the field.
//!
//! Called by every handler. `messages` writes the same error in Anthropic's shape.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use edgethink_engine::RequestError;
use edgethink_reason::ReasonError;
use serde::Serialize;
use utoipa::ToSchema;

/// A request that is refused, or that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
    /// Seconds after which another try may succeed.
    pub(crate) retry_after: Option<u64>,
}

/// OpenAI's error body.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// For people.
    pub(crate) message: String,
    /// The kind of error, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The field that is wrong, such as `messages[0].role`.
    pub(crate) param: Option<String>,
    /// One word for programs.
    pub(crate) code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
        }
    }

    /// 400: the field `param` is wrong.
    pub(crate) fn bad(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            code: Some("invalid_value"),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// 400: the field is known, and this server does not do what it asks for.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: Some("unsupported_parameter"),
            ..Self::bad(param, message)
        }
    }

    /// Any other status with a code.
    pub(crate) fn with_code(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code: Some(code),
            ..Self::new(status, message)
        }
    }

    /// 404.
    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::with_code(StatusCode::NOT_FOUND, code, message)
    }

    /// 503: too many wait already.
    pub(crate) fn queue_full(limit: usize) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::with_code(
                StatusCode::SERVICE_UNAVAILABLE,
                "queue_full",
                format!("{limit} requests are waiting already; try again later"),
            )
        }
    }

    /// 503: the server is about to end.
    pub(crate) fn draining() -> Self {
        Self {
            retry_after: Some(5),
            ..Self::with_code(
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting_down",
                "the server is shutting down and takes no new requests",
            )
        }
    }

    /// 504: the request's time is over.
    pub(crate) fn deadline(seconds: u64) -> Self {
        Self::with_code(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline_exceeded",
            format!(
                "the request was not answered within {seconds} s; ask for fewer tokens or streams"
            ),
        )
    }

    /// 500.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::with_code(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The kind that goes with the status, in OpenAI's words.
    pub(crate) fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 | 403 => "authentication_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body.
    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                message: self.message.clone(),
                kind: self.kind(),
                param: self.param.clone(),
                code: self.code,
            },
        }
    }

    /// The response with `body` instead of OpenAI's shape.
    pub(crate) fn response_with(&self, body: impl Serialize) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.response_with(self.body())
    }
}

impl From<ReasonError> for ApiError {
    fn from(error: ReasonError) -> Self {
        let param = match &error {
            ReasonError::NoStreams => "n",
            ReasonError::NoSwitcher => "edgethink.think",
            ReasonError::ScaleWithoutAuto => "edgethink.scale_n",
            ReasonError::NoVerifier => "edgethink.scoring",
            ReasonError::VoteWithoutScores { .. } => "edgethink.vote",
            ReasonError::StopWithoutVote | ReasonError::Confidence { .. } => "edgethink.early_stop",
            ReasonError::WavesWithoutStop => "edgethink.waves",
            ReasonError::NoTokens => "max_tokens",
            ReasonError::DrawnAlternatives => "logprobs",
            ReasonError::EmptyStop => "stop",
            ReasonError::EmptyContinuation
            | ReasonError::MinThinkTag { .. }
            | ReasonError::MinThinkPenalty => "edgethink.min_think",
            ReasonError::EmptyPrompt
            | ReasonError::NoTemplate
            | ReasonError::NoRoom { .. }
            | ReasonError::Template(_)
            | ReasonError::Tokenizer(_) => "messages",
            ReasonError::Grammar { .. } | ReasonError::GrammarIgnoresEos => "response_format",
            ReasonError::UnknownAdapter { .. } => {
                return Self {
                    param: Some("edgethink.adapter".to_owned()),
                    ..Self::not_found("adapter_not_found", told(&error))
                };
            }
            ReasonError::AdapterExists { .. } => {
                return Self {
                    param: Some("lora_name".to_owned()),
                    ..Self::with_code(StatusCode::CONFLICT, "adapter_conflict", told(&error))
                };
            }
            ReasonError::UnknownQuery => {
                return Self::not_found("unknown_completion", told(&error));
            }
            ReasonError::Request(RequestError::AdapterShape { .. }) => "lora_path",
            ReasonError::Request(RequestError::Sampling { name, .. }) => name,
            ReasonError::Request(RequestError::Token { .. }) => "logit_bias",
            ReasonError::Request(RequestError::Streams { .. }) => "n",
            _ => return Self::internal(told(&error)),
        };
        let mut refused = Self::bad(param, told(&error));
        if matches!(error, ReasonError::NoRoom { .. }) {
            refused.code = Some("context_length_exceeded");
        }
        refused
    }
}

/// The error and its causes in one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
