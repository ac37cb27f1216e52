//! Loaded LoRA adapters and their content identities.
//!
//! An adapter's id is a slot; what the prefix cache keys on is its *owner*, interned by content hash and never used again for other
//! content. Loading the same content twice therefore shares KV, and replacing an adapter in place never does.

use std::collections::HashMap;

use edgethink_model::{Adapter, Config, ContentHash, Linear, LoraPair, Tensor};
use edgethink_pool::Pool;

use crate::error::RequestError;
use crate::matrix::{Hold, Matrix};
use crate::options::AdapterFormat;
use crate::packed::{self, Item};
use crate::prefix_cache::Owner;
use crate::request::AdapterId;
use crate::weights::Layer;

/// All loaded adapters.
#[derive(Debug, Default)]
pub(crate) struct AdapterSet {
    slots: Vec<Option<Loaded>>,
    owners: HashMap<ContentHash, Owner>,
}

#[derive(Debug)]
struct Loaded {
    owner: Owner,
    layers: Vec<[Option<Pair>; 7]>,
}

/// The two matrices of one linear layer, ready to multiply.
#[derive(Debug)]
pub(crate) struct Pair {
    /// `[R, in]`
    pub(crate) a: Matrix,
    /// `[out, R]`, or R filled up to whole groups if it is packed.
    pub(crate) b: Matrix,
    /// What B (A x) is multiplied with.
    pub(crate) scale: f32,
}

/// What an adapter is checked against and held with.
pub(crate) struct Base<'a> {
    pub(crate) config: &'a Config,
    pub(crate) layers: &'a [Layer],
    pub(crate) format: AdapterFormat,
    pub(crate) pool: &'a Pool,
}

impl AdapterSet {
    /// Adds an adapter. Matrices that stay floats stay where they are (shared, or on the file's mapping).
    pub(crate) fn load(
        &mut self,
        adapter: &Adapter,
        base: &Base<'_>,
    ) -> Result<AdapterId, RequestError> {
        let loaded = self.hold(adapter, base)?;
        let id = AdapterId(u32::try_from(self.slots.len()).expect("fewer than 2^32 adapters"));
        self.slots.push(Some(loaded));
        Ok(id)
    }

    /// Puts another adapter in the place of a loaded one.
    pub(crate) fn replace(
        &mut self,
        id: AdapterId,
        adapter: &Adapter,
        base: &Base<'_>,
    ) -> Result<(), RequestError> {
        self.loaded(id)?;
        let loaded = self.hold(adapter, base)?;
        self.slots[id.0 as usize] = Some(loaded);
        Ok(())
    }

    /// Forgets an adapter. Its id is not used again.
    pub(crate) fn unload(&mut self, id: AdapterId) -> Result<(), RequestError> {
        self.loaded(id)?;
        self.slots[id.0 as usize] = None;
        Ok(())
    }

    /// Who owns the KV that this adapter writes.
    pub(crate) fn owner(&self, id: AdapterId) -> Result<Owner, RequestError> {
        Ok(self.loaded(id)?.owner)
    }

    /// The pair of a linear layer of a loaded adapter.
    pub(crate) fn pair(&self, id: AdapterId, layer: usize, linear: Linear) -> Option<&Pair> {
        self.slots[id.0 as usize].as_ref()?.layers[layer][linear as usize].as_ref()
    }

    /// Bytes of all loaded matrices.
    pub(crate) fn size_bytes(&self) -> usize {
        let pairs = self
            .slots
            .iter()
            .flatten()
            .flat_map(|loaded| loaded.layers.iter().flatten().flatten());
        pairs
            .map(|pair| pair.a.size_bytes() + pair.b.size_bytes())
            .sum()
    }

    fn loaded(&self, id: AdapterId) -> Result<&Loaded, RequestError> {
        let slot = self.slots.get(id.0 as usize).and_then(Option::as_ref);
        slot.ok_or(RequestError::UnknownAdapter { id })
    }

