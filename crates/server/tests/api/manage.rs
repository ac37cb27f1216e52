//! What is not an answer: models, props, metrics, keys, origins, adapters, the OpenAPI document.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use edgethink_server::ApiKeys;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Setup, ask, get, metric, ok, pocket, post, server, shared, until, with};

async fn json_of(router: &Router, path: &str) -> Value {
    let (status, text) = get(router, path).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn models_and_props_say_what_is_served() {
    let router = shared();
    let list = json_of(&router, "/v1/models").await;
    let ids: Vec<&str> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|card| card["id"].as_str())
        .collect();
    assert_eq!(ids, ["pocket", "adapter", "gpt"]);
    let card = json_of(&router, "/v1/models/adapter").await;
    assert_eq!(card["parent"], "pocket");
    assert_eq!(
        get(&router, "/v1/models/none").await.0,
        StatusCode::NOT_FOUND
    );
    let props = json_of(&router, "/props").await;
    assert_eq!(props["model"]["context_tokens"], 1024);
    assert_eq!(props["adapters"][0]["budgets"], json!([96, 128, 160]));
    assert_eq!(props["default_think"], "auto");
    assert_eq!(props["kv"]["blocks_total"], 1024);
    assert!(props["switcher"]["threshold"].is_number());
    assert_eq!(json_of(&router, "/health").await, json!({"status": "ok"}));
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let server = server(Setup::default());
    let router = server.router().expect("routes");
    let names = [
        "edgethink_kv_blocks_used",
        "edgethink_kv_blocks_total",
        "edgethink_requests_running",
        "edgethink_requests_waiting",
        "edgethink_tokens_generated_total",
        "edgethink_thinking_tokens_total",
        "edgethink_prefix_cache_hit_tokens_total",
        "edgethink_decisions_total{thinks=\"true\"}",
        "edgethink_decisions_total{thinks=\"false\"}",
    ];
    for name in names {
        metric(&router, &format!("{name} ")).await;
    }
    let reply = ok(&router, "/v1/chat/completions", &ask("What are you?")).await;
    let generated = metric(&router, "edgethink_tokens_generated_total ").await;
    assert_eq!(reply["usage"]["completion_tokens"], generated as u64);
    assert_eq!(
        metric(&router, "edgethink_decisions_total{thinks=\"false\"} ").await,
        1.0
    );
    for histogram in ["ttft", "inter_token", "queue"] {
        let count = format!("edgethink_{histogram}_seconds_count ");
        assert!(metric(&router, &count).await > 0.0, "{histogram}");
    }
}

