//! One server: what it is, adapters put there and taken away, completions by token ids.
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

/// What a reply is checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits<'a> {
    pub vocab_size: usize,
    /// Tokens that end a completion.
    pub eos: &'a [u32],
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
        let models = parsed(&self.exchange("/v1/models", None)?)?;
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

/// A request for a group. Every setting that changes the distribution is named, whatever the server was started with.
fn request(kind: Kind, model: &str, prompt: &[u32], at: usize, draws: Draws) -> Value {
    let mut body = json!({
        "model": model,
        "prompt": prompt,
        "n": draws.n,
        "max_tokens": draws.cap,
        "temperature": draws.temperature,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": seed(kind, at, draws),
        "logprobs": 0,
        "return_token_ids": true,
    });
    if kind == Kind::Edgethink {
        body["logprobs_mode"] = json!("processed_logprobs");
    }
    body
}

/// The seed of the prompt at place `at`. Our server's streams have draws of their own, so it is that of the engine in process; elsewhere
/// stream i of a request may have the seed plus i, so the seeds of two prompts lie n apart, in 48 bits, which are safe from an overflow.
fn seed(kind: Kind, at: usize, draws: Draws) -> i64 {
    if kind == Kind::Edgethink {
        return draws.seed.wrapping_add(at as u64).cast_signed();
    }
    let apart = (at as u64).wrapping_mul(draws.n as u64);
    (draws.seed.wrapping_add(apart) & 0xffff_ffff_ffff).cast_signed()
}

fn parsed(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::lost(format!("its reply is no JSON: {error}")))
}

/// Reads the completions of a reply, and refuses what cannot be learnt from.
fn completions(
    text: &str,
    prompt: &[u32],
    draws: Draws,
    limits: Limits<'_>,
) -> Result<Vec<Completion>, String> {
    let body = parsed(text).map_err(|failure| failure.problem)?;
    let choices = body["choices"]
        .as_array()
        .ok_or("its reply has no choices")?;
    if choices.len() != draws.n {
        return Err(format!(
            "its reply has {} choices, not {}",
            choices.len(),
            draws.n
        ));
    }
    let mut found: Vec<Option<Completion>> = vec![None; draws.n];
    for choice in choices {
        let index = choice["index"]
            .as_u64()
            .and_then(|i| usize::try_from(i).ok());
        let place = index.and_then(|index| found.get_mut(index));
        let place = place.ok_or("a choice has no index below n")?;
        if place.is_some() {
            return Err("two choices have the same index".to_owned());
        }
        *place = Some(completion(choice, prompt, draws, limits)?);
    }
    Ok(found.into_iter().flatten().collect())
}

