//! `edgethink train grpo` with completions by `edgethink serve`: the same run bit for bit as by the engine in process, with two servers, and
//! with one of them killed in the middle. And by two processes, as one would run.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{edgethink, stderr};
use edgethink_testkit::adapter_distance;
use serde_json::Value;

/// Steps of a run.
const STEPS: usize = 3;

fn pocket(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/pocket")
        .join(part)
}

/// A server on the pocket base that is killed if the test ends before it.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(adapters: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgethink"));
        command
            .args([
                "serve",
                "--port",
                "0",
                "--threads",
                "1",
                "--kv",
                "f32",
                "--model",
            ])
            .arg(pocket("base"))
            .arg("--adapter-root")
            .arg(adapters)
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        let at = line.find("http://").unwrap_or_else(|| panic!("{line}"));
        let url = line[at..].trim().to_owned();
        // What it says later would fill the pipe.
        std::thread::spawn(move || said.lines().count());
        Self { child, url }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A recipe of a short run on the pocket model.
fn recipe(dir: &Path, out: &str, backend: &str) -> PathBuf {
    let mut rows = String::new();
    for (a, b, c) in [(3, 11, 5), (17, 4, 6), (9, 8, 2), (12, 5, 7)] {
        rows.push_str(&format!(
            "{{\"prompt\": \"Leo has {a} shells. Mia has {b} more shells than Leo. Olga has {c} fewer shells than Mia. How many shells does Olga own?\", \
             \"answer\": \"{}\"}}\n",
            a + b - c
        ));
    }
    let data = dir.join("questions.jsonl");
    fs::write(&data, rows).expect("written");
    let text = format!(
        "output_dir = {:?}\nseed = 4\n[model]\nbase = {:?}\nadapter = {:?}\n[data]\ntrain = [{data:?}]\nmax_prompt_tokens = 120\n\
         [budget]\ntokens = [64, 96]\n[rollout]\nquestions_per_step = 3\ngroup = 4\ntemperature = 0.8\nmax_completion_tokens = 128\n{backend}\n\
         [[reward]]\nkind = \"soft_barrier\"\nmargin = 0.25\nfloor = 0.0\n[optimizer]\nlr = 1e-3\nbetas = [0.9, 0.95]\nweight_decay = 0.0\n\
         schedule = \"constant\"\nwarmup_ratio = 0.0\nmax_grad_norm = 1.0\n[run]\nsteps = {STEPS}\nmicro_batch_tokens = 1000\nlog_every = 1\n\
         save_every = 0\ncompletions_every = 1\nthreads = 1\n",
        dir.join(out),
        pocket("base"),
        pocket("sft"),
    );
    let path = dir.join(format!("{out}.toml"));
    fs::write(&path, text).expect("written");
    path
}

fn by(servers: &[&Served], adapters: &Path) -> String {
    let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
    format!(
        "backend = {{ kind = \"openai\", urls = {urls:?}, adapter_dir = {adapters:?}, requests = 2, timeout_seconds = 60 }}"
    )
}

fn values(dir: &Path, out: &str, name: &str) -> Vec<f64> {
    let log = fs::read_to_string(dir.join(out).join("metrics.jsonl")).expect("a log");
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter_map(|line| line[name].as_f64()).collect()
}

fn adapter(dir: &Path, out: &str) -> Vec<u8> {
    fs::read(dir.join(out).join("adapter_model.safetensors")).expect("an adapter")
}

#[test]
fn two_processes_as_torchrun_starts_them_train_what_one_trains() {
    let dir = tempfile::tempdir().expect("a directory");
    let d = dir.path();
    let one = edgethink()
        .args(["train", "grpo", "--config"])
        .arg(recipe(d, "one", ""))
        .output()
        .expect("it runs");
    assert!(one.status.success(), "{}", stderr(&one));

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let path = recipe(d, "two", "");
    let start = |rank: usize| {
        Command::new(env!("CARGO_BIN_EXE_edgethink"))
            .args(["train", "grpo", "--config"])
            .arg(&path)
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", "2")
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    };
    let both = [0, 1].map(start);
    let [leader, follower] = both.map(|child| child.wait_with_output().expect("it ends"));
    assert!(leader.status.success(), "{}", stderr(&leader));
    assert!(follower.status.success(), "{}", stderr(&follower));
    assert!(
        stderr(&leader).contains("rollouts by the engines of 2 processes"),
        "{}",
        stderr(&leader)
    );
    assert_eq!(stderr(&follower), "", "process 0 shows how it goes");
    for name in ["reward", "accuracy", "completions/mean_length"] {
        let [want, found] = ["one", "two"].map(|out| values(d, out, name));
        assert_eq!((want.len(), want), (STEPS, found), "{name}");
    }
    let (apart, largest) = adapter_distance(&d.join("one"), &d.join("two"));
    assert!(apart <= 1e-4 * largest, "{apart} of {largest}");
}

#[test]
fn servers_draw_what_the_engine_draws_and_one_that_is_killed_loses_no_step() {
    let dir = tempfile::tempdir().expect("a directory");
    let d = dir.path();
    let train = |path: &Path| {
        let mut command = edgethink();
        command.args(["train", "grpo", "--config"]).arg(path);
        command
    };
    let output = train(&recipe(d, "engine", "")).output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("by the engine in this process"));

    let adapters = d.join("adapters");
    fs::create_dir(&adapters).expect("a directory");
    let (stays, mut dies) = (Served::start(&adapters), Served::start(&adapters));
    let servers = recipe(d, "servers", &by(&[&stays, &dies], &adapters));
    let output = train(&servers).output().expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("rollouts by 2 of 2 servers"),
        "{}",
        stderr(&output)
    );
    assert_eq!(values(d, "servers", "rollout/servers_live"), [2.0; STEPS]);
    let gap = values(d, "servers", "sampling/sampling_logp_difference/max");
    assert!(
        gap.len() == STEPS && gap.iter().all(|&gap| gap < 1e-3),
        "{gap:?}"
    );
    assert!(
        values(d, "servers", "loss").iter().any(|&loss| loss != 0.0),
        "something is learnt"
    );
    for name in ["reward", "accuracy", "kl", "completions/mean_length"] {
        assert_eq!(
            values(d, "servers", name),
            values(d, "engine", name),
            "{name}"
        );
    }
    assert!(
        adapter(d, "engine") == adapter(d, "servers"),
        "the adapters differ"
    );

    let path = recipe(d, "killed", &by(&[&stays, &dies], &adapters));
    let mut child = Command::new(env!("CARGO_BIN_EXE_edgethink"))
        .args(["train", "grpo", "--config"])
        .arg(path)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let first = d.join("killed/completions");
    let begun = Instant::now();
    while !fs::read_dir(&first).is_ok_and(|files| files.count() > 0) {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "the first step is drawn"
        );
        assert!(
            child.try_wait().expect("a child").is_none(),
            "it ended before its first step"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    dies.child.kill().expect("killed");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", stderr(&output));
    let live = values(d, "killed", "rollout/servers_live");
    assert_eq!((live[0], live[STEPS - 1]), (2.0, 1.0));
    assert!(values(d, "killed", "rollout/retried").iter().sum::<f64>() > 0.0);
    assert!(
        adapter(d, "engine") == adapter(d, "killed"),
        "no step is lost"
    );
}
