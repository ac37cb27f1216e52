//! Sees a thought that repeats itself: the last tokens are the same few tokens over and over, exactly.
//!
//! ```text
//! run[p] = how many tokens in a row, up to the last one, equal the token p places before them
//! ```
//!
//! A run of `(r - 1) p` tokens means that the last `r p` tokens are `r` copies of the same `p` tokens. Every period from 1 to
//! [`MAX_PERIOD`] is kept, so a token costs [`MAX_PERIOD`] comparisons of neighbours in memory whatever the length of the thought,
//! and no hashing makes two texts look alike that are not.
//!
//! No constants can tell a loop from a wanted repetition (a thought about a row of 200 dashes may well write them), so the
//! detector runs only for a query that asks for it. Called by `stream` for tokens of an open thought.

/// Longest repeated piece that is seen, in tokens: a long paragraph.
pub const MAX_PERIOD: usize = 128;
/// Copies that make a loop.
pub const MIN_COPIES: usize = 4;
/// Tokens that the copies must have together: short pieces have to be repeated more often.
pub const MIN_LOOP_TOKENS: usize = 64;

/// The detector of one stream.
#[derive(Debug, Clone)]
pub struct LoopDetector {
    /// `run[p - 1]` for the periods p from 1.
    runs: Vec<u32>,
}

impl Default for LoopDetector {
    fn default() -> Self {
        Self {
            runs: vec![0; MAX_PERIOD],
        }
    }
}

impl LoopDetector {
    /// Looks at the last of `tokens`; must be called once for each token. Returns true while the end of `tokens` is a loop.
    pub fn push(&mut self, tokens: &[u32]) -> bool {
        let Some((&last, before)) = tokens.split_last() else {
            return false;
        };
        for (run, &token) in self.runs.iter_mut().zip(before.iter().rev()) {
            *run = if token == last { *run + 1 } else { 0 };
        }
        self.runs.iter().enumerate().any(|(i, &run)| {
            let period = i + 1;
            run as usize + period >= (MIN_COPIES * period).max(MIN_LOOP_TOKENS)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `tokens` are taken until a loop is seen.
    fn fires_at(tokens: impl IntoIterator<Item = u32>) -> Option<usize> {
        let mut detector = LoopDetector::default();
        let mut seen = Vec::new();
        for token in tokens {
            seen.push(token);
            if detector.push(&seen) {
                return Some(seen.len());
            }
        }
        None
    }

    /// The rule, word by word: does `tokens` end in enough copies of a piece?
    fn is_loop(tokens: &[u32]) -> bool {
        (1..=MAX_PERIOD).any(|period| {
            let need = (MIN_COPIES * period).max(MIN_LOOP_TOKENS);
            tokens.len() >= need
                && tokens[tokens.len() - need..]
                    .windows(period + 1)
                    .all(|w| w[0] == w[period])
        })
    }

    #[test]
    fn a_loop_is_seen_with_its_last_needed_token() {
        for period in [1, 2, 7, 16, 17, 50, MAX_PERIOD] {
            for lead in [0, 1, 33, 300] {
                let healthy = 1000..1000 + lead;
                let copies = (0..10_000).map(|i| i % period as u32);
                let need = (MIN_COPIES * period).max(MIN_LOOP_TOKENS);
                assert_eq!(
                    fires_at(healthy.chain(copies)),
                    Some(lead as usize + need),
                    "period {period} after {lead} tokens"
                );
            }
        }
    }

    #[test]
    fn what_is_no_exact_repetition_is_left_alone() {
        assert_eq!(fires_at(0..10_000), None, "no token twice");
        let counted = (0..400).flat_map(|i| [1, 2, 3, 1000 + i, 4]);
        assert_eq!(fires_at(counted), None, "a list with a number in each line");
        let long = (0..10_000).map(|i| i % (MAX_PERIOD as u32 + 1));
        assert_eq!(fires_at(long), None, "a piece that is too long");
        let three = (0..3 * 40).map(|i| i % 40);
        assert_eq!(fires_at(three), None, "three copies are too few");
        assert_eq!(fires_at(std::iter::repeat_n(7, 63)), None, "a short row");
    }

    #[test]
    fn it_agrees_with_the_rule_on_random_repetitions() {
        // A small alphabet and a generator of its own (Knuth's 64-bit constants): pieces, copies and breaks at random.
        let mut state = 1_u64;
        let mut draw = |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut detector = LoopDetector::default();
        let mut tokens: Vec<u32> = Vec::new();
        let mut loops = 0;
        while tokens.len() < 6000 {
            let piece: Vec<u32> = (0..1 + draw(30)).map(|_| draw(3) as u32).collect();
            for i in 0..piece.len() * (1 + draw(8) as usize) {
                tokens.push(piece[i % piece.len()]);
                let fires = detector.push(&tokens);
                assert_eq!(fires, is_loop(&tokens), "after {} tokens", tokens.len());
                loops += usize::from(fires);
            }
        }
        assert!(loops > 50, "{loops} loops: the test must see both cases");
    }
}
