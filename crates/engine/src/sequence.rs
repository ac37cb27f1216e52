//! A sequence: the tokens of one stream, how many of them have their KV computed, and the blocks that hold it.

use crate::block_pool::{BLOCK_TOKENS, BlockId};
use crate::prefix_cache::{KeyToken, Owner};

/// Names a sequence and ranks it: requests in order of arrival, and the streams of a request in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId {
    /// Order of arrival of the request.
    pub request: u64,
    /// Stream of the request; stream 0 also carries the prompt before the fork.
    pub stream: u32,
}

/// Who computes the KV of a sequence's tokens: `owner` in `from..until`, the base elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerSpan {
    /// The adapter's interned content.
    pub owner: Owner,
    /// First token under the adapter.
    pub from: usize,
    /// First token behind it that the base computes again.
    pub until: usize,
}

/// State of one sequence. Token `i` has its KV in `blocks[i / 32]` when `i < computed`.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Prompt, then what was generated or forced.
    pub tokens: Vec<u32>,
    /// How many leading tokens have their KV in `blocks`.
    pub computed: usize,
    /// The block table.
    pub blocks: Vec<BlockId>,
    /// The adapter's span, if any.
    pub span: Option<OwnerSpan>,
    /// Tokens that the prefix cache may serve at most; the rest is computed because its outputs are wanted.
    pub reusable: usize,
    /// Tokens that the prefix cache served when the sequence was last admitted.
    pub reused: usize,
}

impl Sequence {
    /// A sequence of which nothing is computed yet.
    pub fn new(tokens: Vec<u32>, span: Option<OwnerSpan>, reusable: usize) -> Self {
        Sequence {
            tokens,
            computed: 0,
            blocks: Vec::new(),
            span,
            reusable,
            reused: 0,
        }
    }

    /// Tokens whose KV is still to be computed.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// The owner of the KV at a position.
    pub fn owner(&self, position: usize) -> Owner {
        match self.span {
            Some(span) if (span.from..span.until).contains(&position) => span.owner,
            _ => Owner::BASE,
        }
    }

    /// Cache keys of the first `tokens` tokens.
    pub fn key(&self, tokens: usize) -> Vec<KeyToken> {
        self.tokens[..tokens]
            .iter()
            .enumerate()
            .map(|(p, &t)| KeyToken::new(self.owner(p), t))
            .collect()
    }

    /// Blocks needed for the first `tokens` tokens.
    pub fn blocks_for(tokens: usize) -> usize {
        tokens.div_ceil(BLOCK_TOKENS)
    }
}
