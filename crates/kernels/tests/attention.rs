//! Attention over blocks on every instruction set, against f64 softmax over all tokens at once.

mod support;

use edgethink_kernels::{
    Causal, Isa, KernelError, KvBlock, KvRef, attend_begin, attend_block, attend_finish,
    attend_merge, attention_state_len, int8_key_at, int8_key_rows, int8_value_at, quantize_kv,
};
use half::f16;
use support::{Hard, Random, assert_near, assert_same, isas};

const BLOCK: usize = 32;
/// Largest error as a share of Σ weight · |value|. A score of size s is off by s · 2^-24 · √D or so, and e^s by that absolutely.
const TOLERANCE: f64 = 2e-5;
/// The largest code of a query or a weight.
const MOST: f32 = 32_639.0;

/// How the cache is read.
#[derive(Clone, Copy, Debug)]
enum Format {
    Int8,
    F16,
    F32,
}

impl Format {
    const ALL: [Self; 3] = [Self::Int8, Self::F16, Self::F32];
}

/// A cache of one kv head in every format, keys and values `[tokens, D]`; also as kernels read them: keys `[tokens / 32][D][32]`, and int8
/// keys and values with two rows in pairs.
struct Cache {
    d: usize,
    k32: Vec<f32>,
    v32: Vec<f32>,
    k8: Vec<i8>,
    v8: Vec<i8>,
    k_scale: Vec<f32>,
    v_scale: Vec<f32>,
    k16: Vec<u16>,
    v16: Vec<u16>,
    turned: (Vec<u16>, Vec<f32>),
    paired: (Vec<i8>, Vec<i8>),
}

impl Cache {
    /// Takes over what was changed in the keys.
    fn turn(&mut self) {
        fn turned<T: Copy>(keys: &[T], d: usize, unfilled: T) -> Vec<T> {
            let blocks = keys.len().div_ceil(d * BLOCK);
            let mut out = vec![unfilled; blocks * d * BLOCK];
            for (t, key) in keys.chunks_exact(d).enumerate() {
                for (i, x) in key.iter().enumerate() {
                    out[t / BLOCK * BLOCK * d + i * BLOCK + t % BLOCK] = *x;
                }
            }
            out
        }
        let d = self.d;
        self.turned = (
            turned(&self.k16, d, f16::NAN.to_bits()),
            turned(&self.k32, d, f32::NAN),
        );
        let tokens = self.k8.len() / d;
        let room = tokens.next_multiple_of(BLOCK);
        let (mut k, mut v) = (vec![99; room * int8_key_rows(d)], vec![99; room * d]);
        for (at, i) in (0..tokens * d).map(|at| (at, at % d)) {
            k[int8_key_at(d, at / d, i)] = self.k8[at];
            v[int8_value_at(d, at / d, i)] = self.v8[at];
        }
        self.paired = (k, v);
    }

    fn random(random: &mut Random, tokens: usize, d: usize, hard: Hard) -> Self {
        let (k, v) = (
            hard.values(random, tokens * d),
            hard.values(random, tokens * d),
        );
        let quantize = |x: &[f32]| {
            let mut q = vec![0; x.len()];
            let scales = x
                .chunks_exact(d)
                .zip(q.chunks_exact_mut(d))
                .map(|(x, q)| quantize_kv(Isa::Scalar, x, q).expect("finite"));
            let scales = scales.collect::<Vec<f32>>();
            (q, scales)
        };
        let (k8, k_scale) = quantize(&k);
        let (v8, v_scale) = quantize(&v);
        let halves = |x: &[f32]| {
            x.iter()
                .map(|&x| f16::from_f32(x.clamp(-6e4, 6e4)).to_bits())
                .collect()
        };
        let mut cache = Self {
            d,
            k16: halves(&k),
            v16: halves(&v),
            k8,
            v8,
            k_scale,
            v_scale,
            k32: k,
            v32: v,
            turned: Default::default(),
            paired: Default::default(),
        };
        cache.turn();
        cache
    }

