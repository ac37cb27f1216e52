//! Storage of keys and values, block by block, per layer and kv head.
//!
//! One kv head of one layer is a run of slots; a token's slot is `32 · block + position mod 32`. Values are `[slots, D]`, keys
//! `[blocks][D][32]`, and where they are int8 two rows of either lie in pairs, as the kernels read them ([`KvRef`]). The buffers are zeroed
//! lazily by the system, so a large cache costs memory only where it was used.

use edgethink_kernels::{Isa, KvRef, int8_key_at, int8_key_rows, int8_value_at, quantize_kv};
use half::f16;

use crate::block_pool::{BLOCK_TOKENS, BlockId};
use crate::options::KvFormat;
use crate::scheduler::BlockCopy;
use crate::weights::MAX_HEAD_DIM;

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

/// KV of one layer, `[K]` heads, scales `[K, slots]`.
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
                k: vec![0; heads * slots * int8_key_rows(head_dim)],
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
            KvFormat::Int8 => int8_key_rows(self.head_dim) + self.head_dim + 2 * size_of::<f32>(),
            KvFormat::F16 => 2 * 2 * self.head_dim,
            KvFormat::F32 => 2 * 4 * self.head_dim,
        };
        self.layers.len() * self.heads * per_head
    }

    /// The heads of a layer, for writing.
    pub(crate) fn heads_mut(&mut self, layer: usize) -> Vec<HeadMut<'_>> {
        let (slots, values) = (self.slots, self.slots * self.head_dim);
        let int8_keys = slots * int8_key_rows(self.head_dim);
        match &mut self.layers[layer] {
            LayerKv::Int8 {
                k,
                v,
                k_scale,
                v_scale,
            } => {
                let codes = k
                    .chunks_exact_mut(int8_keys)
                    .zip(v.chunks_exact_mut(values));
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
        let keys = first * d..(first + BLOCK_TOKENS) * d;
        match &self.layers[layer] {
            LayerKv::Int8 {
                k,
                v,
                k_scale,
                v_scale,
            } => KvRef::Int8 {
                k: &k[first * int8_key_rows(d)..][..BLOCK_TOKENS * int8_key_rows(d)],
                v: &v[first * d..][..BLOCK_TOKENS * d],
                k_scale: &k_scale[slots.clone()],
                v_scale: &v_scale[slots],
            },
            LayerKv::F16 { k, v } => KvRef::F16 {
                k: &k[keys],
                v: &v[values],
            },
            LayerKv::F32 { k, v } => KvRef::F32 {
                k: &k[keys],
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
                        for i in 0..d {
                            for token in 0..copy.tokens {
                                let at = |slot: usize| int8_key_at(d, slot + token, i);
                                k[at(to)] = k[at(from)];
                                let at = |slot: usize| int8_value_at(d, slot + token, i);
                                v[at(to)] = v[at(from)];
                            }
                        }
                        k_scale.copy_within(range.clone(), to);
                        v_scale.copy_within(range, to);
                    }
                    LayerKv::F16 { k, v } => {
                        copy_keys(k, from * d, to * d, d, copy.tokens);
                        v.copy_within(values, to * d);
                    }
                    LayerKv::F32 { k, v } => {
                        copy_keys(k, from * d, to * d, d, copy.tokens);
                        v.copy_within(values, to * d);
                    }
                }
            }
        }
    }
}

/// The keys of the first tokens of a block that begins at `from`, to that at `to`.
fn copy_keys<T: Copy>(keys: &mut [T], from: usize, to: usize, d: usize, tokens: usize) {
    for row in (0..d * BLOCK_TOKENS).step_by(BLOCK_TOKENS) {
        keys.copy_within(from + row..from + row + tokens, to + row);
    }
}

