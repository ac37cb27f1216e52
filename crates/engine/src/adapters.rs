//! Loaded LoRA adapters and their content identities.
//!
//! An adapter's id is a slot; what the prefix cache keys on is its *owner*, interned by content hash and never used again for other
//! content. Loading the same content twice therefore shares KV, and replacing an adapter in place never does.

use std::collections::HashMap;

use edgethink_model::{Adapter, Config, ContentHash, Linear, LoraPair};

use crate::error::RequestError;
use crate::prefix_cache::Owner;
use crate::request::AdapterId;

/// All loaded adapters.
#[derive(Debug, Default)]
pub(crate) struct AdapterSet {
    slots: Vec<Option<Loaded>>,
    owners: HashMap<ContentHash, Owner>,
}

#[derive(Debug)]
struct Loaded {
    owner: Owner,
    layers: Vec<[Option<LoraPair>; 7]>,
}

impl AdapterSet {
    /// Adds an adapter. Its matrices stay where they are (shared, or on the file's mapping).
    pub(crate) fn load(
        &mut self,
        adapter: &Adapter,
        config: &Config,
    ) -> Result<AdapterId, RequestError> {
        let loaded = self.check(adapter, config)?;
        let id = AdapterId(u32::try_from(self.slots.len()).expect("fewer than 2^32 adapters"));
        self.slots.push(Some(loaded));
        Ok(id)
    }

    /// Puts another adapter in the place of a loaded one.
    pub(crate) fn replace(
        &mut self,
        id: AdapterId,
        adapter: &Adapter,
        config: &Config,
    ) -> Result<(), RequestError> {
        self.loaded(id)?;
        let loaded = self.check(adapter, config)?;
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
    pub(crate) fn pair(&self, id: AdapterId, layer: usize, linear: Linear) -> Option<&LoraPair> {
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
            .map(|pair| pair.a.storage().len() + pair.b.storage().len())
            .sum()
    }

    fn loaded(&self, id: AdapterId) -> Result<&Loaded, RequestError> {
        let slot = self.slots.get(id.0 as usize).and_then(Option::as_ref);
        slot.ok_or(RequestError::UnknownAdapter { id })
    }

    fn check(&mut self, adapter: &Adapter, config: &Config) -> Result<Loaded, RequestError> {
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
                if !a.dtype.is_float() || !b.dtype.is_float() {
                    return wrong(format!(
                        "{} of layer {layer} is stored as {} and {}, not as floats",
                        linear.hf_name(),
                        a.dtype,
                        b.dtype
                    ));
                }
            }
        }
        let next = Owner(u32::try_from(self.owners.len() + 1).expect("fewer than 2^32 adapters"));
        let owner = *self.owners.entry(adapter.hash).or_insert(next);
        Ok(Loaded {
            owner,
            layers: adapter.layers.clone(),
        })
    }
}
