//! One server: what it is, adapters put there and taken away, completions drawn by it.
//!
//! ```text
//! GET  /v1/models                                            who it is
//! POST /v1/load_lora_adapter   {lora_name, lora_path, load_inplace}
//! POST /v1/unload_lora_adapter {lora_name}
//! POST /v1/completions         {model: lora_name, prompt: [ids], n, max_tokens, temperature, seed, logprobs: 0, return_token_ids}
//! ```
//!
//! [`sglang`] and [`llama_server`] have others.

use std::{sync::Mutex, time::Duration};

use serde_json::{Value, json};
use ureq::Agent;

use super::completions::{self, Limits, parsed};
use super::{Completion, Draws, llama_server, sglang};

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
    Vllm,
    Sglang,
    /// llama.cpp's, as a router.
    LlamaServer,
    /// Another one.
    Other,
}

impl Kind {
    /// From `owned_by` of a list of models.
    fn of(owner: Option<&str>) -> Self {
        match owner {
            Some("edgethink") => Self::Edgethink,
            Some("vllm") => Self::Vllm,
            Some("sglang") => Self::Sglang,
            Some("llamacpp") => Self::LlamaServer,
            _ => Self::Other,
        }
    }

    /// Its name, if it takes no adapters that leave the prompt to the base.
    pub(crate) fn without_masks(self) -> Option<&'static str> {
        match self {
            Self::Vllm => Some("vLLM"),
            Self::Sglang => Some("SGLang"),
            Self::Edgethink | Self::LlamaServer | Self::Other => None,
        }
    }
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

/// Reads the completions of a reply to a prompt.
type Read = fn(&str, &[u32], Draws, Limits<'_>) -> Result<Vec<Completion>, String>;

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    /// Without `/v1`.
    pub url: String,
    agent: Agent,
    pub(super) timeout: Duration,
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
        let kind = Kind::of(models["data"][0]["owned_by"].as_str());
        known.kind = Some(kind);
        Ok(kind)
    }

    /// Whether it needs the adapter as a GGUF file, or may turn out to.
    pub(crate) fn may_read_gguf(&self) -> bool {
        matches!(self.known().kind, None | Some(Kind::LlamaServer))
    }

    /// Makes `pushed` the adapter that it has, and takes the one before away. Returns what kind of server it is.
    fn ready(&self, pushed: &Pushed) -> Result<Kind, Failure> {
        let mut known = self.known();
        let kind = self.kind(&mut known)?;
        if known.loaded.as_ref() == Some(&pushed.name) {
            return Ok(kind);
        }
        let old = known.loaded.take();
        let loaded = if kind == Kind::LlamaServer {
            llama_server::start(self)
        } else {
            if let Some(old) = old {
                // It may be gone already, and what is left of it is in nobody's way.
                let _ = self.unload_named(kind, &old);
            }
            self.load(kind, pushed)
        };
        loaded.map_err(|failure| Failure {
            problem: format!(
                "it does not load the adapter: {}{}",
                failure.problem,
                hint(kind)
            ),
            unknown_model: false,
            ..failure
        })?;
        known.loaded = Some(pushed.name.clone());
        Ok(kind)
    }

    fn load(&self, kind: Kind, pushed: &Pushed) -> Result<(), Failure> {
        let path = match (&self.remote_dir, kind) {
            (Some(dir), _) if dir.is_empty() => pushed.name.clone(),
            (Some(dir), _) => format!("{}/{}", dir.trim_end_matches('/'), pushed.name),
            (None, Kind::Edgethink) => pushed.name.clone(),
            (None, _) => pushed.path.clone(),
        };
        let mut body = json!({"lora_name": pushed.name, "lora_path": path});
        if kind != Kind::Sglang {
            body["load_inplace"] = json!(true);
        }
        let load = || self.exchange(&adapters(kind, "load_lora_adapter"), Some(&body));
        let mut loaded = load();
        if loaded.as_ref().is_err_and(|failure| failure.refused) {
            // It may have the name from a run before, and not know `load_inplace`.
            if self.unload_named(kind, &pushed.name).is_ok() {
                loaded = load();
            }
        }
        loaded.map(drop).map_err(|failure| Failure {
            problem: format!("{path}: {}", failure.problem),
            ..failure
        })
    }

    fn unload_named(&self, kind: Kind, name: &str) -> Result<String, Failure> {
        self.exchange(
            &adapters(kind, "unload_lora_adapter"),
            Some(&json!({"lora_name": name})),
        )
    }

    /// Takes away what this run has loaded.
    pub(crate) fn unload(&self) {
        let mut known = self.known();
        if let (Some(old), Some(kind)) = (known.loaded.take(), known.kind) {
            // The run is over; a server that is gone has nothing to forget.
            let _ = match kind {
                Kind::LlamaServer => llama_server::end(self),
                _ => self.unload_named(kind, &old),
            };
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
        let (path, body, gone, read): (_, _, _, Read) = match kind {
            Kind::Sglang => (
                "/generate",
                sglang::request(&pushed.name, prompt, at, draws),
                Some(sglang::GONE),
                sglang::completions,
            ),
            Kind::LlamaServer => (
                "/completion",
                llama_server::request(prompt, at, draws),
                Some(llama_server::GONE),
                llama_server::completions,
            ),
            _ => (
                "/v1/completions",
                completions::request(kind, &pushed.name, prompt, at, draws),
                None,
                completions::completions,
            ),
        };
        let reply = self.exchange(path, Some(&body)).map_err(|failure| {
            match gone.is_some_and(|gone| failure.problem.contains(gone)) {
                true => Failure {
                    unknown_model: true,
                    ..Failure::lost(failure.problem)
                },
                false => failure,
            }
        });
        if reply.as_ref().is_err_and(|failure| failure.unknown_model) {
            let mut known = self.known();
            if known.loaded.as_ref() == Some(&pushed.name) {
                *known = Known::default();
            }
        }
        read(&reply?, prompt, draws, limits).map_err(Failure::lost)
    }

    /// Sends a request and returns the text of a reply that is no error.
    pub(super) fn exchange(&self, path: &str, body: Option<&Value>) -> Result<String, Failure> {
        let url = format!("{}{path}", self.url);
        let lost = |error: ureq::Error| Failure {
            refused: matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_)),
            ..Failure::lost(format!("{path}: {error}"))
        };
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let brief = path.ends_with("/unload_lora_adapter") || path.contains("/models");
        let timeout = if brief {
            BRIEF.min(self.timeout)
        } else {
            self.timeout
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

/// The path of a request about adapters.
fn adapters(kind: Kind, request: &str) -> String {
    match kind {
        Kind::Sglang => format!("/{request}"),
        _ => format!("/v1/{request}"),
    }
}

/// What a server that does not load adapters is told with.
fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Edgethink => "; start it with --adapter-root, the recipe's adapter_dir",
        Kind::Vllm => {
            "; start it with --enable-lora, --max-lora-rank at least the adapter's, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
        }
        Kind::Sglang => {
            "; start it with --enable-lora, --max-lora-rank at least the adapter's, and --lora-target-modules"
        }
        Kind::LlamaServer => {
            "; start it as a router, with --models-preset and the section [policy] of docs/rollouts.md"
        }
        Kind::Other => "; it must know /v1/load_lora_adapter as vLLM does",
    }
}
