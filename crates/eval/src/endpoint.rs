//! Any server with OpenAI's chat completions under test, so that peers are measured by the same ruler.
//!
//! `POST {url}/chat/completions`, some requests at a time, each on a thread of its own. A request that fails is tried again with
//! growing pauses where that can help (no connection, a timeout, 408, 409, 429, 5xx); anything else ends the run, which can be resumed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use ureq::Agent;

use crate::error::EvalError;
use crate::subject::{Ask, Reply, Sample, Subject, Take};

/// The first pause before another try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A server and how it is asked.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The base address, such as `http://127.0.0.1:8080/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Sent as a bearer token.
    pub key: Option<String>,
    /// Further fields of the request: temperature, max_tokens and the like.
    pub fields: Map<String, Value>,
    /// Instructions in front of every prompt.
    pub system: Option<String>,
    /// Requests at a time.
    pub concurrency: usize,
    /// Tries after a failure.
    pub retries: usize,
    /// Of one request.
    pub timeout: Duration,
}

/// Why a request failed.
struct Failure {
    problem: String,
    /// Another try may help.
    again: bool,
}

impl Subject for Endpoint {
    fn answer(
        &mut self,
        asks: &[Ask<'_>],
        stop: &(dyn Fn() -> bool + Sync),
        take: &mut Take<'_>,
    ) -> Result<bool, EvalError> {
        let config = Agent::config_builder().timeout_global(Some(self.timeout));
        let agent = Agent::new_with_config(config.http_status_as_error(false).build());
        let next = AtomicUsize::new(0);
        let over = AtomicBool::new(false);
        let (send, receive) = mpsc::channel();
        let send = Mutex::new(send);
        let this = &*self;
        std::thread::scope(|scope| {
            for _ in 0..self.concurrency.clamp(1, asks.len().max(1)) {
                let (agent, next, over) = (agent.clone(), &next, &over);
                let send = send
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .clone();
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) && !stop() {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(ask) = asks.get(at) else { break };
                        let reply =
                            this.ask(&agent, ask, &|| over.load(Ordering::Relaxed) || stop());
                        // Nothing more is asked, whatever is taken first.
                        over.fetch_or(reply.is_err(), Ordering::Relaxed);
                        if send.send((at, reply)).is_err() {
                            break;
                        }
                    }
                });
            }
            // The workers have their own ends: the loop is over when they are.
            drop(send);
            let mut result = Ok(true);
            let mut taken = 0;
            for (at, reply) in receive {
                if !matches!(result, Ok(true)) {
                    continue;
                }
                result = reply.and_then(|reply| take(at, reply));
                taken += 1;
                if !matches!(result, Ok(true)) {
                    over.store(true, Ordering::Relaxed);
                }
            }
            Ok(result? && taken == asks.len())
        })
    }
}

impl Endpoint {
    fn ask(
        &self,
        agent: &Agent,
        ask: &Ask<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Reply, EvalError> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.request(agent, ask) {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            if !failure.again || tries > self.retries || stop() {
                return Err(EvalError::Endpoint {
                    url: self.url.clone(),
                    question: ask.question.index + 1,
                    tries,
                    problem: failure.problem,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(60));
        }
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let system = self
            .system
            .iter()
            .map(|text| json!({"role": "system", "content": text}));
        let turns = ask.question.messages.iter();
        let turns = turns.map(|turn| json!({"role": turn.role, "content": turn.content}));
        let mut body = self.fields.clone();
        body.insert("model".to_owned(), json!(self.model));
        body.insert("messages".to_owned(), system.chain(turns).collect());
        // Servers read it as a signed integer.
        body.insert("seed".to_owned(), json!(ask.seed & 0x7fff_ffff));
        Value::Object(body)
    }

    fn request(&self, agent: &Agent, ask: &Ask<'_>) -> Result<Reply, Failure> {
        let url = format!("{}/chat/completions", self.url.trim_end_matches('/'));
        let mut request = agent.post(&url);
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let started = Instant::now();
        let lost = |error: ureq::Error| Failure {
            again: !matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_)),
            problem: error.to_string(),
        };
        let mut response = request.send_json(self.body(ask)).map_err(lost)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().map_err(lost)?;
        if !(200..300).contains(&status) {
            let said: String = text.chars().take(300).collect();
            return Err(Failure {
                problem: format!("status {status}: {}", said.trim()),
                again: matches!(status, 408 | 409 | 429 | 500..),
            });
        }
        reply(&text, started.elapsed().as_secs_f64()).map_err(|problem| Failure {
            problem,
            again: false,
        })
    }
}

/// Reads a chat completion.
fn reply(text: &str, seconds: f64) -> Result<Reply, String> {
    let body: Value =
        serde_json::from_str(text).map_err(|e| format!("its reply is no JSON: {e}"))?;
    let choices = body["choices"]
        .as_array()
        .filter(|choices| !choices.is_empty());
    let choices = choices.ok_or("its reply has no choices")?;
    let count = |value: &Value| {
        value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(0)
    };
    let usage = &body["usage"];
    let tokens = count(&usage["completion_tokens"]);
    let thought = count(&usage["completion_tokens_details"]["reasoning_tokens"]);
    let samples = choices.iter().map(|choice| {
        let message = &choice["message"];
        let string = |value: &Value| value.as_str().unwrap_or("").to_owned();
        // Two names are in use: vLLM and Ollama have the shorter one.
        let reasoning = [&message["reasoning_content"], &message["reasoning"]];
        Sample {
            text: string(&message["content"]),
            reasoning: reasoning
                .iter()
                .map(|value| string(value))
                .find(|text| !text.is_empty())
                .unwrap_or_default(),
            // A server counts all choices together.
            completion_tokens: tokens / choices.len(),
            reasoning_tokens: thought / choices.len(),
            finish_reason: string(&choice["finish_reason"]),
            score: choice["score"].as_f64().map(|score| score as f32),
            chosen: true,
            ..Sample::default()
        }
    });
    Ok(Reply {
        samples: samples.collect(),
        prompt_tokens: count(&usage["prompt_tokens"]),
        query_tokens: tokens,
        seconds,
        ..Reply::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_several_servers_are_read() {
        let whole = reply(
            r#"{"choices":[{"message":{"content":"4","reasoning_content":"2+2"},"finish_reason":"stop"}],
                "usage":{"prompt_tokens":9,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":5}}}"#,
            0.5,
        )
        .expect("a reply");
        let sample = &whole.samples[0];
        assert_eq!(
            (sample.text.as_str(), sample.reasoning.as_str()),
            ("4", "2+2")
        );
        assert_eq!(
            (
                whole.prompt_tokens,
                sample.completion_tokens,
                sample.reasoning_tokens
            ),
            (9, 7, 5)
        );
        // Ollama's name, no usage, a thought that did not end.
        let short = reply(r#"{"choices":[{"message":{"content":null,"reasoning":"hm"},"finish_reason":"length"}]}"#, 0.5)
            .expect("a reply");
        assert_eq!(
            (
                short.samples[0].text.as_str(),
                short.samples[0].reasoning.as_str()
            ),
            ("", "hm")
        );
        for bad in ["", "{}", r#"{"choices":[]}"#] {
            assert!(reply(bad, 0.5).is_err(), "{bad:?}");
        }
    }
}
