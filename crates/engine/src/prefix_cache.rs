//! The prefix cache: KV blocks that outlive their sequence, found again by what was computed in them.
//!
//! A trie whose nodes are blocks. The edge into a node is labelled with the block's tokens, each together with its owner: the base or
//! the adapter (interned by content hash) under which the token's keys and values were computed. A path from the root therefore
//! spells (tokens, who computed each, where an adapter starts), which is all that KV depends on. KV written under one adapter can
//! not be read under another, and adapter sequences share the base part of their prompt with everyone.
//!
//! ```text
//! root ── [base: t0..t31] ── [base: t32..t63] ── [base: t64..t70, A: t71..t80]    a tail: fewer tokens than a block, always a leaf
//!                       └─── [base: t32..t40, B: t41..t63] ── …
//! ```
//!
//! Siblings are prefix-free: a tail that is the beginning of another block is not kept. A lookup follows whole blocks and then finds,
//! among the children of the last one, the block that shares the most tokens; the caller copies that one, because it will write behind
//! the shared part. Eviction takes leaves that nobody else holds, least recently used first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use crate::block_pool::{BLOCK_TOKENS, BlockId, BlockPool};

/// Who computed the KV of a token: the base, or an adapter known by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub(crate) u32);

impl Owner {
    /// The base model without adapter.
    pub const BASE: Owner = Owner(0);
}

/// A token together with the owner of its KV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyToken(u64);

impl KeyToken {
    /// The key of `token` computed by `owner`.
    pub fn new(owner: Owner, token: u32) -> Self {
        KeyToken(u64::from(owner.0) << 32 | u64::from(token))
    }
}

/// What a lookup found: `blocks` hold whole blocks of the sequence, `partial` the block that begins with the next tokens of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Blocks that can be shared as they are.
    pub blocks: Vec<BlockId>,
    /// A block to copy, and how many of its tokens are the sequence's.
    pub partial: Option<(BlockId, usize)>,
}

impl Match {
    /// Number of tokens found.
    pub fn tokens(&self) -> usize {
        self.blocks.len() * BLOCK_TOKENS + self.partial.map_or(0, |(_, tokens)| tokens)
    }
}

type NodeId = usize;
const ROOT: NodeId = 0;

#[derive(Debug)]
struct Node {
    parent: NodeId,
    key: Arc<[KeyToken]>,
    /// `None` for the root only.
    block: Option<BlockId>,
    children: BTreeMap<Arc<[KeyToken]>, NodeId>,
    last_used: u64,
}

/// The trie. It holds one reference on the block of each node.
#[derive(Debug)]
pub struct PrefixCache {
    nodes: Vec<Option<Node>>,
    unused: Vec<NodeId>,
    /// Leaves by age: the candidates for eviction.
    leaves: BTreeSet<(u64, NodeId)>,
    clock: u64,
}

impl Default for PrefixCache {
    fn default() -> Self {
        Self::new()
    }
}

impl PrefixCache {
    /// An empty cache.
    pub fn new() -> Self {
        let root = Node {
            parent: ROOT,
            key: Arc::from([]),
            block: None,
            children: BTreeMap::new(),
            last_used: 0,
        };
        PrefixCache {
            nodes: vec![Some(root)],
            unused: Vec::new(),
            leaves: BTreeSet::new(),
            clock: 0,
        }
    }

