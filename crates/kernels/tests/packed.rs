//! Packing, quantizing and the packed GEMM, on every instruction set, against f64.

mod support;

use edgethink_kernels::{
    Bits, ColumnsMut, GROUP, Isa, KernelError, PANEL, PackedMut, PackedRef, PackedShape,
    QuantGroup, QuantRows, gemm_packed, pack_rows, quantize_columns, quantize_kv, quantize_rows,
    quantize_weights, split_columns, unpack_row,
};
use support::{Hard, Random, assert_near, assert_same, isas};

struct Packed {
    shape: PackedShape,
    bytes: Vec<u8>,
}

impl Packed {
    fn view(&self) -> PackedRef<'_> {
        PackedRef::new(self.shape, &self.bytes)
    }

    /// Random codes over the whole width, the extremes included.
    fn random(random: &mut Random, shape: PackedShape) -> Self {
        let mut packed = Self {
            shape,
            bytes: vec![0xaa; shape.bytes()],
        };
        if shape.bits == Bits::B6 {
            packed.fill6(|_| random.bits() as u8, |row| [row as u8, 0x24]);
            return packed;
        }
        let max = shape.bits.max_code();
        let codes: Vec<u8> = (0..shape.rows * shape.cols)
            .map(|_| match random.below(8) {
                0 => 0,
                1 => max,
                _ => random.below(usize::from(max) + 1) as u8,
            })
            .collect();
        let count = shape.rows * shape.groups();
        let mut scales: Vec<f32> = (0..count).map(|_| random.unit() * 0.1).collect();
        for scale in &mut scales {
            if random.below(10) == 0 {
                *scale = 0.0;
            } else if random.below(20) == 0 {
                *scale *= 20.0;
            }
        }
        let offsets: Option<Vec<f32>> = shape
            .has_offset
            .then(|| (0..count).map(|_| random.unit()).collect());
        let mut dst = PackedMut::new(shape, &mut packed.bytes);
        pack_rows(&mut dst, 0, &codes, &scales, offsets.as_deref()).expect("packs");
        packed
    }

    /// 6 bits: codes and scales of a byte, all of which mean something, by their place in the group, and f16 scales by row.
    fn fill6(&mut self, mut byte: impl FnMut(usize) -> u8, half: impl Fn(usize) -> [u8; 2]) {
        const GROUP: usize = 384 + 32;
        let rows = self.shape.rows;
        let panel_bytes = self.shape.panel_bytes();
        for (panel, bytes) in self.bytes.chunks_exact_mut(panel_bytes).enumerate() {
            for block in bytes.chunks_exact_mut(self.shape.block_bytes()) {
                let (groups, scales) = block.split_at_mut(8 * GROUP);
                for (i, to) in groups.iter_mut().enumerate() {
                    *to = byte(i % GROUP);
                }
                for (r, scale) in scales.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    let row = panel * PANEL + r;
                    *scale = if row < rows { half(row) } else { [0, 0] };
                }
            }
        }
    }

    /// The values `[rows, cols]`.
    fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.shape.rows * self.shape.cols];
        for (row, out) in values.chunks_exact_mut(self.shape.cols).enumerate() {
            unpack_row(self.view(), row, out);
        }
        values
    }
}

struct Quantized {
    cols: usize,
    groups: Vec<QuantGroup>,
}

impl Quantized {
    fn new(isa: Isa, cols: usize, x: &[f32]) -> Result<Self, KernelError> {
        let old = QuantGroup {
            q: [99; GROUP],
            scale: 9.0,
            sum: 9,
            halves: [9; 2],
            start: 9.0,
        };
        let mut groups = vec![old; x.len() / GROUP];
        quantize_rows(isa, cols, x, &mut groups)?;
        Ok(Self { cols, groups })
    }

    fn view(&self) -> QuantRows<'_> {
        QuantRows::new(self.cols, &self.groups)
    }
}

fn shapes() -> impl Iterator<Item = PackedShape> {
    let six = [(1, 256), (17, 512), (50, 256)].map(|(rows, cols)| PackedShape {
        rows,
        cols,
        bits: Bits::B6,
        has_offset: false,
    });
    let others = [Bits::B4, Bits::B8].into_iter().flat_map(|bits| {
        [false, true].into_iter().flat_map(move |has_offset| {
            [(1, 32), (15, 64), (16, 32), (17, 96), (48, 32), (50, 256)]
                .into_iter()
                .map(move |(rows, cols)| PackedShape {
                    rows,
                    cols,
                    bits,
                    has_offset,
                })
        })
    });
    six.into_iter().chain(others)
}

