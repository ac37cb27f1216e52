//! Reads a JSON body into a type, and names the field that does not fit.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::error::ApiError;

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        // A browser sends other types to any origin without asking first.
        if !is_json(request.headers()) {
            return Err(ApiError::with_code(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "send JSON, with the header `Content-Type: application/json`",
            ));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            let code = if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
                "body_too_large"
            } else {
                "unreadable_body"
            };
            ApiError::with_code(error.status(), code, error.body_text())
        })?;
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// The value of a JSON text.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let json = &mut serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut *json).map_err(|error| {
        // A number in the place of a word is an error of syntax to the parser, and one of the field to the client.
        let inner = error.inner();
        let is_json = inner.is_data() || serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
        if !is_json {
            return no_json(inner);
        }
        field_error(&error.path().to_string(), inner)
    })?;
    json.end().map_err(|error| no_json(&error))?;
    Ok(value)
}

fn no_json(error: &serde_json::Error) -> ApiError {
    ApiError {
        param: None,
        code: Some("invalid_json"),
        ..ApiError::bad("", format!("the body is no valid JSON: {error}"))
    }
}

/// The error at `path`, with the field that the message names behind it.
fn field_error(path: &str, error: &serde_json::Error) -> ApiError {
    let text = if error.is_data() {
        error.to_string()
    } else {
        "it takes a word, and none of another kind".to_owned()
    };
    let path = if path == "." { "" } else { path };
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|begin| text.split_once(begin)?.1.split('`').next());
    let param = match named {
        Some(name) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        Some(name) if path.is_empty() => name.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None => path.to_owned(),
    };
    let code = match &text {
        text if text.starts_with("unknown field") => "unknown_parameter",
        text if text.starts_with("missing field") => "missing_required_parameter",
        _ => "invalid_value",
    };
    // Where in the text it stands helps nobody whose client wrote it.
    let text = text.split(" at line ").next().unwrap_or_default();
    let place = if param.is_empty() { "the body" } else { &param };
    ApiError {
        code: Some(code),
        ..ApiError::bad(param.clone(), format!("{place}: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only read into")]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only read into")]
        number: u8,
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        for (text, param, code) in [
            (
                r#"{"inner": [{"number": 256}]}"#,
                "inner[0].number",
                "invalid_value",
            ),
            (
                r#"{"inner": [{"number": "x"}]}"#,
                "inner[0].number",
                "invalid_value",
            ),
            (
                r#"{"inner": [{}]}"#,
                "inner[0].number",
                "missing_required_parameter",
            ),
            (
                r#"{"inner": [{"numer": 1}]}"#,
                "inner[0].numer",
                "unknown_parameter",
            ),
            (r#"{"inner": 3}"#, "inner", "invalid_value"),
            ("{}", "inner", "missing_required_parameter"),
            (r#"{"outer": 3}"#, "outer", "unknown_parameter"),
        ] {
            let error = parse::<Outer>(text.as_bytes()).expect_err("refused");
            assert_eq!(
                (error.param.as_deref(), error.code),
                (Some(param), Some(code)),
                "{text}: {error}"
            );
        }
        for text in ["", "{", r#"{"inner": []} x"#] {
            let error = parse::<Outer>(text.as_bytes()).expect_err("refused");
            assert_eq!(error.code, Some("invalid_json"), "{text}");
        }
    }
}
