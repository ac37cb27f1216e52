//! Queue, disconnects, deadlines and the end of the server.

use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use edgethink_server::Limits;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{
    Setup, ask, bytes, endless, get, metric, ok, post, send, server, until, with,
};

const CHAT: &str = "/v1/chat/completions";

fn small(limits: Limits) -> edgethink_server::Server {
    // Room for one endless answer at a time.
    server(Setup {
        kv_tokens: 1024,
        limits,
        ..Setup::default()
    })
}

/// A streamed request whose first event has come.
async fn running(router: &Router) -> axum::body::Body {
    let request = with(endless(), json!({"stream": true}));
    let reply = send(router, CHAT, request.to_string()).await;
    assert_eq!(reply.status(), StatusCode::OK);
    let mut body = reply.into_body();
    body.frame().await.expect("a frame").expect("an event");
    body
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_blocks_wherever_it_is() {
    let server = small(Limits::default());
    let router = server.router().expect("routes");
    let decoding = running(&router).await;
    assert!(metric(&router, "edgethink_kv_blocks_used").await > 0.0);
    let waiting = {
        let (router, request) = (router.clone(), endless());
        tokio::spawn(async move { post(&router, CHAT, &request).await })
    };
    until(&router, "edgethink_requests_waiting", 1.0).await;
    waiting.abort();
    until(&router, "edgethink_requests_waiting", 0.0).await;
    drop(decoding);
    until(&router, "edgethink_requests_running", 0.0).await;
    until(&router, "edgethink_kv_blocks_used", 0.0).await;
    let cancelled = metric(&router, "edgethink_requests_cancelled_total").await;
    assert_eq!(cancelled, 2.0);
    ok(&router, CHAT, &ask("What are you?")).await;
}

#[tokio::test]
async fn a_full_queue_says_so_at_once() {
    let server = small(Limits {
        queue: 1,
        ..Limits::default()
    });
    let router = server.router().expect("routes");
    let first = running(&router).await;
    let second = {
        let (router, request) = (router.clone(), ask("What are you?"));
        tokio::spawn(async move { post(&router, CHAT, &request).await })
    };
    until(&router, "edgethink_requests_waiting", 1.0).await;
    let reply = send(&router, CHAT, ask("And you?").to_string()).await;
    assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.headers().contains_key(header::RETRY_AFTER));
    let body = bytes(reply).await;
    let error: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(error["error"]["code"], "queue_full");
    drop(first);
    let (status, _) = second.await.expect("a reply");
    assert_eq!(status, StatusCode::OK, "who waited is served");
}

#[tokio::test]
async fn what_takes_too_long_is_ended() {
    let server = small(Limits {
        deadline: Duration::from_millis(40),
        ..Limits::default()
    });
    let router = server.router().expect("routes");
    let (status, error) = post(&router, CHAT, &endless()).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(error["error"]["code"], "deadline_exceeded");
    let request = with(endless(), json!({"stream": true}));
    let reply = send(&router, CHAT, request.to_string()).await;
    let body = bytes(reply).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(text.contains("deadline_exceeded"), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    until(&router, "edgethink_kv_blocks_used", 0.0).await;
}

#[tokio::test]
async fn a_draining_server_answers_what_runs_and_nothing_else() {
    let server = small(Limits::default());
    let router = server.router().expect("routes");
    let first = running(&router).await;
    server.drain();
    let (status, error) = post(&router, CHAT, &ask("What are you?")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error["error"]["code"], "shutting_down");
    let (status, health) = get(&router, "/health").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(health.contains("draining"));
    let rest = first.collect().await.expect("the rest").to_bytes();
    let text = String::from_utf8_lossy(&rest).into_owned();
    assert!(text.contains("\"finish_reason\":\"length\""), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_ends_after_its_last_answer() {
    let server = small(Limits::default());
    let router = server.router().expect("routes");
    let first = running(&router).await;
    let (stop, stopped) = (
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
        (),
    );
    let told = std::sync::Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        server.run(
            move || told.load(std::sync::atomic::Ordering::SeqCst),
            |_| stopped,
        )
    });
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let rest = first.collect().await.expect("the rest").to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .expect("joined")
        .expect("no panic")
        .expect("an orderly end");
}

#[tokio::test]
async fn a_thought_can_be_ended_from_outside() {
    let server = small(Limits::default());
    let router = server.router().expect("routes");
    let bans = json!({"0": -100, "2": -100, "4": -100});
    let request = with(
        ask("Count."),
        json!({"stream": true, "logit_bias": bans, "max_tokens": 900, "edgethink": {"think": "on"}}),
    );
    let reply = send(&router, CHAT, request.to_string()).await;
    let mut body = reply.into_body();
    let mut text = String::new();
    let mut id = String::new();
    while !text.contains("reasoning_content") {
        let frame = body.frame().await.expect("a frame").expect("an event");
        text += &String::from_utf8_lossy(frame.data_ref().expect("data"));
        let begin = text.find("chatcmpl-").expect("an id");
        id = text[begin..].split('"').next().expect("its end").to_owned();
    }
    let path = format!("{CHAT}/{id}/end_thought");
    let reply = ok(&router, &path, &json!({"index": null})).await;
    assert_eq!(reply["ended"], 1);
    let rest = body.collect().await.expect("the rest").to_bytes();
    text += &String::from_utf8_lossy(&rest);
    assert!(text.contains("\"end\":\"caller\""), "{text}");
    for path in [path, format!("{CHAT}/chatcmpl-1/end_thought")] {
        let (status, error) = post(&router, &path, &json!({})).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(error["error"]["code"], "unknown_completion");
    }
}
