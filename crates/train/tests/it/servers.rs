//! Rollouts by servers that are written by hand: they fail in every way, and no step is lost while one lives.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::mock_server::{Act, Mock};
use crate::support::*;
use edgethink_train::{
    BackendRecipe, Event, GrpoRecipe, Progress, ServersRecipe, Silent, TrainError, grpo, sft,
};
use serde_json::Value;

pub(crate) fn by_servers(dir: &Path, out: &str, servers: &[&Mock]) -> GrpoRecipe {
    let mut recipe = recipe(dir, out);
    recipe.rollout.backend = BackendRecipe::Servers(ServersRecipe {
        urls: servers.iter().map(|mock| mock.url.clone()).collect(),
        adapter_dir: adapters(dir, out),
        remote_dir: None,
        api_key_env: None,
        timeout_seconds: 2.0,
        requests: 2,
        retry_seconds: 1.0,
    });
    recipe.run.steps = 3;
    recipe.run.log_every = 1;
    recipe.run.eval_every = 0;
    recipe.run.completions_every = 1;
    recipe.data.valid = Vec::new();
    // The log-probabilities of these servers are invented.
    recipe.guard.max_mismatch = Some(1e3);
    recipe
}

fn adapters(dir: &Path, out: &str) -> PathBuf {
    dir.join(format!("{out}-adapters"))
}

pub(crate) fn values(dir: &Path, run: &str, name: &str) -> Vec<f64> {
    let log = fs::read_to_string(dir.join(run).join("metrics.jsonl")).unwrap();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line[name].as_f64()).collect()
}

/// What the run said of its servers.
#[derive(Default)]
struct Told(String, Vec<(usize, usize)>);

impl Progress for Told {
    fn event(&mut self, event: &Event) {
        match event {
            Event::PolicyStarted { rollouts, .. } => self.0.clone_from(rollouts),
            Event::Policy { servers, .. } => self.1.extend(*servers),
            _ => {}
        }
    }
}

#[test]
fn every_step_is_drawn_by_its_version_whatever_servers_do() {
    let dir = world();
    let d = dir.path();
    let well = Mock::well();
    grpo(&by_servers(d, "well", &[&well]), &mut Silent).unwrap();
    assert_eq!(values(d, "well", "rollout/retried"), [0.0; 3]);

    // One that fails in every way and sometimes does not, one that is not there, and one that dies.
    let shaky = Mock::start("mock", |number, path| match (number % 7, path) {
        (_, "/v1/models") => Act::Well,
        (1, _) => Act::Status(500, "out of memory"),
        (2, _) => Act::Garbage,
        (3, _) => Act::Close,
        (4, _) => Act::Status(503, "overloaded"),
        (5, _) if number < 7 => Act::Hang(Duration::from_secs(3)),
        _ => Act::Well,
    });
    let nobody = Mock::nobody();
    let dies = Mock::start(
        "mock",
        |number, _| if number < 5 { Act::Well } else { Act::Close },
    );
    let mut recipe = by_servers(d, "shaky", &[&shaky, &nobody, &dies]);
    if let BackendRecipe::Servers(servers) = &mut recipe.rollout.backend {
        // The one that is left fails five times in a row, once for as long as its time allows.
        servers.retry_seconds = 60.0;
    }
    let mut told = Told::default();
    grpo(&recipe, &mut told).unwrap();
    assert!(
        told.0.starts_with("rollouts by 2 of 3 servers"),
        "{}",
        told.0
    );
    assert!(told.0.contains("127.0.0.1:9 does not answer"), "{}", told.0);
    assert_eq!(told.1.len(), 3);
    assert!(
        told.1.iter().all(|&(live, all)| live <= 2 && all == 3),
        "{:?}",
        told.1
    );
    assert!(values(d, "shaky", "rollout/retried").iter().sum::<f64>() > 2.0);
    // The same completions in the same order: nothing is lost, and who drew what changes nothing.
    let adapter = |out: &str| bytes(&d.join(out).join("adapter_model.safetensors"));
    assert!(adapter("well") == adapter("shaky"), "the adapters differ");

    // Each version is loaded by its own name and the one before taken away; nothing is left at the end.
    let log = well.log();
    let names: Vec<(String, String)> = log
        .iter()
        .filter(|(path, _)| path.contains("lora"))
        .map(|(path, body)| (path.clone(), body["lora_name"].as_str().unwrap().to_owned()))
        .collect();
    let stem = |name: &str| name.rsplit_once('-').unwrap().0.to_owned();
    let said: Vec<String> = names
        .iter()
        .map(|(path, name)| format!("{} {}", path.trim_start_matches("/v1/"), stem(name)))
        .collect();
    assert_eq!(
        said,
        [
            "load_lora_adapter policy-0",
            "unload_lora_adapter policy-0",
            "load_lora_adapter policy-1",
            "unload_lora_adapter policy-1",
            "load_lora_adapter policy-2",
            "unload_lora_adapter policy-2",
        ]
    );
    assert_eq!(fs::read_dir(adapters(d, "well")).unwrap().count(), 0);
    let loads = well.asked("/v1/load_lora_adapter");
    let path = Path::new(loads[0]["lora_path"].as_str().unwrap()).to_owned();
    assert!(
        path.is_absolute() && path.ends_with(&names[0].1),
        "{path:?}"
    );
    let asked = well.asked("/v1/completions");
    assert_eq!(asked.len(), 12);
    assert_eq!(asked[0]["model"], names[0].1.as_str());
    assert_eq!(asked[0]["n"], 6);
    assert_eq!(asked[0]["max_tokens"], 12);
    assert_eq!(asked[0]["return_token_ids"], true);
    let mut seeds: Vec<i64> = asked
        .iter()
        .filter_map(|body| body["seed"].as_i64())
        .collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 12, "every prompt has a seed of its own");
}