#[tokio::test]
async fn text_goes_to_tokens_and_back() {
    let router = shared();
    let text = "Hello <think> ä€";
    let tokens = ok(&router, "/tokenize", &json!({"content": text})).await;
    let back = ok(&router, "/detokenize", &json!({"tokens": tokens["tokens"]})).await;
    assert_eq!(back["content"], text);
    let pieces = ok(
        &router,
        "/tokenize",
        &json!({"content": "<think>", "with_pieces": true}),
    )
    .await;
    assert_eq!(pieces["tokens"], json!([{"id": 3, "piece": "<think>"}]));
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let router = shared();
    let (status, error) = post(&router, "/v1/embeddings", &json!({"input": "x"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(error["error"]["code"], "unsupported_endpoint");
    let (status, text) = get(&router, "/v2").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("unknown_endpoint"));
    let (status, text) = get(&router, "/v1/chat/completions").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(text.contains("method_not_allowed"));
    let load = json!({"lora_name": "x", "lora_path": "x"});
    let (status, _) = post(&router, "/v1/load_lora_adapter", &load).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "no root was given");
}

#[tokio::test]
async fn the_page_comes_from_the_program_and_runs_nothing_else() {
    let router = shared();
    let reply = |path: &'static str, headers: Vec<(header::HeaderName, String)>| {
        let router = router.clone();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str()))
            .collect();
        let request = with_headers(path, &headers);
        async move { router.oneshot(request).await.expect("a reply") }
    };
    let text = |reply: &axum::http::Response<Body>, name| {
        let value = reply
            .headers()
            .get(name)
            .map(|value| value.to_str().expect("text").to_owned());
        value.unwrap_or_default()
    };
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/base.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let first = reply(path, Vec::new()).await;
        assert_eq!(first.status(), StatusCode::OK, "{path}");
        assert_eq!(text(&first, header::CONTENT_TYPE), kind);
        let policy = text(&first, header::CONTENT_SECURITY_POLICY);
        assert!(policy.contains("default-src 'self'"), "{policy}");
        let etag = text(&first, header::ETAG);
        let again = reply(path, vec![(header::IF_NONE_MATCH, etag)]).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
    }
    for path in [
        "/page/",
        "/page/none.js",
        "/page/../Cargo.toml",
        "/page/%2e%2e%2fCargo.toml",
    ] {
        assert_eq!(
            reply(path, Vec::new()).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

fn with_headers(path: &str, headers: &[(header::HeaderName, &str)]) -> Request<Body> {
    let mut request = Request::get(path).body(Body::empty()).expect("a request");
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("a value");
        request.headers_mut().insert(name, value);
    }
    request
}

async fn status(router: &Router, path: &str, headers: &[(header::HeaderName, &str)]) -> u16 {
    let request = with_headers(path, headers);
    let reply = router.clone().oneshot(request).await.expect("a reply");
    reply.status().as_u16()
}

#[tokio::test]
async fn keys_are_asked_for_where_they_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("keys");
    std::fs::write(&file, "key-of-eva\nkey-of-tom\n").expect("written");
    let server = server(Setup {
        keys: ApiKeys::from_file(&file).expect("keys"),
        ..Setup::default()
    });
    let router = server.router().expect("routes");
    let api_key = header::HeaderName::from_static("x-api-key");
    let bearer = |key: &'static str| [(header::AUTHORIZATION, key)];
    assert_eq!(status(&router, "/v1/models", &[]).await, 401);
    assert_eq!(
        status(&router, "/v1/models", &bearer("Bearer key-of-eve")).await,
        401
    );
    assert_eq!(
        status(&router, "/v1/models", &bearer("key-of-eva")).await,
        401
    );
    assert_eq!(
        status(&router, "/v1/models", &bearer("Bearer key-of-eva")).await,
        200
    );
    assert_eq!(
        status(&router, "/v1/models", &[(api_key, "key-of-tom")]).await,
        200
    );
    assert_eq!(status(&router, "/metrics", &[]).await, 401);
    assert_eq!(status(&router, "/health", &[]).await, 200);
    assert_ne!(status(&router, "/", &[]).await, 401);
    assert_ne!(status(&router, "/page/main.js", &[]).await, 401);
    // A name of elsewhere does not matter to who has a key.
    let elsewhere = [
        (header::HOST, "evil.example"),
        (header::AUTHORIZATION, "Bearer key-of-eva"),
    ];
    assert_eq!(status(&router, "/v1/models", &elsewhere).await, 200);
}

