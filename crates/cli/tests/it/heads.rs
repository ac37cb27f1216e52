//! The shipped heads in 8 bits against the shipped heads: scores move by less than a bound, decisions stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::{edgethink, stdout};
use edgethink_engine::{Engine, EngineOptions};
use edgethink_model::{Bundle, Folder, HeadFile, Message, Model};
use edgethink_pocket::{HardSpec, Question, Split, easy_questions, hard_questions};
use edgethink_reason::prompt::encode;
use edgethink_reason::switcher::{Switcher, averages};
use edgethink_reason::{Input, Think, ThoughtFormat};
use serde_json::{Map, Value};

/// The most that a score of the switcher or the verifier, between 0 and 1, may move: less than a tenth of a bin of ten.
const BOUND: f32 = 0.01;

fn pocket() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket")
}

/// Packs models/pocket with its heads in a number format.
fn packed(dir: &Path, dtype: &str) -> PathBuf {
    let path = dir.join(format!("{dtype}.edgethink"));
    let mut command = edgethink();
    command.args(["bundle", "pack", "--head-dtype", dtype, "-o"]);
    command.arg(&path).arg(pocket());
    stdout(&command.output().expect("it runs"));
    path
}

fn questions() -> Vec<Question> {
    let hard = hard_questions(3, Split::Test, HardSpec::even());
    let easy = easy_questions(3, Split::Test);
    easy.take(200).chain(hard.take(200)).collect()
}

#[test]
fn the_switcher_decides_alike() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bundle = Bundle::open(&packed(dir.path(), "int8")).expect("a bundle");
    bundle.verify(&mut |_, _| {}).expect("whole");
    assert!(
        bundle
            .manifest()
            .heads
            .iter()
            .all(|h| h.dtype.as_deref() == Some("int8"))
    );
    let model = Arc::new(bundle.model().expect("a model"));
    let hash = model.hash().expect("read");
    let switcher = |folder: &Folder| {
        let file = HeadFile::load_from(folder).expect("a head");
        Switcher::new(&file, &hash, model.config.hidden_size).expect("its own base")
    };
    let whole = switcher(&Folder::disk(pocket().join("switcher")));
    let small = switcher(&bundle.folder("switcher"));
    let prompts: Vec<Vec<u32>> = questions()
        .iter()
        .map(|q| prompt(&model, &whole, q))
        .collect();
    let lists: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let options = EngineOptions {
        threads: 1,
        kv_tokens: 8192,
        max_sequences: 64,
        ..EngineOptions::for_model(&model.config)
    };
    let mut engine = Engine::new(Arc::clone(&model), options).expect("an engine");
    let states = averages(&mut engine, whole.averaging(), &lists, |_| true);
    let (mut most, mut thinks) = (0f32, 0);
    for state in states.expect("finite").expect("not stopped") {
        let [want, got] = [&whole, &small].map(|s| s.score(&state).expect("finite"));
        most = most.max((want - got).abs());
        assert_eq!(whole.thinks(want), small.thinks(got), "{want} became {got}");
        thinks += usize::from(whole.thinks(want));
    }
    assert!(most < BOUND, "a score moved by {most}");
    assert!(most > 0.0, "the heads are the same");
    assert!(
        (150..250).contains(&thinks),
        "both kinds are there: {thinks}"
    );
}

/// The tokens of a question that the switcher reads.
fn prompt(model: &Model, switcher: &Switcher, question: &Question) -> Vec<u32> {
    let row = serde_json::to_value(question).expect("JSON");
    let messages: Vec<Message> = serde_json::from_value(row["prompt"].clone()).expect("messages");
    let input = Input::Messages(messages);
    let tags = ThoughtFormat::default().tags;
    let prompt = encode(model, &input, Think::Off, &tags, &Map::new()).expect("it is encoded");
    prompt.tokens[..switcher.reads(&prompt.tokens)].to_vec()
}

#[test]
fn the_verifier_chooses_alike() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let rows = dir.path().join("hard.jsonl");
    let lines: Vec<String> = questions()
        .iter()
        .skip(200)
        .take(30)
        .map(|q| serde_json::to_string(q).expect("JSON"))
        .collect();
    std::fs::write(&rows, lines.join("\n")).expect("written");
    let [want, got] = ["stored", "int8"].map(|dtype| -> Vec<Value> {
        let (model, out) = (
            packed(dir.path(), dtype),
            dir.path().join(format!("{dtype}.jsonl")),
        );
        let mut command = edgethink();
        command
            .args(["eval", "jsonl"])
            .arg(&rows)
            .arg("--model")
            .arg(model);
        command.args([
            "--think",
            "on",
            "--n",
            "4",
            "--temperature",
            "1.2",
            "--max-tokens",
            "400",
        ]);
        command.args(["--verify", "--json", "--out"]).arg(&out);
        stdout(&command.output().expect("it runs"));
        let text = std::fs::read_to_string(&out).expect("read");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    });
    assert_eq!((want.len(), got.len()), (120, 120));
    let (mut most, mut scored) = (0f64, 0);
    for (want, got) in want.iter().zip(&got) {
        assert_eq!(want["text"], got["text"]);
        assert_eq!(want["chosen"], got["chosen"], "{want}\n{got}");
        if let (Some(want), Some(got)) = (want["score"].as_f64(), got["score"].as_f64()) {
            most = most.max((want - got).abs());
            scored += 1;
        }
    }
    assert!(scored >= 100, "{scored} scores");
    assert!(
        most > 0.0 && most < f64::from(BOUND),
        "a score moved by {most}"
    );
}
