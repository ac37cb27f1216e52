//! `/v1/completions`, `/v1/responses` and `/v1/messages`.

use serde_json::{Value, json};

use crate::support::{HARD, chunks, events, ok, shared, with};

fn parsed(events: &[(String, String)]) -> Vec<(String, Value)> {
    let parse = |(name, data): &(String, String)| {
        let value: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(value["type"], *name, "the name is also the type");
        (name.clone(), value)
    };
    events.iter().map(parse).collect()
}

/// The types of a list's items.
fn kinds(items: &Value) -> Vec<&str> {
    let items = items.as_array().expect("a list").iter();
    items.filter_map(|item| item["type"].as_str()).collect()
}

/// The texts of all events of a name.
fn joined(events: &[(String, Value)], name: &str, pointer: &str) -> String {
    let named = events.iter().filter(|(found, _)| found == name);
    named
        .filter_map(|(_, value)| value.pointer(pointer)?.as_str())
        .collect()
}

#[tokio::test]
async fn a_raw_text_goes_on() {
    let router = shared();
    let prompt = "<|im_start|>user\nWhat are you?<|im_end|>\n<|im_start|>assistant\n";
    let request =
        json!({"prompt": prompt, "max_tokens": 40, "n": 2, "temperature": 0.7, "seed": 3});
    let reply = ok(&router, "/v1/completions", &request).await;
    assert_eq!(reply["object"], "text_completion");
    let streamed = with(
        request.clone(),
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    let chunks = chunks(&router, "/v1/completions", &streamed).await;
    for index in 0..2 {
        let of = |chunk: &&Value| chunk["choices"][0]["index"] == index;
        let text: String = chunks
            .iter()
            .filter(of)
            .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
            .collect();
        assert_eq!(reply["choices"][index]["text"], text);
    }
    let last = chunks.last().expect("a chunk");
    assert_eq!(
        last["usage"],
        with(
            reply["usage"].clone(),
            json!({"prompt_tokens_details": last["usage"]["prompt_tokens_details"]})
        )
    );
}

#[tokio::test]
async fn a_response_repeats_its_request_and_has_log_probabilities() {
    let router = shared();
    let request = json!({"input": "What are you?", "instructions": "Be brief.", "metadata": {"a": "b"},
        "reasoning": {"effort": "off"}, "max_output_tokens": 30, "temperature": 0.0,
        "include": ["message.output_text.logprobs"], "top_logprobs": 2});
    let reply = ok(&router, "/v1/responses", &request).await;
    for key in [
        "instructions",
        "metadata",
        "max_output_tokens",
        "temperature",
    ] {
        assert_eq!(reply[key], request[key], "{key}");
    }
    assert_eq!(reply["reasoning"]["effort"], "none");
    assert_eq!(reply["tool_choice"], "auto");
    let part = &reply["output"][0]["content"][0];
    let logprobs = part["logprobs"].as_array().expect("a list");
    let text: String = logprobs
        .iter()
        .filter_map(|one| one["token"].as_str())
        .collect();
    assert_eq!(part["text"], text);
    assert_eq!(
        logprobs[0]["top_logprobs"].as_array().map(Vec::len),
        Some(2)
    );
    let streamed = with(request.clone(), json!({"stream": true}));
    let events = events(&router, "/v1/responses", &streamed).await;
    let (mut deltas, mut done) = (Vec::new(), Value::Null);
    for (name, data) in &events {
        let data: Value = serde_json::from_str(data).expect("JSON");
        match name.as_str() {
            "response.output_text.delta" => {
                deltas.extend(data["logprobs"].as_array().expect("a list").clone());
            }
            "response.completed" => done = data["response"].clone(),
            _ => {}
        }
    }
    let whole = &done["output"][0]["content"][0]["logprobs"];
    assert_eq!(
        (&Value::from(deltas), whole),
        (&part["logprobs"], &part["logprobs"])
    );
    assert_eq!(done["metadata"], request["metadata"]);
}

#[tokio::test]
async fn log_probabilities_of_a_raw_text_are_streamed_with_it() {
    let router = shared();
    let request = json!({"prompt": "Ida has 18", "max_tokens": 24, "n": 2, "temperature": 0.7, "seed": 3, "logprobs": 2});
    let reply = ok(&router, "/v1/completions", &request).await;
    let streamed = with(request, json!({"stream": true}));
    let chunks = chunks(&router, "/v1/completions", &streamed).await;
    for index in 0..2 {
        let whole = &reply["choices"][index]["logprobs"];
        for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let of = |chunk: &&Value| chunk["choices"][0]["index"] == index;
            let pieces = chunks.iter().filter(of);
            let pieces =
                pieces.filter_map(|chunk| chunk["choices"][0]["logprobs"][list].as_array());
            let pieces: Vec<Value> = pieces.flatten().cloned().collect();
            assert_eq!(Value::from(pieces), whole[list], "{list}");
        }
        let tokens = whole["tokens"].as_array().expect("tokens");
        let text: String = tokens.iter().filter_map(Value::as_str).collect();
        assert_eq!(reply["choices"][index]["text"], text);
        let begun = |at: usize| {
            let before = tokens[..at].iter().filter_map(Value::as_str);
            before.map(|token| token.chars().count()).sum::<usize>()
        };
        let offsets: Vec<usize> = (0..tokens.len()).map(begun).collect();
        assert_eq!(whole["text_offset"], json!(offsets));
    }
}

