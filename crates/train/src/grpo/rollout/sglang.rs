//! SGLang as a sampler, by its own endpoint: of a request for several completions it draws all with one seed, so each has a prompt and a seed
//! of its own here. It draws with the seeds only if it was started with `--enable-deterministic-inference`.
//!
//! ```text
//! POST /load_lora_adapter   {lora_name, lora_path}
//! POST /unload_lora_adapter {lora_name}
//! POST /generate            {input_ids: [[ids], ..], sampling_params: [{temperature, max_new_tokens, sampling_seed, ..}, ..],
//!                            return_logprob, lora_path: lora_name}
//! ```
//!
//! See <https://docs.sglang.ai/basic_usage/native_api.html>.

use serde_json::{Value, json};

use super::completions::{Limits, Reply, checked, parsed, same_length, seed};
use super::server::Kind;
use super::{Completion, Draws};

/// What it says with status 400 of an adapter that it does not have.
pub(super) const GONE: &str = "has never been loaded";

/// A request for a group. Every setting that changes the distribution is named, whatever the server was started with.
pub(super) fn request(adapter: &str, prompt: &[u32], at: usize, draws: Draws) -> Value {
    let first = seed(Kind::Sglang, at, draws);
    let one = |seed: i64| {
        json!({
            "temperature": draws.temperature,
            "max_new_tokens": draws.cap,
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "sampling_seed": seed,
        })
    };
    json!({
        "input_ids": vec![prompt; draws.n],
        "sampling_params": (first..).take(draws.n).map(one).collect::<Vec<_>>(),
        "return_logprob": true,
        "lora_path": adapter,
    })
}

/// Reads the completions of a reply, which are in the order of the prompts.
pub(super) fn completions(
    text: &str,
    prompt: &[u32],
    draws: Draws,
    limits: Limits<'_>,
) -> Result<Vec<Completion>, String> {
    let body = parsed(text)?;
    let all = body.as_array().ok_or("its reply is no list")?;
    let replies = (0..).zip(all);
    let replies = replies.map(|(index, one)| reply(index, one, prompt));
    checked(replies, draws, limits)
}

fn reply(index: u64, one: &Value, prompt: &[u32]) -> Result<Reply, String> {
    let meta = &one["meta_info"];
    same_length(&meta["prompt_tokens"], prompt)?;
    // [log-probability, token, text] of each.
    let drawn = meta["output_token_logprobs"].as_array();
    let drawn = drawn.ok_or("a choice has no output_token_logprobs")?;
    let token = |entry: &Value| entry[1].as_u64().and_then(|id| u32::try_from(id).ok());
    let tokens: Option<Vec<u32>> = drawn.iter().map(token).collect();
    Ok(Reply {
        index: Some(index),
        tokens: tokens.ok_or("a token has no id")?,
        logprobs: drawn
            .iter()
            .map(|entry| entry[0].as_f64().map(|value| value as f32))
            .collect(),
        ended: match meta["finish_reason"]["type"].as_str() {
            Some("stop") => true,
            Some("length") => false,
            other => {
                return Err(format!(
                    "a choice ended by {other:?}, not by stop or length"
                ));
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::completions::asked::{Case, DRAWS, LIMITS, PROMPT, refused};
    use super::*;

    fn read(change: impl FnOnce(&mut Value)) -> Result<Vec<Completion>, String> {
        let one = |drawn: Value, reason: &str| json!({"text": "x", "meta_info": {"prompt_tokens": 2, "output_token_logprobs": drawn, "finish_reason": {"type": reason}}});
        let mut body = json!([
            one(json!([[-0.5, 5, null], [-0.25, 2, null]]), "stop"),
            one(
                json!([[-0.5, 5, null], [-1.0, 6, null], [-0.1, 7, null]]),
                "length"
            ),
        ]);
        change(&mut body);
        completions(&body.to_string(), &PROMPT, DRAWS, LIMITS)
    }

    #[test]
    fn replies_are_read_in_the_order_of_the_prompts() {
        let read = read(|_| ()).expect("completions");
        assert_eq!(read[0].tokens, [5, 2]);
        assert_eq!(read[0].logprobs, [-0.5, -0.25]);
        assert!(read[0].ended && !read[1].ended);
    }

    #[test]
    fn what_cannot_be_learnt_from_is_named() {
        let cases: [Case; 7] = [
            (|b| *b = json!({}), "no list"),
            (|b| *b = json!([b[0]]), "1 choices, not 2"),
            (
                |b| b[0]["meta_info"]["prompt_tokens"] = json!(3),
                "a prompt of 3 tokens instead of 2",
            ),
            (
                |b| b[0]["meta_info"]["output_token_logprobs"] = json!(null),
                "no output_token_logprobs",
            ),
            (
                |b| b[0]["meta_info"]["output_token_logprobs"][0][1] = json!(-1),
                "no id",
            ),
            (
                |b| b[0]["meta_info"]["output_token_logprobs"][0][0] = json!(null),
                "no number",
            ),
            (
                |b| b[0]["meta_info"]["finish_reason"]["type"] = json!("abort"),
                "abort",
            ),
        ];
        refused(read, &cases);
    }

    #[test]
    fn each_completion_has_a_seed_of_its_own() {
        let seeds = |at| -> Vec<i64> {
            let body = request("policy-0", &[1, 4], at, DRAWS);
            let all = body["sampling_params"].as_array().expect("a list").iter();
            all.filter_map(|one| one["sampling_seed"].as_i64())
                .collect()
        };
        assert_eq!([seeds(0), seeds(1)], [[7, 8], [9, 10]]);
    }
}
