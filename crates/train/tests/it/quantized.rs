//! Training on a base that is a quantized GGUF file: the adapter by SFT and GRPO; the base itself is refused, and stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::*;
use edgethink_model::{Adapter, Family, Model};
use edgethink_quantize::{Job, Scheme, quantize};
use edgethink_testkit::tiny_model;
use edgethink_train::{BaseRecipe, GrpoRecipe, Silent, TrainError, base, grpo, sft};

/// A random model with a tokenizer, quantized to `model.gguf`, and questions.
fn world(bits: u8) -> (tempfile::TempDir, PathBuf) {
    let (dir, float) = (workspace(), tiny_model(Family::Qwen2, 7));
    let out = dir.path().join("model.gguf");
    let table =
        format!("bits = {bits}\ngroup = 32\nrange = {{ lp = 2.0 }}\nrounding = \"nearest\"\n");
    let names = ["linears", "embedding", "lm_head", "tied"];
    let scheme: String = names
        .iter()
        .map(|name| format!("[{name}]\n{table}\n"))
        .collect();
    let scheme = Scheme::from_toml(&scheme).unwrap();
    let job = Job {
        scheme: &scheme,
        calibration: None,
        trained: None,
        out: &out,
        name: "tiny",
        threads: 1,
    };
    let model = Model::load(float.path().to_str().unwrap()).unwrap();
    quantize(model, &job, &mut |_| true).unwrap();
    let row = |a: usize| {
        format!(
            "{{\"prompt\": [{{\"role\": \"user\", \"content\": \"add {a} 3\"}}], \"answer\": \"{}\"}}\n",
            a + 3
        )
    };
    fs::write(
        dir.path().join("rl.jsonl"),
        (0..9).map(row).collect::<String>(),
    )
    .unwrap();
    (dir, out)
}

fn grpo_recipe(dir: &Path, out: &str) -> GrpoRecipe {
    let d = dir.display();
    let text = format!(
        "output_dir = \"{d}/{out}\"\nseed = 5\n[model]\nbase = \"{d}/model.gguf\"\nadapter = \"{d}/sft\"\n\
         [data]\ntrain = [\"{d}/rl.jsonl\"]\nmax_prompt_tokens = 64\n[budget]\ntokens = [6]\nline = \"{{B}}\"\n\
         [rollout]\nquestions_per_step = 4\ngroup = 6\ntemperature = 1.0\nmax_completion_tokens = 16\n\
         [[reward]]\nkind = \"l1_exact\"\nalpha = 0.1\n[objective]\nbeta = 0.001\n[optimizer]\nlr = 5e-3\n\
         betas = [0.9, 0.95]\nweight_decay = 0.0\nschedule = \"constant\"\nwarmup_ratio = 0.0\nmax_grad_norm = 1.0\n\
         [run]\nsteps = 2\nmicro_batch_tokens = 512\nlog_every = 1\neval_every = 0\nsave_every = 0\ncompletions_every = 0\n"
    );
    let path = dir.join(format!("{out}.toml"));
    fs::write(&path, text).unwrap();
    GrpoRecipe::load(&path).unwrap()
}

/// Rollouts and training read the one file: what the sampler draws has nearly the probability that the trainer computes. They differ by
/// the engine's rounding of activations to 8 bits, as in `base_model`'s test of the logits.
#[test]
fn grpo_runs_on_a_quantized_base_and_leaves_it_alone() {
    for bits in [8, 4] {
        let (dir, file) = world(bits);
        let d = dir.path();
        let before = bytes(&file);
        let mut recipe = sft_recipe(d, "model.gguf", "sft", true, 6.0);
        recipe.data.max_length = 96;
        recipe.run.batch_tokens = 384;
        recipe.run.micro_batch_tokens = 384;
        sft(&recipe, &mut Silent).unwrap();
        grpo(&grpo_recipe(d, "rl"), &mut Silent).unwrap();
        assert!(bytes(&file) == before, "{bits} bits: the base was written");

        let [mean, least, most] = [
            "sampling/sampling_logp_difference/mean",
            "sampling/importance_sampling_ratio/min",
            "sampling/importance_sampling_ratio/max",
        ]
        .map(|name| last(d, "rl", name));
        assert!(mean > 0.0 && mean < 0.03, "{bits} bits: {mean} nats");
        assert!(least > 0.8 && most < 1.25, "{bits} bits: {least} to {most}");

        let model = Model::load(file.to_str().unwrap()).unwrap();
        let [from, made] =
            ["sft", "rl"].map(|out| Adapter::load(d.join(out), &model.config).unwrap());
        assert_eq!(made.invocation, from.invocation);
        assert!(made.hash != from.hash, "{bits} bits: it was trained");
        // The same run gives the same bits.
        grpo(&grpo_recipe(d, "again"), &mut Silent).unwrap();
        let weights = |out: &str| bytes(&d.join(out).join("adapter_model.safetensors"));
        assert!(weights("rl") == weights("again"), "{bits} bits");
    }
}

/// Codes have no gradient: training every parameter needs floats, and says so by the file's name.
#[test]
fn a_whole_model_is_not_trained_from_a_gguf_file() {
    let (dir, file) = world(4);
    let d = dir.path().display();
    let text = format!(
        "output_dir = \"{d}/out\"\nseed = 3\n[model]\nbase = \"{d}/model.gguf\"\n[data]\ntrain = [\"{d}/train.jsonl\"]\nmax_length = 16\n{}",
        run_section(1.0)
    );
    let path = dir.path().join("base.toml");
    fs::write(&path, text).unwrap();
    let error = base(&BaseRecipe::load(&path).unwrap(), &mut Silent).unwrap_err();
    assert!(
        matches!(&error, TrainError::Unfit { path, .. } if *path == file),
        "{error:?}"
    );
    let said = error.to_string();
    assert!(
        said.contains("model.gguf") && said.contains("model directory"),
        "{said}"
    );
    assert!(!dir.path().join("out").exists(), "nothing is written");
}