#[tokio::test]
async fn responses_have_items_and_events_that_add_up() {
    let router = shared();
    let request = json!({"model": "pocket", "instructions": "Be brief.", "input": HARD,
        "reasoning": {"effort": "high"}, "store": false});
    let reply = ok(&router, "/v1/responses", &request).await;
    assert_eq!(
        (&reply["object"], &reply["status"]),
        (&json!("response"), &json!("completed"))
    );
    assert_eq!(kinds(&reply["output"]), ["reasoning", "message"]);
    let events = events(
        &router,
        "/v1/responses",
        &with(request, json!({"stream": true})),
    )
    .await;
    let events = parsed(&events);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        &names[..3],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added"
        ]
    );
    assert_eq!(names.last(), Some(&"response.completed"));
    for (number, (_, event)) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let thought = joined(&events, "response.reasoning_summary_text.delta", "/delta");
    let text = joined(&events, "response.output_text.delta", "/delta");
    assert_eq!(reply["output"][0]["summary"][0]["text"], thought);
    assert_eq!(reply["output"][1]["content"][0]["text"], text);
    let last = &events.last().expect("an end").1["response"];
    assert_eq!(last["output"][1]["content"], reply["output"][1]["content"]);
    assert_eq!(
        last["usage"]["output_tokens"],
        reply["usage"]["output_tokens"]
    );
    let done = names
        .iter()
        .filter(|name| **name == "response.output_item.done");
    assert_eq!(done.count(), 2);
}

#[tokio::test]
async fn responses_carry_calls_back_and_forth() {
    let router = shared();
    let tool = json!({"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["a"], "additionalProperties": false}});
    let request = json!({"input": "What is 17 plus 25?", "tools": [tool], "tool_choice": "required",
        "reasoning": {"effort": "none"}, "max_output_tokens": 200});
    let reply = ok(&router, "/v1/responses", &request).await;
    let call = &reply["output"][0];
    assert_eq!(
        (&call["type"], &call["name"]),
        (&json!("function_call"), &json!("add")),
        "{reply}"
    );
    let streamed = with(request, json!({"stream": true}));
    let events = parsed(&events(&router, "/v1/responses", &streamed).await);
    let arguments = joined(&events, "response.function_call_arguments.delta", "/delta");
    assert!(serde_json::from_str::<Value>(&arguments).is_ok_and(|value| value.is_object()));
    let back = json!({"input": [
        {"role": "user", "content": "What is 17 plus 25?"},
        {"type": "function_call", "call_id": call["call_id"], "name": "add", "arguments": call["arguments"]},
        {"type": "function_call_output", "call_id": call["call_id"], "output": "42"},
    ], "tools": [tool], "max_output_tokens": 20, "reasoning": {"effort": "none"}});
    let reply = ok(&router, "/v1/responses", &back).await;
    assert!(reply["usage"]["input_tokens"].as_u64().expect("a count") > 20);
}

#[tokio::test]
async fn anthropics_messages_think_in_blocks() {
    let router = shared();
    let request = json!({"model": "pocket", "max_tokens": 500, "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": HARD}]}],
        "thinking": {"type": "enabled", "budget_tokens": 256}});
    let reply = ok(&router, "/v1/messages", &request).await;
    assert_eq!(
        (&reply["type"], &reply["stop_reason"]),
        (&json!("message"), &json!("end_turn"))
    );
    assert_eq!(kinds(&reply["content"]), ["thinking", "text"]);
    let events = parsed(
        &events(
            &router,
            "/v1/messages",
            &with(request, json!({"stream": true})),
        )
        .await,
    );
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(&names[..2], ["message_start", "content_block_start"]);
    assert_eq!(
        &names[names.len() - 3..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    assert_eq!(
        reply["content"][0]["thinking"],
        joined(&events, "content_block_delta", "/delta/thinking")
    );
    assert_eq!(
        reply["content"][1]["text"],
        joined(&events, "content_block_delta", "/delta/text")
    );
    let delta = &events[events.len() - 2].1;
    assert_eq!(
        delta["usage"]["output_tokens"],
        reply["usage"]["output_tokens"]
    );
    assert_eq!(delta["delta"]["stop_reason"], "end_turn");
}

#[tokio::test]
async fn anthropics_messages_tell_the_stop_sequence() {
    let router = shared();
    let request = json!({"max_tokens": 50, "messages": [{"role": "user", "content": "Tell me half of 98."}],
        "stop_sequences": ["x", "9"], "thinking": {"type": "disabled"}});
    let reply = ok(&router, "/v1/messages", &request).await;
    let streamed = with(request, json!({"stream": true}));
    let events = parsed(&events(&router, "/v1/messages", &streamed).await);
    let delta = &events[events.len() - 2].1["delta"];
    for said in [&reply, delta] {
        assert_eq!(said["stop_reason"], "stop_sequence", "{said}");
        assert_eq!(said["stop_sequence"], "9");
    }
    assert_eq!(reply["content"][0]["text"], "4");
}

#[tokio::test]
async fn anthropics_tools_are_used_and_answered() {
    let router = shared();
    let tool = json!({"name": "add", "input_schema": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["a"], "additionalProperties": false}});
    let request = json!({"max_tokens": 200, "messages": [{"role": "user", "content": "What is 17 plus 25?"}],
        "tools": [tool], "tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}});
    let reply = ok(&router, "/v1/messages", &request).await;
    assert_eq!(reply["stop_reason"], "tool_use", "{reply}");
    let block = &reply["content"][0];
    assert!(block["input"]["a"].is_i64(), "{reply}");
    let back = json!({"max_tokens": 20, "tools": [tool], "thinking": {"type": "disabled"}, "messages": [
        {"role": "user", "content": "What is 17 plus 25?"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, block]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block["id"], "content": "42"}]},
    ]});
    ok(&router, "/v1/messages", &back).await;
    let mut count = back;
    count
        .as_object_mut()
        .expect("an object")
        .remove("max_tokens");
    let counted = ok(&router, "/v1/messages/count_tokens", &count).await;
    assert!(counted["input_tokens"].as_u64().expect("a count") > 20);
}

