//! Servers on the pocket model, and requests to their routers without a socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use edgethink_engine::{Engine, EngineOptions};
use edgethink_model::{Adapter, Folder, HeadFile, Model};
use edgethink_reason::{Input, Query, Reasoner, Switcher, Think, ThoughtFormat, VerifierHead};
use edgethink_server::{ApiKeys, Limits, Options, Server};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

/// A question that is thought about.
pub(crate) const HARD: &str = "Leo has 3 shells. Mia has 11 more shells than Leo. Olga has 5 fewer shells than Mia. How many shells does Olga own?";

/// The shipped model.
pub(crate) fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket")
}

fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    let load = || {
        let base = pocket().join("base");
        Arc::new(Model::load(base.to_str().expect("UTF-8")).expect("the pocket model"))
    };
    Arc::clone(MODEL.get_or_init(load))
}

/// What a test changes of a server.
pub(crate) struct Setup {
    pub(crate) kv_tokens: usize,
    pub(crate) limits: Limits,
    pub(crate) keys: ApiKeys,
    pub(crate) origins: Vec<String>,
    pub(crate) adapter_root: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            kv_tokens: 32 * 1024,
            limits: Limits::default(),
            keys: ApiKeys::default(),
            origins: Vec::new(),
            adapter_root: None,
        }
    }
}

/// A server of its own.
pub(crate) fn server(setup: Setup) -> Server {
    let model = model();
    let options = EngineOptions {
        threads: 1,
        kv_tokens: setup.kv_tokens,
        ..EngineOptions::for_model(&model.config)
    };
    let engine = Engine::new(Arc::clone(&model), options).expect("an engine");
    let adapter = pocket().join("adapter");
    let format = ThoughtFormat::beside(&adapter).expect("a format");
    let adapter = Adapter::load(adapter, &model.config).expect("the adapter");
    let head = |name: &str| HeadFile::load_from(&Folder::disk(pocket().join(name)));
    let switcher = head("switcher").expect("the switcher's file");
    let hash = model.hash().expect("a hash");
    let switcher = Switcher::new(&switcher, &hash, model.config.hidden_size).expect("the switcher");
    let verifier = head("verifier").expect("the verifier's file");
    let verifier = VerifierHead::new(&verifier, &model).expect("the verifier");
    let reasoner = Reasoner::new(Arc::clone(&model), engine, Some(adapter), format)
        .expect("a reasoner")
        .with_switcher(switcher)
        .with_verifier(verifier);
    let defaults = Query::greedy(Input::Raw(String::new()), Think::Auto);
    let options = Options {
        host: "127.0.0.1".to_owned(),
        port: 0,
        model: "pocket".to_owned(),
        adapter: "adapter".to_owned(),
        aliases: vec![("gpt".to_owned(), "pocket".to_owned())],
        keys: setup.keys,
        adapter_root: setup.adapter_root,
        origins: setup.origins,
        hosts: Vec::new(),
        limits: setup.limits,
    };
    Server::start(reasoner, model, defaults, options).expect("a server")
}

/// The routes of the server that most tests share.
pub(crate) fn shared() -> Router {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(|| server(Setup::default()));
    server.router().expect("routes")
}

/// Sends `body` as JSON; status, headers and body of the reply.
pub(crate) async fn send(
    router: &Router,
    path: &str,
    body: impl Into<Body>,
) -> axum::http::Response<Body> {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .expect("a request");
    router.clone().oneshot(request).await.expect("a reply")
}

/// The whole body of a reply.
pub(crate) async fn bytes(reply: axum::http::Response<Body>) -> Bytes {
    let body = reply.into_body().collect().await;
    body.expect("a body").to_bytes()
}

/// A JSON reply.
pub(crate) async fn post(router: &Router, path: &str, body: &Value) -> (StatusCode, Value) {
    let reply = send(router, path, body.to_string()).await;
    let status = reply.status();
    let bytes = bytes(reply).await;
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    (status, value)
}

/// The JSON of a reply that must be 200.
pub(crate) async fn ok(router: &Router, path: &str, body: &Value) -> Value {
    let (status, value) = post(router, path, body).await;
    assert_eq!(status, StatusCode::OK, "{value}");
    value
}

/// The text of a GET.
pub(crate) async fn get(router: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let reply = router.clone().oneshot(request).await.expect("a reply");
    let status = reply.status();
    let bytes = bytes(reply).await;
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

/// The events of a streamed reply: (name, data).
pub(crate) async fn events(router: &Router, path: &str, body: &Value) -> Vec<(String, String)> {
    let reply = send(router, path, body.to_string()).await;
    assert_eq!(reply.status(), StatusCode::OK);
    let bytes = bytes(reply).await;
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut events = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.is_empty()) {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim_start().to_owned()
        };
        events.push((field("event:"), field("data:")));
    }
    events
}

/// The objects of a streamed reply in OpenAI's way, without the `[DONE]` at its end.
pub(crate) async fn chunks(router: &Router, path: &str, body: &Value) -> Vec<Value> {
    let mut events = events(router, path, body).await;
    let (_, last) = events.pop().expect("an end");
    assert_eq!(last, "[DONE]");
    let parse = |(_, data): &(String, String)| serde_json::from_str(data).expect("JSON");
    events.iter().map(parse).collect()
}

/// The entries of the lists at `pointer`, over all chunks.
pub(crate) fn listed(chunks: &[Value], pointer: &str) -> Vec<Value> {
    let lists = chunks.iter().filter_map(|chunk| chunk.pointer(pointer));
    lists
        .filter_map(Value::as_array)
        .flatten()
        .cloned()
        .collect()
}

/// A metric's value.
pub(crate) async fn metric(router: &Router, name: &str) -> f64 {
    let (_, text) = get(router, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.trim().parse().expect("a number")
}

/// Waits until a metric has a value.
pub(crate) async fn until(router: &Router, name: &str, wanted: f64) {
    for _ in 0..600 {
        if metric(router, name).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let found = metric(router, name).await;
    panic!("{name} is {found} and not {wanted}");
}

/// A chat request with one question.
pub(crate) fn ask(question: &str) -> Value {
    json!({"model": "pocket", "messages": [{"role": "user", "content": question}]})
}

/// `base` with the keys of `more`.
pub(crate) fn with(mut base: Value, more: Value) -> Value {
    let (Some(object), Value::Object(more)) = (base.as_object_mut(), more) else {
        panic!("objects");
    };
    object.extend(more);
    base
}

/// A request that goes on to the end of the context: nothing ends its turn or its thought.
pub(crate) fn endless() -> Value {
    let bans = json!({"0": -100, "1": -100, "2": -100, "3": -100, "4": -100});
    with(
        ask("Count."),
        json!({"logit_bias": bans, "edgethink": {"think": "off"}}),
    )
}
