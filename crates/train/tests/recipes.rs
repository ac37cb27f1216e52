//! The recipes of the repository are read and checked as a run does it, without the models and data that they name.

use std::path::PathBuf;

use edgethink_train::{BaseRecipe, GrpoRecipe, SftRecipe, SwitcherRecipe, VerifierRecipe};

fn recipe(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../recipes")
        .join(name)
}

#[test]
fn every_recipe_has_no_problems() {
    BaseRecipe::load(&recipe("pocket/base.toml")).expect("base");
    for name in [
        "pocket/sft.toml",
        "pocket/sft-plain.toml",
        "qwen2.5-7b/sft.toml",
    ] {
        SftRecipe::load(&recipe(name)).expect(name);
    }
    for name in [
        "pocket/grpo.toml",
        "pocket/grpo-beta1e-4.toml",
        "qwen2.5-7b/grpo.toml",
        "qwen2.5-7b/grpo-beta1e-4.toml",
    ] {
        GrpoRecipe::load(&recipe(name)).expect(name);
    }
    for name in [
        "pocket/switcher.toml",
        "pocket/switcher-w4.toml",
        "qwen2.5-7b/switcher.toml",
    ] {
        SwitcherRecipe::load(&recipe(name)).expect(name);
    }
    for name in [
        "pocket/verifier.toml",
        "pocket/verifier-w4.toml",
        "qwen2.5-7b/verifier.toml",
    ] {
        VerifierRecipe::load(&recipe(name)).expect(name);
    }
}

#[test]
fn the_papers_settings_are_those_of_the_paper() {
    let sft = SftRecipe::load(&recipe("qwen2.5-7b/sft.toml")).expect("sft");
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
    for (name, beta) in [("grpo", 1e-3), ("grpo-beta1e-4", 1e-4)] {
        let grpo = GrpoRecipe::load(&recipe(&format!("qwen2.5-7b/{name}.toml"))).expect(name);
        assert_eq!(grpo.budget.tokens, [1000, 3000, 4000, 6000]);
        assert_eq!(grpo.rollout.questions_per_step * grpo.rollout.group, 256);
        assert_eq!(
            (grpo.objective.beta, grpo.optimizer.lr, grpo.run.steps),
            (beta, 2e-5, 200)
        );
    }
}
