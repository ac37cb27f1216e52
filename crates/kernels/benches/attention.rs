//! Attention of one kv head over int8 blocks, D = 64, with the 7 query heads per kv head of Qwen2.5-0.5B where no number is said:
//! 10⁹ multiply-adds per second and GB/s of cache read, medians, one thread.
//!
//! `cargo bench -p edgethink-kernels --bench attention -- [isa]`. Checked against the scalar kernel before it is timed.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use edgethink_kernels::{
    Causal, Isa, KvBlock, KvRef, attend_begin, attend_block, attend_finish, attention_state_len,
};

const D: usize = 64;
const BLOCK: usize = 32;

fn main() {
    let only_isa: Option<Isa> = std::env::args().find_map(|a| a.parse().ok());
    let quick = !std::env::args().any(|a| a == "--bench");
    println!(
        "{:12} {:28} {:>10} {:>8} {:>8}",
        "isa", "case", "us", "GB/s", "GMAC/s"
    );
    for isa in Isa::available().filter(|isa| only_isa.is_none_or(|only| only == *isa)) {
        for (name, rows, tokens, caches) in [
            ("1 stream of 1 head, depth 512", 1, 512, 1),
            ("1 stream of 3 heads, depth 512", 3, 512, 1),
            ("1 stream, depth 512", 7, 512, 1),
            ("1 stream, depth 4096", 7, 4096, 1),
            ("the same, from memory", 7, 4096, 1000),
            ("8 streams, depth 512", 56, 512, 1),
            ("prefill, 64 tokens at 512", 448, 512, 1),
        ] {
            if quick && rows * tokens > 10_000 {
                continue;
            }
            attend(isa, name, rows, tokens, caches, quick);
        }
    }
}

/// Times rows over `caches` that are visited in turn: many are read from memory.
fn attend(isa: Isa, name: &str, rows: usize, tokens: usize, caches: usize, quick: bool) {
    let keys: Vec<i8> = (0..caches * tokens * D)
        .map(|i| (i * 7919 % 251) as u8 as i8)
        .collect();
    let values = keys.clone();
    let scales = vec![0.01; caches * tokens];
    let q: Vec<f32> = (0..rows * D).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let positions = vec![tokens as u32 - 1; rows];
    let mut buffer = vec![0.0; attention_state_len(rows, D)];
    let mut run = |isa: Isa, cache: usize, out: &mut [f32]| {
        let kv = |first: usize| {
            let first = cache * tokens + first;
            let (at, range) = (first * D..(first + BLOCK) * D, first..first + BLOCK);
            KvRef::Int8 {
                k: &keys[at.clone()],
                v: &values[at],
                k_scale: &scales[range.clone()],
                v_scale: &scales[range],
            }
        };
        let mut state = attend_begin(isa, &q, D, 0.125, &mut buffer);
        for first in (0..tokens).step_by(BLOCK) {
            let causal = Causal {
                positions: &positions,
                window: None,
            };
            attend_block(
                KvBlock {
                    kv: kv(first),
                    tokens: BLOCK,
                    first,
                    next: (first + BLOCK < tokens).then(|| kv(first + BLOCK)),
                },
                causal,
                &mut state,
            );
        }
        attend_finish(state, out).expect("finite");
    };
    let (mut out, mut want) = (vec![0.0; q.len()], vec![0.0; q.len()]);
    run(isa, 0, &mut out);
    run(Isa::Scalar, 0, &mut want);
    for (got, want) in out.iter().zip(&want) {
        assert!(
            (got - want).abs() <= 1e-4,
            "{got} should be {want}: not timing a wrong kernel"
        );
    }
    // Weights of 32 MB are read between two visits of a decode step.
    let weights = vec![1u64; if caches > 1 { 4 << 20 } else { 0 }];
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed()
        < Duration::from_millis(if quick { 1 } else { 200 * caches.min(8) as u64 })
    {
        black_box(weights.iter().step_by(8).sum::<u64>());
        let start = Instant::now();
        run(isa, times.len() % caches, black_box(&mut out));
        times.push(start.elapsed());
    }
    times.sort();
    let nanos = times[times.len() / 2].as_nanos() as f64;
    println!(
        "{:12} {name:28} {:>10.1} {:>8.1} {:>8.1}",
        isa.to_string(),
        nanos / 1e3,
        (2 * tokens * (D + 4)) as f64 / nanos,
        (2 * rows * tokens * D) as f64 / nanos,
    );
}
