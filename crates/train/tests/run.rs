//! Whole runs on a tiny network: training, resuming, fine-tuning, and what a wrong recipe is told.

use std::{fs, path::Path};

use edgethink_train::{BaseRecipe, Event, Progress, SftRecipe, Silent, TrainError, base, sft};

const CONFIG: &str = r#"{"model_type":"qwen2","architectures":["Qwen2ForCausalLM"],"vocab_size":32,"hidden_size":16,
"intermediate_size":32,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"hidden_act":"silu",
"max_position_embeddings":64,"rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":true}"#;

const TEMPLATE: &str = "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}\
{% if add_generation_prompt %}<|im_start|> assistant {% endif %}";

/// A directory with a config, a word tokenizer, a template and data: "add" questions of small numbers.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("config.json"), CONFIG).unwrap();
    fs::create_dir(at("tokenizer")).unwrap();
    let mut words: Vec<String> = [
        "<unk>",
        "<|im_start|>",
        "<|im_end|>",
        "user",
        "assistant",
        "add",
        "is",
    ]
    .map(str::to_owned)
    .to_vec();
    words.extend((0..20).map(|i| i.to_string()));
    let vocab: serde_json::Map<String, serde_json::Value> = words
        .iter()
        .enumerate()
        .map(|(i, w)| (w.clone(), i.into()))
        .collect();
    let special = |id: usize| {
        serde_json::json!({"id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(1), special(2)],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    fs::write(at("tokenizer/tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(
        at("tokenizer/tokenizer_config.json"),
        r#"{"eos_token": "<|im_end|>"}"#,
    )
    .unwrap();
    fs::write(at("tokenizer/chat_template.jinja"), TEMPLATE).unwrap();
    let (mut train, mut chat) = (String::new(), String::new());
    for a in 0..10 {
        for b in 0..10 {
            train.push_str(&format!("{{\"text\": \"add {a} {b} is {}\"}}\n", a + b));
            chat.push_str(&format!(
                "{{\"prompt\": [{{\"role\":\"user\",\"content\":\"add {a} {b}\"}}], \"completion\": \
                 [{{\"role\":\"assistant\",\"content\":\"is {}\"}}]}}\n",
                a + b
            ));
        }
    }
    fs::write(at("train.jsonl"), train).unwrap();
    fs::write(at("chat.jsonl"), chat).unwrap();
    dir
}

fn run_section(epochs: f64) -> String {
    format!(
        "[optimizer]\nlr = 1e-2\nbetas = [0.9, 0.95]\nweight_decay = 0.1\nschedule = \"cosine\"\nwarmup_ratio = 0.1\n\
         max_grad_norm = 1.0\n[run]\nepochs = {epochs}\nbatch_tokens = 80\nmicro_batch_tokens = 40\nlog_every = 5\n\
         eval_every = 10\nsave_every = 7\nsave_dtype = \"f32\"\n"
    )
}

fn base_recipe(dir: &Path, out: &str) -> BaseRecipe {
    let d = dir.display();
    let text = format!(
        "output_dir = \"{d}/{out}\"\nseed = 3\n[model]\nconfig = \"{d}/config.json\"\ntokenizer = \"{d}/tokenizer\"\n\
         [data]\ntrain = [\"{d}/train.jsonl\"]\nvalid = [\"{d}/train.jsonl\"]\nmax_length = 16\n{}",
        run_section(4.0)
    );
    let path = dir.join(format!("{out}.toml"));
    fs::write(&path, text).unwrap();
    BaseRecipe::load(&path).unwrap()
}

fn sft_recipe(dir: &Path, base: &str, out: &str, masked: bool, epochs: f64) -> SftRecipe {
    let d = dir.display();
    let text = format!(
        "output_dir = \"{d}/{out}\"\nseed = 3\n[model]\nbase = \"{d}/{base}\"\n[data]\ntrain = [\"{d}/chat.jsonl\"]\n\
         max_length = 32\n[lora]\nr = 4\nalpha = 8.0\ndropout = 0.1\nmasked = {masked}\n{}",
        run_section(epochs)
    );
    let path = dir.join(format!("{out}.toml"));
    fs::write(&path, text).unwrap();
    SftRecipe::load(&path).unwrap()
}

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

/// The last value of a name in the log of a run.
fn last(dir: &Path, run: &str, name: &str) -> f64 {
    let log = fs::read_to_string(dir.join(run).join("metrics.jsonl")).unwrap();
    let mut values = log
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()[name].as_f64());
    values.next_back().unwrap()
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
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
