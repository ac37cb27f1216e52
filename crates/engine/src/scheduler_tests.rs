//! Tests of the scheduler with a model that is only a memory: the "KV" of a token is a hash of everything before it, so a wrong
//! block, a missed copy or a leak between owners shows as a wrong hash.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::prefix_cache::Owner;
use crate::sequence::OwnerSpan;
use proptest::prelude::*;

/// A scheduler, the storage it steers, and what the streams still want.
struct Simulation {
    scheduler: Scheduler,
    storage: Vec<[u64; BLOCK_TOKENS]>,
    /// Tokens still to generate.
    wanted: HashMap<SeqId, usize>,
    /// Finished sequences' tokens.
    finished: HashMap<SeqId, Vec<u32>>,
    /// Streams to fork once the prompt is computed.
    forks: HashMap<SeqId, u32>,
    computed_tokens: usize,
}

fn chain(sequence: &Sequence, position: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    sequence.key(position + 1).hash(&mut hasher);
    hasher.finish()
}

/// The "sampled" token: a function of the stream and everything before it.
fn next_token(id: SeqId, sequence: &Sequence) -> u32 {
    ((chain(sequence, sequence.tokens.len() - 1) ^ u64::from(id.stream)) % 2) as u32
}

impl Simulation {
    fn new(
        blocks: usize,
        max_batch_tokens: usize,
        max_sequences: usize,
        prefix_cache: bool,
    ) -> Self {
        Simulation {
            scheduler: Scheduler::new(Limits {
                blocks,
                max_batch_tokens,
                max_sequences,
                prefix_cache,
            }),
            storage: vec![[0; BLOCK_TOKENS]; blocks],
            wanted: HashMap::new(),
            finished: HashMap::new(),
            forks: HashMap::new(),
            computed_tokens: 0,
        }
    }

    fn add(
        &mut self,
        request: u64,
        tokens: Vec<u32>,
        span: Option<OwnerSpan>,
        n: u32,
        wanted: usize,
    ) {
        let id = SeqId { request, stream: 0 };
        self.scheduler
            .add(id, Sequence::new(tokens, span, usize::MAX));
        self.wanted.insert(id, wanted);
        self.forks.insert(id, n);
    }

    fn step(&mut self) {
        let plan = self.scheduler.schedule();
        self.scheduler.check_invariants();
        for copy in &plan.copies {
            let from = self.storage[copy.from.index()];
            self.storage[copy.to.index()][..copy.tokens].copy_from_slice(&from[..copy.tokens]);
        }
        self.scheduler.copied();
        let rows: usize = plan.chunks.iter().map(|c| c.len).sum();
        assert!(rows <= self.scheduler.limits.max_batch_tokens);
        self.computed_tokens += rows;
        for chunk in &plan.chunks {
            let sequence = self.scheduler.sequence(chunk.seq);
            for position in chunk.start..chunk.start + chunk.len {
                let block = sequence.blocks[position / BLOCK_TOKENS];
                self.storage[block.index()][position % BLOCK_TOKENS] = chain(sequence, position);
            }
        }
        // Every chunk reads all of its past, after every chunk has written.
        for chunk in &plan.chunks {
            let sequence = self.scheduler.sequence(chunk.seq);
            for position in 0..chunk.start + chunk.len {
                let block = sequence.blocks[position / BLOCK_TOKENS];
                let kv = self.storage[block.index()][position % BLOCK_TOKENS];
                assert_eq!(
                    kv,
                    chain(sequence, position),
                    "{:?} reads a foreign KV at {position}",
                    chunk.seq
                );
            }
        }
        for &chunk in &plan.chunks {
            self.scheduler.commit(chunk);
            if self.scheduler.sequence(chunk.seq).pending() == 0 {
                self.sample(chunk.seq);
            }
        }
        self.scheduler.check_invariants();
    }

    fn sample(&mut self, id: SeqId) {
        let mut streams = vec![id];
        for stream in 1..self.forks.remove(&id).unwrap_or(1) {
            let to = SeqId { stream, ..id };
            self.scheduler.fork(id, to);
            self.wanted.insert(to, self.wanted[&id]);
            streams.push(to);
        }
        for stream in streams {
            let token = next_token(stream, self.scheduler.sequence(stream));
            let left = self.wanted.get_mut(&stream).expect("wanted is known");
            *left -= 1;
            self.scheduler.append(stream, token);
            if *left == 0 {
                self.finished
                    .insert(stream, self.scheduler.sequence(stream).tokens.clone());
                self.scheduler.release(stream, true);
            }
        }
    }

    fn run(&mut self) {
        let mut steps = 0;
        while !self.scheduler.is_idle() {
            self.step();
            steps += 1;
            assert!(steps < 20_000, "no progress: {:?}", self.scheduler);
        }
    }
}

/// The tokens a stream must have, whatever happened around it.
fn expected(id: SeqId, prompt: &[u32], span: Option<OwnerSpan>, wanted: usize) -> Vec<u32> {
    let mut sequence = Sequence::new(prompt.to_vec(), span, 0);
    for _ in 0..wanted {
        let token = next_token(id, &sequence);
        sequence.tokens.push(token);
    }
    sequence.tokens
}

