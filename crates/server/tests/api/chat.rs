//! `/v1/chat/completions`: what comes back, streamed and whole, alone and in company.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{HARD, ask, chunks, listed, ok, post, shared, with};

const CHAT: &str = "/v1/chat/completions";

/// (reasoning, content, finish_reason) per choice, from a whole reply.
fn whole(reply: &Value) -> BTreeMap<u64, (String, String, String)> {
    let choices = reply["choices"].as_array().expect("choices");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |choice: &Value| {
        let message = &choice["message"];
        assert_eq!(message["reasoning"], message["reasoning_content"]);
        let said = (
            text(&message["reasoning_content"]),
            text(&message["content"]),
            text(&choice["finish_reason"]),
        );
        (choice["index"].as_u64().expect("an index"), said)
    };
    choices.iter().map(read).collect()
}

/// The same from chunks.
fn joined(chunks: &[Value]) -> BTreeMap<u64, (String, String, String)> {
    let mut out: BTreeMap<u64, (String, String, String)> = BTreeMap::new();
    for chunk in chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        for choice in chunk["choices"].as_array().expect("choices") {
            let entry = out
                .entry(choice["index"].as_u64().expect("an index"))
                .or_default();
            let delta = &choice["delta"];
            let note = *delta == json!({});
            assert!(
                note || entry.2.is_empty(),
                "no text follows a choice's end: {chunk}"
            );
            entry.0 += delta["reasoning_content"].as_str().unwrap_or_default();
            entry.1 += delta["content"].as_str().unwrap_or_default();
            entry.2 += choice["finish_reason"].as_str().unwrap_or_default();
        }
    }
    out
}

#[tokio::test]
async fn an_easy_question_is_answered_at_once_and_a_hard_one_is_thought_about() {
    let router = shared();
    let easy = ok(&router, CHAT, &ask("What are you?")).await;
    let text = easy["choices"][0]["message"]["content"]
        .as_str()
        .expect("text");
    assert!(text.contains("Pocket"), "{text}");
    assert_eq!(easy["edgethink"]["decision"]["thinks"], false);
    assert_eq!(easy["edgethink"]["adapter"]["use"], "base");
    assert_eq!(
        easy["usage"]["completion_tokens_details"]["reasoning_tokens"],
        0
    );
    let hard = ok(&router, CHAT, &ask(HARD)).await;
    assert_eq!(hard["edgethink"]["decision"]["thinks"], true);
    assert_eq!(hard["edgethink"]["adapter"]["use"], "masked");
    assert_eq!(hard["edgethink"]["choices"][0]["answer"], "9");
    assert_eq!(hard["edgethink"]["choices"][0]["thought_closed"], "model");
    let usage = &hard["usage"];
    let number = |value: &Value| value.as_u64().expect("a number");
    assert!(number(&usage["completion_tokens_details"]["reasoning_tokens"]) > 0);
    assert_eq!(
        number(&usage["total_tokens"]),
        number(&usage["prompt_tokens"]) + number(&usage["completion_tokens"])
    );
}

#[tokio::test]
async fn chunks_add_up_to_the_whole_reply() {
    let router = shared();
    for more in [
        json!({"edgethink": {"think": "on"}}),
        json!({"reasoning_effort": "none"}),
        json!({"n": 3, "temperature": 0.9, "seed": 7, "edgethink": {"vote": "weighted", "scoring": "verifier"}}),
        json!({"edgethink": {"budget": 40, "think": "on"}, "stream_options": {"include_usage": true}}),
        json!({"max_tokens": 5, "stop": ["9"], "logprobs": true, "top_logprobs": 2}),
    ] {
        let streamed = with(with(ask(HARD), more.clone()), json!({"stream": true}));
        let mut plain = with(ask(HARD), more.clone());
        plain
            .as_object_mut()
            .expect("an object")
            .remove("stream_options");
        let reply = ok(&router, CHAT, &plain).await;
        let chunks = chunks(&router, CHAT, &streamed).await;
        assert_eq!(joined(&chunks), whole(&reply), "{more}");
        let last = chunks.last().expect("a chunk");
        if more["logprobs"] == true {
            let at = "/choices/0/logprobs/content";
            assert_eq!(
                Value::from(listed(&chunks, at)),
                reply.pointer(at).cloned().expect("a list")
            );
        } else if more["reasoning_effort"] != "none" {
            assert_eq!(last["choices"], json!([]));
            let counts = |value: &Value| value["usage"]["completion_tokens"].clone();
            assert_eq!(counts(last), counts(&reply));
            let choices = |value: &Value| value["edgethink"]["choices"].clone();
            assert_eq!(choices(last), choices(&reply));
            assert_eq!(last["edgethink"]["vote"], reply["edgethink"]["vote"]);
        }
    }
}

