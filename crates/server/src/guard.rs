//! Who may ask: API keys, and the names by which a browser may reach a server without keys.
//!
//! A page of any origin can make a browser send requests to this machine. Three things stop it: a body must say that it is JSON (then
//! the browser asks first, and CORS is closed), the `Host` header must be a name of this machine as long as no key is asked for
//! (DNS rebinding), and keys.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};

use crate::app::App;
use crate::error::ApiError;
use crate::options::ServeError;

/// Bytes of a key at least; shorter ones can be tried out.
const LEAST_KEY: usize = 8;

/// Keys of which a request must have one.
#[derive(Clone, Default)]
pub struct ApiKeys(Arc<[String]>);

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.0.len())
    }
}

impl ApiKeys {
    /// The keys of a file: one per line; empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// A file that cannot be read, has no key, or one of fewer than eight bytes.
    pub fn from_file(path: &Path) -> Result<Self, ServeError> {
        let refused = |why: String| ServeError::Keys {
            path: path.display().to_string(),
            why,
        };
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        let lines = text.lines().map(str::trim);
        let keys: Vec<String> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        if keys.is_empty() {
            return Err(refused("it has no key".to_owned()));
        }
        if let Some(at) = keys.iter().position(|key| key.len() < LEAST_KEY) {
            let nth = at + 1;
            return Err(refused(format!(
                "key {nth} has fewer than {LEAST_KEY} bytes"
            )));
        }
        Ok(Self(keys.into()))
    }

    /// No key is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `given` is one of them. Takes as long for a nearly right key as for a wrong one of the same length.
    fn accept(&self, given: &str) -> bool {
        let equal = |key: &String| key.as_bytes().ct_eq(given.as_bytes());
        let found = self
            .0
            .iter()
            .fold(Choice::from(0), |found, key| found | equal(key));
        bool::from(found)
    }
}

/// Lets a request through, or answers 401 or 403.
pub(crate) async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    let keys = &app.options.keys;
    let refused = if keys.is_empty() {
        host(&app, request.headers())
    } else if is_public(request.uri().path()) {
        None
    } else {
        key(keys, request.headers())
    };
    match refused {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    }
}

/// Paths without a key: the page and its files, and whether the server lives.
fn is_public(path: &str) -> bool {
    path == "/" || path == "/health" || path.starts_with("/page/")
}

fn key(keys: &ApiKeys, headers: &HeaderMap) -> Option<ApiError> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let given = bearer.or_else(|| text(header::HeaderName::from_static("x-api-key")));
    let code = match given {
        Some(given) if keys.accept(given) => return None,
        Some(_) => "invalid_api_key",
        None => "missing_api_key",
    };
    Some(ApiError::with_code(
        StatusCode::UNAUTHORIZED,
        code,
        "give a key of this server as `Authorization: Bearer KEY` or `x-api-key: KEY`",
    ))
}

fn host(app: &App, headers: &HeaderMap) -> Option<ApiError> {
    let given = headers.get(header::HOST)?.to_str().unwrap_or_default();
    let name = host_name(given);
    let known = is_loopback(name)
        || is_address(&app.options.host, name)
        || app.options.hosts.iter().any(|host| host == name);
    (!known).then(|| {
        ApiError::with_code(
            StatusCode::FORBIDDEN,
            "unknown_host",
            format!(
                "{name:?} is no name of this server; allow it with --allow-host, or ask for keys"
            ),
        )
    })
}

/// `name:port`, `[::1]:port` or a name alone.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// The name that the server was told to listen on, or any number if it listens on all addresses: rebinding needs a name.
fn is_address(listening: &str, name: &str) -> bool {
    listening == name || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<ApiKeys, ServeError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keys");
        std::fs::write(&path, text).expect("written");
        ApiKeys::from_file(&path)
    }

    #[test]
    fn a_key_file_has_a_key_per_line() {
        let keys = file("# the page\nsecret-one\n\n  secret-two \n").expect("keys");
        assert!(keys.accept("secret-one") && keys.accept("secret-two"));
        for wrong in ["", "secret-on", "secret-one ", "secret-three", "# the page"] {
            assert!(!keys.accept(wrong), "{wrong:?}");
        }
        assert!(file("# nothing\n").is_err());
        assert!(file("short\n").is_err());
        assert!(ApiKeys::from_file(Path::new("/nowhere/keys")).is_err());
    }

    #[test]
    fn hosts_are_read_with_and_without_a_port() {
        for (given, name) in [
            ("localhost:8080", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]:80", "::1"),
            ("evil.example:8080", "evil.example"),
        ] {
            assert_eq!(host_name(given), name);
        }
        assert!(is_loopback("LOCALHOST") && is_loopback("127.0.0.2") && is_loopback("::1"));
        assert!(!is_loopback("evil.example"));
    }
}
