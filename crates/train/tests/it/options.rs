//! Options of a run that change numbers: dropout, bf16, the cutting of long examples; and that a written adapter is what was trained.

use std::{fs, path::Path};

use crate::support::*;
use edgethink_model::{Adapter, Model, reference};
use edgethink_train::{Event, FloatType, Overlong, Progress, Silent, base, sft};

/// Keeps what the run says at its start.
#[derive(Default)]
struct Start {
    examples: usize,
    dropped: usize,
    truncated: usize,
    tokens: u64,
}

impl Progress for Start {
    fn event(&mut self, event: &Event) {
        if let &Event::Started {
            examples,
            dropped,
            truncated,
            tokens,
            ..
        } = event
        {
            *self = Self {
                examples,
                dropped,
                truncated,
                tokens,
            };
        }
    }
}

/// A model that was trained.
fn load(dir: &Path) -> Model {
    Model::load(dir.to_str().expect("a UTF-8 path")).expect("it loads")
}

/// Mean loss of the completions of `chat.jsonl` by the reference pass, nats per learnt token.
fn loss_by_reference(base: &Path, adapter: &Path) -> f64 {
    let model = load(base);
    let adapter = Adapter::load(adapter, &model.config).expect("the adapter loads");
    assert_eq!(adapter.invocation.as_deref(), Some([1, 4].as_slice()));
    let tokenizer = model.tokenizer.as_ref().expect("it has a tokenizer");
    let (mut sum, mut count) = (0.0, 0);
    for a in 0..10 {
        for b in 0..10 {
            let prompt = format!("<|im_start|> user add {a} {b} <|im_end|> <|im_start|> assistant");
            let answer = format!("is {} <|im_end|>", a + b);
            let encode = |text: &str| tokenizer.encode(text, false).expect("known words");
            let (mut tokens, answer) = (encode(&prompt), encode(&answer));
            let from = tokens.len();
            tokens.extend(answer);
            let start = adapter.start(&tokens).expect("the invocation is there");
            let logits = reference::forward(&model, &tokens, Some((&adapter, start)))
                .expect("a forward pass")
                .logits;
            let rows = logits.chunks_exact(model.config.vocab_size);
            for (row, &next) in rows.zip(&tokens[1..]).skip(from - 1) {
                let top = row.iter().fold(f32::MIN, |m, &x| m.max(x));
                let total: f64 = row.iter().map(|&x| f64::from(x - top).exp()).sum();
                sum += total.ln() - f64::from(row[next as usize] - top);
                count += 1;
            }
        }
    }
    sum / f64::from(count)
}

#[test]
fn the_validation_loss_is_the_written_adapter_s_own() {
    let dir = workspace();
    base(&base_recipe(dir.path(), "base"), &mut Silent).expect("a base");
    for dropout in [0.0, 0.5] {
        let name = format!("dropout-{dropout}");
        let mut recipe = sft_recipe(dir.path(), "base", &name, true, 2.0);
        recipe.lora.dropout = dropout;
        recipe.data.valid = recipe.data.train.clone();
        sft(&recipe, &mut Silent).expect("an adapter");
        // Dropout acts in training only, so the reference, which knows none, finds the same loss.
        let want = loss_by_reference(&dir.path().join("base"), &dir.path().join(&name));
        let found = last(dir.path(), &name, "eval_loss");
        assert!(
            (found - want).abs() <= 1e-4 * want,
            "dropout {dropout}: validation loss {found}, by the reference {want}"
        );
    }
    let adapter = |name: &str| bytes(&dir.path().join(name).join("adapter_model.safetensors"));
    assert!(
        adapter("dropout-0") != adapter("dropout-0.5"),
        "dropout does nothing"
    );
}

#[test]
fn bf16_trains_as_f32_does_and_keeps_f32_weights() {
    let dir = workspace();
    base(&base_recipe(dir.path(), "f32"), &mut Silent).expect("a base");
    let mut recipe = base_recipe(dir.path(), "bf16");
    recipe.run.dtype = FloatType::Bf16;
    base(&recipe, &mut Silent).expect("a base in bf16");
    let (f32, bf16) = (
        last(dir.path(), "f32", "eval_loss"),
        last(dir.path(), "bf16", "eval_loss"),
    );
    assert!((f32 - bf16).abs() <= 0.02 * f32, "f32 {f32}, bf16 {bf16}");
    assert!(f32 != bf16, "bf16 changes nothing");
    let model = load(&dir.path().join("bf16"));
    let values = model.weights.embed_tokens.to_f32();
    let finer = values.iter().filter(|v| v.to_bits() & 0xffff != 0).count();
    assert!(finer > values.len() / 2, "the master weights were rounded");
}

