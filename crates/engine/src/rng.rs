//! Random draws that depend on nothing but (seed, stream, position).
//!
//! ChaCha is counter based: the seed makes the key, the stream picks the nonce and the token's position the counter. So a stream
//! draws the same numbers alone, in a batch, after a preemption or on a warm cache, and no state has to be kept between tokens.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// 32-bit words between two positions: one ChaCha block, so that the draws of two positions never overlap.
const WORDS_PER_POSITION: u128 = 16;

/// The draws of one stream of one request.
#[derive(Debug, Clone)]
pub struct Draws {
    base: ChaCha8Rng,
}

impl Draws {
    /// Draws for `stream` of a request with this seed.
    pub fn new(seed: u64, stream: usize) -> Self {
        let mut base = ChaCha8Rng::seed_from_u64(seed);
        base.set_stream(stream as u64);
        Draws { base }
    }

    /// A number in `[0, 1)` with 53 random bits, for the token at `position`.
    pub fn uniform(&self, position: usize) -> f64 {
        let mut rng = self.base.clone();
        rng.set_word_pos(position as u128 * WORDS_PER_POSITION);
        (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_stream_and_position_only() {
        let draws = Draws::new(7, 3);
        let forward: Vec<f64> = (0..50).map(|p| draws.uniform(p)).collect();
        let backward: Vec<f64> = (0..50).rev().map(|p| Draws::new(7, 3).uniform(p)).collect();
        assert!(forward.iter().eq(backward.iter().rev()));
        assert!(forward.iter().all(|u| (0.0..1.0).contains(u)));
        for other in [Draws::new(8, 3), Draws::new(7, 4)] {
            assert!((0..50).all(|p| other.uniform(p).to_bits() != forward[p].to_bits()));
        }
    }

    #[test]
    fn draws_are_uniform() {
        // 10 bins, 20,000 draws: chi-square with 9 degrees of freedom stays below 27.9 with probability 0.999.
        let mut bins = [0f64; 10];
        for stream in 0..20 {
            let draws = Draws::new(1, stream);
            for position in 0..1000 {
                bins[(draws.uniform(position) * 10.0) as usize] += 1.0;
            }
        }
        let chi: f64 = bins.iter().map(|n| (n - 2000.0).powi(2) / 2000.0).sum();
        assert!(chi < 27.9, "chi-square {chi}, bins {bins:?}");
    }
}
