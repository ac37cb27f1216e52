//! Random numbers by seed: every example is a function of (seed, stream, index) and of nothing else.
//!
//! An iterator that starts in the middle, or two that run side by side, therefore give the same bytes.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// 64-bit FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>): small, and the same on every machine.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in bytes {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    // FNV's low bits depend on few input bits: a finaliser (from splitmix64) spreads them.
    hash ^= hash >> 30;
    hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^= hash >> 27;
    hash = hash.wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The generator of example `index` in the stream called `stream`.
pub(crate) fn item_rng(seed: u64, stream: &str, index: u64) -> ChaCha8Rng {
    let mut key = Vec::with_capacity(stream.len() + 16);
    key.extend_from_slice(&seed.to_le_bytes());
    key.extend_from_slice(&index.to_le_bytes());
    key.extend_from_slice(stream.as_bytes());
    ChaCha8Rng::seed_from_u64(fnv1a(&key))
}

/// One element of a list that is known to hold some.
pub(crate) fn pick<'a, T: ?Sized, R: Rng>(rng: &mut R, list: &[&'a T]) -> &'a T {
    list[rng.random_range(0..list.len())]
}

/// An index drawn with the given weights; the last one if rounding runs past the sum.
pub(crate) fn weighted<R: Rng>(rng: &mut R, weights: &[f64]) -> usize {
    let total: f64 = weights.iter().sum();
    let mut left = rng.random::<f64>() * total;
    for (i, w) in weights.iter().enumerate() {
        left -= w;
        if left < 0.0 {
            return i;
        }
    }
    weights.len().saturating_sub(1)
}
