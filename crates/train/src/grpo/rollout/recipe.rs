//! `[rollout] backend`: who draws the completions of `train grpo`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who draws the completions.
///
/// ```toml
/// [rollout]
/// backend = { kind = "engine" }      # the default: our engine, in the process that trains
/// # or
/// backend = { kind = "openai", urls = ["http://a:8000", "http://b:8000"], adapter_dir = "/shared/rollouts" }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum BackendRecipe {
    /// Our engine in this process. It has no settings here; `[rollout] weights`, `kv` and `max_sequences` are its.
    #[serde(rename = "engine")]
    Engine {},
    /// Servers that take a new adapter at run time: `edgethink serve --adapter-root`, vLLM, SGLang, llama-server as a router.
    #[serde(rename = "openai")]
    Servers(ServersRecipe),
}

impl Default for BackendRecipe {
    fn default() -> Self {
        Self::Engine {}
    }
}

/// Servers. Every one must serve the base of `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServersRecipe {
    /// Addresses, such as `http://127.0.0.1:8000`; a `/v1` at the end is left out.
    pub urls: Vec<String>,
    /// Where each version of the adapter is written for the servers to load: a directory that they all see.
    pub adapter_dir: PathBuf,
    /// `adapter_dir` as the servers name it, where that is another path. Empty for names below a server's own root. Left out,
    /// `edgethink serve` gets the name below its `--adapter-root`, which must then be `adapter_dir`, and others the absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_dir: Option<String>,
    /// Environment variable with a key, sent as a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// Of one request, from its start to the last byte of its reply.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: f64,
    /// Requests that one server gets at the same time; each draws a whole group.
    #[serde(default = "default_requests")]
    pub requests: usize,
    /// How long a request is tried again on all servers before the run ends.
    #[serde(default = "default_retry")]
    pub retry_seconds: f64,
}

fn default_timeout() -> f64 {
    600.0
}
fn default_requests() -> usize {
    16
}
fn default_retry() -> f64 {
    60.0
}

/// Requests at the same time that one server can be meant to get.
const MOST_REQUESTS: usize = 1024;
/// A week.
const MOST_SECONDS: f64 = 604_800.0;

impl BackendRecipe {
    /// Whether it is the one that a recipe without `backend` has.
    pub(crate) fn is_engine(&self) -> bool {
        matches!(self, Self::Engine {})
    }

    pub(crate) fn problems(&self, found: &mut Vec<String>) {
        let Self::Servers(servers) = self else { return };
        let mut require = |ok: bool, text: String| {
            if !ok {
                found.push(format!("[rollout] backend {text}"));
            }
        };
        require(!servers.urls.is_empty(), "urls names no server".to_owned());
        for (at, url) in servers.urls.iter().enumerate() {
            let host = url.strip_prefix("http://");
            let host = host.or_else(|| url.strip_prefix("https://"));
            require(
                host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace)),
                format!("urls: {url:?} is no address like http://127.0.0.1:8000"),
            );
            let same = |other: &String| address(other) == address(url);
            require(
                !servers.urls[..at].iter().any(same),
                format!(
                    "urls names {url} twice; a server is told how many requests it gets by requests"
                ),
            );
        }
        require(
            !servers.adapter_dir.as_os_str().is_empty(),
            "adapter_dir is empty; name a directory that the servers see".to_owned(),
        );
        require(
            servers.api_key_env.as_deref() != Some(""),
            "api_key_env is empty; name a variable, or leave it out".to_owned(),
        );
        require(
            servers.timeout_seconds > 0.0 && servers.timeout_seconds <= MOST_SECONDS,
            "timeout_seconds must be positive, and at most a week".to_owned(),
        );
        require(
            (0.0..=MOST_SECONDS).contains(&servers.retry_seconds),
            "retry_seconds must be from 0 to a week".to_owned(),
        );
        require(
            (1..=MOST_REQUESTS).contains(&servers.requests),
            format!("requests must be from 1 to {MOST_REQUESTS}"),
        );
    }
}

/// A server's address without what may be written at its end.
pub(crate) fn address(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/v1").unwrap_or(url)
}
