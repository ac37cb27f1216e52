//! Running averages at chunk boundaries, kept for prompts that begin with the same tokens.
//!
//! A later turn of a conversation finds the KV of the earlier ones in the engine's prefix cache; with the average at the last known
//! boundary it needs the hidden states from there on only, and the cached KV before it is used.

use std::collections::HashMap;

use super::{Averaging, Running};

/// A hash of the tokens of a prefix. 256 bits: two prefixes never share one.
type Key = [u8; 32];

/// The least recently used average leaves first. One cache belongs to one base and one switcher.
#[derive(Debug)]
pub struct Averages {
    chunk_tokens: usize,
    capacity: usize,
    /// With the time of the last use.
    known: HashMap<Key, (u64, Running)>,
    clock: u64,
}

impl Averages {
    /// Room for `capacity` averages of 16 E bytes each.
    pub fn new(averaging: Averaging, capacity: usize) -> Self {
        Self {
            chunk_tokens: averaging.chunk_tokens,
            capacity,
            known: HashMap::new(),
            clock: 0,
        }
    }

    /// The average of the longest known prefix of `tokens` that ends at a chunk boundary.
    pub fn longest(&mut self, tokens: &[u32]) -> Option<Running> {
        let keys = self.keys(tokens);
        let found = keys
            .iter()
            .rev()
            .find(|key| self.known.contains_key(*key))?;
        self.clock += 1;
        let (used, running) = self.known.get_mut(found)?;
        *used = self.clock;
        Some(running.clone())
    }

    /// Keeps averages of prefixes of `tokens`. One that does not end at a boundary, or has read more, is of no use and left out.
    pub fn insert(&mut self, tokens: &[u32], averages: impl IntoIterator<Item = Running>) {
        let keys = self.keys(tokens);
        for running in averages {
            let chunks = running.tokens() / self.chunk_tokens;
            let Some(key) = chunks.checked_sub(1).and_then(|last| keys.get(last)) else {
                continue;
            };
            if self.capacity == 0 || !running.at_boundary() {
                continue;
            }
            self.clock += 1;
            self.known.insert(*key, (self.clock, running));
            if self.known.len() > self.capacity {
                self.forget_oldest();
            }
        }
    }

    /// Averages kept.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn forget_oldest(&mut self) {
        let oldest = self.known.iter().min_by_key(|(_, (used, _))| *used);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.known.remove(&key);
        }
    }

    /// The keys of the prefixes of one chunk, two chunks, and so on.
    fn keys(&self, tokens: &[u32]) -> Vec<Key> {
        let mut hasher = blake3::Hasher::new();
        let chunks = tokens.chunks_exact(self.chunk_tokens);
        chunks
            .map(|chunk| {
                for token in chunk {
                    hasher.update(&token.to_le_bytes());
                }
                *hasher.finalize().as_bytes()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVERAGING: Averaging = Averaging {
        chunk_tokens: 4,
        alpha: 0.5,
    };

    /// The average of `tokens`, whose states are their numbers.
    fn read(tokens: &[u32]) -> Running {
        let mut running = Running::new(AVERAGING, 1);
        for &token in tokens {
            running.push(&[token as f32]).unwrap();
        }
        running
    }

    #[test]
    fn the_longest_known_prefix_is_found() {
        let tokens: Vec<u32> = (0..19).collect();
        let mut cache = Averages::new(AVERAGING, 8);
        assert_eq!(cache.longest(&tokens), None);
        cache.insert(&tokens, [4, 12].map(|n| read(&tokens[..n])));
        for (n, known) in [
            (3, None),
            (4, Some(4)),
            (11, Some(4)),
            (12, Some(12)),
            (19, Some(12)),
        ] {
            let found = cache.longest(&tokens[..n]);
            assert_eq!(found, known.map(|k| read(&tokens[..k])), "{n} tokens");
        }
        let mut other = tokens.clone();
        other[7] = 99;
        assert_eq!(cache.longest(&other), Some(read(&tokens[..4])));
        other[3] = 99;
        assert_eq!(cache.longest(&other), None);
    }

    #[test]
    fn only_boundaries_of_these_tokens_are_kept() {
        let tokens: Vec<u32> = (0..10).collect();
        let mut cache = Averages::new(AVERAGING, 8);
        let longer: Vec<u32> = (0..16).collect();
        cache.insert(&tokens, [read(&[]), read(&tokens[..5]), read(&longer)]);
        assert!(cache.is_empty());
        let mut none = Averages::new(AVERAGING, 0);
        none.insert(&tokens, [read(&tokens[..8])]);
        assert!(none.is_empty());
    }

    #[test]
    fn the_least_recently_used_leaves() {
        let prompts: Vec<Vec<u32>> = (0..4).map(|p| vec![p; 4]).collect();
        let mut cache = Averages::new(AVERAGING, 3);
        for prompt in &prompts[..3] {
            cache.insert(prompt, [read(prompt)]);
        }
        assert!(cache.longest(&prompts[0]).is_some());
        cache.insert(&prompts[3], [read(&prompts[3])]);
        assert_eq!(cache.len(), 3);
        let known: Vec<bool> = prompts.iter().map(|p| cache.longest(p).is_some()).collect();
        assert_eq!(known, [true, false, true, true]);
    }
}