    fn hold(&mut self, adapter: &Adapter, base: &Base<'_>) -> Result<Loaded, RequestError> {
        check(adapter, base.config)?;
        let layers = hold(adapter, base)?;
        let next = Owner(u32::try_from(self.owners.len() + 1).expect("fewer than 2^32 adapters"));
        let owner = *self.owners.entry(adapter.hash).or_insert(next);
        Ok(Loaded { owner, layers })
    }
}

/// Checks the shapes.
fn check(adapter: &Adapter, config: &Config) -> Result<(), RequestError> {
    let wrong = |reason| {
        Err(RequestError::AdapterShape {
            name: adapter.name.clone(),
            reason,
        })
    };
    if adapter.layers.len() != config.num_hidden_layers {
        return wrong(format!(
            "it has {} layers, the model {}",
            adapter.layers.len(),
            config.num_hidden_layers
        ));
    }
    for (layer, pairs) in adapter.layers.iter().enumerate() {
        for (linear, pair) in Linear::ALL.into_iter().zip(pairs) {
            let Some(LoraPair { a, b, .. }) = pair else {
                continue;
            };
            let (out, inner) = config.linear_shape(linear);
            let rank = a.rows();
            if rank == 0 || a.shape != [rank, inner] || b.shape != [out, rank] {
                let name = linear.hf_name();
                return wrong(format!(
                    "{name} of layer {layer} has A {:?} and B {:?}, the model needs [R, {inner}] and [{out}, R]",
                    a.shape, b.shape
                ));
            }
            if !a.dtype.is_in_place() || !b.dtype.is_in_place() {
                return wrong(format!(
                    "{} of layer {layer} is stored as {} and {}, not as floats",
                    linear.hf_name(),
                    a.dtype,
                    b.dtype
                ));
            }
        }
    }
    Ok(())
}

/// The matrices in the form that the options ask for.
fn hold(adapter: &Adapter, base: &Base<'_>) -> Result<Vec<[Option<Pair>; 7]>, RequestError> {
    let (mut items, mut scales) = (Vec::new(), Vec::new());
    for (index, (layer, pairs)) in base.layers.iter().zip(&adapter.layers).enumerate() {
        for (linear, pair) in Linear::ALL.into_iter().zip(pairs) {
            let Some(LoraPair { a, b, scale }) = pair else {
                continue;
            };
            let packed = layer.linears[linear as usize].is_packed();
            let mut scale = *scale;
            for (name, tensor) in [("lora_A", a), ("lora_B", b)] {
                let mut hold = Hold::Stored;
                if packed && base.format == AdapterFormat::Q8 {
                    let exponent = exponent(tensor);
                    scale *= 2f32.powi(-exponent);
                    hold = Hold::Scaled(exponent);
                }
                let name = format!("{name} of {} in layer {index}", linear.hf_name());
                items.push(Item { name, tensor, hold });
            }
            scales.push(scale);
        }
    }
    let matrices =
        packed::load(&items, base.pool).map_err(|error| RequestError::AdapterWeights {
            name: adapter.name.clone(),
            reason: error.to_string(),
        })?;
    let (mut matrices, mut scales) = (matrices.into_iter(), scales.into_iter());
    let mut pair = || {
        Some(Pair {
            a: matrices.next()?,
            b: matrices.next()?,
            scale: scales.next()?,
        })
    };
    let layers = adapter.layers.iter();
    let layers = layers.map(|pairs| pairs.each_ref().map(|p| p.as_ref().and_then(|_| pair())));
    Ok(layers.collect())
}

/// The power of two that brings the largest magnitude to between 1/2 and 1. Rows are read through the file's handle, as they are when
/// packed, where one that cannot be read is an error.
fn exponent(tensor: &Tensor) -> i32 {
    const ROWS: usize = 64;
    let mut floats = Vec::new();
    let mut largest = 0f32;
    for first in (0..tensor.rows()).step_by(ROWS) {
        let rows = first..(first + ROWS).min(tensor.rows());
        floats.resize(rows.len() * tensor.cols(), 0.0);
        if tensor.read_rows_f32(rows, &mut floats).is_ok() {
            largest = floats.iter().fold(largest, |m, x| m.max(x.abs()));
        }
    }
    if largest.is_normal() {
        -(largest.log2().floor() as i32) - 1
    } else {
        0
    }
}
