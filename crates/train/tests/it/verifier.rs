//! A verifier on a tiny network: it learns from graded samples, resumes to the same bits, and is refused on another base.

use std::{fs, path::Path};

use crate::support::*;
use edgethink_model::{HeadError, HeadFile, Model};
use edgethink_reason::{VerifierError, VerifierHead};
use edgethink_train::{Event, Progress, Silent, TrainError, VerifierRecipe, base, sft, verifier};
use serde_json::Value;

/// Stops once so many samples are there, and remembers how many an earlier run left.
#[derive(Default)]
struct StopAt {
    samples: usize,
    done: usize,
    found: usize,
    replaced: bool,
}

impl Progress for StopAt {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Sampled { done, .. } => self.done = *done,
            Event::VerifierStarted {
                found, replaced, ..
            } => (self.found, self.replaced) = (*found, *replaced),
            _ => {}
        }
    }
    fn stop(&mut self) -> bool {
        self.samples > 0 && self.done >= self.samples
    }
}

fn text(dir: &Path, out: &str) -> String {
    let d = dir.display();
    format!(
        "output_dir = \"{d}/{out}\"\nseed = 5\n[model]\nbase = \"{d}/base\"\nadapter = \"{d}/sft\"\n\
         [data]\ntrain = [\"{d}/questions.jsonl\"]\nvalid = [\"{d}/valid.jsonl\"]\nmax_prompt_tokens = 16\n\
         [sample]\nn = 6\nvalid_n = 4\ntemperature = 1.0\nmax_completion_tokens = 12\nmax_sequences = 12\n\
         [head]\nquestion = \"is add\"\nconfidence = true\n\
         [optimizer]\nlr = 0.02\nbetas = [0.9, 0.99]\nweight_decay = 0.0\nschedule = \"cosine\"\nwarmup_ratio = 0.0\n\
         max_grad_norm = 1.0\n[run]\nsteps = 200\nthreads = 1\n"
    )
}

fn load(dir: &Path, name: &str, text: &str) -> Result<VerifierRecipe, TrainError> {
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    VerifierRecipe::load(&path)
}

fn recipe(dir: &Path, out: &str) -> VerifierRecipe {
    load(dir, out, &text(dir, out)).unwrap()
}