#[test]
fn an_adapter_learns_on_products_in_bf16_as_in_f32() {
    let dir = workspace();
    let mut refused = base_recipe(dir.path(), "base");
    base(&refused, &mut Silent).expect("a base");
    refused.run.compute_dtype = FloatType::Bf16;
    let error = base(&refused, &mut Silent).expect_err("nothing is frozen");
    assert!(error.to_string().contains("compute_dtype"), "{error}");

    let loss = |compute, out: &str| {
        let mut recipe = sft_recipe(dir.path(), "base", out, true, 1.0);
        recipe.run.compute_dtype = compute;
        recipe.data.valid = recipe.data.train.clone();
        sft(&recipe, &mut Silent).expect("an adapter");
        last(dir.path(), out, "eval_loss")
    };
    let (f32, bf16) = (loss(FloatType::F32, "f32"), loss(FloatType::Bf16, "bf16"));
    assert!((f32 - bf16).abs() <= 0.02 * f32, "f32 {f32}, bf16 {bf16}");
    assert!(f32 != bf16, "bf16 changes nothing");
}

#[test]
fn long_examples_are_dropped_or_cut_as_the_recipe_says() {
    let dir = workspace();
    let path = dir.path().join("train.jsonl");
    let mut rows = fs::read_to_string(&path).expect("the data");
    rows.push_str(&format!(
        "{{\"text\": \"{}\"}}\n",
        "add 1 2 is 3 ".repeat(8)
    ));
    fs::write(&path, rows).expect("written");
    // A hundred rows of five words and the end; one of 41 tokens, of which 16 fit. Four epochs.
    for (overlong, want) in [
        (Overlong::Drop, (100, 1, 0, 4 * 600)),
        (Overlong::Truncate, (101, 0, 1, 4 * 616)),
    ] {
        let mut recipe = base_recipe(dir.path(), &format!("{overlong:?}"));
        recipe.data.overlong = overlong;
        let mut start = Start::default();
        base(&recipe, &mut start).expect("a base");
        let found = (start.examples, start.dropped, start.truncated, start.tokens);
        assert_eq!(found, want, "{overlong:?}");
    }
}

#[test]
fn an_example_cut_before_its_adapter_begins_does_no_harm() {
    let dir = workspace();
    base(&base_recipe(dir.path(), "base"), &mut Silent).expect("a base");
    let path = dir.path().join("chat.jsonl");
    let mut rows = fs::read_to_string(&path).expect("the data");
    rows.push_str(&format!(
        "{{\"messages\": [{{\"role\":\"user\",\"content\":\"{}\"}},{{\"role\":\"assistant\",\"content\":\"is 3\"}}]}}\n",
        "add 1 2 ".repeat(20)
    ));
    fs::write(&path, rows).expect("written");
    let mut recipe = sft_recipe(dir.path(), "base", "cut", true, 1.0);
    recipe.data.overlong = Overlong::Truncate;
    let mut start = Start::default();
    let summary = sft(&recipe, &mut start).expect("an adapter");
    assert_eq!((start.examples, start.truncated), (101, 1));
    assert!(summary.loss.is_finite());
}

/// Tokens on the disk give what tokens in memory give, bit by bit, dropout included; they are encoded once, and again when a file changes.
#[test]
fn tokens_on_the_disk_train_the_same_adapter() {
    let dir = workspace();
    base(&base_recipe(dir.path(), "base"), &mut Silent).expect("a base");
    let cache = dir.path().join("tokens");
    let trained = |name: &str, cache: Option<&Path>| {
        let mut recipe = sft_recipe(dir.path(), "base", name, true, 2.0);
        recipe.data.cache = cache.map(Path::to_owned);
        sft(&recipe, &mut Silent).expect("trained");
        bytes(&recipe.output_dir.join("adapter_model.safetensors"))
    };
    let in_memory = trained("in-memory", None);
    assert!(
        trained("on-disk", Some(&cache)) == in_memory,
        "another adapter"
    );
    let names = || {
        let entries = fs::read_dir(&cache).expect("a cache");
        let mut names: Vec<_> = entries.map(|e| e.expect("a file").path()).collect();
        names.sort();
        names
    };
    let first = names();
    assert_eq!(first.len(), 2, "{first:?}");
    let made = |path: &Path| {
        fs::metadata(path)
            .and_then(|m| m.modified())
            .expect("a time")
    };
    let times: Vec<_> = first.iter().map(|p| made(p)).collect();
    assert!(
        trained("again", Some(&cache)) == in_memory,
        "another adapter"
    );
    let again: Vec<_> = first.iter().map(|p| made(p)).collect();
    assert_eq!(again, times, "it was encoded twice");
    let data = dir.path().join("chat.jsonl");
    let text = fs::read_to_string(&data).expect("the data");
    fs::write(&data, text.replace("is 7", "is 8")).expect("written");
    assert!(
        trained("changed", Some(&cache)) != in_memory,
        "the change was not seen"
    );
    assert_eq!(names().len(), 4, "a stale file was used");
}
