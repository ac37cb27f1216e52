//! What a server is asked for a group of completions by OpenAI's endpoint, and what is believed of any reply: token ids, their
//! log-probabilities, the end.

use serde_json::{Value, json};

use super::server::Kind;
use super::{Completion, Draws};

/// What a reply is checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits<'a> {
    pub vocab_size: usize,
    /// Tokens that end a completion.
    pub eos: &'a [u32],
}

/// A request for a group. Every setting that changes the distribution is named, whatever the server was started with.
pub(super) fn request(kind: Kind, model: &str, prompt: &[u32], at: usize, draws: Draws) -> Value {
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
pub(super) fn seed(kind: Kind, at: usize, draws: Draws) -> i64 {
    if kind == Kind::Edgethink {
        return draws.seed.wrapping_add(at as u64).cast_signed();
    }
    let apart = (at as u64).wrapping_mul(draws.n as u64);
    (draws.seed.wrapping_add(apart) & 0xffff_ffff_ffff).cast_signed()
}

/// A reply as JSON.
pub(super) fn parsed(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("its reply is no JSON: {error}"))
}

/// A completion as a server tells it.
pub(super) struct Reply {
    pub index: Option<u64>,
    pub tokens: Vec<u32>,
    /// `None` for what is no number.
    pub logprobs: Vec<Option<f32>>,
    pub ended: bool,
}

/// Reads the completions of a reply.
pub(super) fn completions(
    text: &str,
    prompt: &[u32],
    draws: Draws,
    limits: Limits<'_>,
) -> Result<Vec<Completion>, String> {
    let body = parsed(text)?;
    let choices = body["choices"]
        .as_array()
        .ok_or("its reply has no choices")?;
    let replies = choices.iter().map(|choice| reply(choice, prompt));
    checked(replies, draws, limits)
}

fn reply(choice: &Value, prompt: &[u32]) -> Result<Reply, String> {
    let tokens = token_ids(&choice["token_ids"]).ok_or(
        "a choice has no token_ids; the server must know return_token_ids (vLLM since 0.10.2, edgethink serve)",
    )?;
    if let Some(read) = token_ids(&choice["prompt_token_ids"])
        && read != prompt
    {
        return Err("it read another prompt than it was given".to_owned());
    }
    let logprobs = choice["logprobs"]["token_logprobs"].as_array();
    let logprobs = logprobs.ok_or("a choice has no logprobs")?.iter();
    Ok(Reply {
        index: choice["index"].as_u64(),
        tokens,
        logprobs: logprobs
            .map(|value| value.as_f64().map(|value| value as f32))
            .collect(),
        ended: match choice["finish_reason"].as_str() {
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

pub(super) fn token_ids(list: &Value) -> Option<Vec<u32>> {
    let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    list.as_array()?.iter().map(id).collect()
}

/// Refuses a prompt of another length than was sent, where the server tells no more of it.
pub(super) fn same_length(read: &Value, prompt: &[u32]) -> Result<(), String> {
    if read.as_u64() == Some(prompt.len() as u64) {
        return Ok(());
    }
    Err(format!(
        "it read a prompt of {read} tokens instead of {}",
        prompt.len()
    ))
}

/// Puts the replies in order, and refuses what cannot be learnt from.
pub(super) fn checked(
    replies: impl Iterator<Item = Result<Reply, String>>,
    draws: Draws,
    limits: Limits<'_>,
) -> Result<Vec<Completion>, String> {
    let replies: Vec<Reply> = replies.collect::<Result<_, _>>()?;
    if replies.len() != draws.n {
        return Err(format!(
            "its reply has {} choices, not {}",
            replies.len(),
            draws.n
        ));
    }
    let mut found: Vec<Option<Completion>> = vec![None; draws.n];
    for reply in replies {
        let index = reply.index.and_then(|i| usize::try_from(i).ok());
        let place = index.and_then(|index| found.get_mut(index));
        let place = place.ok_or("a choice has no index below n")?;
        if place.is_some() {
            return Err("two choices have the same index".to_owned());
        }
        *place = Some(completion(reply, draws, limits)?);
    }
    Ok(found.into_iter().flatten().collect())
}

fn completion(reply: Reply, draws: Draws, limits: Limits<'_>) -> Result<Completion, String> {
    let Reply { tokens, ended, .. } = reply;
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
    let logprobs: Option<Vec<f32>> = reply.logprobs.into_iter().collect();
    let logprobs = logprobs.filter(|all| all.iter().all(|value| value.is_finite()));
    let logprobs = logprobs.ok_or("a log-probability is no number")?;
    if logprobs.len() != tokens.len() {
        return Err(format!(
            "a choice has {} tokens and {} log-probabilities",
            tokens.len(),
            logprobs.len()
        ));
    }
    let last = tokens.last().copied().unwrap_or_default();
    if ended && !limits.eos.contains(&last) {
        return Err(format!(
            "a choice stopped at token {last}, which does not end a turn of the base; its list of end tokens differs, or it leaves them out"
        ));
    }
    if !ended && tokens.len() < draws.cap {
        return Err(format!(
            "a choice was cut after {} of {} tokens; its context is too short",
            tokens.len(),
            draws.cap
        ));
    }
    Ok(Completion {
        tokens,
        logprobs,
        ended,
        version: 0,
    })
}

/// What the tests of each kind of server ask for, and how replies to it are held to the problems that they have.
#[cfg(test)]
pub(super) mod asked {
    use super::*;

    pub(in super::super) const PROMPT: [u32; 2] = [1, 4];
    pub(in super::super) const DRAWS: Draws = Draws {
        n: 2,
        temperature: 0.8,
        cap: 3,
        seed: 7,
    };
    pub(in super::super) const LIMITS: Limits<'static> = Limits {
        vocab_size: 8,
        eos: &[2],
    };

    /// A change of a reply, and a word of the problem that it makes.
    pub(in super::super) type Case = (fn(&mut Value), &'static str);

    /// Each change must be refused with its word.
    pub(in super::super) fn refused(
        read: impl Fn(fn(&mut Value)) -> Result<Vec<Completion>, String>,
        cases: &[Case],
    ) {
        for (change, word) in cases {
            let problem = read(*change).expect_err(word);
            assert!(problem.contains(word), "{problem}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::asked::{Case, DRAWS, LIMITS, PROMPT, refused};
    use super::*;

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
        completions(&body.to_string(), &PROMPT, DRAWS, LIMITS)
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
        let cases: [Case; 13] = [
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
        refused(read, &cases);
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
