//! Whole runs on a tiny network: training, resuming, fine-tuning, and what a wrong recipe is told.

use std::fs;

use crate::support::*;
use edgethink_train::{BaseRecipe, Event, Progress, Silent, TrainError, base, sft};

/// Stops the run before step `at`.
struct StopAt {
    at: u64,
    made: u64,
}

impl Progress for StopAt {
    fn event(&mut self, event: &Event) {
        if let Event::Step { step, .. } = event {
            self.made = *step;
        }
    }
    fn stop(&mut self) -> bool {
        self.made == self.at
    }
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits() {
    let dir = workspace();
    let whole = base_recipe(dir.path(), "whole");
    base(&whole, &mut Silent).unwrap();
    let loss = last(dir.path(), "whole", "eval_loss");
    assert!(loss < 2.6, "the loss fell from 3.3 to {loss}");

    let parts = base_recipe(dir.path(), "parts");
    let stopped = base(&parts, &mut StopAt { at: 11, made: 0 });
    assert!(
        matches!(stopped, Err(TrainError::Stopped { step: 11, .. })),
        "{stopped:?}"
    );
    base(&parts, &mut Silent).unwrap();
    let model = |out: &str| bytes(&dir.path().join(out).join("model.safetensors"));
    assert!(
        model("whole") == model("parts"),
        "the resumed model differs"
    );

    // The log has every step once, and no checkpoints beyond the limit are left.
    let log = fs::read_to_string(dir.path().join("parts/metrics.jsonl")).unwrap();
    let steps: Vec<u64> = log
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
        .filter(|v| v.get("loss").is_some())
        .map(|v| v["step"].as_u64().unwrap())
        .collect();
    assert!(steps.windows(2).all(|w| w[0] < w[1]), "{steps:?}");
    let checkpoints = fs::read_dir(dir.path().join("parts"))
        .unwrap()
        .filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with("checkpoint-")
        })
        .count();
    assert_eq!(checkpoints, 2);
    for file in [
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "run.json",
        "loss.svg",
    ] {
        assert!(dir.path().join("parts").join(file).is_file(), "{file}");
    }
}

#[test]
fn adapters_learn_resume_and_say_what_they_are() {
    let dir = workspace();
    base(&base_recipe(dir.path(), "base"), &mut Silent).unwrap();
    for masked in [true, false] {
        let name = |part: &str| format!("{part}-{masked}");
        let summary = sft(
            &sft_recipe(dir.path(), "base", &name("whole"), masked, 3.0),
            &mut Silent,
        )
        .unwrap();
        assert!(summary.loss < 3.0, "the loss fell to {}", summary.loss);
        let parts = sft_recipe(dir.path(), "base", &name("parts"), masked, 3.0);
        let stopped = sft(&parts, &mut StopAt { at: 9, made: 0 });
        assert!(
            matches!(stopped, Err(TrainError::Stopped { step: 9, .. })),
            "{stopped:?}"
        );
        sft(&parts, &mut Silent).unwrap();
        let adapter = |part: &str| {
            bytes(
                &dir.path()
                    .join(name(part))
                    .join("adapter_model.safetensors"),
            )
        };
        assert!(
            adapter("whole") == adapter("parts"),
            "the resumed adapter differs"
        );
        let config: serde_json::Value = serde_json::from_slice(&bytes(
            &dir.path().join(name("parts")).join("adapter_config.json"),
        ))
        .unwrap();
        let invocation = config.get("alora_invocation_tokens");
        assert_eq!(
            invocation,
            masked.then(|| serde_json::json!([1, 4])).as_ref()
        );
        assert_eq!(config["r"], 4);
    }
}

#[test]
fn a_changed_recipe_does_not_resume() {
    let dir = workspace();
    let mut recipe = base_recipe(dir.path(), "changed");
    assert!(base(&recipe, &mut StopAt { at: 3, made: 0 }).is_err());
    recipe.optimizer.lr = 1e-3;
    recipe.run.threads = 0;
    let error = base(&recipe, &mut Silent).unwrap_err().to_string();
    assert!(
        error.contains("optimizer.lr") && error.contains("resume"),
        "{error}"
    );
    recipe.run.resume = "none".to_owned();
    base(&recipe, &mut Silent).unwrap();
}

#[test]
fn all_problems_of_a_recipe_are_told_at_once() {
    let dir = workspace();
    let path = dir.path().join("wrong.toml");
    let text = format!(
        "output_dir = \"out\"\nseed = 0\n[model]\nconfig = \"c.json\"\n[data]\ntrain = []\nmax_length = 512\n{}",
        run_section(0.0).replace("lr = 1e-2", "lr = -1.0")
    );
    fs::write(&path, &text).unwrap();
    let error = BaseRecipe::load(&path).unwrap_err().to_string();
    for part in [
        "[model]",
        "no file",
        "lr must",
        "epochs must",
        "batch_tokens",
        "micro_batch_tokens",
    ] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    fs::write(&path, format!("{text}\nspeed = 3\n")).unwrap();
    let error = BaseRecipe::load(&path).unwrap_err().to_string();
    assert!(error.contains("speed"), "{error}");
}

#[test]
fn bad_data_names_its_file_and_line() {
    let dir = workspace();
    let recipe = base_recipe(dir.path(), "bad");
    for (line, part) in [
        ("{\"text\": 3}", "not a string"),
        ("{\"txt\": \"a\"}", "neither"),
        ("{\"text\": \"add\"", "EOF"),
        ("[1]", "not a JSON object"),
    ] {
        fs::write(
            dir.path().join("train.jsonl"),
            format!("{{\"text\": \"add 1 2\"}}\n\n{line}\n"),
        )
        .unwrap();
        let error = base(&recipe, &mut Silent).unwrap_err().to_string();
        assert!(
            error.contains("train.jsonl row 3") && error.contains(part),
            "{error}"
        );
    }
    fs::write(dir.path().join("train.jsonl"), "").unwrap();
    assert!(matches!(
        base(&recipe, &mut Silent),
        Err(TrainError::NoTargets { .. })
    ));
}

#[test]
fn a_run_away_rate_stops_the_run() {
    let dir = workspace();
    let mut recipe = base_recipe(dir.path(), "away");
    recipe.optimizer.lr = 1e30;
    recipe.run.max_skipped = 3;
    let error = base(&recipe, &mut Silent).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
}