fn multiply(isa: Isa, w: &Packed, x: QuantRows<'_>) -> Vec<f32> {
    let n = w.shape.rows;
    let mut out = vec![f32::NAN; x.rows() * n];
    gemm_packed(
        isa,
        w.view(),
        0..w.shape.panels(),
        x,
        &mut ColumnsMut::new(&mut out, n),
        None,
    );
    out
}

#[test]
fn pack_and_unpack_are_inverse() {
    let mut random = Random(1);
    for bits in [Bits::B4, Bits::B8] {
        let shape = PackedShape {
            rows: 35,
            cols: 96,
            bits,
            has_offset: false,
        };
        let weights = random.normals(35 * 96);
        let (mut codes, mut scales) = (vec![0; weights.len()], vec![0.0; weights.len() / GROUP]);
        quantize_weights(bits, 96, &weights, &mut codes, &mut scales).expect("finite");
        let mut bytes = vec![0; shape.bytes()];
        // In two parts, and in two calls, as threads would.
        let whole = PackedMut::new(shape, &mut bytes);
        let (mut head, mut tail) = whole.split_at_panel(2);
        pack_rows(
            &mut head,
            16,
            &codes[16 * 96..32 * 96],
            &scales[16 * 3..32 * 3],
            None,
        )
        .expect("packs");
        pack_rows(&mut head, 0, &codes[..16 * 96], &scales[..16 * 3], None).expect("packs");
        pack_rows(&mut tail, 0, &codes[32 * 96..], &scales[32 * 3..], None).expect("packs");
        let packed = Packed { shape, bytes };
        let zero = f32::from(bits.zero());
        let expected: Vec<f32> = codes
            .iter()
            .zip(scales.iter().flat_map(|s| [s; GROUP]))
            .map(|(&code, scale)| scale * (f32::from(code) - zero))
            .collect();
        assert_same(&packed.values(), &expected, "values");
        // Rounding: half a step everywhere (4 bits: up to one step where +8 was clamped to +7).
        for ((value, weight), scale) in expected
            .iter()
            .zip(&weights)
            .zip(scales.iter().flat_map(|s| [s; GROUP]))
        {
            let limit = if bits == Bits::B4 { 1.01 } else { 0.57 };
            assert!(
                (value - weight).abs() <= limit * scale.abs(),
                "{value} for {weight}, step {scale}"
            );
        }
    }
}

#[test]
fn weights_that_f16_scales_cannot_hold_are_refused() {
    let (mut codes, mut scales) = ([0; 32], [0.0]);
    for (value, expected) in [
        (
            f32::NAN,
            KernelError::NonFinite {
                what: "weights",
                row: 0,
            },
        ),
        (
            f32::INFINITY,
            KernelError::NonFinite {
                what: "weights",
                row: 0,
            },
        ),
        (1e9, KernelError::ScaleRange { row: 0, group: 0 }),
    ] {
        let mut x = [0.0; 32];
        x[31] = value;
        assert_eq!(
            quantize_weights(Bits::B8, 32, &x, &mut codes, &mut scales),
            Err(expected)
        );
    }
    let shape = PackedShape {
        rows: 1,
        cols: 32,
        bits: Bits::B8,
        has_offset: false,
    };
    let mut bytes = vec![0; shape.bytes()];
    let mut dst = PackedMut::new(shape, &mut bytes);
    assert!(pack_rows(&mut dst, 0, &[1; 32], &[f32::NAN], None).is_err());
}