    fn block(&self, first: usize, tokens: usize, format: Format) -> KvBlock<'_> {
        let (range, at) = (
            first..first + tokens,
            first * self.d..(first + tokens) * self.d,
        );
        let keys = first * self.d..(first + tokens).next_multiple_of(BLOCK) * self.d;
        let (k16, k32) = &self.turned;
        let (k8, v8) = &self.paired;
        let kv = match format {
            Format::Int8 => KvRef::Int8 {
                k: &k8[first * int8_key_rows(self.d)..],
                v: &v8[first * self.d..],
                k_scale: &self.k_scale[range.clone()],
                v_scale: &self.v_scale[range],
            },
            Format::F16 => KvRef::F16 {
                k: &k16[keys],
                v: &self.v16[at],
            },
            Format::F32 => KvRef::F32 {
                k: &k32[keys],
                v: &self.v32[at],
            },
        };
        KvBlock {
            kv,
            tokens,
            first,
            next: None,
        }
    }

    fn values(&self, format: Format) -> (Vec<f64>, Vec<f64>) {
        let bytes = |q: &[i8], scales: &[f32]| {
            q.iter()
                .enumerate()
                .map(|(i, &q)| f64::from(q) * f64::from(scales[i / self.d]))
                .collect()
        };
        let halves = |h: &[u16]| h.iter().map(|&h| f16::from_bits(h).to_f64()).collect();
        match format {
            Format::Int8 => (
                bytes(&self.k8, &self.k_scale),
                bytes(&self.v8, &self.v_scale),
            ),
            Format::F16 => (halves(&self.k16), halves(&self.v16)),
            Format::F32 => (wide(&self.k32), wide(&self.v32)),
        }
    }
}

struct Case<'a> {
    cache: &'a Cache,
    format: Format,
    q: &'a [f32],
    positions: &'a [u32],
    window: Option<u32>,
}

