//! Tests of the prefix cache: examples, and random operations on a two-letter alphabet against a list of everything inserted.

use super::*;
use proptest::prelude::*;

fn key(tokens: &[u32]) -> Vec<KeyToken> {
    tokens
        .iter()
        .map(|&t| KeyToken::new(Owner::BASE, t))
        .collect()
}

/// Allocates blocks for `key`, inserts them and gives up the sequence's own references, as a finished sequence does.
fn insert_finished(cache: &mut PrefixCache, pool: &mut BlockPool, key: &[KeyToken]) {
    let needed = key.len().div_ceil(BLOCK_TOKENS);
    let missing = needed.saturating_sub(pool.free());
    cache.evict(pool, missing);
    let mut blocks: Vec<BlockId> = (0..needed).map_while(|_| pool.alloc()).collect();
    if blocks.len() == needed {
        cache.insert(pool, key, &mut blocks);
    }
    for block in blocks {
        pool.release(block);
    }
}

#[test]
fn whole_blocks_are_shared_and_the_next_one_partly() {
    let (mut cache, mut pool) = (PrefixCache::new(), BlockPool::new(8));
    let tokens: Vec<u32> = (0..70).collect();
    insert_finished(&mut cache, &mut pool, &key(&tokens));
    assert_eq!(cache.len(), 3);
    let found = cache.lookup(&key(&tokens[..50]));
    assert_eq!(
        (found.blocks.len(), found.partial.expect("18 tokens").1),
        (1, 18)
    );
    let found = cache.lookup(&key(&tokens));
    assert_eq!((found.blocks.len(), found.tokens()), (2, 70));
    let mut other = tokens.clone();
    other[66] = 999;
    assert_eq!(cache.lookup(&key(&other)).tokens(), 66);
    assert_eq!(cache.lookup(&key(&[7])).tokens(), 0);
}

#[test]
fn owners_never_share_what_they_computed() {
    let (mut cache, mut pool) = (PrefixCache::new(), BlockPool::new(8));
    let spans = |owner: Owner, from: usize| -> Vec<KeyToken> {
        (0..64)
            .map(|p| KeyToken::new(if p >= from { owner } else { Owner::BASE }, p as u32))
            .collect()
    };
    let (a, b) = (Owner(1), Owner(2));
    insert_finished(&mut cache, &mut pool, &spans(a, 40));
    assert_eq!(cache.lookup(&spans(a, 40)).tokens(), 64);
    assert_eq!(
        cache.lookup(&spans(b, 40)).tokens(),
        40,
        "another adapter shares the base part"
    );
    assert_eq!(
        cache.lookup(&spans(a, 33)).tokens(),
        33,
        "another start shares the base part"
    );
    assert_eq!(
        cache.lookup(&spans(Owner::BASE, 0)).tokens(),
        40,
        "the base reads only what the base wrote"
    );
    assert_eq!(cache.lookup(&spans(a, 0)).tokens(), 0);
}

#[test]
fn a_longer_block_replaces_its_beginning_and_duplicates_are_given_back() {
    let (mut cache, mut pool) = (PrefixCache::new(), BlockPool::new(4));
    insert_finished(&mut cache, &mut pool, &key(&[1, 2]));
    insert_finished(&mut cache, &mut pool, &key(&[1, 2, 3]));
    insert_finished(&mut cache, &mut pool, &key(&[1]));
    assert_eq!((cache.len(), pool.free()), (1, 3));
    let full: Vec<u32> = (0..32).collect();
    let mut mine = vec![pool.alloc().expect("free")];
    cache.insert(&mut pool, &key(&full), &mut mine);
    let mut same = vec![pool.alloc().expect("free")];
    cache.insert(&mut pool, &key(&full), &mut same);
    assert_eq!(mine, same, "equal content is one block");
    assert_eq!(pool.refs(mine[0]), 3);
}

#[test]
fn eviction_is_oldest_first_and_spares_what_is_held() {
    let (mut cache, mut pool) = (PrefixCache::new(), BlockPool::new(4));
    for first in [10, 20, 30] {
        insert_finished(&mut cache, &mut pool, &key(&[first, 1]));
    }
    let held = cache.lookup(&key(&[20, 1])).partial.expect("known").0;
    pool.retain(held);
    cache.lookup(&key(&[10, 1]));
    assert_eq!(cache.evictable(&pool), 2);
    assert_eq!(cache.evict(&mut pool, 1), 1);
    assert_eq!(cache.lookup(&key(&[30])).tokens(), 0, "30 was the oldest");
    assert_eq!(cache.lookup(&key(&[10])).tokens(), 1);
    assert_eq!(cache.evict(&mut pool, 9), 1, "20 is held");
    assert_eq!(cache.lookup(&key(&[20])).tokens(), 1);
    pool.release(held);
    cache.clear(&mut pool);
    assert_eq!(pool.free(), 4);
}

fn sequences() -> impl Strategy<Value = Vec<(Vec<u32>, usize, u8)>> {
    // A long common stem and two letters make partial overlaps likely.
    let tail = prop::collection::vec(0u32..2, 0..6);
    let length = prop_oneof![Just(0usize), 28usize..36, 60usize..68, Just(96)];
    let one = (length, tail, 0usize..100, 0u8..4).prop_map(|(stem, tail, from, op)| {
        let mut tokens = vec![0; stem];
        tokens.extend(tail);
        (tokens, from, op)
    });
    prop::collection::vec(one, 1..60)
}

proptest! {
    /// After every operation the trie is well formed and counts equal holders; a lookup never claims more than was inserted, and
    /// (without eviction) never less.
    #[test]
    fn random_operations(ops in sequences()) {
        let mut pool = BlockPool::new(400);
        let mut cache = PrefixCache::new();
        let mut known: Vec<Vec<KeyToken>> = Vec::new();
        let mut held: Vec<BlockId> = Vec::new();
        let mut evicted = false;
        for (tokens, from, op) in ops {
            let owner = Owner(1 + (from % 2) as u32);
            let key: Vec<KeyToken> = tokens.iter().enumerate()
                .map(|(p, &t)| KeyToken::new(if p >= from { owner } else { Owner::BASE }, t)).collect();
            match op {
                0 | 1 => {
                    insert_finished(&mut cache, &mut pool, &key);
                    known.push(key);
                }
                2 => {
                    let found = cache.lookup(&key);
                    let shared = |k: &Vec<KeyToken>| k.iter().zip(&key).take_while(|(a, b)| a == b).count();
                    let longest = known.iter().map(shared).max().unwrap_or(0);
                    prop_assert!(found.tokens() <= longest);
                    prop_assert!(evicted || found.tokens() == longest, "{} of {longest}", found.tokens());
                    for &block in &found.blocks {
                        pool.retain(block);
                        held.push(block);
                    }
                }
                _ => {
                    let before = pool.free();
                    let freed = cache.evict(&mut pool, from % 5);
                    evicted |= freed > 0;
                    prop_assert_eq!(pool.free(), before + freed);
                    for block in held.drain(..held.len() / 2) {
                        pool.release(block);
                    }
                }
            }
            cache.check_invariants();
            pool.check_invariants(cache.holders().chain(held.iter().copied()));
        }
    }
}
