//! The scheduler: which tokens of which sequences the next forward pass computes, and in which blocks.
//!
//! It knows tokens and blocks but no tensors. One pass ("batch") mixes decode rows (one token of a running sequence) and prefill
//! chunks. Sequences are served in order of arrival; rows for running decodes are set aside first, so a long prompt never stops
//! them. When blocks run out, cached blocks are evicted, then the youngest running sequence is preempted: its blocks go to the
//! cache (where they may survive) and it waits with all its tokens, which are computed again later. Nothing is lost by that, since KV
//! and draws depend on the tokens and positions alone.
//!
//! ```text
//! add ──> waiting ──admit──> running ──release──> (gone)
//!            ^                  │ └─ fork: another running (or waiting) sequence on the same blocks
//!            └────preempt───────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::block_pool::{BLOCK_TOKENS, BlockId, BlockPool};
use crate::prefix_cache::PrefixCache;
use crate::sequence::{SeqId, Sequence};

/// Limits of a scheduler.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// KV blocks in all.
    pub blocks: usize,
    /// Token rows of one batch, at least `max_sequences`.
    pub max_batch_tokens: usize,
    /// Sequences that run at the same time.
    pub max_sequences: usize,
    /// Whether blocks are kept for later sequences.
    pub prefix_cache: bool,
}

/// Tokens `start .. start + len` of a sequence, to be computed in the next pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The sequence.
    pub seq: SeqId,
    /// Position of the first token.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
}

/// The first `tokens` tokens of block `from` are needed in block `to` before the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// Source; held by the scheduler until [`Scheduler::copied`].
    pub from: BlockId,
    /// Destination; written by one sequence only.
    pub to: BlockId,
    /// Tokens to copy, 1 to 32.
    pub tokens: usize,
}

/// What the next pass does.
#[derive(Debug, Default)]
pub struct Plan {
    /// Copies to make first, in this order.
    pub copies: Vec<BlockCopy>,
    /// Rows to compute, oldest sequence first.
    pub chunks: Vec<Chunk>,
}

/// Waiting and running sequences, the block pool and the prefix cache.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    cache: PrefixCache,
    sequences: BTreeMap<SeqId, Sequence>,
    waiting: BTreeSet<SeqId>,
    running: BTreeSet<SeqId>,
    /// Sources of the copies of the plan that is under way.
    copy_sources: Vec<BlockId>,
    preemptions: u64,
}

impl Scheduler {
    /// A scheduler without sequences.
    pub fn new(limits: Limits) -> Self {
        assert!(
            limits.max_sequences > 0 && limits.max_sequences <= limits.max_batch_tokens,
            "one row per running sequence: {limits:?}"
        );
        Scheduler {
            limits,
            pool: BlockPool::new(limits.blocks),
            cache: PrefixCache::new(),
            sequences: BTreeMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            copy_sources: Vec::new(),
            preemptions: 0,
        }
    }

    /// Adds a waiting sequence. It must fit into the pool when it runs alone, at its longest.
    pub fn add(&mut self, id: SeqId, sequence: Sequence) {
        assert!(
            !sequence.tokens.is_empty() && sequence.blocks.is_empty(),
            "{id:?} has tokens and no blocks yet"
        );
        assert!(
            self.sequences.insert(id, sequence).is_none(),
            "{id:?} is already known"
        );
        self.waiting.insert(id);
    }