#[derive(Debug, Clone)]
struct Job {
    prompt: Vec<u32>,
    span: Option<OwnerSpan>,
    n: u32,
    wanted: usize,
    steps_before: usize,
    cancel: bool,
}

fn jobs() -> impl Strategy<Value = Vec<Job>> {
    let length = prop_oneof![1usize..4, 30usize..35, 62usize..67, 90usize..100];
    let until = prop_oneof![Just(usize::MAX), 0usize..110];
    let span = prop::option::of((1u32..3, 0usize..80, until));
    let job = (
        length,
        prop::collection::vec(0u32..2, 0..3),
        span,
        1u32..5,
        1usize..40,
        0usize..6,
        prop::bool::weighted(0.15),
    );
    let job = job.prop_map(|(stem, tail, span, n, wanted, steps_before, cancel)| Job {
        prompt: std::iter::repeat_n(0, stem).chain(tail).collect(),
        span: span.map(|(owner, from, until)| OwnerSpan {
            owner: Owner(owner),
            from,
            until,
        }),
        n,
        wanted,
        steps_before,
        cancel,
    });
    prop::collection::vec(job, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Few blocks, many streams: preemption, eviction, copies and forks happen all the time and no stream notices.
    #[test]
    fn nothing_is_lost(jobs in jobs(), blocks in 5usize..14, batch in 4usize..48, cache in any::<bool>()) {
        let mut sim = Simulation::new(blocks, batch, 4, cache);
        for (request, job) in jobs.iter().enumerate() {
            sim.add(request as u64, job.prompt.clone(), job.span, job.n, job.wanted);
            for _ in 0..job.steps_before {
                sim.step();
            }
            if job.cancel {
                for stream in 0..job.n {
                    let id = SeqId { request: request as u64, stream };
                    if sim.scheduler.get(id).is_some() {
                        sim.scheduler.release(id, stream % 2 == 0);
                    }
                }
            }
        }
        sim.run();
        for (request, job) in jobs.iter().enumerate().filter(|(_, job)| !job.cancel) {
            for stream in 0..job.n {
                let id = SeqId { request: request as u64, stream };
                prop_assert_eq!(&sim.finished[&id], &expected(id, &job.prompt, job.span, job.wanted));
            }
        }
        let scheduler = &mut sim.scheduler;
        prop_assert_eq!(scheduler.pool().free() + scheduler.cached_blocks(), blocks);
        scheduler.clear_cache();
        prop_assert_eq!(scheduler.pool().free(), blocks);
    }
}

#[test]
fn a_second_prompt_reuses_the_first_and_forks_share_their_prompt() {
    let mut sim = Simulation::new(32, 64, 8, true);
    let prompt: Vec<u32> = (0..100).collect();
    sim.add(0, prompt.clone(), None, 1, 1);
    sim.run();
    assert_eq!(sim.computed_tokens, 100);
    sim.add(
        1,
        prompt.clone(),
        Some(OwnerSpan {
            owner: Owner(1),
            from: 96,
            until: usize::MAX,
        }),
        4,
        3,
    );
    sim.step();
    assert_eq!(
        sim.computed_tokens, 104,
        "only the adapter's four tokens are computed"
    );
    // Three whole blocks and one tail for all four streams, whose first writes are still to come; one cached tail of the first request.
    assert_eq!(
        sim.scheduler.pool().total() - sim.scheduler.pool().free(),
        5
    );
    sim.step();
    assert_eq!(
        sim.scheduler.pool().total() - sim.scheduler.pool().free(),
        3 + 1 + 4
    );
    sim.run();
}

#[test]
fn decodes_are_not_stopped_by_a_long_prompt() {
    let mut sim = Simulation::new(64, 8, 4, true);
    sim.add(0, vec![1, 2, 3], None, 1, 50);
    sim.step();
    sim.add(1, (0..500).collect(), None, 1, 1);
    for _ in 0..30 {
        let before = sim
            .scheduler
            .sequence(SeqId {
                request: 0,
                stream: 0,
            })
            .tokens
            .len();
        sim.step();
        assert_eq!(
            sim.scheduler
                .sequence(SeqId {
                    request: 0,
                    stream: 0
                })
                .tokens
                .len(),
            before + 1
        );
    }
}

#[test]
fn the_oldest_sequence_wins_when_blocks_run_out() {
    let mut sim = Simulation::new(4, 16, 4, false);
    sim.add(0, vec![1; 30], None, 1, 90);
    sim.add(1, vec![2; 30], None, 1, 90);
    while !sim.finished.contains_key(&SeqId {
        request: 0,
        stream: 0,
    }) {
        assert_eq!(sim.finished.len(), 0);
        sim.step();
    }
    assert!(sim.scheduler.preemptions() >= 1);
    sim.run();
}

#[test]
fn the_cache_serves_no_more_than_it_may() {
    let mut sim = Simulation::new(16, 64, 2, true);
    let prompt: Vec<u32> = (0..64).collect();
    sim.add(0, prompt.clone(), None, 1, 1);
    sim.run();
    let id = SeqId {
        request: 1,
        stream: 0,
    };
    sim.scheduler.add(id, Sequence::new(prompt, None, 40));
    sim.wanted.insert(id, 1);
    let before = sim.computed_tokens;
    sim.step();
    assert_eq!(sim.computed_tokens - before, 24);
}