#[tokio::test]
async fn what_happens_is_told_while_it_happens() {
    let router = shared();
    let request = with(
        ask(HARD),
        json!({"stream": true, "edgethink": {"scoring": "verifier"}}),
    );
    let chunks = chunks(&router, CHAT, &request).await;
    let at = |key: &str| {
        chunks
            .iter()
            .position(|chunk| chunk["edgethink"][key].is_object())
    };
    let decided = at("decision").expect("a decision");
    let ended = at("thought_ended").expect("the end of a thought");
    let scored = at("scored").expect("a score");
    assert!(decided < ended && ended < scored);
    assert_eq!(decided, 0, "before any token");
    assert_eq!(chunks[ended]["edgethink"]["thought_ended"]["end"], "model");
    let summary = &chunks.last().expect("a summary")["edgethink"];
    assert_eq!(
        summary["choices"][0]["score"],
        chunks[scored]["edgethink"]["scored"]["score"]
    );
}

#[tokio::test]
async fn seeds_repeat_and_streams_differ() {
    let router = shared();
    let request = |seed: i64| {
        let more = json!({"n": 4, "temperature": 1.2, "seed": seed, "edgethink": {"think": "on"}});
        with(ask(HARD), more)
    };
    let first = ok(&router, CHAT, &request(-3)).await;
    let again = ok(&router, CHAT, &request(-3)).await;
    let other = ok(&router, CHAT, &request(4)).await;
    assert_eq!(whole(&first), whole(&again));
    assert_ne!(whole(&first), whole(&other));
    let choices = whole(&first);
    assert_eq!(choices.len(), 4);
    assert!(choices.values().any(|said| said.0 != choices[&0].0));
    // A drawn seed is told, and repeats the answer.
    let mut unseeded = request(0);
    unseeded.as_object_mut().expect("an object").remove("seed");
    let drawn = ok(&router, CHAT, &unseeded).await;
    let seed = drawn["edgethink"]["seed"].as_u64().expect("a seed");
    let repeated = ok(&router, CHAT, &request(seed.cast_signed())).await;
    assert_eq!(whole(&drawn), whole(&repeated));
}

#[tokio::test]
async fn a_vote_has_a_winner_among_all_choices() {
    let router = shared();
    let request = with(
        ask(HARD),
        json!({"n": 5, "temperature": 0.8, "seed": 1, "edgethink": {"think": "on", "vote": "majority", "early_stop": "certain"}}),
    );
    let reply = ok(&router, CHAT, &request).await;
    let summary = &reply["edgethink"];
    assert_eq!(reply["choices"].as_array().map(Vec::len), Some(5));
    let winner = summary["vote"]["winner"].as_u64().expect("a winner");
    let group = &summary["vote"]["groups"][0];
    assert!(
        group["choices"]
            .as_array()
            .expect("choices")
            .contains(&json!(winner))
    );
    assert_eq!(
        group["votes"],
        group["choices"].as_array().expect("choices").len()
    );
    for choice in reply["choices"].as_array().expect("choices") {
        let reason = choice["finish_reason"].as_str().expect("a reason");
        assert!(["stop", "length"].contains(&reason), "{reason}");
    }
}

