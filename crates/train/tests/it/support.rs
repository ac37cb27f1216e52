//! A tiny network with a word tokenizer, its data, and recipes for it.

use std::{fs, path::Path};

use edgethink_train::{BaseRecipe, GrpoRecipe, SftRecipe, Silent, base, sft};

const CONFIG: &str = r#"{"model_type":"qwen2","architectures":["Qwen2ForCausalLM"],"vocab_size":32,"hidden_size":HIDDEN,
"intermediate_size":32,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"hidden_act":"silu",
"max_position_embeddings":64,"rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":true}"#;

const TEMPLATE: &str = "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content }} <|im_end|> {% endfor %}\
{% if add_generation_prompt %}<|im_start|> assistant {% endif %}";

/// A directory with a config, a word tokenizer, a template and data: "add" questions of small numbers.
pub(crate) fn workspace() -> tempfile::TempDir {
    workspace_of(16)
}

/// The same for a network of another width; 4-bit and 8-bit weights need a multiple of 32.
pub(crate) fn workspace_of(hidden: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(
        at("config.json"),
        CONFIG.replace("HIDDEN", &hidden.to_string()),
    )
    .unwrap();
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

/// The optimizer and the run of a recipe.
pub(crate) fn run_section(epochs: f64) -> String {
    format!(
        "[optimizer]\nlr = 1e-2\nbetas = [0.9, 0.95]\nweight_decay = 0.1\nschedule = \"cosine\"\nwarmup_ratio = 0.1\n\
         max_grad_norm = 1.0\n[run]\nepochs = {epochs}\nbatch_tokens = 80\nmicro_batch_tokens = 40\nlog_every = 5\n\
         eval_every = 10\nsave_every = 7\nsave_dtype = \"f32\"\n"
    )
}

/// A base from scratch on `train.jsonl`.
pub(crate) fn base_recipe(dir: &Path, out: &str) -> BaseRecipe {
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

/// An adapter on `chat.jsonl`.
pub(crate) fn sft_recipe(
    dir: &Path,
    base: &str,
    out: &str,
    masked: bool,
    epochs: f64,
) -> SftRecipe {
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

/// The last value of a name in the log of a run.
pub(crate) fn last(dir: &Path, run: &str, name: &str) -> f64 {
    let log = fs::read_to_string(dir.join(run).join("metrics.jsonl")).unwrap();
    let mut values = log
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()[name].as_f64());
    values.next_back().unwrap()
}

/// A whole file.
pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A recipe of reinforcement learning from the adapter `sft`.
pub(crate) fn grpo_text(dir: &Path, out: &str) -> String {
    let d = dir.display();
    format!(
        "output_dir = \"{d}/{out}\"\nseed = 5\n[model]\nbase = \"{d}/base\"\nadapter = \"{d}/sft\"\n\
         [data]\ntrain = [\"{d}/rl.jsonl\"]\nvalid = [\"{d}/rl.jsonl\"]\nmax_prompt_tokens = 16\n\
         [budget]\ntokens = [6]\nline = \"{{B}}\"\n[rollout]\nquestions_per_step = 4\ngroup = 6\ntemperature = 1.0\n\
         max_completion_tokens = 12\n[[reward]]\nkind = \"l1_exact\"\nalpha = 0.1\n[objective]\nbeta = 0.001\n\
         [optimizer]\nlr = 5e-3\nbetas = [0.9, 0.95]\nweight_decay = 0.0\nschedule = \"constant\"\nwarmup_ratio = 0.0\n\
         max_grad_norm = 1.0\n[run]\nsteps = 24\nmicro_batch_tokens = 64\nlog_every = 4\neval_every = 12\neval_questions = 20\n\
         save_every = 7\ncompletions_every = 10\n"
    )
}

/// The same, loaded.
pub(crate) fn recipe(dir: &Path, out: &str) -> GrpoRecipe {
    let path = dir.join(format!("{out}.toml"));
    fs::write(&path, grpo_text(dir, out)).unwrap();
    GrpoRecipe::load(&path).unwrap()
}

/// A base, an adapter that answers "is 7 <|im_end|>", and questions.
pub(crate) fn world() -> tempfile::TempDir {
    world_of(16)
}

/// The same for a network of another width.
pub(crate) fn world_of(hidden: usize) -> tempfile::TempDir {
    let dir = workspace_of(hidden);
    base(&base_recipe(dir.path(), "base"), &mut Silent).unwrap();
    sft(
        &sft_recipe(dir.path(), "base", "sft", true, 3.0),
        &mut Silent,
    )
    .unwrap();
    let mut rows = String::new();
    for a in 0..9 {
        rows.push_str(&format!(
            "{{\"prompt\": [{{\"role\": \"user\", \"content\": \"add {a} 3\"}}], \"answer\": \"{}\"}}\n",
            a + 3
        ));
    }
    fs::write(dir.path().join("rl.jsonl"), rows).unwrap();
    dir
}