impl Case<'_> {
    /// Over the first `tokens` of the cache.
    fn run(&self, isa: Isa, tokens: usize) -> Result<Vec<f32>, KernelError> {
        let d = self.cache.d;
        let mut buffer = vec![f32::NAN; attention_state_len(self.positions.len(), d)];
        let mut state = attend_begin(isa, self.q, d, (d as f32).powf(-0.5), &mut buffer);
        let causal = Causal {
            positions: self.positions,
            window: self.window,
        };
        for first in (0..tokens).step_by(BLOCK) {
            let block = self
                .cache
                .block(first, BLOCK.min(tokens - first), self.format);
            attend_block(block, causal, &mut state);
        }
        let mut out = vec![f32::NAN; self.q.len()];
        attend_finish(state, &mut out).map(|()| out)
    }

    /// The result, and what an error is a share of: Σ weight · |value|. Over int8 the queries are their codes, and the weights, which are
    /// codes too, may each be off by half a one.
    fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let d = self.cache.d;
        let int8 = matches!(self.format, Format::Int8);
        let (k, v) = self.cache.values(self.format);
        let (mut out, mut scale) = (vec![], vec![]);
        for (q, &position) in self.q.chunks_exact(d).zip(self.positions) {
            let position = position as usize;
            let start = self
                .window
                .map_or(0, |w| (position + 1).saturating_sub(w as usize));
            let q = if int8 { rounded(q) } else { wide(q) };
            let scores: Vec<f64> = (start..=position)
                .map(|t| {
                    let dot: f64 = q.iter().zip(&k[t * d..]).map(|(q, k)| q * k).sum();
                    dot * f64::from((d as f32).powf(-0.5))
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            // Of the tokens of each step: half a code, as a share of the sum.
            let half = |t: usize| {
                let step = t / BLOCK * BLOCK;
                let seen = step.max(start)..(step + BLOCK).min(position + 1);
                let largest = |x: &mut dyn Iterator<Item = f64>| x.fold(0.0, f64::max);
                let weight = largest(&mut seen.clone().map(|t| weights[t - start]));
                let value = largest(&mut seen.map(|t| f64::from(self.cache.v_scale[t])));
                weight * value / sum / f64::from(MOST) / 2.0
            };
            let halves: Vec<f64> = (start..=position)
                .map(|t| if int8 { half(t) } else { 0.0 })
                .collect();
            for i in 0..d {
                let terms = weights
                    .iter()
                    .enumerate()
                    .map(|(t, w)| w / sum * v[(start + t) * d + i]);
                out.push(terms.clone().sum());
                let code = |t: usize| f64::from(self.cache.v8[t * d + i]).abs();
                let off = halves
                    .iter()
                    .enumerate()
                    .map(|(t, half)| half * code(start + t));
                scale.push(terms.map(f64::abs).sum::<f64>() + off.sum::<f64>() / TOLERANCE);
            }
        }
        (out, scale)
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// A query as its codes.
fn rounded(q: &[f32]) -> Vec<f64> {
    let max = q.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let code = |x: &f32| f64::from((x * (MOST / max)).round_ties_even());
    q.iter()
        .map(|x| code(x) * f64::from(max) / f64::from(MOST))
        .collect()
}

#[test]
fn attention_is_near_f64() {
    let mut random = Random(31);
    for isa in isas() {
        for (d, rows, hard) in [
            (64, 1, Hard::Normal),
            (64, 7, Hard::Outliers),
            (128, 8, Hard::Normal),
            (80, 9, Hard::Sparse),
            (32, 33, Hard::Outliers),
            (5, 17, Hard::Normal),
            (20, 16, Hard::Zeros),
            (256, 3, Hard::Normal),
            (16, 4, Hard::Denormal),
        ] {
            let cache = Cache::random(&mut random, 100, d, hard);
            for format in Format::ALL {
                for window in [None, Some(1), Some(40)] {
                    let q = random.normals(rows * d);
                    let mut positions: Vec<u32> =
                        (0..rows).map(|_| random.below(100) as u32).collect();
                    positions[0] = 99;
                    let case = Case {
                        cache: &cache,
                        format,
                        q: &q,
                        positions: &positions,
                        window,
                    };
                    let what = format!(
                        "{isa} D = {d}, {rows} rows, {hard:?}, {format:?}, window {window:?}"
                    );
                    let got = case.run(isa, 100).expect("finite");
                    let (want, scale) = case.reference();
                    assert_near(&got, &want, &scale, TOLERANCE, &what);
                }
            }
        }
    }
}

#[test]
fn chunked_equals_whole_and_a_batch_its_members() {
    let mut random = Random(32);
    let (d, tokens, group) = (64, 77, 3);
    let cache = Cache::random(&mut random, tokens, d, Hard::Normal);
    for isa in isas() {
        for format in Format::ALL {
            let q = random.normals(tokens * group * d);
            let positions: Vec<u32> = (0..tokens * group)
                .map(|row| (row / group) as u32)
                .collect();
            let part = |rows: std::ops::Range<usize>, seen: usize| {
                let (q, positions) = (&q[rows.start * d..rows.end * d], &positions[rows]);
                Case {
                    cache: &cache,
                    format,
                    q,
                    positions,
                    window: None,
                }
                .run(isa, seen)
                .expect("finite")
            };
            let whole = part(0..tokens * group, tokens);
            for chunk in [1, 2, 5, 16, 32, 40] {
                let mut chunked = vec![];
                for first in (0..tokens).step_by(chunk) {
                    let end = (first + chunk).min(tokens);
                    // Only the tokens up to the chunk's end are in the cache yet.
                    chunked.extend(part(first * group..end * group, end));
                }
                assert_same(
                    &chunked,
                    &whole,
                    &format!("{isa} {format:?} in chunks of {chunk}"),
                );
            }
        }
    }
}

#[test]
fn widths_with_fused_multiply_add_agree_exactly() {
    let mut random = Random(33);
    let cache = Cache::random(&mut random, 70, 64, Hard::Outliers);
    let q = random.normals(20 * 64);
    let positions: Vec<u32> = (50..70).collect();
    let case = Case {
        cache: &cache,
        format: Format::Int8,
        q: &q,
        positions: &positions,
        window: Some(30),
    };
    let results: Vec<Vec<f32>> = isas()
        .into_iter()
        .filter(|&isa| isa != Isa::Scalar)
        .map(|isa| case.run(isa, 70).expect("finite"))
        .collect();
    for pair in results.windows(2) {
        assert_same(&pair[0], &pair[1], "instruction sets");
    }
}

#[test]
fn parts_that_are_merged_are_near_f64() {
    let mut random = Random(36);
    for isa in isas() {
        for (d, rows, hard) in [
            (64, 7, Hard::Outliers),
            (80, 9, Hard::Normal),
            (5, 17, Hard::Sparse),
        ] {
            let cache = Cache::random(&mut random, 160, d, hard);
            let q = random.normals(rows * d);
            // Rows that end in each part, so that some see nothing of the later ones.
            let positions: Vec<u32> = (0..rows as u32).map(|r| 159 - r * 150 / 16).collect();
            for window in [None, Some(50)] {
                let case = Case {
                    cache: &cache,
                    format: Format::Int8,
                    q: &q,
                    positions: &positions,
                    window,
                };
                let len = attention_state_len(rows, d);
                let mut buffers = vec![f32::NAN; 3 * len];
                let mut states = buffers.chunks_exact_mut(len).zip([0..64, 64..96, 96..160]);
                let mut state = || {
                    let (buffer, tokens) = states.next()?;
                    let mut state = attend_begin(isa, &q, d, (d as f32).powf(-0.5), buffer);
                    for first in tokens.step_by(BLOCK) {
                        let causal = Causal {
                            positions: &positions,
                            window,
                        };
                        attend_block(cache.block(first, BLOCK, Format::Int8), causal, &mut state);
                    }
                    Some(state)
                };
                let mut whole = state().expect("three parts");
                while let Some(part) = state() {
                    attend_merge(&mut whole, &part);
                }
                let mut got = vec![f32::NAN; q.len()];
                attend_finish(whole, &mut got).expect("finite");
                let (want, scale) = case.reference();
                assert_near(
                    &got,
                    &want,
                    &scale,
                    TOLERANCE,
                    &format!("{isa} {d} {window:?}"),
                );
                // A row that ends in the first part is as without the others.
                if window.is_none() && rows == 17 {
                    let first = case.run(isa, 64).expect("finite");
                    let last = (rows - 1) * d;
                    assert_same(&got[last..], &first[last..], "nothing is added");
                }
            }
        }
    }
}

#[test]
fn non_finite_queries_keys_and_values_are_found() {
    let mut random = Random(34);
    for isa in isas() {
        for rows in [1, 20] {
            for what in ["query", "query, int8", "key", "value", "nothing seen"] {
                let mut cache = Cache::random(&mut random, 40, 32, Hard::Normal);
                let mut q = random.normals(rows * 32);
                let positions = vec![39; rows];
                let mut window = None;
                match what {
                    "query" => q[(rows - 1) * 32 + 3] = f32::NAN,
                    "query, int8" => q[3] = [f32::NAN, f32::INFINITY][rows % 2],
                    "key" => cache.k16[35 * 32 + 1] = f16::NAN.to_bits(),
                    "value" => cache.v16[2 * 32 + 31] = f16::INFINITY.to_bits(),
                    _ => window = Some(0),
                }
                cache.turn();
                let case = Case {
                    cache: &cache,
                    format: if what.ends_with("int8") {
                        Format::Int8
                    } else {
                        Format::F16
                    },
                    q: &q,
                    positions: &positions,
                    window,
                };
                let error = case.run(isa, 40);
                assert!(
                    matches!(
                        error,
                        Err(KernelError::NonFinite {
                            what: "attention",
                            ..
                        })
                    ),
                    "{isa} {rows} rows: {what}: {error:?}"
                );
            }
        }
    }
}

#[test]
fn tokens_that_are_not_seen_do_not_matter() {
    let mut random = Random(35);
    let mut cache = Cache::random(&mut random, 64, 32, Hard::Normal);
    let q = random.normals(3 * 32);
    let positions = [40; 3];
    for isa in isas() {
        let seen = |cache: &Cache| {
            Case {
                cache,
                format: Format::Int8,
                q: &q,
                positions: &positions,
                window: None,
            }
            .run(isa, 64)
            .expect("finite")
        };
        let before = seen(&cache);
        cache.k8[41 * 32..].fill(77);
        cache.v8[41 * 32..].fill(-77);
        cache.turn();
        assert_same(&seen(&cache), &before, &isa.to_string());
    }
}

#[test]
fn every_element_of_int8_has_a_place_of_its_own() {
    for d in [1, 5, 64] {
        let room = [64 * int8_key_rows(d), 64 * d];
        for (at, room) in [int8_key_at, int8_value_at].into_iter().zip(room) {
            let mut places: Vec<usize> = (0..64 * d).map(|i| at(d, i / d, i % d)).collect();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), 64 * d, "places of {d}");
            assert!(places.iter().all(|place| *place < room), "room of {d}");
        }
    }
}

#[test]
fn no_rows_are_no_error() {
    let cache = Cache::random(&mut Random(38), 40, 32, Hard::Normal);
    for isa in isas() {
        for format in Format::ALL {
            let case = Case {
                cache: &cache,
                format,
                q: &[],
                positions: &[],
                window: None,
            };
            assert_eq!(case.run(isa, 40).expect("nothing to lose"), [], "{isa}");
        }
    }
}

#[test]
#[should_panic(expected = "int8 and float blocks")]
fn int8_behind_floats_is_refused() {
    let cache = Cache::random(&mut Random(39), 64, 32, Hard::Normal);
    let mut buffer = vec![0.0; attention_state_len(1, 32)];
    let mut state = attend_begin(Isa::Scalar, &[1.0; 32], 32, 1.0, &mut buffer);
    let causal = Causal {
        positions: &[63],
        window: None,
    };
    attend_block(cache.block(0, 32, Format::F32), causal, &mut state);
    attend_block(cache.block(32, 32, Format::Int8), causal, &mut state);
}
