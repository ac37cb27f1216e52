//! A [`Model`] as a GGUF file, with the keys, names and row order of llama.cpp's converter (`convert_hf_to_gguf.py`).
//!
//! Vectors are F32. Q4_0 keeps embedding and head in Q8_0, and rows that are no whole blocks of 32 become F16. Tensors are converted
//! while they are written, a few rows at a time, so the memory does not grow with the model.

use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};

use super::config::{self, ROPE_FREQS};
use super::error::GgufError;
use super::names::{self, Place};
use super::permute::{Order, permute_heads, source_row};
use super::tokenizer;
use super::writer::{Entry, GgufWriter};
use crate::quant::QuantError;
use crate::tensor::dequantize;
use crate::{Config, Dtype, Family, Linear, Model, RopeScaling, Tensor, quant};

/// Values that are converted at a time.
const CHUNK: usize = 1 << 18;

/// What is written.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions<'a> {
    /// `general.name`.
    pub name: &'a str,
    /// Dtype of the matrices: F32, F16, BF16, Q8_0 or Q4_0; `None` leaves each as it is stored.
    pub dtype: Option<Dtype>,
}

/// Writes a model file at `path`, replacing what is there when all of it is written. `progress` is told the bytes that are written and
/// those of the whole file.
///
/// # Errors
/// [`GgufError`] for what the format or llama.cpp cannot hold, values that the dtype cannot hold, or a failed write.
pub fn save_model(
    model: &Model,
    path: &Path,
    options: &ExportOptions<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), GgufError> {
    let mut file = GgufWriter::new();
    put_model(&mut file, model, options)?;
    file.save_with(path, progress)
}

/// Adds keys and tensors of a model, for a caller that has more to say in the file.
///
/// # Errors
/// As [`save_model`].
pub fn put_model<'m>(
    file: &mut GgufWriter<'m>,
    model: &'m Model,
    options: &ExportOptions<'_>,
) -> Result<(), GgufError> {
    let config = &model.config;
    check(config)?;
    let main = options
        .dtype
        .unwrap_or(model.weights.layers[0].linear(Linear::Q).dtype);
    put_config(file, config, options.name, main)?;
    put_sampling(file, model)?;
    if let Some(tokenizer) = &model.tokenizer {
        let template = model.template.as_ref();
        tokenizer::write::write(file, config, tokenizer, template, &model.generation)?;
    } else {
        file.key("tokenizer.ggml.model", &Entry::String("none"))?;
    }
    if let Some(divisors) = divisors(config) {
        let tensor = Tensor::from_f32(vec![divisors.len()], &divisors);
        file.tensor(ROPE_FREQS, tensor.map_err(|e| unwritable(ROPE_FREQS, &e))?)?;
    }
    for (name, tensor) in model.weights.named() {
        let Some((gguf_name, place)) = names::to_gguf(&name) else {
            return Err(unwritable(&name, &"it has no name in GGUF"));
        };
        put_tensor(file, config, &gguf_name, place, tensor, options.dtype)?;
    }
    Ok(())
}

/// What llama.cpp does not compute for these architectures.
fn check(config: &Config) -> Result<(), GgufError> {
    let refuse = |reason: &str| Err(unwritable(config.family.model_type(), &reason));
    if config.qk_norm != (config.family == Family::Qwen3) {
        return refuse("llama.cpp has norms of q and k for qwen3 alone");
    }
    if config.family == Family::Qwen3 && (config.attention_bias || config.mlp_bias) {
        return refuse("llama.cpp has no biases for qwen3");
    }
    if config.family == Family::Qwen2 && (config.output_bias || config.mlp_bias) {
        return refuse("llama.cpp has no biases on o, gate, up and down for qwen2");
    }
    if let Some(RopeScaling::Yarn {
        truncate: false, ..
    }) = config.rope_scaling
    {
        return refuse("llama.cpp rounds the ends of YaRN's ramp (`truncate`)");
    }
    Ok(())
}

