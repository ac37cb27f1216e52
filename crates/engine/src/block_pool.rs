//! The pool of KV blocks: which blocks are free, and how many holders each used block has.
//!
//! A block is room for the keys and values of [`BLOCK_TOKENS`] consecutive tokens in every layer. This module counts references
//! and knows no tensor. Holders are block tables of sequences and nodes of the prefix cache; sharing is an explicit
//! [`BlockPool::retain`], and a block returns to the free list with its last [`BlockPool::release`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Tokens per KV block.
pub const BLOCK_TOKENS: usize = 32;

/// Index of a block in the KV storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(u32);

impl BlockId {
    /// The block's place in the storage, `0..total`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Reference counts and the free list.
#[derive(Debug)]
pub struct BlockPool {
    refs: Vec<u32>,
    free: BinaryHeap<Reverse<BlockId>>,
}

impl BlockPool {
    /// A pool of `total` free blocks. The lowest is handed out first, so that the blocks of a sequence ascend and mostly lie side by side,
    /// as attention reads them fastest.
    pub fn new(total: usize) -> Self {
        let total = u32::try_from(total).expect("a KV cache has fewer than 2^32 blocks");
        BlockPool {
            refs: vec![0; total as usize],
            free: (0..total).map(BlockId).map(Reverse).collect(),
        }
    }

    /// Number of blocks, used and free.
    pub fn total(&self) -> usize {
        self.refs.len()
    }

    /// Number of blocks without a holder.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Number of holders of a block.
    pub fn refs(&self, block: BlockId) -> u32 {
        self.refs[block.index()]
    }

    /// Takes a free block with one holder, or `None` when there is none.
    pub fn alloc(&mut self) -> Option<BlockId> {
        let Reverse(block) = self.free.pop()?;
        assert_eq!(
            self.refs[block.index()],
            0,
            "free block {block:?} has holders"
        );
        self.refs[block.index()] = 1;
        Some(block)
    }

    /// Adds a holder to a used block.
    pub fn retain(&mut self, block: BlockId) {
        let refs = &mut self.refs[block.index()];
        assert!(*refs > 0, "block {block:?} is free and cannot be shared");
        *refs += 1;
    }

    /// Removes a holder; the block is free again when it was the last. Returns whether it is.
    pub fn release(&mut self, block: BlockId) -> bool {
        let refs = &mut self.refs[block.index()];
        assert!(
            *refs > 0,
            "block {block:?} is released more often than it was shared"
        );
        *refs -= 1;
        let freed = *refs == 0;
        if freed {
            self.free.push(Reverse(block));
        }
        freed
    }

    /// Panics unless the free list holds exactly the blocks without holder, each once, and every block has as many holders as
    /// `holders` names.
    pub fn check_invariants(&self, holders: impl IntoIterator<Item = BlockId>) {
        let mut expected = vec![0u32; self.refs.len()];
        for block in holders {
            expected[block.index()] += 1;
        }
        assert_eq!(
            expected, self.refs,
            "reference counts differ from the holders"
        );
        let mut free = vec![false; self.refs.len()];
        for Reverse(block) in &self.free {
            assert!(!free[block.index()], "block {block:?} is free twice");
            free[block.index()] = true;
        }
        for (index, &refs) in self.refs.iter().enumerate() {
            assert_eq!(free[index], refs == 0, "block {index} has {refs} holders");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Random operations on a tiny pool: counts always equal the holders, and nothing is lost.
        #[test]
        fn random_operations_keep_the_counts(ops in prop::collection::vec((0u8..3, any::<u16>()), 0..200)) {
            let mut pool = BlockPool::new(4);
            let mut held: Vec<BlockId> = Vec::new();
            for (op, pick) in ops {
                match op {
                    0 => match pool.alloc() {
                        Some(block) => held.push(block),
                        None => prop_assert_eq!(pool.free(), 0),
                    },
                    1 if !held.is_empty() => {
                        let block = held[pick as usize % held.len()];
                        pool.retain(block);
                        held.push(block);
                    }
                    2 if !held.is_empty() => {
                        let block = held.swap_remove(pick as usize % held.len());
                        let freed = pool.release(block);
                        prop_assert_eq!(freed, !held.contains(&block));
                    }
                    _ => {}
                }
                pool.check_invariants(held.iter().copied());
            }
        }
    }

    #[test]
    fn blocks_ascend_whatever_came_back_first() {
        let mut pool = BlockPool::new(8);
        let held: Vec<BlockId> = (0..8).filter_map(|_| pool.alloc()).collect();
        for index in [3, 6, 1, 5] {
            pool.release(held[index]);
        }
        let again: Vec<usize> = (0..4)
            .filter_map(|_| pool.alloc())
            .map(BlockId::index)
            .collect();
        assert_eq!(again, [1, 3, 5, 6]);
    }

    #[test]
    #[should_panic(expected = "released more often")]
    fn a_double_free_is_caught() {
        let mut pool = BlockPool::new(1);
        let block = pool.alloc().expect("one block");
        pool.release(block);
        pool.release(block);
    }

    #[test]
    #[should_panic(expected = "reference counts differ")]
    fn a_forgotten_holder_is_caught() {
        let mut pool = BlockPool::new(2);
        pool.alloc().expect("two blocks");
        pool.check_invariants([]);
    }
}
