//! Storage of keys and values, block by block, per layer and kv head.
//!
//! One kv head of one layer is a run of slots `[blocks × 32, D]`; a token's slot is `32 · block + position mod 32`. The buffers are
//! zeroed lazily by the system, so a large cache costs memory only where it was used.

use edgethink_kernels::{Isa, KvRef, quantize_kv};
use half::f16;

use crate::block_pool::{BLOCK_TOKENS, BlockId};
use crate::options::KvFormat;
use crate::scheduler::BlockCopy;

/// KV of all layers.
#[derive(Debug)]
pub(crate) struct KvStore {
    layers: Vec<LayerKv>,
    heads: usize,
    /// Slots per head: tokens that fit.
    slots: usize,
    head_dim: usize,
    format: KvFormat,
}

/// KV of one layer, `[K, slots, D]`, scales `[K, slots]`.
#[derive(Debug)]
enum LayerKv {
    Int8 {
        k: Vec<i8>,
        v: Vec<i8>,
        k_scale: Vec<f32>,
        v_scale: Vec<f32>,
    },
    F16 {
        k: Vec<u16>,
        v: Vec<u16>,
    },
    F32 {
        k: Vec<f32>,
        v: Vec<f32>,
    },
}

/// One kv head of a layer, to be written by one task.
#[derive(Debug)]
pub(crate) enum HeadMut<'a> {
    Int8 {
        k: &'a mut [i8],
        v: &'a mut [i8],
        k_scale: &'a mut [f32],
        v_scale: &'a mut [f32],
    },
    F16 {
        k: &'a mut [u16],
        v: &'a mut [u16],
    },
    F32 {
        k: &'a mut [f32],
        v: &'a mut [f32],
    },
}

impl KvStore {
    /// Room for `blocks` blocks.
    pub(crate) fn new(
        layers: usize,
        heads: usize,
        head_dim: usize,
        blocks: usize,
        format: KvFormat,
    ) -> Self {
        let slots = blocks * BLOCK_TOKENS;
        let (scales, values) = (heads * slots, heads * slots * head_dim);
        let layer = |_| match format {
            KvFormat::Int8 => LayerKv::Int8 {
                k: vec![0; values],
                v: vec![0; values],
                k_scale: vec![0.0; scales],
                v_scale: vec![0.0; scales],
            },
            KvFormat::F16 => LayerKv::F16 {
                k: vec![0; values],
                v: vec![0; values],
            },
            KvFormat::F32 => LayerKv::F32 {
                k: vec![0.0; values],
                v: vec![0.0; values],
            },
        };
        KvStore {
            layers: (0..layers).map(layer).collect(),
            heads,
            slots,
            head_dim,
            format,
        }
    }

    /// Number of layers.
    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Bytes per token in all layers.
    pub(crate) fn bytes_per_token(&self) -> usize {
        let per_head = match self.format {
            KvFormat::Int8 => 2 * (self.head_dim + size_of::<f32>()),
            KvFormat::F16 => 2 * 2 * self.head_dim,
            KvFormat::F32 => 2 * 4 * self.head_dim,
        };
        self.layers.len() * self.heads * per_head
    }

    /// The heads of a layer, for writing.
    pub(crate) fn heads_mut(&mut self, layer: usize) -> Vec<HeadMut<'_>> {
        let (slots, values) = (self.slots, self.slots * self.head_dim);
        match &mut self.layers[layer] {
            LayerKv::Int8 {
                k,
                v,
                k_scale,
                v_scale,
            } => {
                let codes = k.chunks_exact_mut(values).zip(v.chunks_exact_mut(values));
                let scales = k_scale
                    .chunks_exact_mut(slots)
                    .zip(v_scale.chunks_exact_mut(slots));
                codes
                    .zip(scales)
                    .map(|((k, v), (k_scale, v_scale))| HeadMut::Int8 {
                        k,
                        v,
                        k_scale,
                        v_scale,
                    })
                    .collect()
            }
            LayerKv::F16 { k, v } => k
                .chunks_exact_mut(values)
                .zip(v.chunks_exact_mut(values))
                .map(|(k, v)| HeadMut::F16 { k, v })
                .collect(),
            LayerKv::F32 { k, v } => k
                .chunks_exact_mut(values)
                .zip(v.chunks_exact_mut(values))
                .map(|(k, v)| HeadMut::F32 { k, v })
                .collect(),
        }
    }

    /// Keys and values of the first `tokens` tokens of a block.
    pub(crate) fn block(
        &self,
        layer: usize,
        head: usize,
        block: BlockId,
        tokens: usize,
    ) -> KvRef<'_> {
        let d = self.head_dim;
        let first = head * self.slots + block.index() * BLOCK_TOKENS;
        let (slots, values) = (first..first + tokens, first * d..(first + tokens) * d);
        match &self.layers[layer] {
            LayerKv::Int8 {
                k,
                v,
                k_scale,
                v_scale,
            } => KvRef::Int8 {
                k: &k[values.clone()],
                v: &v[values],
                k_scale: &k_scale[slots.clone()],
                v_scale: &v_scale[slots],
            },
            LayerKv::F16 { k, v } => KvRef::F16 {
                k: &k[values.clone()],
                v: &v[values],
            },
            LayerKv::F32 { k, v } => KvRef::F32 {
                k: &k[values.clone()],
                v: &v[values],
            },
        }
    }

    /// Copies the beginning of a block to another, in every layer.
    pub(crate) fn copy(&mut self, copy: BlockCopy) {
        let (heads, slots, d) = (self.heads, self.slots, self.head_dim);
        for layer in &mut self.layers {
            for head in 0..heads {
                let from = head * slots + copy.from.index() * BLOCK_TOKENS;
                let to = head * slots + copy.to.index() * BLOCK_TOKENS;
                let range = from..from + copy.tokens;
                let values = from * d..(from + copy.tokens) * d;
                match layer {
                    LayerKv::Int8 {
                        k,
                        v,
                        k_scale,
                        v_scale,
                    } => {
                        k.copy_within(values.clone(), to * d);
                        v.copy_within(values, to * d);
                        k_scale.copy_within(range.clone(), to);
                        v_scale.copy_within(range, to);
                    }
                    LayerKv::F16 { k, v } => {
                        k.copy_within(values.clone(), to * d);
                        v.copy_within(values, to * d);
                    }
                    LayerKv::F32 { k, v } => {
                        k.copy_within(values.clone(), to * d);
                        v.copy_within(values, to * d);
                    }
                }
            }
        }
    }
}

