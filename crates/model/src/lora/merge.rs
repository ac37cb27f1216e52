//! An adapter added to its base for good: W + scale * B A, as a model directory.
//!
//! Only a plain LoRA can be merged. An activated one leaves the prompt to the base, which merged weights could not do.
//! The sum is rounded to the dtype of the file, so a merged model is near the adapter's, not equal to it.

use std::borrow::Cow;
use std::path::Path;

use half::bf16;

use super::{Adapter, AdapterError, LoraPair};
use crate::hf::{SaveOptions, Stored, save};
use crate::{Dtype, Linear, Model, Tensor};

/// Writes `model` with `adapter` merged into it to the directory `dir`, its matrices in `dtype` (F32 or BF16). Tensors are made one at
/// a time. `progress` is told their number when each is begun.
///
/// # Errors
/// [`AdapterError::Activated`] for an adapter with invocation tokens, [`AdapterError::MergedDtype`], or a failed write.
pub fn save_merged(
    model: &Model,
    adapter: &Adapter,
    dir: &Path,
    dtype: Dtype,
    progress: &dyn Fn(usize, usize),
) -> Result<(), AdapterError> {
    if adapter.invocation.is_some() {
        return Err(AdapterError::Activated {
            name: adapter.name.clone(),
        });
    }
    if !matches!(dtype, Dtype::F32 | Dtype::BF16) {
        return Err(AdapterError::MergedDtype { dtype });
    }
    let named = model.weights.named();
    let all = named.len();
    let tensors = named.into_iter().enumerate().map(|(i, (name, tensor))| {
        let merged = Merged {
            tensor,
            pair: pair_of(adapter, &name),
            dtype,
            begin: move || progress(i, all),
        };
        (name, merged)
    });
    let failed = |e: &dyn std::fmt::Display| AdapterError::Io {
        path: dir.display().to_string(),
        source: std::io::Error::other(e.to_string()),
    };
    let tokenizer = model.tokenizer.as_ref().map(|t| t.to_json()).transpose();
    let tokenizer = tokenizer.map_err(|e| failed(&e))?;
    let template = model.template.as_ref();
    let options = SaveOptions {
        tokenizer_json: tokenizer.as_deref(),
        chat_template: template.map(|t| t.source()),
        special_tokens: template.map(|t| t.special().clone()).unwrap_or_default(),
        generation: Some(&model.generation),
    };
    Ok(save(dir, &model.config, tensors, &options)?)
}

/// The pair that changes the tensor of this name.
fn pair_of<'a>(adapter: &'a Adapter, name: &str) -> Option<&'a LoraPair> {
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let module = part.strip_suffix(".weight")?;
    let linear = Linear::ALL.into_iter().find(|l| l.hf_name() == module)?;
    adapter.pair(layer.parse().ok()?, linear)
}

/// A tensor of the merged model, made when it is written.
struct Merged<'a, F> {
    tensor: &'a Tensor,
    pair: Option<&'a LoraPair>,
    dtype: Dtype,
    begin: F,
}

impl<F: Fn()> Stored for Merged<'_, F> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        (self.begin)();
        if self.pair.is_none() && self.dtype == self.tensor.dtype {
            return self.tensor.bytes();
        }
        let mut values = self.tensor.to_f32();
        if let Some(pair) = self.pair {
            add(&mut values, pair);
        }
        Cow::Owned(match self.dtype {
            Dtype::F32 => bytemuck::cast_slice(&values).to_vec(),
            _ => values
                .iter()
                .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
                .collect(),
        })
    }
}

/// values += scale * B A, `[out, in]`, summed in f32 in the order of the ranks.
fn add(values: &mut [f32], pair: &LoraPair) {
    let (a, b) = (pair.a.to_f32(), pair.b.to_f32());
    let (rank, cols) = (pair.rank(), pair.a.cols());
    let mut delta = vec![0.0f32; cols];
    for (row, b) in values.chunks_exact_mut(cols).zip(b.chunks_exact(rank)) {
        delta.fill(0.0);
        for (factor, a) in b.iter().zip(a.chunks_exact(cols)) {
            for (d, a) in delta.iter_mut().zip(a) {
                *d += factor * a;
            }
        }
        for (w, d) in row.iter_mut().zip(&delta) {
            *w += pair.scale * d;
        }
    }
}
