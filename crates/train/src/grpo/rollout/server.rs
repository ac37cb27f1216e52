//! One server: what it is, adapters put there and taken away, completions drawn by it.
//!
//! ```text
//! GET  /v1/models                                            who it is
//! POST /v1/load_lora_adapter   {lora_name, lora_path, load_inplace}
//! POST /v1/unload_lora_adapter {lora_name}
//! POST /v1/completions         {model: lora_name, prompt: [ids], n, max_tokens, temperature, seed, logprobs: 0, return_token_ids}
//! ```

use std::{sync::Mutex, time::Duration};

use serde_json::{Value, json};
use ureq::Agent;

use super::completions::{Limits, completions, parsed, request};
use super::{Completion, Draws};

/// A reply longer than this is refused, bytes.
const LONGEST_REPLY: u64 = 1 << 30;
/// Characters of a reply that are told.
const TOLD: usize = 300;
/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);
/// What needs no model is answered in this time.
const BRIEF: Duration = Duration::from_secs(30);

/// Which program it is: they differ in what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `edgethink serve`.
    Edgethink,
    /// vLLM, which has no masked adapters.
    Vllm,
    /// Another one.
    Other,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub problem: String,
    /// It says that the request is wrong, so asking it again is useless.
    pub refused: bool,
    /// It does not know the adapter: it may have been started anew.
    pub unknown_model: bool,
}

impl Failure {
    pub(crate) fn lost(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            refused: false,
            unknown_model: false,
        }
    }
}

/// An adapter as servers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub name: String,
    /// Its absolute path here.
    pub path: String,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    /// Without `/v1`.
    pub url: String,
    agent: Agent,
    timeout: Duration,
    key: Option<String>,
    remote_dir: Option<String>,
    /// What is known of it, and the adapter that it has; held while one is loaded.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    kind: Option<Kind>,
    loaded: Option<String>,
}

impl Server {
    pub(crate) fn new(
        url: &str,
        key: Option<String>,
        remote_dir: Option<String>,
        timeout: Duration,
    ) -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT.min(timeout)))
            .http_status_as_error(false);
        Self {
            url: url.to_owned(),
            agent: Agent::new_with_config(config.build()),
            timeout,
            key,
            remote_dir,
            known: Mutex::default(),
        }
    }

    /// Asks what it is.
    pub(crate) fn identify(&self) -> Result<Kind, Failure> {
        self.kind(&mut self.known())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn kind(&self, known: &mut Known) -> Result<Kind, Failure> {
        if let Some(kind) = known.kind {
            return Ok(kind);
        }
        let models = parsed(&self.exchange("/v1/models", None)?).map_err(Failure::lost)?;
        let owner = models["data"][0]["owned_by"].as_str();
        let kind = match owner {
            Some("edgethink") => Kind::Edgethink,
            Some("vllm") => Kind::Vllm,
            _ => Kind::Other,
        };
        known.kind = Some(kind);
        Ok(kind)
    }

    /// Makes `pushed` the adapter that it has, and takes the one before away. Returns what kind of server it is.
    fn ready(&self, pushed: &Pushed) -> Result<Kind, Failure> {
        let mut known = self.known();
        let kind = self.kind(&mut known)?;
        if known.loaded.as_ref() == Some(&pushed.name) {
            return Ok(kind);
        }
        if let Some(old) = known.loaded.take() {
            // It may be gone already, and what is left of it is in nobody's way.
            let _ = self.unload_named(&old);
        }
        let path = match (&self.remote_dir, kind) {
            (Some(dir), _) if dir.is_empty() => pushed.name.clone(),
            (Some(dir), _) => format!("{}/{}", dir.trim_end_matches('/'), pushed.name),
            (None, Kind::Edgethink) => pushed.name.clone(),
            (None, _) => pushed.path.clone(),
        };
        let body = json!({"lora_name": pushed.name, "lora_path": path, "load_inplace": true});
        let load = || self.exchange("/v1/load_lora_adapter", Some(&body));
        let mut loaded = load();
        if loaded.as_ref().is_err_and(|failure| failure.refused) {
            // It may have the name from a run before, and not know `load_inplace`.
            if self.unload_named(&pushed.name).is_ok() {
                loaded = load();
            }
        }
        loaded.map_err(|failure| Failure {
            problem: format!(
                "it does not load the adapter {path}: {}{}",
                failure.problem,
                hint(kind)
            ),
            unknown_model: false,
            ..failure
        })?;
        known.loaded = Some(pushed.name.clone());
        Ok(kind)
    }

    fn unload_named(&self, name: &str) -> Result<String, Failure> {
        self.exchange("/v1/unload_lora_adapter", Some(&json!({"lora_name": name})))
    }

    /// Takes away what this run has loaded.
    pub(crate) fn unload(&self) {
        if let Some(old) = self.known().loaded.take() {
            // The run is over; a server that is gone has nothing to forget.
            let _ = self.unload_named(&old);
        }
    }

    /// Draws completions of the prompt at place `at` of a draw.
    pub(crate) fn complete(
        &self,
        pushed: &Pushed,
        prompt: &[u32],
        at: usize,
        draws: Draws,
        limits: Limits<'_>,
    ) -> Result<Vec<Completion>, Failure> {
        let kind = self.ready(pushed)?;
        let body = request(kind, &pushed.name, prompt, at, draws);
        let reply = self.exchange("/v1/completions", Some(&body));
        if reply.as_ref().is_err_and(|failure| failure.unknown_model) {
            let mut known = self.known();
            if known.loaded.as_ref() == Some(&pushed.name) {
                *known = Known::default();
            }
        }
        completions(&reply?, prompt, draws, limits).map_err(Failure::lost)
    }

    /// Sends a request and returns the text of a reply that is no error.
    fn exchange(&self, path: &str, body: Option<&Value>) -> Result<String, Failure> {
        let url = format!("{}{path}", self.url);
        let lost = |error: ureq::Error| Failure {
            refused: matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_)),
            ..Failure::lost(format!("{path}: {error}"))
        };
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let drawn = path == "/v1/completions" || path == "/v1/load_lora_adapter";
        let timeout = if drawn {
            self.timeout
        } else {
            BRIEF.min(self.timeout)
        };
        let reply = match body {
            Some(body) => {
                let mut request = self.agent.post(&url);
                if let Some(bearer) = &bearer {
                    request = request.header("Authorization", bearer);
                }
                let request = request.config().timeout_global(Some(timeout)).build();
                request.send_json(body)
            }
            None => {
                let mut request = self.agent.get(&url);
                if let Some(bearer) = &bearer {
                    request = request.header("Authorization", bearer);
                }
                let request = request.config().timeout_global(Some(timeout)).build();
                request.call()
            }
        };
        let mut reply = reply.map_err(lost)?;
        let status = reply.status().as_u16();
        let body = reply.body_mut().with_config().limit(LONGEST_REPLY);
        let text = body.read_to_string().map_err(lost)?;
        if (200..300).contains(&status) {
            return Ok(text);
        }
        let said: String = text.chars().take(TOLD).collect();
        Err(Failure {
            problem: format!("{path}: status {status}: {}", said.trim()),
            refused: !matches!(status, 404 | 408 | 409 | 425 | 429 | 500..),
            unknown_model: status == 404,
        })
    }
}

/// What a server that does not load adapters is told with.
fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Edgethink => "; start it with --adapter-root, the recipe's adapter_dir",
        Kind::Vllm => {
            "; start it with --enable-lora, --max-lora-rank at least the adapter's, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
        }
        Kind::Other => "; it must know /v1/load_lora_adapter as vLLM does",
    }
}