    /// The state of a sequence, if it is known.
    pub fn get(&self, id: SeqId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// Adds a token behind the known ones; its KV is computed in a later pass.
    pub fn append(&mut self, id: SeqId, token: u32) {
        self.sequence_mut(id).tokens.push(token);
    }

    /// Makes `to` a second sequence on the blocks of `from`, which stay shared until one of them writes.
    pub fn fork(&mut self, from: SeqId, to: SeqId) {
        let mut sequence = self.sequence(from).clone();
        if self.running.len() < self.limits.max_sequences && self.running.contains(&from) {
            for &block in &sequence.blocks {
                self.pool.retain(block);
            }
            self.running.insert(to);
        } else {
            sequence.blocks.clear();
            sequence.computed = 0;
            self.waiting.insert(to);
        }
        // What made the prompt's outputs necessary is done.
        sequence.reusable = usize::MAX;
        assert!(
            self.sequences.insert(to, sequence).is_none(),
            "{to:?} is already known"
        );
    }

    /// Forgets a sequence and gives its blocks up at once. With `keep`, what it computed stays in the prefix cache.
    pub fn release(&mut self, id: SeqId, keep: bool) {
        self.give_up_blocks(id, keep);
        self.sequences.remove(&id);
        self.waiting.remove(&id);
        self.running.remove(&id);
    }

    /// Decides the next pass. The chunks' blocks are allocated; [`Scheduler::copied`] and then [`Scheduler::commit`] per chunk
    /// (or [`Scheduler::release`]) must follow.
    pub fn schedule(&mut self) -> Plan {
        let mut plan = Plan::default();
        let mut rows = self.limits.max_batch_tokens;
        let running: Vec<SeqId> = self.running.iter().copied().collect();
        let mut decodes = running
            .iter()
            .filter(|&&id| self.sequence(id).pending() == 1)
            .count();
        for id in running {
            if !self.running.contains(&id) {
                continue; // preempted for an older one
            }
            let pending = self.sequence(id).pending();
            if pending == 1 {
                decodes -= 1;
            }
            // Preempted decodes may leave `decodes` too high; that only makes a chunk shorter.
            let len = if pending == 1 {
                1
            } else {
                pending.min(rows.saturating_sub(decodes))
            };
            if len == 0 || rows == 0 {
                continue;
            }
            if self.prepare(id, len, &mut plan) {
                rows -= len;
            }
        }
        while rows > 0 && self.running.len() < self.limits.max_sequences {
            let Some(&id) = self.waiting.first() else {
                break;
            };
            if !self.admit(id, &mut plan) {
                break;
            }
            let len = self.sequence(id).pending().min(rows);
            if !self.prepare(id, len, &mut plan) {
                break;
            }
            rows -= len;
        }
        plan
    }

    /// Says that the plan's copies were made.
    pub fn copied(&mut self) {
        for block in self.copy_sources.drain(..) {
            self.pool.release(block);
        }
    }

    /// Says that the KV of a chunk was computed. Blocks that became full are offered to the prefix cache.
    pub fn commit(&mut self, chunk: Chunk) {
        let sequence = self
            .sequences
            .get_mut(&chunk.seq)
            .expect("committed sequences are known");
        assert_eq!(
            sequence.computed, chunk.start,
            "chunks of {:?} are committed in order",
            chunk.seq
        );
        let full_before = sequence.computed / BLOCK_TOKENS;
        sequence.computed += chunk.len;
        let full = sequence.computed / BLOCK_TOKENS;
        if self.limits.prefix_cache && full > full_before {
            let key = sequence.key(full * BLOCK_TOKENS);
            self.cache
                .insert(&mut self.pool, &key, &mut sequence.blocks[..full]);
        }
    }

    /// From now on the prefix cache may serve this many leading tokens of the sequence: their outputs were delivered.
    pub fn set_reusable(&mut self, id: SeqId, tokens: usize) {
        self.sequence_mut(id).reusable = tokens;
    }

    /// Whether no sequence is known.
    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Sequences that run and that wait.
    pub fn counts(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// How often a sequence lost its blocks to an older one.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// The block pool.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Blocks in the prefix cache.
    pub fn cached_blocks(&self) -> usize {
        self.cache.len()
    }

    /// Blocks in the prefix cache that no sequence holds.
    pub fn idle_blocks(&self) -> usize {
        self.cache.evictable(&self.pool)
    }

    /// Takes `count` blocks out of the pool for work outside the queues, evicting cached ones, or `None` when sequences hold too many.
    pub fn borrow_blocks(&mut self, count: usize) -> Option<Vec<BlockId>> {
        self.make_free(count)
            .then(|| (0..count).filter_map(|_| self.pool.alloc()).collect())
    }

    /// Gives back what [`Scheduler::borrow_blocks`] took.
    pub fn return_blocks(&mut self, blocks: Vec<BlockId>) {
        for block in blocks {
            self.pool.release(block);
        }
    }

    /// Empties the prefix cache.
    pub fn clear_cache(&mut self) {
        self.cache.clear(&mut self.pool);
    }

    /// Panics unless every block has the holders that its count says, tables are as long as their tokens need, and a block that a
    /// sequence will write next belongs to nobody else or is about to be copied.
    pub fn check_invariants(&self) {
        self.cache.check_invariants();
        let tables = self
            .sequences
            .values()
            .flat_map(|s| s.blocks.iter().copied());
        let sources = self.copy_sources.iter().copied();
        self.pool
            .check_invariants(tables.chain(self.cache.holders()).chain(sources));
        for (id, sequence) in &self.sequences {
            assert_ne!(
                self.running.contains(id),
                self.waiting.contains(id),
                "{id:?} is running or waiting"
            );
            assert!(sequence.computed <= sequence.tokens.len());
            assert!(
                sequence.blocks.len() >= Sequence::blocks_for(sequence.computed),
                "{id:?} lacks blocks"
            );
            if self.waiting.contains(id) {
                assert!(
                    sequence.blocks.is_empty() && sequence.computed == 0,
                    "waiting {id:?} holds blocks"
                );
            }
        }
        assert_eq!(
            self.running.len() + self.waiting.len(),
            self.sequences.len()
        );
        assert!(self.running.len() <= self.limits.max_sequences);
    }

    fn sequence(&self, id: SeqId) -> &Sequence {
        &self.sequences[&id]
    }

    fn sequence_mut(&mut self, id: SeqId) -> &mut Sequence {
        self.sequences.get_mut(&id).expect("the sequence is known")
    }

    /// Moves a waiting sequence to the running ones with whatever the prefix cache knows of it, if there is room for all it still needs.
    fn admit(&mut self, id: SeqId, plan: &mut Plan) -> bool {
        let sequence = self.sequence(id);
        let tokens = sequence.tokens.len();
        // The last token is always computed: its logits or hidden state are what the pass is for.
        let reusable = if self.limits.prefix_cache {
            sequence.reusable.min(tokens - 1)
        } else {
            0
        };
        let key = sequence.key(reusable);
        let mut found = self.cache.lookup(&key);
        for &block in found
            .blocks
            .iter()
            .chain(found.partial.iter().map(|(block, _)| block))
        {
            self.pool.retain(block);
        }
        let needed = Sequence::blocks_for(tokens) - found.blocks.len();
        let mut room = self.make_free(needed);
        if let Some((source, _)) = found.partial
            && !room
        {
            // The source of a copy takes a block of its own, which may be the one that is missing.
            self.pool.release(source);
            found.partial = None;
            room = self.make_free(needed);
        }
        if !room {
            assert!(
                !self.running.is_empty(),
                "{id:?} of {tokens} tokens does not fit into an empty pool"
            );
            for block in found.blocks {
                self.pool.release(block);
            }
            return false;
        }
        self.waiting.remove(&id);
        self.running.insert(id);
        let computed = found.tokens();
        let mut blocks = found.blocks;
        if let Some((from, tokens)) = found.partial {
            let to = self.pool.alloc().expect("room was made");
            plan.copies.push(BlockCopy { from, to, tokens });
            self.copy_sources.push(from);
            blocks.push(to);
        }
        let sequence = self.sequence_mut(id);
        (sequence.blocks, sequence.computed, sequence.reused) = (blocks, computed, computed);
        true
    }

    /// Gives `id` room for `len` more tokens and adds the chunk, preempting younger sequences if it must. Returns false when `id`
    /// itself was preempted.
    fn prepare(&mut self, id: SeqId, len: usize, plan: &mut Plan) -> bool {
        let Sequence {
            computed,
            ref blocks,
            ..
        } = *self.sequence(id);
        let table = blocks.len();
        let tail =
            (!computed.is_multiple_of(BLOCK_TOKENS)).then(|| blocks[computed / BLOCK_TOKENS]);
        let new = Sequence::blocks_for(computed + len) - table;
        loop {
            let copy = tail.is_some_and(|block| self.pool.refs(block) > 1);
            if self.make_free(new + usize::from(copy)) {
                break;
            }
            let youngest = *self.running.last().expect("the sequence itself is running");
            self.preempt(youngest);
            if youngest == id {
                return false;
            }
        }
        let shared_tail = tail.filter(|&block| self.pool.refs(block) > 1);
        if let Some(from) = shared_tail {
            // Copy on write.
            let to = self.pool.alloc().expect("room was made");
            plan.copies.push(BlockCopy {
                from,
                to,
                tokens: computed % BLOCK_TOKENS,
            });
            self.copy_sources.push(from); // takes over this sequence's reference
            self.sequence_mut(id).blocks[computed / BLOCK_TOKENS] = to;
        }
        for _ in table..Sequence::blocks_for(computed + len) {
            let block = self.pool.alloc().expect("room was made");
            self.sequence_mut(id).blocks.push(block);
        }
        plan.chunks.push(Chunk {
            seq: id,
            start: computed,
            len,
        });
        true
    }

    /// Evicts until `count` blocks are free; whether they are.
    fn make_free(&mut self, count: usize) -> bool {
        let missing = count.saturating_sub(self.pool.free());
        if missing == 0 {
            return true;
        }
        if self.cache.evictable(&self.pool) < missing {
            return false;
        }
        self.cache.evict(&mut self.pool, missing) == missing
    }

    fn preempt(&mut self, id: SeqId) {
        tracing::debug!(?id, "preempted: out of KV blocks");
        self.preemptions += 1;
        self.give_up_blocks(id, true);
        let sequence = self.sequence_mut(id);
        sequence.computed = 0;
        self.running.remove(&id);
        self.waiting.insert(id);
    }

    fn give_up_blocks(&mut self, id: SeqId, keep: bool) {
        let sequence = self.sequences.get_mut(&id).expect("the sequence is known");
        let mut blocks = std::mem::take(&mut sequence.blocks);
        let computed = sequence.computed;
        if keep && self.limits.prefix_cache && computed > 0 {
            let key = sequence.key(computed);
            let used = Sequence::blocks_for(computed);
            // A tail that others still write to cannot be cached: its next tokens are theirs.
            let tail_is_shared =
                !computed.is_multiple_of(BLOCK_TOKENS) && self.pool.refs(blocks[used - 1]) > 1;
            let used = used - usize::from(tail_is_shared);
            let tokens = computed.min(used * BLOCK_TOKENS);
            self.cache
                .insert(&mut self.pool, &key[..tokens], &mut blocks[..used]);
        }
        for block in blocks {
            self.pool.release(block);
        }
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
