//! llama.cpp's llama-server as a sampler. It loads adapters when it starts, so it runs as a router: each version of the policy is written to
//! one file, and the instance that has the file open is ended and started again.
//!
//! ```text
//! POST /models/unload {model: "policy"}
//! POST /models/load   {model: "policy"}
//! GET  /models                                     until the instance is there
//! POST /completion    {model: "policy", prompt: [ids], n_cmpl, n_predict, samplers: ["temperature"], n_probs: 1, post_sampling_probs}
//! ```
//!
//! See <https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md>.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::completions::{Limits, Reply, checked, parsed, same_length, token_ids};
use super::server::{Failure, Server};
use super::{Completion, Draws};

/// Between two looks at an instance that starts or ends.
const POLL: Duration = Duration::from_millis(50);
/// The router's name for the base with the adapter: a section of its presets.
const MODEL: &str = "policy";
/// The adapter's file in the recipe's `adapter_dir`.
pub(super) const FILE: &str = "policy.gguf";

/// What it says with status 400 if the instance is not there and must be asked for.
pub(super) const GONE: &str = "model is not loaded";

/// What the router says of the instance.
#[derive(Debug, PartialEq, Eq)]
enum Instance {
    /// It is not there, or ended by itself with an exit code.
    Ended(Option<i64>),
    Loaded,
    /// It is on its way from one to the other.
    Busy,
}

/// Has the router read the adapter's file: ends its instance, if there is one, and starts it again.
pub(super) fn start(server: &Server) -> Result<(), Failure> {
    if !matches!(look(server)?, Instance::Ended(_)) {
        end(server)?;
        wait(server, |now| matches!(now, Instance::Ended(_)))?;
    }
    server.exchange("/models/load", Some(&json!({"model": MODEL})))?;
    match wait(server, |now| *now != Instance::Busy)? {
        Instance::Ended(code) => Err(Failure::lost(format!(
            "its instance ended with exit code {}, its log says why",
            code.unwrap_or_default()
        ))),
        _ => Ok(()),
    }
}

/// Asks the router to end its instance.
pub(super) fn end(server: &Server) -> Result<String, Failure> {
    server.exchange("/models/unload", Some(&json!({"model": MODEL})))
}

/// Asks for the state of the instance until it is one that is meant.
fn wait(server: &Server, meant: impl Fn(&Instance) -> bool) -> Result<Instance, Failure> {
    let until = Instant::now() + server.timeout;
    loop {
        let now = look(server)?;
        if meant(&now) {
            return Ok(now);
        }
        if Instant::now() >= until {
            return Err(Failure::lost("its instance neither starts nor ends"));
        }
        std::thread::sleep(POLL);
    }
}

fn look(server: &Server) -> Result<Instance, Failure> {
    let refused = |problem| Failure {
        refused: true,
        ..Failure::lost(problem)
    };
    instance(&server.exchange("/models", None)?).map_err(refused)
}

/// Reads the list of `/models`.
fn instance(text: &str) -> Result<Instance, String> {
    let models = parsed(text)?;
    let mut listed = models["data"].as_array().into_iter().flatten();
    let status = listed
        .find(|model| model["id"] == MODEL)
        .map(|model| &model["status"])
        .filter(|status| status.is_object())
        .ok_or_else(|| {
            format!("it is no router whose presets have a section [{MODEL}] (docs/rollouts.md)")
        })?;
    Ok(match status["value"].as_str() {
        Some("unloaded") => Instance::Ended(status["exit_code"].as_i64()),
        Some("loaded") => Instance::Loaded,
        _ => Instance::Busy,
    })
}

/// A request for a group. Temperature is the only sampler, whatever the server was started with.
pub(super) fn request(prompt: &[u32], at: usize, draws: Draws) -> Value {
    json!({
        "model": MODEL,
        "prompt": prompt,
        "n_cmpl": draws.n,
        "n_predict": draws.cap,
        "samplers": ["temperature"],
        "temperature": draws.temperature,
        "dynatemp_range": 0.0,
        "mirostat": 0,
        "seed": seed(at, draws),
        // What it keeps of a turn that the adapter wrote would stand for the base's.
        "cache_prompt": false,
        "return_tokens": true,
        "n_probs": 1,
        "post_sampling_probs": true,
        "response_fields": ["index", "tokens", "tokens_evaluated", "stop_type", "completion_probabilities"],
    })
}

/// Completion i of a request has the seed plus i, in 32 bits, of which the last one means a random seed.
fn seed(at: usize, draws: Draws) -> u64 {
    let n = draws.n as u64;
    let first = draws.seed.wrapping_add((at as u64).wrapping_mul(n));
    first % (u64::from(u32::MAX) - n)
}

