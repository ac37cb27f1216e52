//! Log-probabilities of `/v1/chat/completions`, streamed and whole.

use serde_json::{Value, json};

use crate::support::{HARD, ask, chunks, listed, ok, shared, with};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn log_probabilities_come_with_the_text_of_their_tokens() {
    let router = shared();
    let request = with(
        ask(HARD),
        json!({"logprobs": true, "top_logprobs": 2, "edgethink": {"think": "on"}}),
    );
    let reply = ok(&router, CHAT, &request).await;
    let streamed = with(request, json!({"stream": true}));
    let chunks = chunks(&router, CHAT, &streamed).await;
    for (list, text) in [
        ("reasoning_content", "reasoning_content"),
        ("content", "content"),
    ] {
        let at = format!("/choices/0/logprobs/{list}");
        let whole = reply.pointer(&at).cloned().expect("a list");
        assert_eq!(Value::from(listed(&chunks, &at)), whole, "{list}");
        // Each text comes with at least the token that ended it, and no token runs ahead of the text.
        let (mut tokens, mut texts) = (String::new(), String::new());
        for chunk in &chunks {
            let delta = chunk.pointer(&format!("/choices/0/delta/{text}"));
            let delta = delta.and_then(Value::as_str).unwrap_or_default();
            let entries = chunk.pointer(&at).and_then(Value::as_array);
            for one in entries.into_iter().flatten() {
                tokens.push_str(one["token"].as_str().expect("a text"));
            }
            texts.push_str(delta);
            if !delta.is_empty() {
                assert!(
                    tokens.contains(texts.trim()),
                    "{texts:?} is not in {tokens:?}"
                );
            }
        }
        assert!(
            tokens.contains(&texts) && !texts.is_empty(),
            "{tokens:?} {texts:?}"
        );
    }
}

#[tokio::test]
async fn the_bytes_of_a_token_are_its_own() {
    let router = shared();
    let request = with(
        ask("What are you?"),
        json!({"logprobs": true, "reasoning_effort": "none", "max_tokens": 12}),
    );
    let reply = ok(&router, CHAT, &request).await;
    let content = reply["choices"][0]["logprobs"]["content"]
        .as_array()
        .expect("a list");
    let bytes = content
        .iter()
        .flat_map(|one| one["bytes"].as_array().expect("bytes"));
    let bytes: Vec<u8> = bytes
        .map(|byte| byte.as_u64().expect("a byte") as u8)
        .collect();
    let text = reply["choices"][0]["message"]["content"]
        .as_str()
        .expect("a text");
    assert_eq!(String::from_utf8(bytes).expect("UTF-8"), text);
}

#[tokio::test]
async fn log_probabilities_cover_the_answer() {
    let router = shared();
    let request = with(
        ask("What are you?"),
        json!({"logprobs": true, "top_logprobs": 3, "reasoning_effort": "none"}),
    );
    let reply = ok(&router, CHAT, &request).await;
    let choice = &reply["choices"][0];
    let content = choice["logprobs"]["content"].as_array().expect("a list");
    let text: String = content
        .iter()
        .map(|one| one["token"].as_str().expect("a text"))
        .collect();
    assert_eq!(choice["message"]["content"], text);
    for one in content {
        assert!(one["logprob"].as_f64().expect("a number") <= 0.0);
        assert_eq!(one["top_logprobs"].as_array().map(Vec::len), Some(3));
        assert_eq!(one["top_logprobs"][0]["token"], one["token"], "greedy");
    }
}
