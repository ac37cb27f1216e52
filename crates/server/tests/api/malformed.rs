//! Requests that cannot be meant: each is refused with a 4xx that names the field.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{post, send, shared, with};

/// A chat with one key more, and the field that the error names.
fn chats() -> Vec<(Value, &'static str)> {
    let tool = json!({"type": "function", "function": {"name": "add"}});
    vec![
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hello"}), "messages"),
        (json!({"messages": {}}), "messages"),
        (json!({"messages": ["hello"]}), "messages[0]"),
        (json!({"messages": [{}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": null}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": 3}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": {}}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": ["x"]}]}),
            "messages[0].content[0]",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0].text",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            "messages[0].content[0].type",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}),
            "messages[0].content[0].text",
        ),
        (
            json!({"messages": [{"role": "king", "content": "x"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": 3, "content": "x"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "mood": "good"}]}),
            "messages[0].mood",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "tool_call_id": "a"}]}),
            "messages[0].tool_call_id",
        ),
        (
            json!({"messages": [{"role": "tool"}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "assistant"}]}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}),
            "messages[0].tool_calls[0].type",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "x"}}]}]}),
            "messages[0].tool_calls[0].function.arguments",
        ),
        (json!({"model": 3}), "model"),
        (json!({"model": ["pocket"]}), "model"),
        (json!({"model": "none"}), "model"),
        (json!({"model": ""}), "model"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream": 1}), "stream"),
        (
            json!({"stream_options": {"include_usage": true}}),
            "stream_options",
        ),
        (
            json!({"stream": true, "stream_options": {"usage": true}}),
            "stream_options.usage",
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
        ),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"max_tokens": "12"}), "max_tokens"),
        (json!({"max_tokens": 1e30}), "max_tokens"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (
            json!({"max_completion_tokens": 5, "max_tokens": 6}),
            "max_tokens",
        ),
        (json!({"n": 0}), "n"),
        (json!({"n": -1}), "n"),
        (json!({"n": 65}), "n"),
        (json!({"n": 9_000_000_000_000_000_000_u64}), "n"),
        (json!({"n": true}), "n"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"seed": "7"}), "seed"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": ["a", ""]}), "stop"),
        (json!({"stop": [1]}), "stop"),
        (json!({"stop": {}}), "stop"),
        (json!({"stop": vec!["x"; 17]}), "stop"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": 1e300}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.01}), "top_p"),
        (json!({"top_p": []}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"top_k": 2.5}), "top_k"),
        (json!({"min_p": -0.1}), "min_p"),
        (json!({"min_p": 1.1}), "min_p"),
        (json!({"presence_penalty": 2.1}), "presence_penalty"),
        (json!({"presence_penalty": "x"}), "presence_penalty"),
        (json!({"frequency_penalty": -2.1}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"repetition_penalty": -1}), "repetition_penalty"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"logit_bias": {"-1": 1}}), "logit_bias"),
        (json!({"logit_bias": {"1024": 1}}), "logit_bias"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias"),
        (json!({"logit_bias": [1]}), "logit_bias"),
        (json!({"logit_bias": {"5": "x"}}), "logit_bias.5"),
        (json!({"logprobs": 3}), "logprobs"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
        ),
        (
            json!({"logprobs": true, "top_logprobs": -1}),
            "top_logprobs",
        ),
        (json!({"reasoning_effort": "huge"}), "reasoning_effort"),
        (json!({"reasoning_effort": 3}), "reasoning_effort"),
        (json!({"reasoning_effort": ""}), "reasoning_effort"),
        (
            json!({"chat_template_kwargs": {"think": true}}),
            "chat_template_kwargs.think",
        ),
        (
            json!({"chat_template_kwargs": {"enable_thinking": "yes"}}),
            "chat_template_kwargs.enable_thinking",
        ),
        (json!({"thinking_budget": -2}), "thinking_budget"),
        (json!({"thinking_budget": "all"}), "thinking_budget"),
        (
            json!({"thinking_token_budget": 1.5}),
            "thinking_token_budget",
        ),
        (
            json!({"thinking_budget": 5, "thinking_token_budget": 6}),
            "thinking_budget",
        ),
        (json!({"thinking": {}}), "thinking.type"),
        (json!({"thinking": {"type": "maybe"}}), "thinking.type"),
        (
            json!({"thinking": {"type": "enabled", "tokens": 3}}),
            "thinking.tokens",
        ),
        (json!({"response_format": {}}), "response_format.type"),
        (
            json!({"response_format": {"type": "yaml"}}),
            "response_format.type",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "response_format.json_schema",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
            "response_format.json_schema.schema",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}}),
            "response_format",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}}),
            "response_format",
        ),
        (
            json!({"response_format": {"type": "text", "json_schema": {"schema": {}}}}),
            "response_format.json_schema",
        ),
        (json!({"tools": {}}), "tools"),
        (json!({"tools": [{}]}), "tools[0].type"),
        (
            json!({"tools": [{"type": "search", "function": {"name": "x"}}]}),
            "tools[0].type",
        ),
        (
            json!({"tools": [{"type": "function"}]}),
            "tools[0].function",
        ),
        (
            json!({"tools": [{"type": "function", "function": {}}]}),
            "tools[0].function.name",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": ""}}]}),
            "tools[0].function.name",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "x", "parameters": []}}]}),
            "tools[0].function.parameters",
        ),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": "perhaps"}), "tool_choice"),
        (
            json!({"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "sub"}}}),
            "tool_choice.function.name",
        ),
        (json!({"metadata": "x"}), "metadata"),
        (json!({"user": 3}), "user"),
        (json!({"functions": []}), "functions"),
        (json!({"function_call": "auto"}), "function_call"),
        (json!({"audio": {}}), "audio"),
        (json!({"modalities": ["audio"]}), "modalities"),
        (json!({"prediction": {}}), "prediction"),
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"tempratur": 1}), "tempratur"),
        (json!({"edgethink": 3}), "edgethink"),
        (json!({"edgethink": {"thinks": true}}), "edgethink.thinks"),
        (json!({"edgethink": {"think": "maybe"}}), "edgethink.think"),
        (json!({"edgethink": {"think": true}}), "edgethink.think"),
        (json!({"edgethink": {"budget": -2}}), "edgethink.budget"),
        (json!({"edgethink": {"budget": 1.5}}), "edgethink.budget"),
        (
            json!({"edgethink": {"scale_n": true, "think": "on"}}),
            "edgethink.scale_n",
        ),
        (
            json!({"edgethink": {"scoring": "judge"}}),
            "edgethink.scoring",
        ),
        (json!({"edgethink": {"vote": "all"}}), "edgethink.vote"),
        (
            json!({"n": 3, "edgethink": {"vote": "weighted"}}),
            "edgethink.vote",
        ),
        (
            json!({"edgethink": {"early_stop": 0.4}}),
            "edgethink.early_stop",
        ),
        (
            json!({"edgethink": {"early_stop": "soon"}}),
            "edgethink.early_stop",
        ),
        (
            json!({"edgethink": {"early_stop": []}}),
            "edgethink.early_stop",
        ),
        (
            json!({"edgethink": {"early_stop": "certain"}}),
            "edgethink.early_stop",
        ),
        (json!({"edgethink": {"waves": true}}), "edgethink.waves"),
        (
            json!({"edgethink": {"min_think": -1}}),
            "edgethink.min_think",
        ),
        (
            json!({"edgethink": {"stop_loops": 1}}),
            "edgethink.stop_loops",
        ),
        (
            json!({"edgethink": {"adapter": "none"}}),
            "edgethink.adapter",
        ),
    ]
}