#[test]
fn quantized_rows_are_within_half_a_step() {
    let mut random = Random(2);
    for isa in isas() {
        for hard in Hard::ALL {
            for (rows, cols) in [(0, 32), (1, 32), (3, 64), (2, 896)] {
                let x = hard.values(&mut random, rows * cols);
                let got = Quantized::new(isa, cols, &x).expect("finite");
                let same = Quantized::new(Isa::Scalar, cols, &x).expect("finite");
                assert_eq!(got.groups, same.groups, "{isa} {hard:?}");
                for (group, x) in got.groups.iter().zip(x.chunks(GROUP)) {
                    assert_eq!(
                        group.sum,
                        group.q.iter().map(|&q| i32::from(q)).sum::<i32>()
                    );
                    assert_eq!(
                        i32::from(group.halves[0]) + i32::from(group.halves[1]),
                        group.sum
                    );
                    let first = group.q[..GROUP / 2].iter().map(|&q| i16::from(q)).sum();
                    assert_eq!(group.halves[0], first);
                    let scale = f64::from(group.scale);
                    for (&q, &x) in group.q.iter().zip(x) {
                        let error = (f64::from(q) * scale - f64::from(x)).abs();
                        assert!(
                            error <= 0.5001 * scale + 2f64.powi(-120),
                            "{isa} {hard:?}: {x:e} as {q} · {scale:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn quantize_kv_has_one_scale() {
    let mut random = Random(3);
    for isa in isas() {
        for d in [0, 1, 15, 16, 17, 63, 64, 80, 128] {
            for hard in Hard::ALL {
                let x = hard.values(&mut random, d);
                let (mut q, mut expected) = (vec![1; d], vec![2; d]);
                let scale = quantize_kv(isa, &x, &mut q).expect("finite");
                let same = quantize_kv(Isa::Scalar, &x, &mut expected).expect("finite");
                assert_eq!(
                    (q, scale.to_bits()),
                    (expected, same.to_bits()),
                    "{isa} {hard:?} {d}"
                );
            }
        }
    }
}

#[test]
fn non_finite_activations_are_found_wherever_they_are() {
    for isa in isas() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 1, 31, 32, 63, 64, 100, 191] {
                let mut x = vec![1.0; 192];
                x[at] = bad;
                let error = Quantized::new(isa, 64, &x).err();
                assert_eq!(
                    error,
                    Some(KernelError::NonFinite {
                        what: "activations",
                        row: at / 64
                    }),
                    "{isa} {bad} at {at}"
                );
                assert!(
                    quantize_kv(isa, &x, &mut [0; 192]).is_err(),
                    "{isa} {bad} at {at}"
                );
            }
        }
    }
}

#[test]
fn gemm_is_near_f64() {
    let mut random = Random(4);
    for isa in isas() {
        for shape in shapes() {
            let w = Packed::random(&mut random, shape);
            let values = w.values();
            for (t, hard) in [0, 1, 2, 3, 5, 9].into_iter().zip(Hard::ALL) {
                let x = Quantized::new(isa, shape.cols, &hard.values(&mut random, t * shape.cols))
                    .expect("finite");
                let got = multiply(isa, &w, x.view());
                let (mut want, mut scale) = (vec![], vec![]);
                for row in 0..t {
                    for n in 0..shape.rows {
                        let terms = (0..shape.cols).map(|c| {
                            let group = &x.groups[(row * shape.cols + c) / GROUP];
                            f64::from(values[n * shape.cols + c])
                                * f64::from(group.q[c % GROUP])
                                * f64::from(group.scale)
                        });
                        want.push(terms.clone().sum());
                        scale.push(terms.map(f64::abs).sum());
                    }
                }
                // Each group adds a few roundings of 2^-24, relative to terms that may cancel inside it: codes 0..255 with an
                // offset have terms up to 255 steps where the value is small.
                let scale: Vec<f64> = scale.iter().map(|s: &f64| s + largest(&x, shape)).collect();
                assert_near(
                    &got,
                    &want,
                    &scale,
                    4e-6,
                    &format!("{isa} {shape:?} T = {t} {hard:?}"),
                );
            }
        }
    }
}

/// Where every code and every activation is as large as it can be, sums in 16 bits are at their limit.
#[test]
fn the_largest_sums_do_not_saturate() {
    for isa in isas() {
        for shape in shapes() {
            for code in [0, shape.bits.max_code()] {
                let mut w = Packed {
                    shape,
                    bytes: vec![0; shape.bytes()],
                };
                if shape.bits == Bits::B6 {
                    for scale in [i8::MIN, i8::MAX] {
                        let of = |at| match at {
                            0..384 => {
                                if code == 0 {
                                    0
                                } else {
                                    0xff
                                }
                            }
                            _ => scale.cast_unsigned(),
                        };
                        w.fill6(of, |_| [0, 0x3c]);
                        let value = f32::from(scale) * (f32::from(code) - 32.0);
                        for sign in [127.0, -127.0] {
                            let x = vec![sign; 5 * shape.cols];
                            let x = Quantized::new(isa, shape.cols, &x).expect("finite");
                            let want = sign * shape.cols as f32 * value;
                            let got = multiply(isa, &w, x.view());
                            assert!(
                                got.iter().all(|&y| y == want),
                                "{isa} {shape:?}: {got:?} for {want}"
                            );
                        }
                    }
                    continue;
                }
                let codes = vec![code; shape.rows * shape.cols];
                let ones = vec![1.0; shape.rows * shape.groups()];
                let offsets = shape.has_offset.then_some(ones.as_slice());
                pack_rows(
                    &mut PackedMut::new(shape, &mut w.bytes),
                    0,
                    &codes,
                    &ones,
                    offsets,
                )
                .expect("packs");
                for sign in [127.0, -127.0] {
                    let x = Quantized::new(isa, shape.cols, &vec![sign; 5 * shape.cols])
                        .expect("finite");
                    let zero = if shape.has_offset {
                        -1
                    } else {
                        i32::from(shape.bits.zero())
                    };
                    // Whole numbers below 2^24: f32 is exact.
                    let want = sign * shape.cols as f32 * (i32::from(code) - zero) as f32;
                    let got = multiply(isa, &w, x.view());
                    assert!(
                        got.iter().all(|&y| y == want),
                        "{isa} {shape:?}: {got:?} for {want}"
                    );
                }
            }
        }
    }
}

/// A bound of the partial sums: cancellation between scale · code and offset is not the kernel's error.
fn largest(x: &Quantized, shape: PackedShape) -> f64 {
    let x = x.groups.iter().map(|x| x.scale).fold(0.0f32, f32::max);
    f64::from(x) * 127.0 * if shape.has_offset { 2.0 * 255.0 } else { 1.0 }
}

#[test]
fn rows_do_not_depend_on_the_batch_or_the_split() {
    let mut random = Random(5);
    for isa in isas() {
        for shape in shapes() {
            let w = Packed::random(&mut random, shape);
            let rows = 37;
            let x = Quantized::new(isa, shape.cols, &random.normals(rows * shape.cols))
                .expect("finite");
            let whole = multiply(isa, &w, x.view());
            for (row, want) in whole.chunks_exact(shape.rows).enumerate() {
                let alone = multiply(isa, &w, x.view().slice(row..row + 1));
                assert_same(&alone, want, &format!("{isa} {shape:?} row {row} alone"));
            }
            for size in 2..=13 {
                let parts: Vec<f32> = (0..rows)
                    .step_by(size)
                    .flat_map(|at| multiply(isa, &w, x.view().slice(at..(at + size).min(rows))))
                    .collect();
                assert_same(
                    &parts,
                    &whole,
                    &format!("{isa} {shape:?} in parts of {size}"),
                );
            }
            let mut out = vec![f32::NAN; whole.len()];
            let ranges: Vec<_> = (0..shape.rows)
                .step_by(PANEL)
                .map(|r| r..(r + PANEL).min(shape.rows))
                .collect();
            for (panel, mut part) in split_columns(&mut out, shape.rows, &ranges).enumerate() {
                gemm_packed(isa, w.view(), panel..panel + 1, x.view(), &mut part, None);
            }
            assert_same(&out, &whole, &format!("{isa} {shape:?} panel by panel"));
        }
    }
}

#[test]
fn accumulating_adds_to_what_is_there() {
    let mut random = Random(7);
    for isa in isas() {
        for shape in shapes() {
            let w = Packed::random(&mut random, shape);
            for t in [1, 5, 9] {
                let x = Quantized::new(isa, shape.cols, &random.normals(t * shape.cols))
                    .expect("finite");
                let before = random.normals(t * shape.rows);
                let mut got = before.clone();
                let panels = 0..shape.panels();
                let mut out = ColumnsMut::new(&mut got, shape.rows);
                gemm_packed(isa, w.view(), panels, x.view(), &mut out, Some(0.3));
                let product = multiply(isa, &w, x.view());
                let want: Vec<f32> = before
                    .iter()
                    .zip(product)
                    .map(|(b, p)| b + 0.3 * p)
                    .collect();
                assert_same(&got, &want, &format!("{isa} {shape:?} T = {t}"));
            }
        }
    }
}

#[test]
fn instruction_sets_with_fused_multiply_add_agree_exactly() {
    let mut random = Random(6);
    let fused: Vec<Isa> = isas()
        .into_iter()
        .filter(|&isa| isa != Isa::Scalar)
        .collect();
    for shape in shapes() {
        let w = Packed::random(&mut random, shape);
        let x = Quantized::new(Isa::Scalar, shape.cols, &random.normals(5 * shape.cols))
            .expect("finite");
        for pair in fused.windows(2) {
            let (a, b) = (
                multiply(pair[0], &w, x.view()),
                multiply(pair[1], &w, x.view()),
            );
            assert_same(&a, &b, &format!("{} and {} {shape:?}", pair[0], pair[1]));
        }
    }
}

#[test]
fn blocks_of_panels_do_not_change_rows() {
    // 17 panels of 16 KiB are more than the block of panels that the GEMM keeps in cache.
    let mut random = Random(7);
    let shape = PackedShape {
        rows: 272,
        cols: 1024,
        bits: Bits::B8,
        has_offset: false,
    };
    let w = Packed::random(&mut random, shape);
    for isa in isas() {
        let x = Quantized::new(isa, 1024, &random.normals(9 * 1024)).expect("finite");
        let whole = multiply(isa, &w, x.view());
        let mut out = vec![f32::NAN; whole.len()];
        let ranges = [0..16, 16..64, 64..272];
        for mut part in split_columns(&mut out, 272, &ranges) {
            let panels = part.columns().start / PANEL..part.columns().end / PANEL;
            gemm_packed(isa, w.view(), panels, x.view(), &mut part, None);
        }
        assert_same(&out, &whole, &isa.to_string());
    }
}

/// The matrix instructions sum whole numbers, so they change no bit.
#[test]
fn with_and_without_matrix_instructions_agree_bit_for_bit() {
    for (with, without) in [
        (Isa::NeonI8mm, Isa::NeonDot),
        (Isa::AvxVnni, Isa::Avx2),
        (Isa::AmxInt8, Isa::Avx512Vnni),
    ] {
        if !with.is_available() {
            continue;
        }
        let mut random = Random(77);
        for shape in shapes() {
            let w = Packed::random(&mut random, shape);
            for rows in (1..=17).chain([32, 45]) {
                let x: Vec<f32> = (0..rows * shape.cols).map(|_| random.unit()).collect();
                let x = Quantized::new(without, shape.cols, &x).expect("finite");
                let [with, without] = [with, without].map(|isa| multiply(isa, &w, x.view()));
                assert_same(&with, &without, &format!("{shape:?}, {rows} rows"));
            }
        }
    }
}

#[test]
fn groups_to_columns_are_those_of_rows() {
    let mut random = Random(77);
    let mut x = random.normals(5 * 96);
    for isa in isas() {
        let mut rows = vec![QuantGroup::default(); 5 * 3];
        quantize_rows(isa, 96, &x, &mut rows).expect("finite");
        let mut matrix = vec![QuantGroup::default(); 5 * 4];
        let mut columns = ColumnsMut::new(&mut matrix, 4);
        quantize_columns(isa, &x, &mut columns.part(1..4)).expect("finite");
        for t in 0..5 {
            assert_eq!(
                matrix[4 * t],
                QuantGroup::default(),
                "{isa}: not its column"
            );
            assert_eq!(
                matrix[4 * t + 1..][..3],
                rows[3 * t..][..3],
                "{isa}: row {t}"
            );
        }
    }
    x[3 * 96 + 40] = f32::NAN;
    for isa in isas() {
        let mut matrix = vec![QuantGroup::default(); 5 * 3];
        let found = quantize_columns(isa, &x, &mut ColumnsMut::new(&mut matrix, 3));
        assert!(
            matches!(found, Err(KernelError::NonFinite { row: 3, .. })),
            "{isa}: {found:?}"
        );
    }
}
