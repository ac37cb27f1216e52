//! A GGUF model file as a [`Model`]: tensors stay mapped, except q and k of `llama` files, whose rows are reordered in memory.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Map;

use super::config::{self, ROPE_FREQS};
use super::error::GgufError;
use super::names::{self, Place};
use super::permute::{Order, permute_heads};
use super::reader::{Gguf, TensorInfo};
use super::tokenizer;
use super::value::Metadata;
use crate::{
    Bytes, ChatTemplate, Config, Dtype, Folder, GenerationConfig, Linear, LoadError, MappedFile,
    Model, Source, Tensor, Weights, panels,
};

/// Loads a model file.
///
/// # Errors
/// [`LoadError`] naming the key or tensor that is wrong.
pub fn load(path: &Path) -> Result<Model, LoadError> {
    let file = MappedFile::open(path).map_err(LoadError::io(path))?;
    load_bytes(&Bytes::whole(&file), path, &[])
}

/// As [`load`], for a file in a folder, whose matrices of the dtypes `in_panels` lie in [`crate::panels`].
///
/// # Errors
/// As [`load`].
pub(crate) fn load_from(
    folder: &Folder,
    name: &str,
    in_panels: &[Dtype],
) -> Result<Model, LoadError> {
    let path = folder.path_of(name);
    let file = folder.map(name).map_err(LoadError::io(&path))?;
    load_bytes(&file, &path, in_panels)
}

fn load_bytes(file: &Bytes, path: &Path, in_panels: &[Dtype]) -> Result<Model, LoadError> {
    let here = || path.to_path_buf();
    let gguf_error = |source| LoadError::Gguf {
        path: here(),
        source: Box::new(source),
    };
    if !in_panels.is_empty() {
        file.advise_huge_pages();
    }
    let gguf = Gguf::parse(file.as_slice()).map_err(gguf_error)?;
    check_kind(&gguf.metadata).map_err(gguf_error)?;
    let rope_freqs = rope_freqs(file, &gguf).map_err(gguf_error)?;
    let config = config::read(&gguf, rope_freqs).map_err(gguf_error)?;
    let tensors = tensors(file, &gguf, &config, in_panels).map_err(gguf_error)?;
    let weights = Weights::from_named(&config, tensors).map_err(|source| LoadError::Weights {
        path: here(),
        source,
    })?;
    let vocabulary = tokenizer::read(&gguf.metadata, config.vocab_size).map_err(gguf_error)?;
    let (tokenizer, special) = match vocabulary {
        Some(v) => (Some(v.tokenizer), v.special),
        None => (None, Map::new()),
    };
    let template = match gguf
        .metadata
        .text("tokenizer.chat_template")
        .map_err(gguf_error)?
    {
        Some(text) => {
            let template = ChatTemplate::new(text, special);
            Some(template.map_err(|source| LoadError::Template {
                path: here(),
                source,
            })?)
        }
        None => None,
    };
    let generation = generation(&gguf.metadata).map_err(gguf_error)?;
    Model::from_parts(
        config,
        weights,
        tokenizer,
        template,
        generation,
        Source::Gguf(here()),
    )
}

/// Refuses adapters, projectors and shards.
fn check_kind(meta: &Metadata<'_>) -> Result<(), GgufError> {
    let kind = |found: String, remedy| {
        Err(GgufError::Kind {
            found,
            expected: "a model",
            remedy,
        })
    };
    match meta.text("general.type")? {
        None | Some("model") => {}
        Some("adapter") => {
            return kind(
                "an adapter".to_owned(),
                "give it as the adapter, with its base as the model",
            );
        }
        Some(other) => {
            return kind(
                format!("a {other:?}"),
                "give the file of the language model",
            );
        }
    }
    match meta.count("split.count")? {
        None | Some(0 | 1) => Ok(()),
        Some(n) => kind(
            format!("one of {n} parts"),
            "merge the parts first (llama-gguf-split --merge)",
        ),
    }
}

/// A tensor over the mapped file.
pub(crate) fn map_tensor(file: &Bytes, info: &TensorInfo<'_>) -> Result<Tensor, GgufError> {
    let out_of_file = || GgufError::OutOfFile {
        name: info.name.to_owned(),
        start: info.range.start as u64,
        end: info.range.end as u64,
        have: file.len() as u64,
    };
    let bytes = file.slice(info.range.clone()).ok_or_else(out_of_file)?;
    Tensor::new(info.dtype, info.shape.clone(), bytes).map_err(|_| out_of_file())
}

fn rope_freqs(file: &Bytes, gguf: &Gguf<'_>) -> Result<Option<Vec<f32>>, GgufError> {
    let Some(info) = gguf.tensor(ROPE_FREQS) else {
        return Ok(None);
    };
    if info.dtype != Dtype::F32 || info.shape.len() != 1 {
        return Err(GgufError::Unsupported {
            what: format!("{ROPE_FREQS:?} that is no F32 vector"),
        });
    }
    Ok(Some(map_tensor(file, info)?.to_f32()))
}

/// All tensors under their Hugging Face names.
fn tensors(
    file: &Bytes,
    gguf: &Gguf<'_>,
    config: &Config,
    in_panels: &[Dtype],
) -> Result<BTreeMap<String, Tensor>, GgufError> {
    let mut named = BTreeMap::new();
    let mut unused = Vec::new();
    for info in gguf.tensors.iter().filter(|t| t.name != ROPE_FREQS) {
        let Some((name, place)) = names::to_hf(info.name) else {
            unused.push(info.name);
            continue;
        };
        let mut tensor = map_tensor(file, info)?;
        if in_panels.contains(&tensor.dtype) && panels::possible(tensor.dtype, &tensor.shape) {
            let Tensor { dtype, shape, .. } = &tensor;
            tensor = Tensor::in_panels(*dtype, shape.clone(), tensor.storage().clone())
                .expect("possible says so");
        }
        if config::permutes_heads(config.family)
            && matches!(place, Place::Linear(Linear::Q | Linear::K))
        {
            let wrong = || GgufError::Shape {
                name: info.name.to_owned(),
                found: info.shape.clone(),
                expected: vec![
                    config.num_attention_heads * config.head_dim,
                    config.hidden_size,
                ],
            };
            tensor = permute_heads(&tensor, config.head_dim, Order::ToHf).ok_or_else(wrong)?;
        }
        named.insert(name, tensor);
    }
    match unused.first() {
        Some(first) => Err(GgufError::UnusedTensors {
            count: unused.len(),
            first: (*first).to_owned(),
        }),
        None => Ok(named),
    }
}

/// Ends of text and advised sampling.
fn generation(meta: &Metadata<'_>) -> Result<GenerationConfig, GgufError> {
    let number =
        |key: &str| -> Result<Option<f32>, GgufError> { Ok(meta.number(key)?.map(|v| v as f32)) };
    Ok(GenerationConfig {
        eos_token_ids: tokenizer::end_tokens(meta)?,
        bos_token_id: meta.token("tokenizer.ggml.bos_token_id")?,
        pad_token_id: meta.token("tokenizer.ggml.padding_token_id")?,
        temperature: number("general.sampling.temp")?,
        top_p: number("general.sampling.top_p")?,
        top_k: meta.token("general.sampling.top_k")?,
        min_p: number("general.sampling.min_p")?,
        repetition_penalty: number("general.sampling.penalty_repeat")?,
        do_sample: None,
    })
}