fn put_config(
    file: &mut GgufWriter<'_>,
    config: &Config,
    name: &str,
    main: Dtype,
) -> Result<(), GgufError> {
    let arch = config::architecture(config.family);
    file.key("general.architecture", &Entry::String(arch))?;
    file.key("general.type", &Entry::String("model"))?;
    file.key("general.name", &Entry::String(name))?;
    file.key(
        "general.file_type",
        &Entry::U32(GgufWriter::file_type(main)),
    )?;
    file.key("general.quantization_version", &Entry::U32(2))?;
    let head = config.head_dim;
    for (key, value) in [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", head),
        ("attention.value_length", head),
        ("rope.dimension_count", head),
        ("vocab_size", config.vocab_size),
    ] {
        put_count(file, &format!("{arch}.{key}"), value)?;
    }
    if let Some(window) = config.sliding_window {
        put_count(file, &format!("{arch}.attention.sliding_window"), window)?;
    }
    let mut number =
        |key: &str, value: f64| file.key(&format!("{arch}.{key}"), &Entry::F32(value as f32));
    number(
        "attention.layer_norm_rms_epsilon",
        f64::from(config.rms_norm_eps),
    )?;
    number("rope.freq_base", config.rope_theta)?;
    match config.rope_scaling {
        None | Some(RopeScaling::Llama3 { .. } | RopeScaling::Divisors(_)) => {}
        Some(RopeScaling::Linear { factor }) => {
            number("rope.scaling.factor", factor)?;
            file.key(
                &format!("{arch}.rope.scaling.type"),
                &Entry::String("linear"),
            )?;
        }
        Some(RopeScaling::Yarn {
            factor,
            original_max_position_embeddings,
            beta_fast,
            beta_slow,
            attention_factor,
            truncate: _,
        }) => {
            number("rope.scaling.factor", factor)?;
            number("rope.scaling.yarn_beta_fast", beta_fast)?;
            number("rope.scaling.yarn_beta_slow", beta_slow)?;
            // llama.cpp multiplies its own 1 + 0.1 ln(factor) by this.
            let own = attention_factor / (1.0 + 0.1 * factor.ln());
            if (own - 1.0).abs() > 1e-6 {
                number("rope.scaling.attn_factor", own)?;
            }
            let key = format!("{arch}.rope.scaling.original_context_length");
            put_count(file, &key, original_max_position_embeddings)?;
            file.key(&format!("{arch}.rope.scaling.type"), &Entry::String("yarn"))?;
        }
    }
    Ok(())
}

fn put_count(file: &mut GgufWriter<'_>, key: &str, value: usize) -> Result<(), GgufError> {
    let value = u32::try_from(value).map_err(|e| unwritable(key, &e))?;
    file.key(key, &Entry::U32(value))
}

/// The makers' advice, where the model samples at all.
fn put_sampling(file: &mut GgufWriter<'_>, model: &Model) -> Result<(), GgufError> {
    let advice = &model.generation;
    if advice.do_sample == Some(false) {
        return Ok(());
    }
    for (key, value) in [
        ("temp", advice.temperature),
        ("top_p", advice.top_p),
        ("min_p", advice.min_p),
        ("penalty_repeat", advice.repetition_penalty),
    ] {
        if let Some(value) = value {
            file.key(&format!("general.sampling.{key}"), &Entry::F32(value))?;
        }
    }
    match advice.top_k.map(i32::try_from) {
        Some(Ok(k)) => file.key("general.sampling.top_k", &Entry::I32(k)),
        _ => Ok(()),
    }
}

/// The divisors of the rotary frequencies, where llama.cpp takes them from a tensor.
fn divisors(config: &Config) -> Option<Vec<f32>> {
    match &config.rope_scaling {
        Some(RopeScaling::Divisors(divisors)) => Some(divisors.clone()),
        Some(RopeScaling::Llama3 { .. }) => {
            let plain = Config {
                rope_scaling: None,
                ..config.clone()
            };
            let (plain, scaled) = (plain.rope().inv_freq, config.rope().inv_freq);
            Some(plain.iter().zip(scaled).map(|(a, b)| a / b).collect())
        }
        _ => None,
    }
}