#[tokio::test]
async fn without_keys_only_names_of_this_machine_are_served() {
    let router = shared();
    for (host, wanted) in [
        ("localhost:8080", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example:8080", 403),
    ] {
        let found = status(&router, "/v1/models", &[(header::HOST, host)]).await;
        assert_eq!(found, wanted, "{host}");
    }
    // What a page elsewhere can send without asking is no JSON to this server.
    let request = Request::post("/v1/chat/completions")
        .header(header::CONTENT_TYPE, "text/plain")
        .body(Body::from(ask("x").to_string()))
        .expect("a request");
    let reply = router.oneshot(request).await.expect("a reply");
    assert_eq!(reply.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn other_origins_are_closed_unless_listed() {
    let origin = "https://a.example";
    let asks = |router: Router| async move {
        let request = with_headers("/v1/models", &[(header::ORIGIN, "https://a.example")]);
        let reply = router.oneshot(request).await.expect("a reply");
        let allowed = reply.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        allowed.map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(asks(shared()).await, None);
    let open = server(Setup {
        origins: vec![origin.to_owned()],
        ..Setup::default()
    });
    assert_eq!(
        asks(open.router().expect("routes")).await.as_deref(),
        Some(origin)
    );
    let other = server(Setup {
        origins: vec!["https://b.example".to_owned()],
        ..Setup::default()
    });
    assert_eq!(asks(other.router().expect("routes")).await, None);
    let wrong = server(Setup {
        origins: vec!["example".to_owned()],
        ..Setup::default()
    });
    assert!(wrong.router().is_err());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        // A training leaves folders behind.
        if entry.path().is_dir() {
            continue;
        }
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[tokio::test]
async fn adapters_come_and_go_while_the_server_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    copy(&pocket().join("sft"), &dir.path().join("long"));
    let server = server(Setup {
        adapter_root: Some(dir.path().to_owned()),
        ..Setup::default()
    });
    let router = server.router().expect("routes");
    let load = |path: &str| json!({"lora_name": "long", "lora_path": path});
    for path in ["../long", "/etc", "none", ""] {
        let (status, error) = post(&router, "/v1/load_lora_adapter", &load(path)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(error["error"]["param"], "lora_path");
        let root = dir.path().to_str().expect("UTF-8");
        assert!(!error.to_string().contains(root), "{error}");
    }
    let question = "Leo has 3 shells. Mia has 11 more shells than Leo. Olga has 5 fewer shells than Mia. How many shells does Olga own?";
    let by = |model: &str| with(ask(question), json!({"model": model, "seed": 1}));
    let chat = "/v1/chat/completions";
    let before = ok(&router, chat, &by("adapter")).await;
    assert_eq!(
        post(&router, chat, &by("long")).await.0,
        StatusCode::NOT_FOUND
    );
    ok(&router, "/v1/load_lora_adapter", &load("long")).await;
    let (status, _) = post(&router, "/v1/load_lora_adapter", &load("long")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let long = ok(&router, chat, &by("long")).await;
    assert_eq!(long["edgethink"]["adapter"]["name"], "long");
    let after = ok(&router, chat, &by("adapter")).await;
    assert_eq!(
        before["choices"], after["choices"],
        "A, then B, then A again"
    );
    assert_ne!(long["choices"], after["choices"]);
    let unload = |name: &str| json!({"lora_name": name});
    ok(&router, "/v1/unload_lora_adapter", &unload("long")).await;
    for (name, wanted) in [
        ("long", StatusCode::NOT_FOUND),
        ("adapter", StatusCode::CONFLICT),
    ] {
        let (status, error) = post(&router, "/v1/unload_lora_adapter", &unload(name)).await;
        assert_eq!(status, wanted, "{error}");
    }
    assert_eq!(
        post(&router, chat, &by("long")).await.0,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn adapters_change_while_requests_run_with_them() {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["adapter", "sft"] {
        copy(&pocket().join(name), &dir.path().join(name));
    }
    let server = server(Setup {
        adapter_root: Some(dir.path().to_owned()),
        ..Setup::default()
    });
    let router = server.router().expect("routes");
    let (chat, loads) = ("/v1/chat/completions", "/v1/load_lora_adapter");
    let load = |path: &str| json!({"lora_name": "mine", "lora_path": path, "load_inplace": true});
    let long = json!({"model": "mine", "n": 8, "seed": 1, "temperature": 1.0, "ignore_eos": true, "max_tokens": 400});
    let long = with(ask("How many are 3 and 4?"), long);
    ok(&router, loads, &load("sft")).await;
    let alone = ok(&router, chat, &long).await;
    until(&router, "edgethink_requests_running", 0.0).await;
    let task = tokio::spawn({
        let (router, long) = (router.clone(), long.clone());
        async move { ok(&router, "/v1/chat/completions", &long).await }
    });
    until(&router, "edgethink_requests_running", 1.0).await;
    ok(&router, loads, &load("adapter")).await;
    let other = with(long.clone(), json!({"max_tokens": 20}));
    let other = ok(&router, chat, &other).await;
    ok(
        &router,
        "/v1/unload_lora_adapter",
        &json!({"lora_name": "mine"}),
    )
    .await;
    let (status, error) = post(&router, chat, &long).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{error}");
    let reply = task.await.expect("a reply");
    assert_eq!(
        reply["choices"], alone["choices"],
        "it ends with what it began with"
    );
    let own = with(long, json!({"max_tokens": 20, "model": "adapter"}));
    assert_eq!(other["choices"], ok(&router, chat, &own).await["choices"]);
    // The one that came with the model stays.
    let (status, _) = post(
        &router,
        loads,
        &with(load("sft"), json!({"lora_name": "adapter"})),
    )
    .await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn the_document_lists_every_path() {
    let router = shared();
    let document = json_of(&router, "/openapi.json").await;
    let paths = document["paths"].as_object().expect("paths");
    for path in [
        "/v1/chat/completions",
        "/v1/chat/completions/{id}/end_thought",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/embeddings",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/health",
        "/metrics",
        "/props",
        "/tokenize",
        "/detokenize",
        "/apply-template",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    let request = &document["components"]["schemas"]["ChatRequest"];
    assert_eq!(request["required"], json!(["messages"]));
}
