//! A bundle's mapping is multiplied with in place: the same numbers as those of the file that was packed, to the bit.

use std::path::Path;
use std::sync::Arc;

use crate::support::*;
use edgethink_engine::{EngineOptions, Isa, Request};
use edgethink_model::bundle::{Bundle, PackOptions, PackSources, pack};
use edgethink_model::{AdapterDtype, Model};
use edgethink_testkit::llama_cpp_golden;

/// The same model out of a bundle.
fn bundled(model: &Model, dir: &Path) -> Model {
    let edgethink_model::Source::Gguf(file) = &model.source else {
        panic!("{:?} is no GGUF file", model.source);
    };
    let sources = PackSources {
        base: file.display().to_string(),
        ..PackSources::default()
    };
    let options = PackOptions {
        name: "tiny".to_owned(),
        program: "edgethink test".to_owned(),
        licence: None,
        adapter_dtype: AdapterDtype::Float,
        int8_heads: false,
    };
    let out = dir.join("tiny.edgethink");
    pack(&sources, &out, &options, &mut |_, _| ()).expect("packed");
    let bundle = Bundle::open(&out).expect("a bundle");
    bundle.model().expect("it loads")
}

#[test]
fn panels_in_a_bundle_give_the_files_numbers() {
    for name in ["qwen2-q4_0", "qwen2-q8_0", "llama-q8_0", "qwen2-q4_k"] {
        let golden = llama_cpp_golden(name);
        let dir = tempfile::tempdir().expect("temp dir");
        let mapped = Arc::new(bundled(&golden.model, dir.path()));
        let in_panels = |model: &Model| {
            let tensors = model.weights.named().into_iter();
            tensors.filter(|(_, t)| t.panels().is_some()).count()
        };
        assert_eq!(in_panels(&golden.model), 0);
        assert!(in_panels(&mapped) > 0, "{name}");
        for isa in Isa::available() {
            let options = EngineOptions { isa, ..options() };
            let answer = |model: &Arc<Model>| {
                let mut engine = engine(model, &options);
                let logits = engine.logits(&golden.prompt, None).expect("finite logits");
                let request = Request::greedy(golden.prompt.clone(), 16);
                (logits, run_one(&mut engine, &request).tokens(0).to_vec())
            };
            let (want, got) = (answer(&golden.model), answer(&mapped));
            assert!(want == got, "{name} on {isa}");
        }
    }
}
