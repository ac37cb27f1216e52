//! Which tokens a stream may choose from.

use std::sync::Arc;

use crate::request::TokenId;

/// A set of tokens; cloning shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenMask(Arc<[u32]>);

impl TokenMask {
    /// From bits: token t is bit t % 32 of word t / 32. What lies behind the last word is not in the set.
    pub fn from_words(words: &[u32]) -> Self {
        Self(words.into())
    }

    /// Of these tokens.
    pub fn of(tokens: &[TokenId]) -> Self {
        let last = tokens.iter().max().map_or(0, |&token| token as usize + 1);
        let mut words = vec![0; last.div_ceil(32)];
        for &token in tokens {
            words[token as usize / 32] |= 1 << (token % 32);
        }
        Self(words.into())
    }

    /// Whether the token is in the set.
    pub fn allows(&self, token: TokenId) -> bool {
        let word = self.0.get(token as usize / 32);
        word.is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// Bans all other tokens from `logits` `[V]`.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        for (chunk, logits) in logits.chunks_mut(32).enumerate() {
            let word = self.0.get(chunk).copied().unwrap_or(0);
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

impl std::fmt::Debug for TokenMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        write!(f, "TokenMask({count} tokens)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_keep_their_logits() {
        let mask = TokenMask::of(&[0, 33, 40]);
        assert_eq!(mask, TokenMask::from_words(&[1, 1 << 1 | 1 << 8]));
        assert_eq!(
            [0, 1, 33, 40, 64].map(|t| mask.allows(t)),
            [true, false, true, true, false]
        );
        let mut logits = [1.0; 70];
        mask.apply(&mut logits);
        let left: Vec<usize> = (0..70).filter(|&t| logits[t] == 1.0).collect();
        assert_eq!(left, [0, 33, 40]);
        assert!(!TokenMask::of(&[]).allows(0));
    }
}
