//! Training on a quantized base computes with the weights that the engine computes with.

use std::sync::Arc;

use edgethink_engine::{Engine, EngineOptions, KvFormat};
use edgethink_model::{Family, GenerationConfig, Source, Tensor, Weights};
use edgethink_quantize::{Job, Scheme, quantize};
use edgethink_testkit::{Tol, assert_close, tiny_config, tiny_model_of};

use super::*;
use crate::{
    data::Dataset,
    device::Device,
    gradient::{self, Leaves, Pass},
    recipe::{BaseFormat, Checkpointing},
    run::Batcher,
};

const TOKENS: [u32; 16] = [5, 9, 200, 31, 7, 7, 100, 4, 250, 3, 66, 12, 300, 1, 0, 77];

/// 4-bit linear layers, 8-bit tables.
const SCHEME: &str =
    "[linears]\nbits = 4\ngroup = \"channel\"\nrange = \"minmax\"\nrounding = \"nearest\"\n
[embedding]\nbits = 8\ngroup = 32\nrange = \"minmax\"\nrounding = \"nearest\"\n
[lm_head]\nbits = 4\ngroup = 32\nrange = { lp = 2.0 }\nrounding = \"nearest\"\n
[tied]\nbits = 8\ngroup = 32\nrange = \"minmax\"\nrounding = \"nearest\"\n";

fn engine_logits(model: Model) -> Vec<f32> {
    let options = EngineOptions {
        threads: 1,
        kv: KvFormat::F32,
        ..EngineOptions::for_model(&model.config)
    };
    let mut engine = Engine::new(Arc::new(model), options).expect("it loads");
    engine.logits(&TOKENS, None).expect("finite logits")
}

fn train_logits(spec: &Spec, params: &NamedTensors, format: BaseFormat) -> Vec<f32> {
    let mut set = Dataset::default();
    set.push(&TOKENS, vec![1.0; TOKENS.len()], 0);
    let slots = spec.numbered_slots();
    let pass = Pass {
        spec,
        slots: &slots,
        checkpointing: Checkpointing::Off,
        adapter: None,
        teacher: None,
    };
    let batch = Batcher::new(spec, TOKENS.len()).batch(&set, &[0]);
    gradient::logits(
        &pass,
        &Leaves::frozen(&Device::CPU, params.clone(), false, format),
        &batch,
    )
}

#[test]
fn a_quantized_base_is_the_one_that_the_engine_runs() {
    for family in [Family::Qwen2, Family::Qwen3, Family::Llama] {
        let dir = tiny_model_of(&tiny_config(family), 5);
        let load = |path: &Path| Model::load(path.to_str().expect("UTF-8")).expect("it loads");
        let out = dir.path().join("model.gguf");
        let scheme = Scheme::from_toml(SCHEME).expect("a valid scheme");
        let job = Job {
            scheme: &scheme,
            calibration: None,
            trained: None,
            out: &out,
            name: "tiny",
            threads: 1,
        };
        quantize(load(dir.path()), &job, &mut |_| true).expect("it runs");

        // The frozen weights are the values of the file's blocks. That the engine multiplies with these is a test of `engine::packed`.
        let model = load(&out);
        let (spec, params) = network(&model);
        for ((param, held), (name, tensor)) in params.iter().zip(model.weights.named()) {
            assert_eq!(*param, name);
            assert!(held.bytes() == tensor.bytes(), "{family:?} {name}");
        }

        // So logits differ by the engine's rounding of activations to 8 bits alone: not at all where it has the same weights as floats.
        let trained = train_logits(&spec, &params, BaseFormat::F32);
        assert!(trained == train_logits(&spec, &params, BaseFormat::Stored));
        let named = params.iter().map(|(name, tensor)| {
            let tensor = Tensor::from_f32(tensor.shape.clone(), &tensor.to_f32());
            (name.clone(), tensor.expect("as long as its shape"))
        });
        let weights = Weights::from_named(&model.config, named.collect()).expect("all are there");
        let generation = GenerationConfig::default();
        let config = model.config.clone();
        let floats = Model::from_parts(config, weights, None, None, generation, Source::Memory);
        let floats = engine_logits(floats.expect("it fits together"));
        assert_close(&trained, &floats, Tol::RelToMax(1e-5));
        // As in the engine's own test against the reference: two layers of random weights.
        assert_close(&trained, &engine_logits(model), Tol::RelToMax(0.05));
    }
}
