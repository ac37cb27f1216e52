//! `edgethink serve` as a program: its address, its config file, keys, and the way a signal ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::support::{Model, edgethink};

/// A server that is killed if the test ends before it.
struct Served {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
}

impl Served {
    fn start(model: &Model, config: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgethink"));
        let config = config.to_str().expect("UTF-8");
        command
            .args(["serve", "--config", config, "--model", model.path()])
            .args(args)
            .env("EDGETHINK_QUEUE", "5")
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("a line");
        let address = line.trim().rsplit("http://").next().unwrap_or_default();
        assert!(line.contains("listening on"), "{line}");
        Self {
            address: address.to_owned(),
            child,
            stderr,
        }
    }

    /// A connection on which a request was sent.
    fn send(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx-api-key: a-key-of-eva\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).expect("sent");
        stream
    }

    fn ask(&self, head: &str, body: &str) -> String {
        rest(&mut self.send(head, body))
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill").success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a reply");
    text
}

#[test]
fn a_server_answers_until_a_signal_and_ends_when_all_is_answered() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "a-key-of-eva\n").expect("written");
    let config = dir.path().join("serve.toml");
    let keys = toml::Value::from(keys.to_str().expect("UTF-8"));
    let text = format!(
        "port = 1\nqueue = 9\nmodel-name = \"tiny\"\napi-key-file = {keys}\nalias = [\"small=tiny\"]\nmax-n = 7\n"
    );
    std::fs::write(&config, text).expect("written");
    let mut served = Served::start(&model, &config, &["--port", "0", "--threads", "1"]);
    let props = served.ask("GET /props", "");
    assert!(props.starts_with("HTTP/1.1 200"), "{props}");
    for says in ["\"id\":\"tiny\"", "\"queue\":5", "\"max_n\":7"] {
        assert!(props.contains(says), "{says}: {props}");
    }
    assert!(
        served
            .ask("GET /v1/models/small", "")
            .contains("\"root\":\"tiny\"")
    );
    let request = r#"{"messages": [{"role": "user", "content": "hello"}], "stream": true, "max_tokens": 1500, "seed": 1, "temperature": 1}"#;
    let mut running = served.send("POST /v1/chat/completions", request);
    let mut first = [0; 200];
    running
        .read_exact(&mut first)
        .expect("the head and an event");
    if cfg!(unix) {
        served.terminate();
        assert!(
            rest(&mut running).contains("data: [DONE]"),
            "what runs is answered"
        );
        let status = served.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0));
        let mut said = String::new();
        served.stderr.read_to_string(&mut said).expect("text");
        assert!(said.contains("every request is answered"), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn clients_that_do_not_read_cannot_keep_it() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    let config = dir.path().join("serve.toml");
    std::fs::write(&config, "port = 0\nthreads = 1\n").expect("written");
    let mut served = Served::start(&model, &config, &[]);
    let idle = TcpStream::connect(&served.address).expect("a connection");
    // More than the system's buffers hold.
    let request = r#"{"messages": [{"role": "user", "content": "hello"}], "stream": true, "n": 64, "max_tokens": 1500, "temperature": 1,
        "logprobs": true, "top_logprobs": 20}"#;
    let mut deaf = served.send("POST /v1/chat/completions", request);
    let mut first = [0; 200];
    deaf.read_exact(&mut first).expect("the head and an event");
    served.terminate();
    let begun = std::time::Instant::now();
    let status = served.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    let took = begun.elapsed().as_secs();
    assert!(
        (4..60).contains(&took),
        "it waits a while, not for ever: {took} s"
    );
    drop((idle, deaf));
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let (model, dir) = (Model::new(), tempfile::tempdir().expect("a directory"));
    let path = dir.path().join("serve.toml");
    let path = path.to_str().expect("UTF-8");
    for (config, args, says) in [
        ("prot = 1", &[][..], "\"prot\" is no setting"),
        ("port = [", &[], "serve.toml"),
        ("", &["--api-key-file", "/nowhere/keys"], "/nowhere/keys"),
        ("", &["--adapter-root", "/nowhere/root"], "/nowhere/root"),
        (
            "",
            &["--host", "no such host", "--port", "0"],
            "no such host",
        ),
        ("", &["--cors", "example"], "is no origin"),
    ] {
        std::fs::write(path, config).expect("written");
        let mut command = edgethink();
        command.args(["serve", "--model", model.path(), "--config", path]);
        let output = command.args(args).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{says}: {said}");
    }
}
