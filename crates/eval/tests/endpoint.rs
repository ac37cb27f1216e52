//! A server under test: requests, retries, refusals, and a run that is stopped and goes on. The server is a stub of the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgethink_eval::endpoint::Endpoint;
use edgethink_eval::question::{self, Question};
use edgethink_eval::run::Plan;
use edgethink_eval::store::{Keep, Store};
use edgethink_eval::summary::by_task;
use edgethink_eval::task::Task;
use serde_json::{Map, Value, json};

/// Answers "what is A + B?" with the sum, wrongly for every fifth A; fails the first `failures` requests with `status`.
struct Stub {
    url: String,
    requests: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<(String, Value)>>>,
}

fn stub(failures: usize, status: &'static str) -> Stub {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let (requests, bodies) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let (count, seen) = (Arc::clone(&requests), Arc::clone(&bodies));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (count, seen) = (Arc::clone(&count), Arc::clone(&seen));
            std::thread::spawn(move || {
                let Some((head, body)) = read(&stream) else {
                    return;
                };
                let number = count.fetch_add(1, Ordering::SeqCst);
                let reply = if number < failures {
                    (status, json!({"error": "not now"}).to_string())
                } else {
                    ("200 OK", answer(&body).to_string())
                };
                seen.lock().expect("no panic").push((head, body));
                let (status, text) = reply;
                let mut stream = stream;
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                    text.len()
                );
            });
        }
    });
    Stub {
        url,
        requests,
        bodies,
    }
}

fn read(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).ok()?))
}

fn answer(body: &Value) -> Value {
    let text = body["messages"]
        .as_array()
        .and_then(|m| m.last())
        .and_then(|m| m["content"].as_str())
        .unwrap_or("");
    let numbers: Vec<i64> = text
        .split_whitespace()
        .filter_map(|word| word.trim_end_matches('?').parse().ok())
        .collect();
    let sum: i64 = numbers.iter().sum();
    let wrong = i64::from(numbers.first().is_some_and(|a| a % 5 == 0));
    let message = json!({"role": "assistant", "content": format!("So it is \\boxed{{{}}}.", sum + wrong), "reasoning_content": "adding"});
    json!({
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 3}},
    })
}

fn questions(dir: &Path, n: usize) -> Vec<Question> {
    let rows: Vec<String> = (0..n).map(|a| json!({"question": format!("what is {a} + 7?"), "answer": format!("7 + {a}\n#### {}", a + 7)}).to_string()).collect();
    let path = dir.join("sums.jsonl");
    std::fs::write(&path, rows.join("\n")).expect("written");
    let task = Task::named("gsm8k").expect("built in");
    question::read(&task, &[path]).expect("questions")
}

fn endpoint(stub: &Stub) -> Endpoint {
    let mut fields = Map::new();
    fields.insert("temperature".to_owned(), json!(0.6));
    Endpoint {
        url: stub.url.clone(),
        model: "m".to_owned(),
        key: Some("secret".to_owned()),
        fields,
        system: Some("Be brief.".to_owned()),
        concurrency: 4,
        retries: 3,
        timeout: Duration::from_secs(20),
    }
}

fn plan(questions: &[Question]) -> Plan<'_> {
    Plan {
        task: "gsm8k",
        questions,
        repeats: 2,
        seed: 3,
        sandbox: None,
    }
}

#[test]
fn a_server_is_asked_as_openai_says_and_judged_as_everybody() {
    let dir = tempfile::tempdir().expect("a directory");
    let stub = stub(2, "503 Service Unavailable");
    let questions = questions(dir.path(), 10);
    let mut store = Store::open(None, Map::new(), Keep::Full, false).expect("in memory");
    let done = plan(&questions).run(&mut store, &mut endpoint(&stub), &|| false, |_| ());
    assert!(done.expect("it answers in the end"));
    let mut records = store.records().to_vec();
    let summary = &by_task(&mut records)[0];
    assert_eq!(
        (summary.questions, summary.queries, summary.accuracy),
        (10, 20, 0.8)
    );
    assert_eq!(
        (summary.tokens_per_answer, summary.reasoning_tokens),
        (12.0, 3.0)
    );
    assert_eq!(
        stub.requests.load(Ordering::SeqCst),
        22,
        "two were asked again"
    );
    let bodies = stub.bodies.lock().expect("no panic");
    let (head, body) = &bodies[0];
    assert!(
        head.to_lowercase().contains("authorization: bearer secret"),
        "{head}"
    );
    assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
    assert_eq!(
        (&body["model"], &body["temperature"]),
        (&json!("m"), &json!(0.6))
    );
    assert_eq!(
        body["messages"][0],
        json!({"role": "system", "content": "Be brief."})
    );
    let mut seeds: Vec<u64> = bodies[2..]
        .iter()
        .filter_map(|(_, body)| body["seed"].as_u64())
        .collect();
    seeds.sort_unstable();
    assert_eq!(seeds.len(), 20);
}

#[test]
fn a_refusal_ends_the_run_at_once_and_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let stub = stub(usize::MAX, "401 Unauthorized");
    let questions = questions(dir.path(), 3);
    let mut store = Store::open(None, Map::new(), Keep::Full, false).expect("in memory");
    let mut endpoint = Endpoint {
        concurrency: 1,
        ..endpoint(&stub)
    };
    let error = plan(&questions)
        .run(&mut store, &mut endpoint, &|| false, |_| ())
        .expect_err("refused");
    let error = error.to_string();
    assert!(
        error.contains("401") && error.contains("not now") && error.contains("question 1"),
        "{error}"
    );
    assert_eq!(
        stub.requests.load(Ordering::SeqCst),
        1,
        "it is not asked again"
    );
}

#[test]
fn a_stopped_run_goes_on_to_the_same_table() {
    let dir = tempfile::tempdir().expect("a directory");
    let stub = stub(0, "");
    let questions = questions(dir.path(), 12);
    let run = |name: &str, stop_after: usize| {
        let mut store = Store::open(Some(&dir.path().join(name)), Map::new(), Keep::Full, false)
            .expect("a folder");
        let answered = AtomicUsize::new(0);
        let stop = || answered.load(Ordering::SeqCst) >= stop_after;
        let each = |_| {
            answered.fetch_add(1, Ordering::SeqCst);
        };
        let done = plan(&questions)
            .run(&mut store, &mut endpoint(&stub), &stop, each)
            .expect("it answers");
        if done {
            store.finish().expect("written");
        }
        (done, answered.into_inner(), store.records().len())
    };
    assert_eq!(run("whole", usize::MAX), (true, 24, 24));
    let (done, _, some) = run("parts", 5);
    assert!(!done && (5..24).contains(&some), "{some}");
    let (done, rest, all) = run("parts", usize::MAX);
    assert!(done && rest == 24 - some && all == 24, "{some} and {rest}");
    let table = |name: &str| {
        let records = edgethink_eval::columns::read(&dir.path().join(name).join("records.parquet"))
            .expect("a table");
        // Times differ.
        let timeless = records
            .into_iter()
            .map(|record| edgethink_eval::record::Record {
                seconds: 0.0,
                ..record
            });
        timeless.collect::<Vec<_>>()
    };
    assert_eq!(table("whole"), table("parts"));
}
