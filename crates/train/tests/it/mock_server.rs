//! A completions server that is written by hand: it does what a test says, and notes what it is asked.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

/// What a server does with a request.
pub(crate) enum Act {
    /// What it should.
    Well,
    Status(u16, &'static str),
    /// A reply that says yes and nothing else.
    Garbage,
    /// No reply for so long.
    Hang(Duration),
    /// The connection ends.
    Close,
}

/// The path and the body of each request, in order.
type Log = Arc<Mutex<Vec<(String, Value)>>>;
/// Decides by the number of the request and its path.
type Play = dyn Fn(usize, &str) -> Act + Send + Sync;

/// A server in this process.
pub(crate) struct Mock {
    pub(crate) url: String,
    log: Log,
}

impl Mock {
    /// Begins to listen; `owner` is what `/v1/models` says of it.
    pub(crate) fn start(
        owner: &'static str,
        play: impl Fn(usize, &str) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Log::default();
        let (kept, play): (Log, Arc<Play>) = (Arc::clone(&log), Arc::new(play));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, play) = (Arc::clone(&kept), Arc::clone(&play));
                std::thread::spawn(move || serve(stream, owner, &log, play.as_ref()));
            }
        });
        Self { url, log }
    }

    /// One that does everything right.
    pub(crate) fn well() -> Self {
        Self::start("mock", |_, _| Act::Well)
    }

    /// One that is not there: nothing listens at its address.
    pub(crate) fn nobody() -> Self {
        Self {
            url: "http://127.0.0.1:9".to_owned(),
            log: Log::default(),
        }
    }

    /// The path and the body of each request until now.
    pub(crate) fn log(&self) -> Vec<(String, Value)> {
        self.log.lock().unwrap().clone()
    }

    /// The bodies of the requests to a path.
    pub(crate) fn asked(&self, path: &str) -> Vec<Value> {
        let log = self.log();
        let of = log.into_iter().filter(|(asked, _)| asked == path);
        of.map(|(_, body)| body).collect()
    }
}

/// One request of one connection.
fn serve(mut stream: TcpStream, owner: &str, log: &Log, play: &Play) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut path, mut length) = (String::new(), 0);
    for line in reader.by_ref().lines() {
        let line = line.unwrap_or_default();
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (number, running) = {
        let mut log = log.lock().unwrap();
        log.push((path.clone(), body.clone()));
        let mut paths = log.iter().rev().map(|(path, _)| path.as_str());
        let last = paths.find(|path| path.starts_with("/models/"));
        (log.len() - 1, last == Some("/models/load"))
    };
    let (status, text) = match play(number, &path) {
        Act::Well if owner == "llamacpp" => (200, llama_server(running, &path, &body)),
        Act::Well => (200, reply(owner, &path, &body)),
        Act::Status(status, text) => (status, text.to_owned()),
        Act::Garbage => (200, "yes".to_owned()),
        Act::Hang(time) => {
            std::thread::sleep(time);
            return;
        }
        Act::Close => return,
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    // The client may have gone.
    let _ = stream.write_all((head + &text).as_bytes());
}

/// As a server that works.
fn reply(owner: &str, path: &str, body: &Value) -> String {
    match path {
        "/v1/completions" => {
            let drawn = draw(&body["prompt"], &body["n"]);
            let choices = drawn.iter().enumerate().map(|(index, ids)| {
                json!({"index": index, "text": "", "finish_reason": "stop", "token_ids": ids,
                    "logprobs": {"token_logprobs": vec![-1.0; ids.len()]}})
            });
            json!({"choices": choices.collect::<Vec<_>>()}).to_string()
        }
        // SGLang's.
        "/generate" => {
            let prompts = body["input_ids"].as_array().unwrap();
            let drawn = draw(&prompts[0], &json!(prompts.len()));
            let all = drawn.iter().map(|ids| {
                let logprobs: Vec<Value> = ids.iter().map(|id| json!([-1.0, id, null])).collect();
                json!({"meta_info": {"prompt_tokens": prompts[0].as_array().unwrap().len(),
                    "output_token_logprobs": logprobs, "finish_reason": {"type": "stop"}}})
            });
            Value::Array(all.collect()).to_string()
        }
        _ => json!({"data": [{"id": "base", "owned_by": owner}]}).to_string(),
    }
}

/// As llama-server does as a router, with its instance running or not.
fn llama_server(running: bool, path: &str, body: &Value) -> String {
    match path {
        "/v1/models" | "/models" => {
            let value = if running { "loaded" } else { "unloaded" };
            let model = json!({"id": "policy", "owned_by": "llamacpp", "status": {"value": value}});
            json!({"data": [model]}).to_string()
        }
        "/completion" => {
            let prompt = body["prompt"].as_array().unwrap().len();
            let drawn = draw(&body["prompt"], &body["n_cmpl"]);
            let all = drawn.iter().enumerate().map(|(index, ids)| {
                let prob = |id: &u64| json!({"id": id, "prob": (-1_f64).exp()});
                let probs: Vec<Value> = ids.iter().map(prob).collect();
                json!({"index": index, "tokens": ids, "tokens_evaluated": prompt, "stop_type": "eos",
                    "completion_probabilities": probs})
            });
            Value::Array(all.collect()).to_string()
        }
        _ => json!({"success": true}).to_string(),
    }
}

/// Every second completion has the right sum, the others end at once.
fn draw(prompt: &Value, n: &Value) -> Vec<Vec<u64>> {
    let prompt: Vec<u64> = prompt
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    // "add a b": numbers begin at token 7.
    let add = prompt.iter().position(|&id| id == 5).unwrap();
    let sum = prompt[add + 1] - 7 + prompt[add + 2] - 7;
    let one = |index: u64| {
        if index.is_multiple_of(2) {
            vec![6, 7 + sum, 2]
        } else {
            vec![6, 2]
        }
    };
    (0..n.as_u64().unwrap()).map(one).collect()
}
