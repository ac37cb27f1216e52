//! Damaged model and adapter files through the whole loader: an error or a checked model, never a panic.
//!
//! The files are the golden ones with bytes changed, cut or doubled. Most changes hit the header, where the lengths are; the seeds
//! are fixed, so a failure can be repeated. `crates/model/fuzz` has the same doors for a coverage-guided fuzzer.

use std::path::{Path, PathBuf};

use edgethink_model::{Adapter, Config, Model};
use proptest::prelude::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../golden/gguf")
        .join(name)
}

/// Loads `bytes` as a model file; whatever comes out must be usable.
fn load(bytes: &[u8]) {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, bytes).expect("temp dir");
    match Model::load(path.to_str().expect("utf-8")) {
        Ok(model) => {
            model.config.validate().expect("a loaded config is valid");
            assert_eq!(model.weights.layers.len(), model.config.num_hidden_layers);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn load_adapter(bytes: &[u8], base: &Config) {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("a.gguf");
    std::fs::write(&path, bytes).expect("temp dir");
    if let Ok(adapter) = Adapter::load(&path, base) {
        assert!(adapter.matched > 0 && adapter.layers.len() == base.num_hidden_layers);
    }
}

/// One change of a file. Positions are shares of the part that is changed.
#[derive(Debug, Clone)]
enum Change {
    Byte(f64, u8),
    Word(f64, u32),
    Long(f64, u64),
    Cut(f64),
    Double(f64, f64),
}

fn change() -> impl Strategy<Value = Change> {
    let long = prop_oneof![
        any::<u64>(),
        Just(u64::MAX),
        Just(1 << 63),
        (0u32..64).prop_map(|s| 1 << s)
    ];
    let word = prop_oneof![any::<u32>(), 0u32..48, Just(u32::MAX)];
    prop_oneof![
        4 => (0.0..1.0, any::<u8>()).prop_map(|(at, v)| Change::Byte(at, v)),
        3 => (0.0..1.0, word).prop_map(|(at, v)| Change::Word(at, v)),
        3 => (0.0..1.0, long).prop_map(|(at, v)| Change::Long(at, v)),
        1 => (0.0..1.0).prop_map(Change::Cut),
        1 => (0.0..1.0, 0.0..1.0).prop_map(|(a, b)| Change::Double(a, b)),
    ]
}

/// Applies changes to the first `header` bytes.
fn apply(bytes: &mut Vec<u8>, header: usize, changes: &[Change]) {
    for change in changes {
        let end = header.min(bytes.len());
        let at = |share: f64| (share * end as f64) as usize;
        let mut put = |share: f64, value: &[u8]| {
            let place = at(share);
            for (to, from) in bytes[place..].iter_mut().zip(value) {
                *to = *from;
            }
        };
        match *change {
            Change::Byte(share, v) => put(share, &[v]),
            Change::Word(share, v) => put(share, &v.to_le_bytes()),
            Change::Long(share, v) => put(share, &v.to_le_bytes()),
            Change::Cut(share) => bytes.truncate(at(share)),
            Change::Double(a, b) => {
                let (first, last) = (at(a.min(b)), at(a.max(b)));
                let part = bytes[first..last].to_vec();
                bytes.splice(last..last, part);
            }
        }
    }
}

/// Where the tensor data begins: the header is what is worth changing.
fn header_len(bytes: &[u8]) -> usize {
    let gguf = edgethink_model::gguf::Gguf::parse(bytes).expect("golden");
    gguf.tensors
        .iter()
        .map(|t| t.range.start)
        .min()
        .expect("tensors")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_model_is_an_error(which in 0usize..4, changes in proptest::collection::vec(change(), 1..4)) {
        let name = ["qwen3-f16", "qwen2-q4_0", "llama-q8_0", "qwen2-yarn"][which];
        let mut bytes = std::fs::read(golden(&format!("{name}.gguf"))).expect("golden file");
        let header = header_len(&bytes);
        apply(&mut bytes, header, &changes);
        load(&bytes);
    }

    #[test]
    fn a_damaged_adapter_is_an_error(changes in proptest::collection::vec(change(), 1..4)) {
        let base = Model::load(golden("llama-f32.gguf").to_str().expect("utf-8")).expect("golden").config;
        let mut bytes = std::fs::read(golden("llama-lora.gguf")).expect("golden file");
        let header = header_len(&bytes);
        apply(&mut bytes, header, &changes);
        load_adapter(&bytes, &base);
    }
}

#[test]
fn a_model_cut_at_any_tensor_is_an_error() {
    let bytes = std::fs::read(golden("qwen3-f16.gguf")).expect("golden file");
    let gguf = edgethink_model::gguf::Gguf::parse(&bytes).expect("golden");
    let ends: Vec<usize> = gguf.tensors.iter().map(|t| t.range.end - 1).collect();
    for end in ends {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, &bytes[..end]).expect("temp dir");
        let error = Model::load(path.to_str().expect("utf-8")).expect_err("cut");
        let cause = std::error::Error::source(&error).expect("gguf").to_string();
        assert!(cause.contains("cut off"), "{cause}");
    }
}