#[tokio::test]
async fn budgets_have_many_names_and_one_meaning() {
    let router = shared();
    let reply = |more: Value| {
        let router = router.clone();
        let request = with(with(ask(HARD), json!({"seed": 1})), more);
        async move { ok(&router, CHAT, &request).await }
    };
    let own = reply(json!({"edgethink": {"think": "on", "budget": 40}})).await;
    assert_eq!(own["edgethink"]["budget"]["hard"], 40);
    assert_eq!(own["edgethink"]["budget"]["line"], "Use at most 40 tokens.");
    for name in [
        "thinking_token_budget",
        "thinking_budget",
        "thinking_budget_tokens",
        "reasoning_budget_tokens",
    ] {
        let mut more = json!({"chat_template_kwargs": {"enable_thinking": true}});
        more[name] = 40.into();
        assert_eq!(whole(&reply(more).await), whole(&own), "{name}");
    }
    let anthropic = json!({"thinking": {"type": "enabled", "budget_tokens": 40}});
    assert_eq!(whole(&reply(anthropic).await), whole(&own));
    let none = reply(json!({"thinking_budget": 0})).await;
    assert_eq!(none["choices"][0]["message"].get("reasoning_content"), None);
    let effort = reply(json!({"reasoning_effort": "low"})).await;
    assert_eq!(effort["edgethink"]["budget"]["hard"], 128);
    let auto = reply(json!({"reasoning_effort": "auto"})).await;
    assert!(auto["edgethink"]["decision"].is_object());
    for (word, meant) in [("off", "none"), ("max", "xhigh"), ("ultra", "xhigh")] {
        let said = reply(json!({"reasoning_effort": word})).await;
        let known = reply(json!({"reasoning_effort": meant})).await;
        assert_eq!(whole(&said), whole(&known), "{word}");
    }
    let on = reply(json!({"chat_template_kwargs": {"thinking": true}})).await;
    assert_eq!(on["edgethink"]["adapter"]["use"], "masked");
}

#[tokio::test]
async fn an_answer_can_run_to_its_limit_and_is_timed() {
    let router = shared();
    let more = json!({"ignore_eos": true, "max_tokens": 70, "n": 2, "reasoning_effort": "none"});
    let request = with(ask("What are you?"), more);
    let reply = ok(&router, CHAT, &request).await;
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let chunks = chunks(&router, CHAT, &with(request, options)).await;
    for reply in [&reply, chunks.last().expect("a chunk")] {
        let (usage, timings) = (&reply["usage"], &reply["timings"]);
        assert_eq!(usage["completion_tokens"], 140);
        assert_eq!(timings["predicted_n"], 140);
        let number = |name: &str| timings[name].as_f64().expect("a number");
        let prompt = usage["prompt_tokens"].as_f64().expect("a number");
        assert_eq!(number("cache_n") + number("prompt_n"), prompt);
        for name in [
            "prompt_ms",
            "prompt_per_second",
            "predicted_ms",
            "predicted_per_second",
        ] {
            assert!(number(name) > 0.0, "{name}");
        }
    }
    let choices = reply["choices"].as_array().expect("choices");
    assert!(
        choices
            .iter()
            .all(|choice| choice["finish_reason"] == "length")
    );
}

#[tokio::test]
async fn models_are_the_base_its_adapter_and_aliases() {
    let router = shared();
    let by = |model: Value| {
        let router = router.clone();
        let request = with(ask("What are you?"), json!({"model": model}));
        async move { post(&router, CHAT, &request).await }
    };
    let (_, adapter) = by(json!("adapter")).await;
    assert_eq!(adapter["model"], "adapter");
    assert_eq!(adapter["edgethink"]["adapter"]["name"], "adapter");
    assert_eq!(adapter["edgethink"]["adapter"]["use"], "masked");
    let (_, alias) = by(json!("gpt")).await;
    assert_eq!(alias["model"], "gpt");
    let (_, none) = by(Value::Null).await;
    assert_eq!(none["model"], "pocket");
    let (status, error) = by(json!("gpt-5")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(error["error"]["code"], "model_not_found");
    assert_eq!(error["error"]["param"], "model");
}

#[tokio::test]
async fn earlier_thoughts_are_dropped_and_parts_are_joined() {
    let router = shared();
    let plain = json!([
        {"role": "system", "content": "Be\nbrief."},
        {"role": "user", "content": "What are you?"},
        {"role": "assistant", "content": "Pocket."},
        {"role": "user", "content": "How can you help me?"},
    ]);
    let rich = json!([
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "What are you?", "name": "eva"},
        {"role": "assistant", "content": "Pocket.", "reasoning_content": "Hm.", "reasoning": "Hm.", "refusal": null, "annotations": []},
        {"role": "user", "content": "How can you help me?"},
    ]);
    let mut prompts = Vec::new();
    for messages in [plain, rich] {
        let reply = ok(&router, "/apply-template", &json!({"messages": messages})).await;
        prompts.push(reply["prompt"].as_str().expect("a prompt").to_owned());
    }
    assert_eq!(prompts[0], prompts[1]);
    assert!(
        prompts[0].ends_with("<|im_start|>assistant\n"),
        "{}",
        prompts[0]
    );
}

