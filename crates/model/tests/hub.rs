//! Models by hub id, against a small hub on 127.0.0.1.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use edgethink_model::hub::{Hub, HubError, HubId};
use edgethink_model::{Family, Model};
use edgethink_testkit::tiny_model;

/// Serves files under `/org/name/resolve/main/`, as the hub does: with etag, commit and ranges.
struct FakeHub {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeHub {
    fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        // The thread ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, log) = (files.clone(), Arc::clone(&log));
                thread::spawn(move || while answer(&stream, &files, &log).is_some() {});
            }
        });
        Self { address, requests }
    }

    fn hub(&self, home: &Path, more: &[(&str, &str)]) -> Hub {
        let mut vars = vec![
            ("HF_HOME", home.to_str().unwrap()),
            ("HF_ENDPOINT", &self.address),
        ];
        vars.extend(more);
        Hub::from_vars(|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
        .unwrap()
    }
}

/// One request on a connection; `None` when it is closed.
fn answer(
    mut stream: &TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    log: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next()?.ok()?;
    let path = request.split(' ').nth(1)?.to_owned();
    let (mut range, mut token) = (0, None);
    for line in lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
    {
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                range = value
                    .trim()
                    .strip_prefix("bytes=")?
                    .split('-')
                    .next()?
                    .parse()
                    .ok()?
            }
            "authorization" => token = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    log.lock().unwrap().push(path.clone());
    let name = path
        .strip_prefix("/org/name/resolve/main/")
        .unwrap_or_default();
    let (status, body, headers) = if path.starts_with("/org/gated/")
        && token.as_deref() != Some("Bearer secret")
    {
        ("401 Unauthorized", &[][..], String::new())
    } else if let Some(body) = files.get(name) {
        let (end, len) = (body.len() - 1, body.len());
        let headers = format!(
            "etag: \"{name}\"\r\nx-repo-commit: c0ffee\r\ncontent-range: bytes {range}-{end}/{len}\r\n"
        );
        ("206 Partial Content", &body[range..], headers)
    } else {
        ("404 Not Found", &[][..], String::new())
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n"
    )
    .ok()?;
    stream.write_all(body).ok()
}

fn files_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

fn id() -> HubId {
    HubId::parse("org/name").unwrap()
}

#[test]
fn a_model_is_fetched_once() {
    let tiny = tiny_model(Family::Qwen2, 3);
    let server = FakeHub::start(files_of(tiny.path()));
    let home = tempfile::tempdir().unwrap();
    let dir = server.hub(home.path(), &[]).fetch(&id()).unwrap();
    let model = Model::load(dir.to_str().unwrap()).unwrap();
    assert!(model.tokenizer.is_some() && model.template.is_some());
    let direct = Model::load(tiny.path().to_str().unwrap()).unwrap();
    assert_eq!(model.hash().unwrap(), direct.hash().unwrap());

    let asked = server.requests.lock().unwrap().len();
    assert_eq!(server.hub(home.path(), &[]).fetch(&id()).unwrap(), dir);
    assert_eq!(
        server
            .hub(home.path(), &[("HF_HUB_OFFLINE", "1")])
            .fetch(&id())
            .unwrap(),
        dir
    );
    assert_eq!(
        server.requests.lock().unwrap().len(),
        asked,
        "a cached model needs no network"
    );
}

#[test]
fn shards_are_fetched_by_their_index() {
    let tiny = tiny_model(Family::Qwen2, 3);
    let mut files = files_of(tiny.path());
    let weights = files.remove("model.safetensors").unwrap();
    files.insert("part-1.safetensors".to_owned(), weights);
    let index = r#"{"weight_map":{"model.norm.weight":"part-1.safetensors"}}"#;
    files.insert(
        "model.safetensors.index.json".to_owned(),
        index.as_bytes().to_vec(),
    );
    let server = FakeHub::start(files);
    let home = tempfile::tempdir().unwrap();
    let dir = server.hub(home.path(), &[]).fetch(&id()).unwrap();
    Model::load(dir.to_str().unwrap()).unwrap();
}

#[test]
fn errors_say_what_to_do() {
    let server = FakeHub::start(BTreeMap::from([("config.json".to_owned(), b"{}".to_vec())]));
    let home = tempfile::tempdir().unwrap();
    let fetch = |hub: Hub, id: &str| hub.fetch(&HubId::parse(id).unwrap()).unwrap_err();
    let offline = fetch(
        server.hub(home.path(), &[("HF_HUB_OFFLINE", "1")]),
        "org/name",
    );
    assert!(matches!(offline, HubError::Offline { .. }), "{offline}");
    assert!(offline.to_string().contains("HF_HUB_OFFLINE"), "{offline}");
    let unknown = fetch(server.hub(home.path(), &[]), "org/other");
    assert!(matches!(unknown, HubError::NotFound { .. }), "{unknown}");
    let no_weights = fetch(server.hub(home.path(), &[]), "org/name");
    assert!(
        matches!(&no_weights, HubError::NotFound { file, .. } if file.contains("index")),
        "{no_weights}"
    );
    let gated = fetch(server.hub(home.path(), &[]), "org/gated");
    assert!(
        matches!(gated, HubError::Refused { status: 401, .. }),
        "{gated}"
    );
    let with_token = fetch(
        server.hub(home.path(), &[("HF_TOKEN", "secret")]),
        "org/gated",
    );
    assert!(
        matches!(with_token, HubError::NotFound { .. }),
        "the token was sent: {with_token}"
    );
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = FakeHub {
        address: format!("http://{closed}"),
        requests: Arc::default(),
    };
    let unreachable = fetch(nobody.hub(home.path(), &[]), "org/third");
    assert!(
        matches!(unreachable, HubError::Transfer { .. }),
        "{unreachable}"
    );
}

#[test]
fn an_index_cannot_name_files_elsewhere() {
    let index = br#"{"weight_map":{"a":"../../secret.safetensors"}}"#;
    let server = FakeHub::start(BTreeMap::from([
        ("config.json".to_owned(), b"{}".to_vec()),
        ("model.safetensors.index.json".to_owned(), index.to_vec()),
    ]));
    let home = tempfile::tempdir().unwrap();
    let error = server.hub(home.path(), &[]).fetch(&id()).unwrap_err();
    assert!(matches!(error, HubError::Index { .. }), "{error}");
}