/// A base, an adapter that is right now and then, and questions.
fn world() -> tempfile::TempDir {
    let dir = workspace();
    let d = dir.path();
    base(&base_recipe(d, "base"), &mut Silent).unwrap();
    sft(&sft_recipe(d, "base", "sft", true, 6.0), &mut Silent).unwrap();
    let rows = |seconds: std::ops::Range<usize>| -> String {
        let pairs = (0..9).flat_map(|a| seconds.clone().map(move |b| (a, b)));
        pairs
            .map(|(a, b)| format!("{{\"prompt\": \"add {a} {b}\", \"answer\": {}}}\n", a + b))
            .collect()
    };
    fs::write(d.join("questions.jsonl"), rows(0..4)).unwrap();
    fs::write(d.join("valid.jsonl"), rows(4..6)).unwrap();
    dir
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn it_learns_resumes_to_the_same_head_and_serves_its_own_base_alone() {
    let dir = world();
    let d = dir.path();
    let whole = verifier(&recipe(d, "whole"), &mut Silent).unwrap();
    assert!(whole.samples > 100, "{whole:?}");

    // Stopped twice on the way, the same head.
    let mut stop = StopAt {
        samples: 50,
        ..StopAt::default()
    };
    let stopped = verifier(&recipe(d, "parts"), &mut stop);
    assert!(
        matches!(stopped, Err(TrainError::Stopped { .. })),
        "{stopped:?}"
    );
    assert!((50..216).contains(&stop.done), "{}", stop.done);
    let left = stop.done;
    let mut go_on = StopAt::default();
    let parts = verifier(&recipe(d, "parts"), &mut go_on).unwrap();
    assert_eq!((go_on.found, go_on.replaced), (left, false));
    assert_eq!((parts.samples, parts.auroc), (whole.samples, whole.auroc));
    for file in ["head.safetensors", "head.json", "pool.jsonl"] {
        assert_eq!(
            bytes(&d.join("whole").join(file)),
            bytes(&d.join("parts").join(file)),
            "{file}"
        );
    }
    // Another temperature: what is there is of no use, and that is said.
    let hot = text(d, "parts").replace("temperature = 1.0", "temperature = 1.5");
    let mut anew = StopAt::default();
    verifier(&load(d, "hot", &hot).unwrap(), &mut anew).unwrap();
    assert_eq!((anew.found, anew.replaced), (0, true));

    // Labels are the grader's, and held-out samples are those of other questions.
    let pool = lines(&d.join("whole/pool.jsonl"));
    assert_eq!(pool.len(), 18 * 4);
    for sample in &pool {
        let (text, expected) = (sample["text"].as_str(), sample["expected"].as_str());
        let right = edgethink_grader::is_correct(text.unwrap(), expected.unwrap());
        let ended = sample["score"].as_f64().unwrap() > 0.0;
        assert_eq!(sample["correct"], right && ended, "{sample}");
        assert!(sample.get("state").is_none());
    }
    let run = fs::read_to_string(d.join("whole/run.json")).unwrap();
    let run: Value = serde_json::from_str(&run).unwrap();
    let held_out = &run["metrics"]["held_out"];
    let ended = pool.iter().filter(|s| s["score"].as_f64() > Some(0.0));
    assert_eq!(held_out["samples"], ended.count());
    assert_eq!(held_out["auroc"].as_f64(), whole.auroc);
    assert_eq!(run["recipe"]["head"]["question"], "is add");
    for picture in ["calibration.svg", "scores.svg"] {
        let svg = fs::read_to_string(d.join("whole").join(picture)).unwrap();
        assert!(svg.contains("</svg>"));
    }

    let head = HeadFile::load(&d.join("whole")).unwrap();
    let model = |name: &str| Model::load(d.join(name).to_str().unwrap()).unwrap();
    let own = VerifierHead::new(&head, &model("base")).unwrap();
    assert!(own.reads_confidence());
    let mut other = base_recipe(d, "other");
    other.seed += 1;
    base(&other, &mut Silent).unwrap();
    let refused = VerifierHead::new(&head, &model("other")).unwrap_err();
    assert!(matches!(
        refused,
        VerifierError::Head(HeadError::Base { .. })
    ));
}

#[test]
fn a_wrong_recipe_is_refused_with_all_its_problems() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let good = text(d, "out");
    load(d, "good", &good).unwrap();
    let wrong = good
        .replace("valid.jsonl", "questions.jsonl")
        .replace("temperature = 1.0", "temperature = 0.0")
        .replace("steps = 200", "steps = 0\nresume = \"newest\"")
        .replace("lr = 0.02", "lr = -1.0");
    let Err(TrainError::Recipe { problems, .. }) = load(d, "wrong", &wrong) else {
        panic!("it must be refused")
    };
    for (problem, want) in problems.iter().zip([
        "held-out questions must not be learnt from",
        "all would be equal",
        "steps must be at least 1",
        "resume must be",
        "lr must be positive",
    ]) {
        assert!(problem.contains(want), "{problems:?}");
    }
    assert_eq!(problems.len(), 5, "{problems:?}");
    let unknown = good.replace("confidence = true", "confidenc = true");
    let error = load(d, "unknown", &unknown).unwrap_err();
    assert!(error.to_string().contains("confidenc"), "{error}");
}

#[test]
fn samples_that_teach_nothing_are_an_error() {
    let dir = world();
    let d = dir.path();
    let rows = "{\"prompt\": \"add 1 1\", \"answer\": \"never\"}\n";
    fs::write(d.join("questions.jsonl"), rows).unwrap();
    let error = verifier(&recipe(d, "hopeless"), &mut Silent).unwrap_err();
    assert!(
        error.to_string().contains("learns from both kinds"),
        "{error}"
    );
}