#[tokio::test]
async fn a_schema_binds_the_answer_and_not_the_thought() {
    let router = shared();
    let schema = json!({"type": "object", "properties": {"shells": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["shells"], "additionalProperties": false});
    let request = with(
        ask(HARD),
        json!({"edgethink": {"think": "on"}, "max_tokens": 400, "response_format": {"type": "json_schema", "json_schema": {"name": "shells", "schema": schema, "strict": true}}}),
    );
    let reply = ok(&router, CHAT, &request).await;
    let message = &reply["choices"][0]["message"];
    assert!(
        !message["reasoning_content"]
            .as_str()
            .expect("a thought")
            .is_empty()
    );
    let text = message["content"].as_str().expect("text");
    let value: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"));
    assert!(value["shells"].is_i64(), "{value}");
}

#[tokio::test]
async fn a_call_that_must_come_comes_streamed_and_whole() {
    let router = shared();
    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "description": "Adds.", "parameters": {
            "type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["a"], "additionalProperties": false}}})
    };
    let request = with(
        ask("What is 17 plus 25?"),
        json!({"reasoning_effort": "none", "max_tokens": 200, "seed": 1, "tools": [tool("add"), tool("sub")],
            "tool_choice": {"type": "function", "function": {"name": "sub"}}}),
    );
    let reply = ok(&router, CHAT, &request).await;
    let choice = &reply["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{reply}");
    assert_eq!(choice["message"]["content"], Value::Null);
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(
        (&call["type"], &call["function"]["name"]),
        (&json!("function"), &json!("sub"))
    );
    let arguments = call["function"]["arguments"].as_str().expect("a text");
    let arguments: Value = serde_json::from_str(arguments).expect("JSON");
    assert!(arguments["a"].is_i64(), "{arguments}");
    let chunks = chunks(&router, CHAT, &with(request, json!({"stream": true}))).await;
    let mut calls = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0]);
    let streamed = calls.find(|call| call.is_object()).expect("a call");
    assert_eq!(streamed["function"], call["function"]);
    assert_eq!(streamed["index"], 0);
    let end = chunks
        .iter()
        .rev()
        .find(|chunk| chunk["choices"][0]["finish_reason"].is_string());
    assert_eq!(
        end.expect("an end")["choices"][0]["finish_reason"],
        "tool_calls"
    );
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_in_company() {
    let router = shared();
    let questions = [
        HARD,
        "What are you?",
        "Tell me half of 98.",
        "How can you help me?",
    ];
    let requests: Vec<Value> = (0..16)
        .map(|i| {
            let more = match i % 4 {
                0 => json!({"n": 1 + i % 3, "edgethink": {"think": "on"}}),
                1 => json!({"edgethink": {"budget": 64}}),
                2 => json!({"reasoning_effort": "none", "n": 2}),
                _ => json!({"max_tokens": 30}),
            };
            let drawn = json!({"seed": i, "temperature": 0.9});
            with(with(ask(questions[i % 3]), drawn), more)
        })
        .collect();
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(whole(&ok(&router, CHAT, request).await));
    }
    let tasks: Vec<_> = requests
        .iter()
        .map(|request| {
            let (router, request) = (router.clone(), request.clone());
            tokio::spawn(async move { whole(&ok(&router, CHAT, &request).await) })
        })
        .collect();
    for (at, task) in tasks.into_iter().enumerate() {
        let together = task.await.expect("an answer");
        assert_eq!(together, alone[at], "{}", requests[at]);
    }
}