#[test]
fn a_run_without_servers_says_what_each_of_them_said() {
    let dir = world();
    let d = dir.path();
    let broken = Mock::start("mock", |_, path| match path {
        "/v1/completions" => Act::Status(500, "out of memory"),
        _ => Act::Well,
    });
    let garbled = Mock::start("mock", |_, path| match path {
        "/v1/completions" => Act::Garbage,
        _ => Act::Well,
    });
    let begun = Instant::now();
    let error = grpo(&by_servers(d, "broken", &[&broken, &garbled]), &mut Silent).unwrap_err();
    assert!(matches!(error, TrainError::Servers { .. }), "{error:?}");
    let said = error.to_string();
    for part in [
        &broken.url,
        &garbled.url,
        "status 500: out of memory",
        "no JSON",
        "again and again",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(
        broken.asked("/v1/completions").len() > 1,
        "it is tried again"
    );

    // A request that all refuse is not asked again.
    let strict = Mock::start("mock", |_, path| match path {
        "/v1/completions" => Act::Status(400, "n is too large"),
        _ => Act::Well,
    });
    let mut patient = by_servers(d, "strict", &[&strict]);
    let BackendRecipe::Servers(servers) = &mut patient.rollout.backend else {
        panic!("servers");
    };
    servers.retry_seconds = 600.0;
    let said = grpo(&patient, &mut Silent).unwrap_err().to_string();
    assert!(
        said.contains("they refuse") && said.contains("n is too large"),
        "{said}"
    );

    let nobody = Mock::nobody();
    let said = grpo(&by_servers(d, "nobody", &[&nobody]), &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("none of them answers") && said.contains("127.0.0.1:9"),
        "{said}"
    );
}

#[test]
fn a_server_that_was_started_anew_gets_the_adapter_again() {
    let dir = world();
    let d = dir.path();
    let anew = Mock::start("mock", |number, path| match (number, path) {
        (4, "/v1/completions") => Act::Status(404, "no such model"),
        _ => Act::Well,
    });
    let mut recipe = by_servers(d, "anew", &[&anew]);
    recipe.run.steps = 1;
    grpo(&recipe, &mut Silent).unwrap();
    assert_eq!(anew.asked("/v1/load_lora_adapter").len(), 2);
    assert_eq!(values(d, "anew", "rollout/retried"), [1.0]);
}

#[test]
fn what_a_server_makes_of_the_policy_is_measured_and_stopped_on() {
    let dir = world();
    let d = dir.path();
    let mock = Mock::well();
    let mut strict = by_servers(d, "mismatch", &[&mock]);
    strict.guard.max_mismatch = None;
    let error = grpo(&strict, &mut Silent).unwrap_err();
    assert!(
        matches!(error, TrainError::Mismatch { mean, most, .. } if mean > most && most == 0.1),
        "{error:?}"
    );
    assert!(error.to_string().contains("masked adapter"), "{error}");

    // vLLM has no masked adapters: it is not even asked.
    let vllm = Mock::start("vllm", |_, _| Act::Well);
    let said = grpo(&by_servers(d, "vllm", &[&vllm]), &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("masked") && said.contains("edgethink serve"),
        "{said}"
    );
    assert!(vllm.asked("/v1/completions").is_empty());
    sft(&sft_recipe(d, "base", "plain", false, 1.0), &mut Silent).unwrap();
    let mut plain = by_servers(d, "plain-rl", &[&vllm]);
    plain.model.adapter = d.join("plain");
    grpo(&plain, &mut Silent).unwrap();
    let body = &vllm.asked("/v1/completions")[0];
    assert_eq!(
        body["logprobs_mode"],
        Value::Null,
        "vLLM is told when it starts"
    );
}

#[test]
fn sglang_is_told_of_adapters_in_its_own_words() {
    let dir = world();
    let d = dir.path();
    let sglang = Mock::start("sglang", |_, _| Act::Well);
    let said = grpo(&by_servers(d, "masked", &[&sglang]), &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(said.contains("masked") && said.contains("SGLang"), "{said}");
    sft(&sft_recipe(d, "base", "plain", false, 1.0), &mut Silent).unwrap();
    let mut plain = by_servers(d, "plain-rl", &[&sglang]);
    plain.model.adapter = d.join("plain");
    grpo(&plain, &mut Silent).unwrap();
    assert_eq!(sglang.asked("/load_lora_adapter").len(), 3);
    assert_eq!(sglang.asked("/unload_lora_adapter").len(), 3);
    let loaded = &sglang.asked("/load_lora_adapter")[0];
    assert_eq!(loaded["load_inplace"], Value::Null, "it has no such field");
    let asked = &sglang.asked("/generate")[0];
    assert_eq!(asked["lora_path"], loaded["lora_name"]);
    assert_eq!(asked["input_ids"].as_array().map(Vec::len), Some(6));

    // Started anew, it does not know the adapter, and says so by 400.
    let anew = Mock::start("sglang", |number, path| match (number, path) {
        (4, "/generate") => Act::Status(400, "Got LoRA adapter that has never been loaded: x"),
        _ => Act::Well,
    });
    let mut once = by_servers(d, "anew-rl", &[&anew]);
    once.model.adapter = d.join("plain");
    once.run.steps = 1;
    grpo(&once, &mut Silent).unwrap();
    assert_eq!(anew.asked("/load_lora_adapter").len(), 2);
    assert_eq!(values(d, "anew-rl", "rollout/retried"), [1.0]);
}

#[test]
fn llama_server_starts_anew_with_the_file_of_each_version() {
    let dir = world();
    let d = dir.path();
    let well = Mock::well();
    grpo(&by_servers(d, "well", &[&well]), &mut Silent).unwrap();

    let file = adapters(d, "llama").join("policy.gguf");
    let (versions, seen) = (Arc::new(Mutex::new(Vec::new())), file.clone());
    let read = Arc::clone(&versions);
    let llama = Mock::start("llamacpp", move |_, path| {
        if path == "/models/load" {
            read.lock().unwrap().push(fs::read(&seen).unwrap());
        }
        Act::Well
    });
    let recipe = by_servers(d, "llama", &[&llama]);
    grpo(&recipe, &mut Silent).unwrap();
    let of_models =
        |(path, _): &(String, Value)| path.starts_with("/models/").then(|| path.clone());
    let order: Vec<String> = llama.log().iter().filter_map(of_models).collect();
    let (load, unload) = ("/models/load", "/models/unload");
    assert_eq!(order, [load, unload, load, unload, load, unload]);
    let versions = versions.lock().unwrap();
    assert!(versions[0] != versions[1] && versions[1] != versions[2]);
    assert!(versions.iter().all(|file| file.starts_with(b"GGUF")));
    assert!(!file.exists(), "the run is over");
    let asked = llama.asked("/completion");
    assert_eq!(asked.len(), 12);
    assert_eq!(asked[0]["model"], "policy");
    assert_eq!(asked[0]["n_cmpl"], 6);
    let adapter = |out: &str| bytes(&d.join(out).join("adapter_model.safetensors"));
    assert!(adapter("well") == adapter("llama"), "the adapters differ");

    // One model without a router, and an instance that does not start.
    let single = Mock::start("llamacpp", |_, path| match path {
        "/models" => Act::Garbage,
        _ => Act::Well,
    });
    let said = grpo(&by_servers(d, "single", &[&single]), &mut Silent);
    let said = said.unwrap_err().to_string();
    assert!(said.contains("[policy] of docs/rollouts.md"), "{said}");
    let fails = Mock::start("llamacpp", |_, path| match path {
        "/models" => Act::Status(
            200,
            r#"{"data": [{"id": "policy", "status": {"value": "unloaded", "failed": true, "exit_code": 3}}]}"#,
        ),
        _ => Act::Well,
    });
    let said = grpo(&by_servers(d, "fails", &[&fails]), &mut Silent);
    let said = said.unwrap_err().to_string();
    assert!(said.contains("exit code 3"), "{said}");
}

#[test]
fn rollouts_ahead_are_of_versions_that_time_does_not_change() {
    let dir = world();
    let d = dir.path();
    let slow = Mock::start("mock", |number, path| {
        if path == "/v1/completions" && number.is_multiple_of(3) {
            std::thread::sleep(Duration::from_millis(60));
        }
        Act::Well
    });
    let quick = Mock::well();
    for (out, mock) in [("slow", &slow), ("quick", &quick)] {
        let mut recipe = by_servers(d, out, &[mock]);
        recipe.rollout.max_staleness = 2;
        recipe.run.steps = 5;
        recipe.data.valid = recipe.data.train.clone();
        grpo(&recipe, &mut Silent).unwrap();
        assert_eq!(
            values(d, out, "rollout/staleness"),
            [0.0, 1.0, 2.0, 2.0, 2.0]
        );
    }
    let adapter = |out: &str| bytes(&d.join(out).join("adapter_model.safetensors"));
    assert!(adapter("slow") == adapter("quick"), "the adapters differ");
    #[cfg(feature = "parquet")]
    assert_eq!(
        versions(&d.join("quick/completions/completions_00004.parquet")),
        vec![1; 24]
    );

    // The engine in process does the same.
    let mut ahead = recipe(d, "ahead");
    ahead.rollout.max_staleness = 1;
    ahead.run.steps = 4;
    ahead.run.log_every = 1;
    grpo(&ahead, &mut Silent).unwrap();
    assert_eq!(
        values(d, "ahead", "rollout/staleness"),
        [0.0, 1.0, 1.0, 1.0]
    );
    let gap = values(d, "ahead", "sampling/sampling_logp_difference/mean");
    assert!(
        gap[0] < 1e-4 && gap[1] > 1e-4,
        "what was learnt since is seen: {gap:?}"
    );
}

/// The column `policy_version` of a table of completions.
#[cfg(feature = "parquet")]
fn versions(path: &Path) -> Vec<i64> {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::Field,
    };
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    let version = |row: parquet::record::Row| {
        let mut fields = row.into_columns().into_iter();
        match fields.find(|(name, _)| name == "policy_version") {
            Some((_, Field::Long(version))) => version,
            other => panic!("{other:?}"),
        }
    };
    rows.map(|row| version(row.unwrap())).collect()
}

#[test]
fn a_backend_that_cannot_be_meant_is_refused_by_name() {
    let dir = workspace();
    let d = dir.path();
    let load = |backend: &str| {
        let path = d.join("bad.toml");
        let text = grpo_text(d, "bad").replace("[[reward]]", &format!("{backend}\n[[reward]]"));
        fs::write(&path, text).unwrap();
        GrpoRecipe::load(&path)
    };
    let servers =
        |rest: &str| format!("backend = {{ kind = \"openai\", adapter_dir = \"a\", {rest} }}");
    let good =
        servers("urls = [\"http://a:1/v1\", \"https://b\"], requests = 4, timeout_seconds = 5");
    let recipe = load(&good).unwrap();
    assert!(matches!(recipe.rollout.backend, BackendRecipe::Servers(_)));
    let engine = load("backend = { kind = \"engine\" }\nmax_staleness = 1").unwrap();
    assert_eq!(engine.rollout.backend, BackendRecipe::Engine {});
    for (backend, word) in [
        ("backend = { kind = \"vllm\" }".to_owned(), "vllm"),
        (
            "backend = { kind = \"engine\", urls = [\"http://a\"] }".to_owned(),
            "urls",
        ),
        (
            "backend = { kind = \"openai\", urls = [\"http://a\"] }".to_owned(),
            "adapter_dir",
        ),
        (
            servers("urls = [\"http://a\"], url = \"http://b\""),
            "`url`",
        ),
        (servers("urls = []"), "urls names no server"),
        (servers("urls = [\"a:8000\"]"), "\"a:8000\" is no address"),
        (servers("urls = [\"http://a\", \"http://a/v1/\"]"), "twice"),
        (
            servers("urls = [\"http://a\"], timeout_seconds = 0"),
            "timeout_seconds",
        ),
        (
            servers("urls = [\"http://a\"], retry_seconds = -1"),
            "retry_seconds",
        ),
        (servers("urls = [\"http://a\"], requests = 0"), "requests"),
        (
            servers("urls = [\"http://a\"], api_key_env = \"\""),
            "api_key_env",
        ),
        (
            format!("kv = \"int8\"\n{good}"),
            "told when they are started",
        ),
        ("max_staleness = 65".to_owned(), "max_staleness"),
    ] {
        let error = load(&backend).expect_err(&backend).to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let mut keyed = load(&servers(
        "urls = [\"http://127.0.0.1:9\"], api_key_env = \"NOBODY_SETS_THIS\"",
    ))
    .unwrap();
    let made = world();
    keyed.model.base = made.path().join("base");
    keyed.model.adapter = made.path().join("sft");
    keyed.data.train = vec![made.path().join("rl.jsonl")];
    keyed.data.valid = Vec::new();
    let error = grpo(&keyed, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("NOBODY_SETS_THIS"), "{error}");
}