/// Puts the key of a token into its place in the block.
fn put_key<T: Copy>(keys: &mut [T], slot: usize, d: usize, key: impl IntoIterator<Item = T>) {
    let (block, token) = (slot / BLOCK_TOKENS, slot % BLOCK_TOKENS);
    let block = &mut keys[block * d * BLOCK_TOKENS..][..d * BLOCK_TOKENS];
    for (row, x) in block.as_chunks_mut::<BLOCK_TOKENS>().0.iter_mut().zip(key) {
        row[token] = x;
    }
}

impl HeadMut<'_> {
    /// Writes key and value of a token, `[D]` each, into its slot. Returns false, and writes zeros, if they are not finite in the
    /// storage format.
    pub(crate) fn write(&mut self, isa: Isa, slot: usize, key: &[f32], value: &[f32]) -> bool {
        let d = key.len();
        let range = slot * d..(slot + 1) * d;
        match self {
            HeadMut::Int8 {
                k,
                v,
                k_scale,
                v_scale,
            } => {
                let (mut key_codes, mut value_codes) = ([0; MAX_HEAD_DIM], [0; MAX_HEAD_DIM]);
                let (key_codes, value_codes) = (&mut key_codes[..d], &mut value_codes[..d]);
                let scales = quantize_kv(isa, key, key_codes).and_then(|key_scale| {
                    let value_scale = quantize_kv(isa, value, value_codes)?;
                    Ok((key_scale, value_scale))
                });
                if scales.is_err() {
                    key_codes.fill(0);
                    value_codes.fill(0);
                }
                for (i, (key, value)) in key_codes.iter().zip(value_codes).enumerate() {
                    k[int8_key_at(d, slot, i)] = *key;
                    v[int8_value_at(d, slot, i)] = *value;
                }
                let finite = scales.is_ok();
                (k_scale[slot], v_scale[slot]) = scales.unwrap_or_default();
                finite
            }
            HeadMut::F16 { k, v } => {
                let mut finite = true;
                let mut half = |x: &f32| {
                    let half = f16::from_f32(*x);
                    finite &= half.is_finite();
                    if half.is_finite() { half.to_bits() } else { 0 }
                };
                put_key(k, slot, d, key.iter().map(&mut half));
                for (target, x) in v[range].iter_mut().zip(value) {
                    *target = half(x);
                }
                finite
            }
            HeadMut::F32 { k, v } => {
                let mut finite = true;
                let mut checked = |x: &f32| {
                    finite &= x.is_finite();
                    if x.is_finite() { *x } else { 0.0 }
                };
                put_key(k, slot, d, key.iter().map(&mut checked));
                for (target, x) in v[range].iter_mut().zip(value) {
                    *target = checked(x);
                }
                finite
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

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
                    let filled = |block, tokens| {
                        fn columns<T: Debug>(keys: &[T], tokens: usize) -> String {
                            let rows = keys.chunks(BLOCK_TOKENS);
                            format!("{:?}", rows.map(|row| &row[..tokens]).collect::<Vec<_>>())
                        }
                        let codes = |codes: &[i8], at: fn(usize, usize, usize) -> usize| {
                            let token = |t| (0..4).map(|i| codes[at(4, t, i)]).collect::<Vec<_>>();
                            format!("{:?}", (0..tokens).map(token).collect::<Vec<_>>())
                        };
                        let kv = store.block(layer, head, block, tokens);
                        let (keys, rest) = match kv {
                            KvRef::Int8 {
                                k,
                                v,
                                k_scale,
                                v_scale,
                            } => (
                                codes(k, int8_key_at) + &codes(v, int8_value_at),
                                format!("{k_scale:?} {v_scale:?}"),
                            ),
                            KvRef::F16 { k, v } => (columns(k, tokens), format!("{v:?}")),
                            KvRef::F32 { k, v } => (columns(k, tokens), format!("{v:?}")),
                        };
                        (keys, rest)
                    };
                    assert_eq!(filled(from, 5), filled(to, 5));
                    assert_ne!(filled(from, 6), filled(to, 6), "the sixth was not copied");
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