    /// Number of blocks in the cache.
    pub fn len(&self) -> usize {
        self.nodes.len() - 1 - self.unused.len()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of blocks that nobody but the cache holds. Sequences hold the whole path to each of their blocks, so these are
    /// exactly the blocks that eviction can free.
    pub fn evictable(&self, pool: &BlockPool) -> usize {
        self.nodes
            .iter()
            .flatten()
            .filter_map(|n| n.block)
            .filter(|&b| pool.refs(b) == 1)
            .count()
    }

    /// Finds the longest known beginning of `key` and marks it as used. The caller retains the blocks it keeps.
    pub fn lookup(&mut self, key: &[KeyToken]) -> Match {
        self.clock += 1;
        let mut found = Match::default();
        let (blocks, tail) = key.as_chunks::<BLOCK_TOKENS>();
        let mut at = ROOT;
        for block in blocks {
            let Some(&child) = self.node(at).children.get(block.as_slice()) else {
                found.partial = self.longest_beginning(at, block);
                return found;
            };
            at = child;
            self.touch(at);
            found.blocks.push(self.block(at));
        }
        found.partial = self.longest_beginning(at, tail);
        found
    }

    /// Adds the blocks of a sequence: `blocks[i]` holds the tokens `key[32 i ..]`, the last one possibly fewer than 32. Where a block
    /// with the same content is known, `blocks[i]` becomes that one and the duplicate is released. A last block that is not full
    /// must not be written any more by its sequence.
    pub fn insert(&mut self, pool: &mut BlockPool, key: &[KeyToken], blocks: &mut [BlockId]) {
        assert_eq!(
            blocks.len(),
            key.len().div_ceil(BLOCK_TOKENS),
            "one block per {BLOCK_TOKENS} tokens"
        );
        self.clock += 1;
        let mut at = ROOT;
        for (tokens, block) in key.chunks(BLOCK_TOKENS).zip(blocks) {
            if let Some(&child) = self.node(at).children.get(tokens) {
                at = child;
                self.touch(at);
                let known = self.block(at);
                if known != *block {
                    pool.retain(known);
                    pool.release(*block);
                    *block = known;
                }
                continue;
            }
            let full = tokens.len() == BLOCK_TOKENS;
            if !full && self.has_extension(at, tokens) {
                return;
            }
            self.drop_beginning(pool, at, tokens);
            pool.retain(*block);
            at = self.add(at, tokens, *block);
        }
    }

    /// Frees up to `wanted` blocks, oldest first, and returns how many were freed.
    pub fn evict(&mut self, pool: &mut BlockPool, wanted: usize) -> usize {
        let mut freed = 0;
        while freed < wanted {
            let oldest = self
                .leaves
                .iter()
                .find(|&&(_, leaf)| pool.refs(self.block(leaf)) == 1);
            let Some(&(_, leaf)) = oldest else { break };
            self.remove(pool, leaf);
            freed += 1;
        }
        freed
    }

    /// Forgets everything. Blocks that sequences hold stay theirs.
    pub fn clear(&mut self, pool: &mut BlockPool) {
        for node in self.nodes.iter().flatten() {
            if let Some(block) = node.block {
                pool.release(block);
            }
        }
        let clock = self.clock;
        *self = Self::new();
        self.clock = clock;
    }

    /// The blocks that the cache holds, one entry per reference.
    pub fn holders(&self) -> impl Iterator<Item = BlockId> {
        self.nodes.iter().flatten().filter_map(|n| n.block)
    }

    /// Panics unless the trie is well formed: parents and children agree, only full blocks have children, siblings are
    /// prefix-free, and the age list holds exactly the leaves.
    pub fn check_invariants(&self) {
        let mut leaves = BTreeSet::new();
        for (id, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            if id != ROOT {
                assert!(
                    !node.key.is_empty() && node.key.len() <= BLOCK_TOKENS,
                    "node {id} has {} tokens",
                    node.key.len()
                );
                assert_eq!(
                    self.node(node.parent).children.get(&node.key),
                    Some(&id),
                    "the parent of {id} knows it"
                );
                assert!(
                    node.children.is_empty() || node.key.len() == BLOCK_TOKENS,
                    "tail {id} has children"
                );
                assert!(
                    node.last_used <= self.node(node.parent).last_used || node.parent == ROOT,
                    "{id} is younger than its parent"
                );
                if node.children.is_empty() {
                    leaves.insert((node.last_used, id));
                }
            }
            for (a, b) in node.children.keys().zip(node.children.keys().skip(1)) {
                assert!(!b.starts_with(a), "children of {id} are not prefix-free");
            }
        }
        assert_eq!(leaves, self.leaves, "the age list holds the leaves");
        for &unused in &self.unused {
            assert!(
                self.nodes[unused].is_none(),
                "unused node {unused} is in use"
            );
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes[id]
            .as_ref()
            .expect("node ids in the trie are live")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id]
            .as_mut()
            .expect("node ids in the trie are live")
    }

    fn block(&self, id: NodeId) -> BlockId {
        self.node(id)
            .block
            .expect("every node but the root has a block")
    }

    fn touch(&mut self, id: NodeId) {
        let clock = self.clock;
        let node = self.node_mut(id);
        let before = std::mem::replace(&mut node.last_used, clock);
        if node.children.is_empty() {
            self.leaves.remove(&(before, id));
            self.leaves.insert((clock, id));
        }
    }

    /// Among the children of `at`, the block that shares the most leading tokens with `key`. In sorted order that is a neighbour of `key`.
    fn longest_beginning(&mut self, at: NodeId, key: &[KeyToken]) -> Option<(BlockId, usize)> {
        if key.is_empty() {
            return None;
        }
        let children = &self.node(at).children;
        let after = children
            .range::<[KeyToken], _>((Included(key), Unbounded))
            .next();
        let before = children
            .range::<[KeyToken], _>((Unbounded, Excluded(key)))
            .next_back();
        let shared = |entry: (&Arc<[KeyToken]>, &NodeId)| {
            let tokens = entry.0.iter().zip(key).take_while(|(a, b)| a == b).count();
            (tokens, *entry.1)
        };
        let (tokens, child) = [before, after]
            .into_iter()
            .flatten()
            .map(shared)
            .max_by_key(|&(tokens, _)| tokens)?;
        if tokens == 0 {
            return None;
        }
        self.touch(child);
        Some((self.block(child), tokens))
    }

    /// Whether a child of `at` begins with `key`.
    fn has_extension(&self, at: NodeId, key: &[KeyToken]) -> bool {
        self.node(at)
            .children
            .range::<[KeyToken], _>((Included(key), Unbounded))
            .next()
            .is_some_and(|(known, _)| known.starts_with(key))
    }

    /// Removes the tail that is a beginning of `key`, if there is one. Since siblings are prefix-free it is the one just before `key`.
    fn drop_beginning(&mut self, pool: &mut BlockPool, at: NodeId, key: &[KeyToken]) {
        let before = self
            .node(at)
            .children
            .range::<[KeyToken], _>((Unbounded, Excluded(key)))
            .next_back();
        if let Some((known, &child)) = before
            && key.starts_with(known)
        {
            self.remove(pool, child);
        }
    }

    fn add(&mut self, parent: NodeId, key: &[KeyToken], block: BlockId) -> NodeId {
        let key: Arc<[KeyToken]> = Arc::from(key);
        let last_used = self.clock;
        let node = Node {
            parent,
            key: key.clone(),
            block: Some(block),
            children: BTreeMap::new(),
            last_used,
        };
        let id = match self.unused.pop() {
            Some(id) => {
                self.nodes[id] = Some(node);
                id
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() - 1
            }
        };
        let up = self.node_mut(parent);
        let was_leaf = up.children.is_empty().then_some(up.last_used);
        up.children.insert(key, id);
        if let Some(age) = was_leaf {
            self.leaves.remove(&(age, parent));
        }
        self.leaves.insert((last_used, id));
        id
    }

    /// Takes a leaf out and gives up its block.
    fn remove(&mut self, pool: &mut BlockPool, leaf: NodeId) {
        let node = self.nodes[leaf].take().expect("a leaf to remove is live");
        assert!(node.children.is_empty(), "only leaves are removed");
        self.unused.push(leaf);
        self.leaves.remove(&(node.last_used, leaf));
        let parent = self.node_mut(node.parent);
        parent.children.remove(&node.key);
        if parent.children.is_empty() && node.parent != ROOT {
            let age = parent.last_used;
            self.leaves.insert((age, node.parent));
        }
        pool.release(node.block.expect("every node but the root has a block"));
    }
}

#[cfg(test)]
#[path = "prefix_cache_tests.rs"]
mod tests;
