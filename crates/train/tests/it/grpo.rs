//! Reinforcement learning on a tiny network: it learns what is rewarded, resumes to the same bits, and refuses what cannot work.

use std::{fs, path::Path};

use crate::support::*;
use edgethink_model::{Adapter, Model};
use edgethink_train::{
    Event, GrpoRecipe, Progress, Reward, RolloutKv, RolloutWeights, Silent, TrainError, grpo,
};

struct StopAt(u64, u64);

impl Progress for StopAt {
    fn event(&mut self, event: &Event) {
        if let Event::Policy { step, .. } = event {
            self.1 = *step;
        }
    }
    fn stop(&mut self) -> bool {
        self.1 == self.0
    }
}

fn adapter(dir: &Path, out: &str) -> Vec<u8> {
    bytes(&dir.join(out).join("adapter_model.safetensors"))
}

#[test]
fn it_learns_resumes_to_the_same_bits_and_leaves_its_records() {
    let dir = world();
    let d = dir.path();
    grpo(&recipe(d, "whole"), &mut Silent).unwrap();
    let log = fs::read_to_string(d.join("whole/metrics.jsonl")).unwrap();
    let values = |name: &str| -> Vec<f64> {
        log.lines()
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()[name].as_f64())
            .collect()
    };
    let reward = values("reward");
    let (first, end) = (reward[0], reward[reward.len() - 1]);
    assert!(end > first + 0.1, "the reward went from {first} to {end}");
    let gap = values("sampling/sampling_logp_difference/max");
    assert!(
        gap.iter().all(|&g| g < 1e-4),
        "sampler and trainer differ: {gap:?}"
    );
    for name in [
        "kl",
        "entropy",
        "completions/mean_length",
        "frac_reward_zero_std",
        "rewards/l1_exact/mean",
    ] {
        assert!(!values(name).is_empty(), "{name}");
    }
    assert_eq!(values("eval_accuracy").len(), 3);

    let parts = recipe(d, "parts");
    for at in [5, 16] {
        let stopped = grpo(&parts, &mut StopAt(at, 0));
        assert!(
            matches!(stopped, Err(TrainError::Stopped { step, .. }) if step == at),
            "{stopped:?}"
        );
    }
    grpo(&parts, &mut Silent).unwrap();
    assert!(
        adapter(d, "whole") == adapter(d, "parts"),
        "the resumed adapter differs"
    );

    for file in ["training.svg", "lengths.svg", "run.json", "edgethink.json"] {
        assert!(d.join("whole").join(file).is_file(), "{file}");
    }
    let model = Model::load(d.join("base").to_str().unwrap()).unwrap();
    let made = Adapter::load(d.join("whole"), &model.config).unwrap();
    let from = Adapter::load(d.join("sft"), &model.config).unwrap();
    assert_eq!(made.invocation, from.invocation);
    assert!(made.hash != from.hash, "it was trained");
}

#[test]
fn micro_batches_change_nothing_but_rounding() {
    let dir = world();
    let d = dir.path();
    let mut made = Vec::new();
    for (out, micro) in [("small", 28), ("large", 4000)] {
        let mut recipe = recipe(d, out);
        recipe.run.steps = 2;
        recipe.run.micro_batch_tokens = micro;
        grpo(&recipe, &mut Silent).unwrap();
        let model = Model::load(d.join("base").to_str().unwrap()).unwrap();
        let adapter = Adapter::load(d.join(out), &model.config).unwrap();
        let values: Vec<f32> = adapter
            .layers
            .iter()
            .flatten()
            .flatten()
            .flat_map(|pair| [pair.a.to_f32(), pair.b.to_f32()].concat())
            .collect();
        made.push(values);
    }
    let largest = made[0].iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let differ = made[0].iter().zip(&made[1]).map(|(a, b)| (a - b).abs());
    assert!(differ.fold(0.0, f32::max) < 1e-3 * largest);
}

/// The gap between a sampler and the trainer: mean, and smallest and largest importance weight, means over the run.
fn gap(dir: &Path, out: &str) -> [f64; 3] {
    [
        "sampling/sampling_logp_difference/mean",
        "sampling/importance_sampling_ratio/min",
        "sampling/importance_sampling_ratio/max",
    ]
    .map(|name| last(dir, out, name))
}

#[test]
fn a_sampler_with_rounded_kv_is_measured() {
    let dir = world();
    let mut recipe = recipe(dir.path(), "int8");
    recipe.rollout.kv = RolloutKv::Int8;
    recipe.run.steps = 4;
    grpo(&recipe, &mut Silent).unwrap();
    let [mean, ..] = gap(dir.path(), "int8");
    assert!(mean > 1e-6 && mean < 0.2, "{mean}");
    // Rows of 16 are no whole group of 32: such a model is refused by the engine, with its reason.
    recipe.rollout.weights = RolloutWeights::Q4;
    let error = grpo(&recipe, &mut Silent).unwrap_err();
    let TrainError::Engine { source } = &error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("32"), "{source}");
}

/// Completions drawn on 4-bit weights, the adapter trained on the full ones: the gap is not zero, and the importance weights act.
#[test]
fn a_sampler_with_4_bit_weights_is_measured_and_corrected() {
    let dir = world_of(32);
    let run = |out: &str, weights, cap| {
        let mut recipe = recipe(dir.path(), out);
        recipe.rollout.weights = weights;
        recipe.objective.importance_cap = cap;
        recipe.run.steps = 1;
        grpo(&recipe, &mut Silent).unwrap();
        gap(dir.path(), out)
    };
    let [mean, least, most] = run("stored", RolloutWeights::Stored, 2.0);
    assert!(
        mean < 1e-5 && least > 0.999 && most < 1.001,
        "{mean} {least} {most}"
    );
    let [eight, ..] = run("q8", RolloutWeights::Q8, 2.0);
    let [four, least, most] = run("q4", RolloutWeights::Q4, 2.0);
    assert!(
        eight > 1e-5 && four > 2.0 * eight,
        "8 bits: {eight}, 4 bits: {four}"
    );
    assert!(least < 0.95 && most > 1.05, "{least} {most}");
    // Other weights of the same completions make another step: those above 1 are all cut to 1 here.
    run("cut", RolloutWeights::Q4, 1.0);
    assert!(
        adapter(dir.path(), "q4") != adapter(dir.path(), "cut"),
        "the importance weights act"
    );
}