/// Requests of other paths.
fn others() -> Vec<(&'static str, Value, &'static str)> {
    let messages = json!([{"role": "user", "content": "x"}]);
    vec![
        ("/v1/completions", json!({}), "prompt"),
        ("/v1/completions", json!({"prompt": ""}), "prompt"),
        ("/v1/completions", json!({"prompt": ["a", "b"]}), "prompt"),
        ("/v1/completions", json!({"prompt": [[1], [2]]}), "prompt"),
        ("/v1/completions", json!({"prompt": [1, 4096]}), "prompt[1]"),
        ("/v1/completions", json!({"prompt": []}), "prompt"),
        (
            "/v1/completions",
            json!({"prompt": "x", "logprobs": 2, "logprobs_mode": "processed_logprobs"}),
            "logprobs",
        ),
        (
            "/v1/completions",
            json!({"prompt": "x", "echo": true}),
            "echo",
        ),
        (
            "/v1/completions",
            json!({"prompt": "x", "suffix": "y"}),
            "suffix",
        ),
        (
            "/v1/completions",
            json!({"prompt": "x", "best_of": 2}),
            "best_of",
        ),
        (
            "/v1/completions",
            json!({"prompt": "x", "max_tokens": 0}),
            "max_tokens",
        ),
        (
            "/v1/completions",
            json!({"prompt": "x", "logprobs": 30}),
            "logprobs",
        ),
        (
            "/v1/completions",
            json!({"prompt": "x ".repeat(3000)}),
            "prompt",
        ),
        ("/v1/responses", json!({}), "input"),
        ("/v1/responses", json!({"input": []}), "input"),
        ("/v1/responses", json!({"input": 3}), "input"),
        (
            "/v1/responses",
            json!({"input": [{"type": "item_reference"}]}),
            "input",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "previous_response_id": "r"}),
            "previous_response_id",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "background": true}),
            "background",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "max_output_tokens": 0}),
            "max_output_tokens",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "reasoning": {"effort": "huge"}}),
            "reasoning.effort",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "text": {"format": {"type": "yaml"}}}),
            "text.format.type",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "include": ["code_interpreter_call.outputs"]}),
            "include[0]",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "top_logprobs": 21}),
            "top_logprobs",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "truncation": "auto"}),
            "truncation",
        ),
        (
            "/v1/responses",
            json!({"input": "x", "tools": [{"type": "web_search"}]}),
            "tools[0].type",
        ),
        ("/tokenize", json!({}), "content"),
        ("/tokenize", json!({"content": 3}), "content"),
        (
            "/tokenize",
            json!({"content": "x", "special": true}),
            "special",
        ),
        ("/detokenize", json!({"tokens": [5000]}), "tokens[0]"),
        ("/detokenize", json!({"tokens": [-1]}), "tokens[0]"),
        ("/detokenize", json!({"tokens": "x"}), "tokens"),
        ("/apply-template", json!({}), "messages"),
        (
            "/apply-template",
            json!({"messages": messages, "mode": 3}),
            "mode",
        ),
    ]
}

