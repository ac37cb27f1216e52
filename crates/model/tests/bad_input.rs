//! Damaged and dishonest model directories: each is an error that names the thing.

use std::error::Error;
use std::fs;
use std::path::Path;

use edgethink_model::{Family, Model};
use edgethink_testkit::{tiny_config, tiny_model, tiny_model_of, tokenizer_json};
use serde_json::{Value, json};

const WEIGHTS: &str = "model.safetensors";

/// The messages of an error and all its sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}

fn load(dir: &Path) -> Result<Model, String> {
    Model::load(dir.to_str().unwrap()).map_err(|e| chain(&e))
}

/// The header of a safetensors file and its data.
fn parts(path: &Path) -> (Value, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (
        serde_json::from_slice(&bytes[8..8 + len]).unwrap(),
        bytes[8 + len..].to_vec(),
    )
}

fn write_parts(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

fn edit_header(dir: &Path, edit: impl Fn(&mut Value, &mut Vec<u8>)) {
    let path = dir.join(WEIGHTS);
    let (mut header, mut data) = parts(&path);
    edit(&mut header, &mut data);
    write_parts(&path, &header.to_string(), &data);
}

fn edit_json(dir: &Path, file: &str, edit: impl Fn(&mut Value)) {
    let path = dir.join(file);
    let text = fs::read(&path).unwrap_or_else(|_| b"{}".to_vec());
    let mut value: Value = serde_json::from_slice(&text).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn remove_tensor(header: &mut Value, data: &mut Vec<u8>, name: &str) {
    let removed = header.as_object_mut().unwrap().remove(name).unwrap();
    let at = |i: usize| removed["data_offsets"][i].as_u64().unwrap();
    let (start, end) = (at(0), at(1));
    data.drain(start as usize..end as usize);
    for (name, tensor) in header.as_object_mut().unwrap() {
        if name != "__metadata__" && tensor["data_offsets"][0].as_u64().unwrap() >= end {
            for i in 0..2 {
                tensor["data_offsets"][i] =
                    json!(tensor["data_offsets"][i].as_u64().unwrap() - (end - start));
            }
        }
    }
}

/// Moves the weights into shards as the index says; `index` maps tensor names to files.
fn shard(dir: &Path, index: &[(&str, &str)], copies: &[&str]) {
    for copy in copies {
        fs::copy(dir.join(WEIGHTS), dir.join(copy)).unwrap();
    }
    fs::remove_file(dir.join(WEIGHTS)).unwrap();
    let map: serde_json::Map<String, Value> = index
        .iter()
        .map(|&(name, file)| (name.to_owned(), file.into()))
        .collect();
    fs::write(
        dir.join("model.safetensors.index.json"),
        json!({ "weight_map": map }).to_string(),
    )
    .unwrap();
}

type Case = (&'static str, fn(&Path));

/// What the message must say, and the damage.
const CASES: &[Case] = &[
    ("damaged or was not downloaded completely", |d| {
        let bytes = fs::read(d.join(WEIGHTS)).unwrap();
        fs::write(d.join(WEIGHTS), &bytes[..bytes.len() - 100]).unwrap();
    }),
    ("damaged or was not downloaded completely", |d| {
        fs::write(d.join(WEIGHTS), [9, 0, 0]).unwrap()
    }),
    ("damaged or was not downloaded completely", |d| {
        let bytes = fs::read(d.join(WEIGHTS)).unwrap();
        fs::write(d.join(WEIGHTS), &bytes[..100]).unwrap();
    }),
    ("the file is empty", |d| {
        fs::write(d.join(WEIGHTS), []).unwrap()
    }),
    ("damaged or was not downloaded completely", |d| {
        fs::write(d.join(WEIGHTS), [255; 64]).unwrap();
    }),
    ("damaged or was not downloaded completely", |d| {
        let mut bytes = (1u64 << 40).to_le_bytes().to_vec();
        bytes.extend([b' '; 64]);
        fs::write(d.join(WEIGHTS), bytes).unwrap();
    }),
    // Two tensors over the same bytes.
    ("damaged or was not downloaded completely", |d| {
        edit_header(d, |header, _| {
            header["model.layers.1.input_layernorm.weight"]["data_offsets"] =
                header["model.layers.0.input_layernorm.weight"]["data_offsets"].clone();
        });
    }),
    // A hole that no tensor covers.
    ("damaged or was not downloaded completely", |d| {
        edit_header(d, |header, _| {
            header.as_object_mut().unwrap().remove("model.norm.weight");
        });
    }),
    // More data than the header knows.
    ("damaged or was not downloaded completely", |d| {
        edit_header(d, |_, data| data.extend([0; 8]))
    }),
    // A product that overflows, and an exabyte that does not.
    ("damaged or was not downloaded completely", |d| {
        edit_header(d, |header, _| {
            header["model.norm.weight"]["shape"] = json!([1u64 << 62, 1u64 << 62])
        });
    }),
    ("damaged or was not downloaded completely", |d| {
        edit_header(d, |header, _| {
            header["model.norm.weight"]["shape"] = json!([1u64 << 60])
        });
    }),
    ("damaged or was not downloaded completely", |d| {
        edit_header(d, |header, _| {
            header["model.norm.weight"]["data_offsets"] = json!([u64::MAX - 1, u64::MAX])
        });
    }),
    ("damaged or was not downloaded completely", |d| {
        edit_header(d, |header, _| {
            header["model.norm.weight"]["data_offsets"] = json!([64, 0])
        });
    }),
    ("the key `model.norm.weight` appears twice", |d| {
        let (header, data) = parts(&d.join(WEIGHTS));
        let text = header.to_string();
        let again = format!(
            "{{\"model.norm.weight\":{},{}",
            header["model.norm.weight"],
            &text[1..]
        );
        write_parts(&d.join(WEIGHTS), &again, &data);
    }),
    (
        "`model.norm.weight` is stored as I32; supported are F32, F16 and BF16",
        |d| {
            edit_header(d, |header, _| {
                header["model.norm.weight"]["dtype"] = json!("I32")
            });
        },
    ),
    (
        "`model.layers.1.mlp.gate_proj.weight` has shape [64, 96], the config needs [96, 64]",
        |d| {
            edit_header(d, |header, _| {
                header["model.layers.1.mlp.gate_proj.weight"]["shape"] = json!([64, 96])
            });
        },
    ),
    (
        "`model.layers.0.self_attn.q_proj.bias` has shape [8, 8], the config needs [64]",
        |d| {
            edit_header(d, |header, _| {
                header["model.layers.0.self_attn.q_proj.bias"]["shape"] = json!([8, 8])
            });
        },
    ),
    (
        "`model.embed_tokens.weight` has shape [320, 64], the config needs [321, 64]",
        |d| {
            edit_json(d, "config.json", |config| config["vocab_size"] = json!(321));
        },
    ),
    ("`model.layers.1.self_attn.v_proj.bias` is missing", |d| {
        edit_header(d, |header, data| {
            remove_tensor(header, data, "model.layers.1.self_attn.v_proj.bias")
        });
    }),
    ("`model.layers.2.self_attn.q_proj.weight` is missing", |d| {
        edit_json(d, "config.json", |config| {
            config["num_hidden_layers"] = json!(4096)
        });
    }),
    ("`lm_head.weight` is missing", |d| {
        edit_json(d, "config.json", |config| {
            config["tie_word_embeddings"] = json!(false)
        });
    }),
    ("has no place in this architecture", |d| {
        edit_json(d, "config.json", |config| {
            config["num_hidden_layers"] = json!(1)
        });
    }),
    // A Qwen2 checkpoint called Llama would lose its biases.
    ("`model.layers.0.self_attn.k_proj.bias` has no place", |d| {
        edit_json(d, "config.json", |config| {
            config["architectures"] = json!(["LlamaForCausalLM"])
        });
    }),
    ("element 3 of the tensor `model.norm.weight` is NaN", |d| {
        edit_header(d, |header, data| {
            let start = header["model.norm.weight"]["data_offsets"][0]
                .as_u64()
                .unwrap() as usize;
            data[start + 12..start + 16].copy_from_slice(&f32::NAN.to_le_bytes());
        });
    }),
    (
        "element 0 of the tensor `model.layers.1.self_attn.q_proj.bias` is inf",
        |d| {
            edit_header(d, |header, data| {
                let tensor = &header["model.layers.1.self_attn.q_proj.bias"];
                let start = tensor["data_offsets"][0].as_u64().unwrap() as usize;
                data[start..start + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
            });
        },
    ),
    ("has no config.json; a model directory holds", |d| {
        fs::remove_file(d.join("config.json")).unwrap()
    }),
    ("has no model.safetensors; a model directory holds", |d| {
        fs::remove_file(d.join(WEIGHTS)).unwrap()
    }),
    ("config.json: not valid JSON", |d| {
        fs::write(d.join("config.json"), "{").unwrap()
    }),
    ("the key `hidden_size` appears twice", |d| {
        let text = fs::read_to_string(d.join("config.json")).unwrap();
        fs::write(
            d.join("config.json"),
            text.replacen('{', "{\"hidden_size\": 1,", 1),
        )
        .unwrap();
    }),
    ("config.json: the field `(file)` must be UTF-8 text", |d| {
        fs::write(d.join("config.json"), b"{\"\xff\":1}").unwrap()
    }),
    ("`GPT2LMHeadModel` is not supported", |d| {
        edit_json(d, "config.json", |config| {
            config["architectures"] = json!(["GPT2LMHeadModel"])
        });
    }),
    ("tokenizer.json", |d| {
        fs::write(d.join("tokenizer.json"), "{}").unwrap()
    }),
    ("tokenizer.json", |d| {
        fs::write(d.join("tokenizer.json"), "[[[[").unwrap()
    }),
    (
        "tokenizer_config.json: the field `eos_token` must be a token's text",
        |d| {
            edit_json(d, "tokenizer_config.json", |config| {
                config["eos_token"] = json!(7)
            });
        },
    ),
    (
        "tokenizer_config.json: the field `chat_template` must be a template",
        |d| {
            fs::remove_file(d.join("chat_template.jinja")).unwrap();
            edit_json(d, "tokenizer_config.json", |config| {
                config["chat_template"] = json!([{ "name": "tool_use", "template": "" }])
            });
        },
    ),
    ("the chat template of", |d| {
        fs::write(d.join("chat_template.jinja"), "{% if %}").unwrap()
    }),
    (
        "generation_config.json: the field `eos_token_id` must be a token id",
        |d| {
            edit_json(d, "generation_config.json", |config| {
                config["eos_token_id"] = json!("<|im_end|>")
            });
        },
    ),
    ("generation_config.json is not valid JSON", |d| {
        fs::write(d.join("generation_config.json"), "null").unwrap()
    }),
    ("`../a.safetensors`, which is no plain file name", |d| {
        shard(d, &[("a", "../a.safetensors")], &[])
    }),
    ("`a.bin`, which is no plain file name", |d| {
        shard(d, &[("a", "a.bin")], &[])
    }),
    ("has no b.safetensors", |d| {
        shard(d, &[("a", "b.safetensors")], &[])
    }),
    (
        "places `a` in 1.safetensors, which does not have it; download the shards again",
        |d| {
            shard(
                d,
                &[
                    ("model.norm.weight", "1.safetensors"),
                    ("a", "1.safetensors"),
                ],
                &["1.safetensors"],
            );
        },
    ),
    ("is in two shards", |d| {
        shard(
            d,
            &[("a", "1.safetensors"), ("b", "2.safetensors")],
            &["1.safetensors", "2.safetensors"],
        )
    }),
    ("weight_map", |d| {
        shard(d, &[], &[]);
        fs::write(d.join("model.safetensors.index.json"), "{}").unwrap();
    }),
];

#[test]
fn every_damage_is_named() {
    for (i, (want, damage)) in CASES.iter().enumerate() {
        let dir = tiny_model(Family::Qwen2, 1);
        damage(dir.path());
        match load(dir.path()) {
            Ok(_) => panic!("case {i} was loaded; it should say `{want}`"),
            Err(message) => assert!(
                message.contains(want),
                "case {i}: `{message}` should say `{want}`"
            ),
        }
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let mut config = tiny_config(Family::Qwen2);
    config.vocab_size = 300; // one less than the tokenizer has
    let dir = tiny_model_of(&config, 1);
    assert!(load(dir.path()).unwrap().tokenizer.is_none());
    fs::write(dir.path().join("tokenizer.json"), tokenizer_json()).unwrap();
    let message = load(dir.path()).unwrap_err();
    assert!(
        message.contains("\"</think>\" with id 300, but the model has only 300 embeddings"),
        "{message}"
    );
}

#[test]
fn what_is_no_model_is_said_so() {
    for name in ["", "nowhere", "no/such/dir/here", "Cargo.toml"] {
        let message = chain(&Model::load(name).unwrap_err());
        assert!(
            message.contains("is no model: give a model directory"),
            "{message}"
        );
    }
}

#[test]
fn shards_and_a_template_in_the_tokenizer_config_load() {
    let dir = tiny_model(Family::Llama, 1);
    // Hashed now: the file is about to change under the mapping.
    let whole = load(dir.path()).unwrap().hash().unwrap();
    fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    edit_json(dir.path(), "tokenizer_config.json", |config| {
        config["chat_template"] = json!([{ "name": "default", "template": "{{ eos_token }}" }]);
        config["eos_token"] = json!({ "content": "<|im_end|>" });
    });
    // The norm alone in a second shard.
    let path = dir.path().join(WEIGHTS);
    let (mut header, mut data) = parts(&path);
    let norm = header["model.norm.weight"]["data_offsets"].clone();
    let norm =
        data[norm[0].as_u64().unwrap() as usize..norm[1].as_u64().unwrap() as usize].to_vec();
    remove_tensor(&mut header, &mut data, "model.norm.weight");
    write_parts(&path, &header.to_string(), &data);
    shard(
        dir.path(),
        &[
            ("lm_head.weight", "1.safetensors"),
            ("model.norm.weight", "2.safetensors"),
        ],
        &["1.safetensors"],
    );
    let header =
        json!({ "model.norm.weight": { "dtype": "F32", "shape": [64], "data_offsets": [0, 256] } });
    write_parts(
        &dir.path().join("2.safetensors"),
        &header.to_string(),
        &norm,
    );
    let sharded = load(dir.path()).unwrap();
    assert_eq!(sharded.hash().unwrap(), whole);
    let text = sharded
        .template
        .unwrap()
        .render(&[], &Default::default())
        .unwrap();
    assert_eq!(text, "<|im_end|>");
}

#[test]
fn without_a_generation_config_the_end_is_that_of_config_or_tokenizer() {
    let dir = tiny_model(Family::Qwen2, 1);
    assert_eq!(
        load(dir.path()).unwrap().generation.eos_token_ids,
        [298, 296]
    );
    fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    assert_eq!(
        load(dir.path()).unwrap().generation.eos_token_ids,
        [298],
        "eos_token of tokenizer_config.json"
    );
    edit_json(dir.path(), "config.json", |config| {
        config["eos_token_id"] = json!([5, 6])
    });
    assert_eq!(load(dir.path()).unwrap().generation.eos_token_ids, [5, 6]);
}
