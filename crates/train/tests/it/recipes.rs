//! The recipes of the repository are read and checked as a run does it, without the models and data that they name.

use std::path::PathBuf;

use edgethink_train::{
    BaseRecipe, GrpoRecipe, LayerCost, PlanOptions, SftRecipe, SwitcherRecipe, VerifierRecipe, plan,
};

fn recipe(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../recipes")
        .join(name)
}

#[test]
fn every_recipe_has_no_problems() {
    for name in [
        "pocket/base.toml",
        "pocket/midtrain.toml",
        "pocket/anneal.toml",
    ] {
        BaseRecipe::load(&recipe(name)).expect(name);
    }
    for name in [
        "pocket/sft.toml",
        "pocket/sft-plain.toml",
        "qwen2.5-7b/sft.toml",
        "qwen2.5-3b/sft.toml",
    ] {
        SftRecipe::load(&recipe(name)).expect(name);
    }
    for name in [
        "pocket/grpo.toml",
        "pocket/grpo-beta1e-4.toml",
        "qwen2.5-7b/grpo.toml",
        "qwen2.5-7b/grpo-beta1e-4.toml",
        "qwen2.5-3b/grpo.toml",
        "qwen2.5-3b/grpo-beta1e-4.toml",
    ] {
        GrpoRecipe::load(&recipe(name)).expect(name);
    }
    for name in [
        "pocket/switcher.toml",
        "pocket/switcher-w4.toml",
        "qwen2.5-7b/switcher.toml",
        "qwen2.5-3b/switcher.toml",
    ] {
        SwitcherRecipe::load(&recipe(name)).expect(name);
    }
    for name in [
        "pocket/verifier.toml",
        "pocket/verifier-w4.toml",
        "qwen2.5-7b/verifier.toml",
        "qwen2.5-3b/verifier.toml",
    ] {
        VerifierRecipe::load(&recipe(name)).expect(name);
    }
}

#[test]
fn the_papers_settings_are_those_of_the_paper() {
    for size in ["7b", "3b"] {
        let at = |name: &str| recipe(&format!("qwen2.5-{size}/{name}.toml"));
        let sft = SftRecipe::load(&at("sft")).expect("sft");
        assert_eq!(
            (sft.lora.r, sft.lora.alpha, sft.lora.masked),
            (128, 256.0, true)
        );
        let optimizer = &sft.optimizer;
        assert_eq!(
            (optimizer.lr, optimizer.warmup_ratio, optimizer.weight_decay),
            (2e-4, 0.1, 0.0)
        );
        assert_eq!(sft.run.batch_tokens / sft.data.max_length, 64);
        assert_eq!(sft.run.epochs, Some(5.0));
        for (name, beta) in [("grpo", 1e-3), ("grpo-beta1e-4", 1e-4)] {
            let grpo = GrpoRecipe::load(&at(name)).expect(name);
            assert_eq!(grpo.budget.tokens, [1000, 3000, 4000, 6000]);
            assert_eq!(grpo.rollout.questions_per_step * grpo.rollout.group, 256);
            assert_eq!((grpo.rollout.group, grpo.rollout.temperature), (8, 0.8));
            assert_eq!(
                (grpo.objective.beta, grpo.optimizer.lr, grpo.run.steps),
                (beta, 2e-5, 200)
            );
        }
        let verifier = VerifierRecipe::load(&at("verifier")).expect("verifier");
        assert_eq!((verifier.sample.n, verifier.head.confidence), (16, false));
        let switcher = SwitcherRecipe::load(&at("switcher")).expect("switcher");
        assert_eq!(
            (switcher.average.chunk_tokens, switcher.average.alpha),
            (128, 0.5)
        );
        assert_eq!(
            (
                switcher.head.hidden,
                switcher.head.noise,
                switcher.head.dropout
            ),
            (8, 0.5, 0.2)
        );
    }
}

/// Shapes alone, no weights: the paper's counts of parameters, and memory that grows and shrinks as the settings do.
#[test]
fn the_papers_models_are_planned_from_their_config() {
    for (size, parameters, adapter) in [
        ("7b", 7_615_616_512, 322_961_408),
        ("3b", 3_085_938_688, 239_468_544),
    ] {
        let at = |name: &str| recipe(&format!("qwen2.5-{size}/{name}"));
        let options = PlanOptions {
            config: Some(at("config.json")),
            ..PlanOptions::default()
        };
        let planned = |name: &str| plan(&at(name), &options).expect(name);
        let sft = planned("sft.toml");
        assert_eq!(
            (sft.kind, sft.parameters(), sft.trainable()),
            ("sft", parameters, adapter)
        );
        let sum: u64 = sft.layers.iter().map(LayerCost::total).sum();
        let rest: u64 = sft.rest.iter().map(|cost| cost.bytes).sum();
        assert_eq!(sft.peak_bytes(), sum + rest);
        // The frozen network in f32.
        let weights: u64 = sft.layers.iter().map(|l| l.weights).sum();
        assert_eq!(weights, 4 * parameters);
        let best = sft.remedies.last().expect("something helps");
        assert!(best.peak_bytes < sft.peak_bytes(), "{best:?}");
        let grpo = planned("grpo.toml");
        assert_eq!(
            (grpo.kind, grpo.trainable(), grpo.steps),
            ("grpo", adapter, Some(200))
        );
        let kv = grpo
            .rest
            .iter()
            .find(|c| c.name.contains("KV"))
            .expect("a cache");
        let (layers, heads) = if size == "7b" { (28, 4) } else { (36, 2) };
        assert_eq!(kv.bytes, layers * heads * 8 * 128 * 64 * (1024 + 7500));
        assert_eq!(
            planned("grpo-beta1e-4.toml").peak_bytes(),
            grpo.peak_bytes()
        );
        let verifier = planned("verifier.toml");
        let switcher = planned("switcher.toml");
        assert_eq!((verifier.kind, switcher.kind), ("verifier", "switcher"));
        // Heads are learnt on what the engine reads: no gradient of the network.
        assert!(verifier.peak_bytes() < sft.peak_bytes());
        assert!(switcher.peak_bytes() > 2 * parameters);
    }
    let options = PlanOptions::default();
    let error = plan(&recipe("qwen2.5-7b/sft.toml"), &options).expect_err("no weights");
    assert!(error.to_string().contains("--model-config"), "{error}");
}