#[tokio::test]
async fn every_malformed_request_is_refused_by_the_name_of_its_field() {
    let router = shared();
    let base =
        json!({"model": "pocket", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4});
    let chats = chats().into_iter().map(|(more, param)| {
        let mut request = with(base.clone(), more.clone());
        if more.get("max_completion_tokens").is_some() && more.get("max_tokens").is_none() {
            request
                .as_object_mut()
                .expect("an object")
                .remove("max_tokens");
        }
        ("/v1/chat/completions", request, param)
    });
    let all: Vec<_> = chats.chain(others()).collect();
    assert!(all.len() > 150, "{}", all.len());
    let mut wrong = Vec::new();
    for (path, request, param) in all {
        let (status, reply) = post(&router, path, &request).await;
        let error = &reply["error"];
        let named = error["param"] == param;
        let told = error["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty());
        let kind = ["invalid_request_error", "not_found_error"]
            .map(Value::from)
            .contains(&error["type"]);
        if !(status.is_client_error() && named && told && kind && error["code"].is_string()) {
            wrong.push(format!(
                "{path} {request}: {status} {reply}, wanted {param}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn anthropics_errors_name_the_field_in_the_message() {
    let router = shared();
    let messages = json!([{"role": "user", "content": "x"}]);
    for (request, says) in [
        (json!({"messages": messages}), "max_tokens"),
        (json!({"messages": messages, "max_tokens": 0}), "max_tokens"),
        (json!({"messages": [], "max_tokens": 5}), "messages"),
        (
            json!({"messages": [{"role": "system", "content": "x"}], "max_tokens": 5}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image"}]}], "max_tokens": 5}),
            "messages[0].content",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]}], "max_tokens": 5}),
            "messages[0].content[0]",
        ),
        (
            json!({"messages": messages, "max_tokens": 5, "n": 2}),
            "`n`",
        ),
        (
            json!({"messages": messages, "max_tokens": 5, "thinking": {"type": "enabled", "budget_tokens": 9}}),
            "thinking.budget_tokens",
        ),
        (
            json!({"messages": messages, "max_tokens": 5, "tool_choice": {"type": "tool"}}),
            "tool_choice.name",
        ),
        (
            json!({"messages": messages, "max_tokens": 5, "stop_sequences": [""]}),
            "stop_sequences",
        ),
        (
            json!({"messages": messages, "max_tokens": 5, "model": "none"}),
            "none",
        ),
    ] {
        let (status, reply) = post(&router, "/v1/messages", &request).await;
        assert!(status.is_client_error(), "{request}: {status}");
        assert_eq!(reply["type"], "error", "{request}");
        let message = reply["error"]["message"].as_str().expect("a message");
        assert!(message.contains(says), "{request}: {message}");
    }
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let router = shared();
    for body in ["", "{", "[]", "\"x\"", "{\"messages\": [}", "\u{0}", "nul"] {
        let reply = send(&router, "/v1/chat/completions", body.to_owned()).await;
        assert_eq!(reply.status(), StatusCode::BAD_REQUEST, "{body:?}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let reply = send(&router, "/v1/chat/completions", deep).await;
    assert_eq!(reply.status(), StatusCode::BAD_REQUEST);
    let huge = " ".repeat(9 << 20);
    let reply = send(&router, "/v1/chat/completions", huge).await;
    assert_eq!(reply.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let long = json!({"messages": [{"role": "user", "content": "word ".repeat(4000)}]});
    let (status, error) = post(&router, "/v1/chat/completions", &long).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error["error"]["code"], "context_length_exceeded");
}