fn put_tensor<'m>(
    file: &mut GgufWriter<'m>,
    config: &Config,
    name: &str,
    place: Place,
    tensor: &'m Tensor,
    wanted: Option<Dtype>,
) -> Result<(), GgufError> {
    let permuted = config::permutes_heads(config.family)
        && matches!(place, Place::Linear(Linear::Q | Linear::K));
    let head_dim = permuted.then_some(config.head_dim);
    if tensor.shape.len() == 1 {
        let values = Tensor::from_f32(tensor.shape.clone(), &tensor.to_f32());
        let mut vector = values.map_err(|e| unwritable(name, &e))?;
        if let Some(head_dim) = head_dim {
            vector = permute_heads(&vector, head_dim, Order::ToGguf)
                .ok_or_else(|| unwritable(name, &"its rows are no whole heads"))?;
        }
        return file.tensor(name, vector);
    }
    let dtype = match wanted {
        None => tensor.dtype,
        Some(dtype) if !tensor.cols().is_multiple_of(dtype.block_len()) => Dtype::F16,
        Some(Dtype::Q4_0) if place == Place::Global => Dtype::Q8_0,
        Some(dtype) => dtype,
    };
    if dtype != tensor.dtype && !dtype.is_float() && !matches!(dtype, Dtype::Q8_0 | Dtype::Q4_0) {
        return Err(unwritable(name, &QuantError::Format { dtype }));
    }
    let owned_name = name.to_owned();
    file.tensor_made(name, dtype, tensor.shape.clone(), move |out| {
        convert(&owned_name, tensor, dtype, head_dim, out)
    })
}

/// Writes `tensor` as `dtype`, with the rows of q and k in llama.cpp's order when `head_dim` is given.
fn convert(
    name: &str,
    tensor: &Tensor,
    dtype: Dtype,
    head_dim: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let cols = tensor.cols();
    let step = (CHUNK / cols.max(1)).max(1);
    let (mut stored, mut row, mut encoded) = (Vec::new(), Vec::new(), Vec::new());
    let mut values = Vec::new();
    for first in (0..tensor.rows()).step_by(step) {
        let rows = first..tensor.rows().min(first + step);
        if let Some(head_dim) = head_dim {
            stored.clear();
            for r in rows.clone() {
                let source = source_row(r, head_dim, Order::ToGguf);
                tensor.read_rows_into(source..source + 1, &mut row)?;
                stored.extend_from_slice(&row);
            }
        } else {
            tensor.read_rows_into(rows.clone(), &mut stored)?;
        }
        if dtype == tensor.dtype {
            out.write_all(&stored)?;
            continue;
        }
        values.resize(rows.len() * cols, 0.0);
        dequantize(tensor.dtype, &stored, &mut values);
        encode(dtype, &values, &mut encoded).map_err(|source| {
            let (name, row) = (name.to_owned(), first);
            io::Error::other(GgufError::Quantize { name, row, source })
        })?;
        out.write_all(&encoded)?;
    }
    Ok(())
}

/// Values as bytes of `dtype`; NaN and what the dtype cannot hold are errors.
fn encode(dtype: Dtype, values: &[f32], out: &mut Vec<u8>) -> Result<(), QuantError> {
    out.clear();
    let first = |bad: fn(f32) -> bool| values.iter().position(|&x| bad(x));
    if let Some(index) = first(|x| !x.is_finite()) {
        let value = values[index];
        return Err(QuantError::NonFinite { index, value });
    }
    match dtype {
        Dtype::F32 => out.extend_from_slice(bytemuck::cast_slice(values)),
        Dtype::BF16 => out.extend(values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes())),
        Dtype::F16 => {
            if let Some(index) = first(|x| !f16::from_f32(x).is_finite()) {
                let value = values[index];
                return Err(QuantError::Half { index, value });
            }
            out.extend(values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
        }
        _ => out.extend(quant::quantize(dtype, values)?),
    }
    Ok(())
}

fn unwritable(what: &str, reason: &dyn std::fmt::Display) -> GgufError {
    GgufError::Unwritable {
        what: what.to_owned(),
        reason: reason.to_string(),
    }
}
