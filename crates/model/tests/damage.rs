//! Model directories with bytes changed, cut or doubled: an error or a model that can be used, never a panic.

use std::fs;
use std::sync::OnceLock;

use edgethink_model::{Family, Model};
use edgethink_testkit::tiny_model;
use proptest::prelude::*;
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";

/// A model whose files the tests change; each puts them back.
fn victim() -> &'static TempDir {
    static DIR: OnceLock<TempDir> = OnceLock::new();
    DIR.get_or_init(|| tiny_model(Family::Qwen3, 1))
}

/// Loads the victim's parts with `file` replaced, in a directory of links to the others.
fn load_with(file: &str, bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(victim().path()).unwrap().map(Result::unwrap) {
        if entry.file_name() != file {
            fs::hard_link(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    fs::write(dir.path().join(file), bytes).unwrap();
    // Loading may fail or not; what loads must also work without a panic.
    if let Ok(model) = Model::load(dir.path().to_str().unwrap()) {
        if let Some(tokenizer) = &model.tokenizer {
            let _ = tokenizer
                .encode("hello <think> 12 é", true)
                .map(|ids| tokenizer.decode(&ids, true));
        }
        if let Some(template) = &model.template {
            let _ = template.generation_prompt();
        }
    }
}

/// Overwrites, inserts or removes bytes, cuts the end off, or repeats a part.
fn damage(mut bytes: Vec<u8>, edits: &[(usize, u8, u8)]) -> Vec<u8> {
    for &(place, kind, byte) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = place % bytes.len();
        match kind % 6 {
            0 => bytes[at] = byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, byte),
            3 => drop(bytes.remove(at)),
            4 => bytes.truncate(at.max(8)),
            _ => {
                let end = bytes.len().min(at + usize::from(byte));
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_headers_never_panic(edits in edits()) {
        let bytes = fs::read(victim().path().join(WEIGHTS)).unwrap();
        let len = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut file = damage(bytes[..len].to_vec(), &edits);
        file.extend(&bytes[len..]);
        load_with(WEIGHTS, &file);
    }

    #[test]
    fn damaged_configs_never_panic(edits in edits()) {
        for file in ["config.json", "generation_config.json", "tokenizer_config.json"] {
            load_with(file, &damage(fs::read(victim().path().join(file)).unwrap(), &edits));
        }
    }

    #[test]
    fn damaged_templates_never_panic(edits in edits()) {
        load_with("chat_template.jinja", &damage(fs::read(victim().path().join("chat_template.jinja")).unwrap(), &edits));
    }

    #[test]
    fn damaged_tokenizers_never_panic(edits in edits()) {
        load_with("tokenizer.json", &damage(fs::read(victim().path().join("tokenizer.json")).unwrap(), &edits));
    }
}