impl HeadMut<'_> {
    /// Writes key and value of a token, `[D]` each, into its slot. Returns false, and writes zeros, if they are not finite in the
    /// storage format.
    pub(crate) fn write(&mut self, isa: Isa, slot: usize, key: &[f32], value: &[f32]) -> bool {
        let range = slot * key.len()..(slot + 1) * key.len();
        match self {
            HeadMut::Int8 {
                k,
                v,
                k_scale,
                v_scale,
            } => {
                let (k, v) = (&mut k[range.clone()], &mut v[range]);
                match (quantize_kv(isa, key, k), quantize_kv(isa, value, v)) {
                    (Ok(key_scale), Ok(value_scale)) => {
                        (k_scale[slot], v_scale[slot]) = (key_scale, value_scale);
                        true
                    }
                    _ => {
                        k.fill(0);
                        v.fill(0);
                        (k_scale[slot], v_scale[slot]) = (0.0, 0.0);
                        false
                    }
                }
            }
            HeadMut::F16 { k, v } => {
                let mut finite = true;
                for (target, source) in [(&mut k[range.clone()], key), (&mut v[range], value)] {
                    for (target, &x) in target.iter_mut().zip(source) {
                        let half = f16::from_f32(x);
                        finite &= half.is_finite();
                        *target = if half.is_finite() { half.to_bits() } else { 0 };
                    }
                }
                finite
            }
            HeadMut::F32 { k, v } => {
                let mut finite = true;
                for (target, source) in [(&mut k[range.clone()], key), (&mut v[range], value)] {
                    for (target, &x) in target.iter_mut().zip(source) {
                        finite &= x.is_finite();
                        *target = if x.is_finite() { x } else { 0.0 };
                    }
                }
                finite
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_pool::BlockPool;

    #[test]
    fn a_copy_takes_the_tokens_of_every_layer_and_no_more() {
        for format in [KvFormat::Int8, KvFormat::F16, KvFormat::F32] {
            let mut store = KvStore::new(2, 3, 4, 2, format);
            let mut pool = BlockPool::new(2);
            let (from, to) = (pool.alloc().expect("free"), pool.alloc().expect("free"));
            for layer in 0..2 {
                for (head, mut target) in store.heads_mut(layer).into_iter().enumerate() {
                    for token in 0..BLOCK_TOKENS {
                        let x = (100 * layer + 10 * head + token + 1) as f32;
                        let slot = from.index() * BLOCK_TOKENS + token;
                        assert!(target.write(Isa::Scalar, slot, &[x, -x, 0.5, 1.0], &[x; 4]));
                        assert!(!target.write(
                            Isa::Scalar,
                            slot + BLOCK_TOKENS,
                            &[f32::NAN; 4],
                            &[x; 4]
                        ));
                    }
                }
            }
            store.copy(BlockCopy {
                from,
                to,
                tokens: 5,
            });
            for layer in 0..2 {
                for head in 0..3 {
                    let same = |a: KvRef<'_>, b: KvRef<'_>| format!("{a:?}") == format!("{b:?}");
                    let (a, b) = (
                        store.block(layer, head, from, 5),
                        store.block(layer, head, to, 5),
                    );
                    assert!(same(a, b));
                    let (a, b) = (
                        store.block(layer, head, from, 6),
                        store.block(layer, head, to, 6),
                    );
                    assert!(!same(a, b), "the sixth token was not copied");
                }
            }
        }
    }

    #[test]
    fn sizes_are_what_they_cost() {
        assert_eq!(
            KvStore::new(24, 2, 64, 1, KvFormat::Int8).bytes_per_token(),
            24 * 2 * 2 * 68
        );
        assert_eq!(
            KvStore::new(24, 2, 64, 1, KvFormat::F16).bytes_per_token(),
            24 * 2 * 2 * 128
        );
    }
}
