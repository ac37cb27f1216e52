//! Packed and dense matrix products of the shapes of Qwen2.5-0.5B, and of the logits of 1.5B for 6 bits: GB/s of weights and 10⁹
//! multiply-adds per second, one thread.
//!
//! `cargo bench -p edgethink-kernels --bench gemm -- [isa] [T]`. Every case is checked against the scalar kernel before it is timed;
//! the figure is the best of several passes, so that other work on the machine does not count. `cargo test --benches` runs it with
//! small shapes as a test.

#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use edgethink_kernels::{
    Bits, ColumnsMut, DenseRef, GROUP, Isa, PackedMut, PackedRef, PackedShape, QuantGroup,
    QuantRows, advise_huge_pages, gemm_dense, gemm_packed, pack_rows, quantize_rows,
};

/// [rows, cols]
const SHAPES: [(usize, usize); 6] = [
    (4864, 128),
    (896, 896),
    (4864, 896),
    (896, 4864),
    (151_936, 896),
    (151_936, 1536),
];

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let quick = !std::env::args().any(|a| a == "--bench");
    let only_isa: Option<Isa> = args.iter().find_map(|a| a.parse().ok());
    let only_t: Option<usize> = args.iter().find_map(|a| a.parse().ok());
    println!(
        "{:12} {:10} {:>14} {:>5} {:>10} {:>8} {:>8}",
        "isa", "weights", "shape", "T", "us", "GB/s", "GMAC/s"
    );
    for isa in Isa::available().filter(|isa| only_isa.is_none_or(|only| only == *isa)) {
        for (rows, cols) in SHAPES {
            if quick && rows * cols > 1 << 20 {
                continue;
            }
            for t in [1, 8, 64, 512]
                .into_iter()
                .filter(|t| only_t.is_none_or(|only| only == *t))
            {
                let slow = isa == Isa::Scalar || rows > 100_000;
                if ((slow || quick) && t > 8) || (isa == Isa::Scalar && rows > 900) {
                    continue;
                }
                let budget = Duration::from_millis(if quick { 1 } else { 150 });
                packed(isa, rows, cols, t, Bits::B4, false, budget);
                packed(isa, rows, cols, t, Bits::B4, true, budget);
                packed(isa, rows, cols, t, Bits::B8, false, budget);
                if cols.is_multiple_of(Bits::B6.block_cols()) {
                    packed(isa, rows, cols, t, Bits::B6, false, budget);
                }
                if rows < 100_000 && !args.iter().any(|a| a == "packed") {
                    dense(isa, rows, cols, t, budget);
                }
            }
        }
    }
}

/// SplitMix64.
fn random_bytes(n: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut bytes = Vec::with_capacity(n + 8);
    while bytes.len() < n {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bytes.extend_from_slice(&(z ^ (z >> 27)).to_le_bytes());
    }
    bytes.truncate(n);
    bytes
}

fn activations(t: usize, cols: usize) -> Vec<f32> {
    random_bytes(t * cols)
        .iter()
        .map(|&b| f32::from(b) / 64.0 - 2.0)
        .collect()
}

fn packed(
    isa: Isa,
    rows: usize,
    cols: usize,
    t: usize,
    bits: Bits,
    has_offset: bool,
    budget: Duration,
) {
    let shape = PackedShape {
        rows,
        cols,
        bits,
        has_offset,
    };
    let mut bytes = vec![0; shape.bytes()];
    advise_huge_pages(&mut bytes);
    if bits == Bits::B6 {
        let random = random_bytes(1 << 20);
        for part in bytes.chunks_mut(random.len()) {
            part.copy_from_slice(&random[..part.len()]);
        }
        for block in bytes.chunks_exact_mut(shape.block_bytes()) {
            let (_, scales) = block.split_last_chunk_mut::<32>().expect("longer");
            scales.as_chunks_mut::<2>().0.fill([0, 0x14]); // 2^-10
        }
    } else {
        let mut codes = random_bytes(rows * cols);
        codes.iter_mut().for_each(|c| *c &= bits.max_code());
        let scales = vec![0.01; rows * cols / GROUP];
        let mut dst = PackedMut::new(shape, &mut bytes);
        let offsets = has_offset.then_some(scales.as_slice());
        pack_rows(&mut dst, 0, &codes, &scales, offsets).expect("packs");
    }
    let w = PackedRef::new(shape, &bytes);

    let x = activations(t, cols);
    let mut groups = vec![QuantGroup::default(); x.len() / GROUP];
    quantize_rows(isa, cols, &x, &mut groups).expect("finite");
    let x = QuantRows::new(cols, &groups);

    let mut out = vec![0.0; t * rows];
    let run = |isa: Isa, out: &mut [f32]| {
        gemm_packed(
            isa,
            w,
            0..shape.panels(),
            x,
            &mut ColumnsMut::new(out, rows),
            None,
        );
    };
    if rows * cols * t <= 1 << 24 {
        let mut want = vec![0.0; t * rows];
        run(Isa::Scalar, &mut want);
        run(isa, &mut out);
        check(&out, &want);
    }
    let time = best(budget, || run(isa, black_box(&mut out)));
    report(
        isa,
        &format!("{bits:?}{}", if has_offset { "+offset" } else { "" }),
        (rows, cols, t),
        bytes.len(),
        time,
    );
}

fn dense(isa: Isa, rows: usize, cols: usize, t: usize, budget: Duration) {
    // bf16 in ±[1, 2).
    let w: Vec<u16> = random_bytes(rows * cols)
        .iter()
        .map(|&b| 0x3f80 | u16::from(b & 127) | u16::from(b & 128) << 8)
        .collect();
    let x = activations(t, cols);
    let mut out = vec![0.0; t * rows];
    let run = |isa: Isa, out: &mut [f32]| {
        gemm_dense(
            isa,
            DenseRef::BF16(&w),
            cols,
            0..rows,
            &x,
            &mut ColumnsMut::new(out, rows),
            None,
        );
    };
    if rows * cols * t <= 1 << 24 {
        let mut want = vec![0.0; t * rows];
        run(Isa::Scalar, &mut want);
        run(isa, &mut out);
        check(&out, &want);
    }
    let time = best(budget, || run(isa, black_box(&mut out)));
    report(isa, "BF16", (rows, cols, t), 2 * w.len(), time);
}

fn check(got: &[f32], want: &[f32]) {
    let largest = want.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    for (got, want) in got.iter().zip(want) {
        assert!(
            (got - want).abs() <= 1e-4 * largest,
            "{got} should be {want}: not timing a wrong kernel"
        );
    }
}

/// The shortest of the runs that fit the budget; at least two.
fn best(budget: Duration, mut run: impl FnMut()) -> Duration {
    run();
    let begin = Instant::now();
    let mut best = Duration::MAX;
    loop {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
        if begin.elapsed() > budget {
            return best;
        }
    }
}

fn report(
    isa: Isa,
    weights: &str,
    (rows, cols, t): (usize, usize, usize),
    bytes: usize,
    time: Duration,
) {
    let nanos = time.as_nanos() as f64;
    println!(
        "{:12} {weights:10} {:>14} {t:>5} {:>10.1} {:>8.1} {:>8.1}",
        isa.to_string(),
        format!("{rows}x{cols}"),
        nanos / 1e3,
        bytes as f64 / nanos,
        (rows * cols * t) as f64 / nanos,
    );
}