#[cfg(feature = "parquet")]
#[test]
fn the_table_of_completions_is_read_back() {
    use std::collections::HashMap;

    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::Field,
    };
    let dir = world();
    let mut recipe = recipe(dir.path(), "table");
    recipe.run.steps = 1;
    grpo(&recipe, &mut Silent).unwrap();
    let path = dir
        .path()
        .join("table/completions/completions_00001.parquet");
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    let rows: Vec<HashMap<String, Field>> = rows
        .map(|row| row.unwrap().into_columns().into_iter().collect())
        .collect();
    assert_eq!(rows.len(), 4 * 6);
    for group in rows.chunks(6) {
        for row in group {
            let number = |name: &str| match row[name] {
                Field::Long(value) => value as f64,
                Field::Double(value) => value,
                Field::Bool(value) => f64::from(u8::from(value)),
                _ => panic!("{name}: {row:?}"),
            };
            assert_eq!((number("step"), number("budget")), (1.0, 6.0));
            assert_eq!(row["prompt"], group[0]["prompt"]);
            assert!(
                matches!(&row["prompt"], Field::Str(p) if p.starts_with("<|im_start|> user add")),
                "{row:?}"
            );
            let reward = number("correct") - 0.1 * (6.0 - number("tokens")).abs();
            assert!((number("l1_exact") - reward).abs() < 1e-9, "{row:?}");
            assert!((number("reward") - reward).abs() < 1e-6, "{row:?}");
            assert!(
                number("ended") == 1.0 || number("tokens") == 12.0,
                "{row:?}"
            );
        }
        let advantages = group.iter().map(|row| match row["advantage"] {
            Field::Double(value) => value,
            _ => f64::NAN,
        });
        let sum: f64 = advantages.sum();
        assert!(sum.abs() < 1e-4, "the advantages of a group sum to {sum}");
    }
}

#[test]
fn a_run_that_learns_nothing_stops_and_says_why() {
    let dir = world();
    let mut recipe = recipe(dir.path(), "zero");
    // No completion of at most 12 tokens holds this answer.
    let rows = fs::read_to_string(dir.path().join("rl.jsonl")).unwrap();
    fs::write(
        dir.path().join("rl.jsonl"),
        rows.replace("\"answer\": \"", "\"answer\": \"1000"),
    )
    .unwrap();
    recipe.reward = vec![Reward::Accuracy { weight: 1.0 }];
    recipe.guard.zero_reward_steps = 3;
    let error = grpo(&recipe, &mut Silent).unwrap_err();
    let TrainError::Hopeless { step, problem, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*step, 3);
    assert!(problem.contains("no completion had a reward"), "{problem}");
}

#[test]
fn all_problems_of_a_recipe_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.toml");
    let bad = grpo_text(dir.path(), "bad")
        .replace("group = 6", "group = 1")
        .replace("temperature = 1.0", "temperature = 0.0")
        .replace(
            "kind = \"l1_exact\"\nalpha = 0.1",
            "kind = \"soft_barrier\"",
        )
        .replace("tokens = [6]", "tokens = [6, 100]")
        .replace("beta = 0.001", "beta = -1.0")
        .replace(
            "[objective]",
            "[[reward]]\nkind = \"accuracy\"\n[[reward]]\nkind = \"accuracy\"\n[objective]",
        )
        .replace(
            "completions_every = 10",
            "completions_every = 10\n[guard]\nmax_answer_growth = 0.5",
        )
        .replace("lr = 5e-3", "lr = 0.0")
        .replace("/sft\"", "/bad\"");
    fs::write(&path, &bad).unwrap();
    let error = GrpoRecipe::load(&path).unwrap_err().to_string();
    for part in [
        "group must be",
        "temperature",
        "raise it to 125",
        "output_dir",
        "beta",
        "lr must be",
        "twice",
        "max_answer_growth",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    fs::write(&path, bad.replace("seed = 5", "seed = 5\nsed = 6")).unwrap();
    assert!(
        GrpoRecipe::load(&path)
            .unwrap_err()
            .to_string()
            .contains("sed")
    );
    fs::write(
        &path,
        grpo_text(dir.path(), "bad").replace("kind = \"l1_exact\"", "kind = \"l2\""),
    )
    .unwrap();
    assert!(
        GrpoRecipe::load(&path)
            .unwrap_err()
            .to_string()
            .contains("l2")
    );
}

#[test]
fn questions_without_answers_name_their_line() {
    let dir = world();
    let recipe = recipe(dir.path(), "rows");
    fs::write(
        dir.path().join("rl.jsonl"),
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"add 1 3\"}], \"answer\": \"4\"}\n{\"prompt\": \"add 1 3\"}\n",
    )
    .unwrap();
    let error = grpo(&recipe, &mut Silent).unwrap_err().to_string();
    assert!(
        error.contains("row 2") && error.contains("answer"),
        "{error}"
    );
    fs::write(dir.path().join("rl.jsonl"), "\n").unwrap();
    let error = grpo(&recipe, &mut Silent).unwrap_err();
    assert!(matches!(error, TrainError::NoQuestions { .. }), "{error:?}");
}