/// Reads the completions of a reply: a list, or one alone.
pub(super) fn completions(
    text: &str,
    prompt: &[u32],
    draws: Draws,
    limits: Limits<'_>,
) -> Result<Vec<Completion>, String> {
    let body = parsed(text)?;
    let all = match &body {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    let replies = all.iter().map(|one| reply(one, prompt));
    checked(replies, draws, limits)
}

fn reply(one: &Value, prompt: &[u32]) -> Result<Reply, String> {
    let tokens = token_ids(&one["tokens"]).ok_or("a choice has no tokens")?;
    same_length(&one["tokens_evaluated"], prompt)?;
    let drawn = one["completion_probabilities"].as_array();
    let drawn = drawn.ok_or("a choice has no probabilities")?;
    let of = drawn.iter().map(|token| token["id"].as_u64());
    if !of.eq(tokens.iter().map(|&id| Some(u64::from(id)))) {
        return Err("its probabilities are of other tokens".to_owned());
    }
    let logprob = |token: &Value| token["prob"].as_f64().map(|prob| prob.ln() as f32);
    Ok(Reply {
        index: one["index"].as_u64(),
        tokens,
        logprobs: drawn.iter().map(logprob).collect(),
        ended: match one["stop_type"].as_str() {
            Some("eos") => true,
            Some("limit") => false,
            other => return Err(format!("a choice ended by {other:?}, not by eos or limit")),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::completions::asked::{Case, DRAWS, LIMITS, PROMPT, refused};
    use super::*;

    fn read(change: impl FnOnce(&mut Value)) -> Result<Vec<Completion>, String> {
        let one = |index: usize, tokens: &[u32], probs: &[f64], stop: &str| {
            let drawn: Vec<Value> = tokens
                .iter()
                .zip(probs)
                .map(|(id, prob)| json!({"id": id, "token": "x", "prob": prob}))
                .collect();
            json!({"index": index, "tokens": tokens, "tokens_evaluated": 2, "stop_type": stop, "completion_probabilities": drawn})
        };
        let mut body = json!([
            one(1, &[5, 6, 7], &[0.5, 0.25, 1.0], "limit"),
            one(0, &[5, 2], &[0.5, 0.125], "eos")
        ]);
        change(&mut body);
        completions(&body.to_string(), &PROMPT, DRAWS, LIMITS)
    }

    #[test]
    fn replies_are_read_in_the_order_of_their_indices() {
        let read = read(|_| ()).expect("completions");
        assert_eq!(read[0].tokens, [5, 2]);
        assert_eq!(read[0].logprobs, [0.5_f32.ln(), 0.125_f32.ln()]);
        assert!(read[0].ended && !read[1].ended);
    }

    #[test]
    fn what_cannot_be_learnt_from_is_named() {
        let cases: [Case; 9] = [
            (|b| *b = b[0].clone(), "1 choices, not 2"),
            (|b| b[0]["tokens"] = json!(null), "no tokens"),
            (
                |b| b[0]["tokens_evaluated"] = json!(3),
                "a prompt of 3 tokens instead of 2",
            ),
            (
                |b| b[0]["completion_probabilities"] = json!(null),
                "no probabilities",
            ),
            (
                |b| b[0]["completion_probabilities"][0]["id"] = json!(6),
                "of other tokens",
            ),
            (
                |b| b[0]["completion_probabilities"][0]["prob"] = json!(0.0),
                "no number",
            ),
            (
                |b| {
                    b[0]["completion_probabilities"][0]
                        .as_object_mut()
                        .map(|token| token.remove("prob"));
                },
                "no number",
            ),
            (|b| b[0]["stop_type"] = json!("word"), "word"),
            (|b| b[1]["stop_type"] = json!("limit"), "context"),
        ];
        refused(read, &cases);
    }

    #[test]
    fn seeds_stay_below_the_one_that_means_any() {
        for first in [0, 7, u64::from(u32::MAX) - 1, u64::MAX] {
            let draws = Draws {
                seed: first,
                ..DRAWS
            };
            for at in 0..3 {
                let last = seed(at, draws) + draws.n as u64 - 1;
                assert!(last < u64::from(u32::MAX), "{first} {at}");
            }
        }
        assert_eq!([seed(0, DRAWS), seed(1, DRAWS)], [7, 9]);
    }

    #[test]
    fn the_state_of_the_instance_is_read_from_the_list() {
        let of = |status: Value| {
            instance(&json!({"data": [{"id": "other", "status": {"value": "loaded"}}, {"id": MODEL, "status": status}]}).to_string())
        };
        assert_eq!(of(json!({"value": "unloaded"})), Ok(Instance::Ended(None)));
        assert_eq!(of(json!({"value": "loading"})), Ok(Instance::Busy));
        assert_eq!(of(json!({"value": "loaded"})), Ok(Instance::Loaded));
        let failed = json!({"value": "unloaded", "failed": true, "exit_code": 1});
        assert_eq!(of(failed), Ok(Instance::Ended(Some(1))));
        // A llama-server with one model lists no states.
        let single = json!({"data": [{"id": MODEL, "owned_by": "llamacpp"}]});
        assert!(instance(&single.to_string()).is_err_and(|problem| problem.contains("no router")));
    }
}
