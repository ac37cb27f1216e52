//! Tiny models, folded and loaded.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;

use edgethink_model::{Config, Linear, Model, Source, Tensor, Weights};
use edgethink_quantize::QuantizeError;
use edgethink_quantize::layer::Layer;
use edgethink_quantize::scheme::Transforms;
use edgethink_quantize::transforms::Plan;
use edgethink_testkit::tiny_model_of;

pub(crate) const TOKENS: [u32; 16] = [5, 9, 200, 31, 7, 7, 100, 4, 250, 3, 66, 12, 300, 1, 0, 77];

/// A random model of a config.
pub(crate) fn model(config: &Config, seed: u64) -> Model {
    let dir = tiny_model_of(config, seed);
    let model = Model::load(dir.path().to_str().expect("UTF-8")).expect("it loads");
    // Its file stays mapped after the directory is gone.
    assert_eq!(&model.config, config);
    model
}

/// The model with transforms folded into f32 weights.
pub(crate) fn fold(model: &Model, wanted: Transforms) -> Result<Model, QuantizeError> {
    let plan = Plan::new(&model.config, wanted)?;
    let config = plan.config();
    let weights = &model.weights;
    let mut named = BTreeMap::new();
    let mut put = |name: String, shape: Vec<usize>, values: &[f32]| {
        named.insert(
            name,
            Tensor::from_f32(shape, values).expect("as long as its shape"),
        );
    };
    let table = vec![config.vocab_size, config.hidden_size];
    let mut norm = weights.norm.to_f32();
    if !config.tie_word_embeddings {
        let mut head = weights.output().to_f32();
        plan.fold_lm_head(&mut head, &norm, 2);
        put("lm_head.weight".into(), table.clone(), &head);
    }
    plan.fold_norm(&mut norm);
    put("model.norm.weight".into(), vec![norm.len()], &norm);
    let mut embedding = weights.embed_tokens.to_f32();
    plan.fold_embedding(&mut embedding, 1);
    put("model.embed_tokens.weight".into(), table, &embedding);
    for (i, weights) in weights.layers.iter().enumerate() {
        let mut layer = Layer::read(&config, weights).expect("it reads");
        plan.fold_layer(&mut layer, 2);
        let p = format!("model.layers.{i}.");
        for linear in Linear::ALL {
            let matrix = layer.linear(linear);
            let name = format!("{p}{}", linear.hf_name());
            put(
                format!("{name}.weight"),
                vec![matrix.rows, matrix.cols],
                &matrix.values,
            );
            if let Some(bias) = &layer.biases[linear as usize] {
                put(format!("{name}.bias"), vec![bias.len()], bias);
            }
        }
        let mut vector = |name: &str, values: &[f32]| {
            put(format!("{p}{name}.weight"), vec![values.len()], values);
        };
        vector("input_layernorm", &layer.input_layernorm);
        vector("post_attention_layernorm", &layer.post_attention_layernorm);
        if let Some((q, k)) = &layer.qk_norm {
            vector("self_attn.q_norm", q);
            vector("self_attn.k_norm", k);
        }
    }
    let weights = Weights::from_named(&config, named)?;
    let generation = model.generation.clone();
    Ok(Model::from_parts(
        config,
        weights,
        None,
        None,
        generation,
        Source::Memory,
    )?)
}