#[tokio::test]
async fn tokens_go_on_under_the_adapter_that_is_named_and_come_back_as_tokens() {
    let router = shared();
    let text = format!("<|im_start|>user\n{HARD}<|im_end|>\n<|im_start|>assistant\n");
    let tokens = ok(&router, "/tokenize", &json!({"content": text})).await["tokens"].clone();
    let request = json!({"model": "adapter", "prompt": tokens, "max_tokens": 200, "n": 2, "temperature": 0.7, "seed": 3, "logprobs": 0,
        "return_token_ids": true});
    let reply = ok(&router, "/v1/completions", &request).await;
    assert_eq!(reply["edgethink"]["adapter"]["name"], "adapter");
    let by_text = with(request.clone(), json!({"prompt": text}));
    let by_text = ok(&router, "/v1/completions", &by_text).await;
    assert_eq!(reply["choices"], by_text["choices"]);
    let base = with(request.clone(), json!({"model": "pocket"}));
    let base = ok(&router, "/v1/completions", &base).await;
    assert_ne!(reply["choices"], base["choices"], "the adapter acts");
    let processed = with(
        request.clone(),
        json!({"logprobs_mode": "processed_logprobs"}),
    );
    let processed = ok(&router, "/v1/completions", &processed).await;
    let streamed = with(request, json!({"stream": true}));
    let chunks = chunks(&router, "/v1/completions", &streamed).await;
    for index in 0..2 {
        let choice = &reply["choices"][index];
        assert_eq!(choice["prompt_token_ids"], tokens);
        let ids = choice["token_ids"].as_array().expect("ids");
        // A thought is told apart nowhere: the text is all of it.
        let said = choice["text"].as_str().expect("a text");
        assert!(said.contains("<think>"), "{said}");
        let again = ok(&router, "/detokenize", &json!({"tokens": ids})).await;
        let again = again["content"].as_str().expect("a text");
        assert_eq!(again.trim_end_matches("<|im_end|>"), said);
        assert_eq!(choice["finish_reason"], "stop");
        assert!(again.ends_with("<|im_end|>"), "the end is a token as well");
        let logprobs = |reply: &Value| -> Vec<f64> {
            let list = reply["choices"][index]["logprobs"]["token_logprobs"].as_array();
            list.expect("a list")
                .iter()
                .filter_map(Value::as_f64)
                .collect()
        };
        let (raw, drawn) = (logprobs(&reply), logprobs(&processed));
        assert_eq!((raw.len(), drawn.len()), (ids.len(), ids.len()));
        assert_eq!(
            processed["choices"][index]["token_ids"],
            choice["token_ids"]
        );
        assert_ne!(raw, drawn, "a temperature of 0.7 sharpens");
        let of = |chunk: &&Value| chunk["choices"][0]["index"] == index;
        let pieces: Vec<&Value> = chunks
            .iter()
            .filter(of)
            .map(|chunk| &chunk["choices"][0])
            .collect();
        assert_eq!(pieces[0]["prompt_token_ids"], tokens);
        assert!(
            pieces[1..]
                .iter()
                .all(|piece| piece["prompt_token_ids"].is_null())
        );
        let streamed: Vec<Value> = pieces
            .iter()
            .filter_map(|piece| piece["token_ids"].as_array())
            .flatten()
            .cloned()
            .collect();
        assert_eq!(&streamed, ids);
    }
}