fn completion(
    choice: &Value,
    prompt: &[u32],
    draws: Draws,
    limits: Limits<'_>,
) -> Result<Completion, String> {
    let ids = |list: &Value| -> Option<Vec<u32>> {
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        list.as_array()?.iter().map(id).collect()
    };
    let tokens = ids(&choice["token_ids"]).ok_or(
        "a choice has no token_ids; the server must know return_token_ids (vLLM since 0.10.2, edgethink serve)",
    )?;
    if let Some(read) = ids(&choice["prompt_token_ids"])
        && read != prompt
    {
        return Err("it read another prompt than it was given".to_owned());
    }
    if tokens.is_empty() || tokens.len() > draws.cap {
        return Err(format!(
            "a choice has {} tokens, not 1 to {}",
            tokens.len(),
            draws.cap
        ));
    }
    if let Some(&token) = tokens.iter().find(|&&id| id as usize >= limits.vocab_size) {
        return Err(format!(
            "it drew token {token}, but the base has {}; it serves another model",
            limits.vocab_size
        ));
    }
    let logprobs = choice["logprobs"]["token_logprobs"].as_array();
    let logprobs: Option<Vec<f32>> = logprobs
        .ok_or("a choice has no logprobs")?
        .iter()
        .map(|value| value.as_f64().map(|value| value as f32))
        .collect();
    let logprobs = logprobs.filter(|all| all.iter().all(|value| value.is_finite()));
    let logprobs = logprobs.ok_or("a log-probability is no number")?;
    if logprobs.len() != tokens.len() {
        return Err(format!(
            "a choice has {} tokens and {} log-probabilities",
            tokens.len(),
            logprobs.len()
        ));
    }
    let ended = match choice["finish_reason"].as_str() {
        Some("stop") => true,
        Some("length") => false,
        other => {
            return Err(format!(
                "a choice ended by {other:?}, not by stop or length"
            ));
        }
    };
    let last = tokens.last().copied().unwrap_or_default();
    if ended && !limits.eos.contains(&last) {
        return Err(format!(
            "a choice stopped at token {last}, which does not end a turn of the base; its list of end tokens differs, or it leaves them out"
        ));
    }
    Ok(Completion {
        tokens,
        logprobs,
        ended,
        version: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: Draws = Draws {
        n: 2,
        temperature: 0.8,
        cap: 3,
        seed: 7,
    };

    fn read(change: impl FnOnce(&mut Value)) -> Result<Vec<Completion>, String> {
        let choice = |index: usize, ids: Value, logprobs: Value, reason: &str| {
            json!({"index": index, "token_ids": ids, "prompt_token_ids": [1, 4], "logprobs": {"token_logprobs": logprobs},
                "finish_reason": reason})
        };
        let mut body = json!({"choices": [
            choice(1, json!([5, 6, 7]), json!([-0.5, -1.0, -0.1]), "length"),
            choice(0, json!([5, 2]), json!([-0.5, -0.25]), "stop"),
        ]});
        change(&mut body);
        let limits = Limits {
            vocab_size: 8,
            eos: &[2],
        };
        completions(&body.to_string(), &[1, 4], DRAWS, limits)
    }

    #[test]
    fn replies_are_read_in_the_order_of_their_indices() {
        let read = read(|_| ()).expect("completions");
        assert_eq!(read[0].tokens, [5, 2]);
        assert_eq!(read[0].logprobs, [-0.5, -0.25]);
        assert!(read[0].ended && !read[1].ended);
    }

    #[test]
    fn what_cannot_be_learnt_from_is_named() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 13] = [
            (|b| b["choices"] = json!(null), "no choices"),
            (|b| b["choices"] = json!([]), "0 choices, not 2"),
            (|b| b["choices"][0]["index"] = json!(0), "same index"),
            (|b| b["choices"][0]["index"] = json!(2), "no index below n"),
            (
                |b| b["choices"][0]["token_ids"] = json!(null),
                "return_token_ids",
            ),
            (
                |b| b["choices"][0]["token_ids"] = json!([5, 6]),
                "2 tokens and 3 log",
            ),
            (
                |b| b["choices"][0]["token_ids"] = json!([5, 6, 8]),
                "another model",
            ),
            (
                |b| b["choices"][0]["token_ids"] = json!([5, 6, 7, 5]),
                "4 tokens, not 1 to 3",
            ),
            (
                |b| b["choices"][0]["prompt_token_ids"] = json!([1]),
                "another prompt",
            ),
            (|b| b["choices"][0]["logprobs"] = json!(null), "no logprobs"),
            (
                |b| b["choices"][0]["logprobs"]["token_logprobs"][1] = json!(null),
                "no number",
            ),
            (
                |b| b["choices"][0]["finish_reason"] = json!("abort"),
                "abort",
            ),
            (
                |b| b["choices"][0]["finish_reason"] = json!("stop"),
                "stopped at token 7",
            ),
        ];
        for (change, word) in cases {
            let problem = read(change).expect_err(word);
            assert!(problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn seeds_of_two_prompts_never_meet() {
        let of = |kind, at| seed(kind, at, DRAWS);
        assert_eq!([of(Kind::Edgethink, 0), of(Kind::Edgethink, 1)], [7, 8]);
        assert_eq!([of(Kind::Vllm, 0), of(Kind::Vllm, 1)], [7, 9]);
        let large = Draws {
            seed: u64::MAX,
            ..DRAWS
        };
        assert!((0..1 << 48).contains(&seed(Kind::Other, 1, large)));
        assert_eq!(seed(Kind::Edgethink, 1, large), 0);
    }
}
