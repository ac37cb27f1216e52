//! What the kernel tests share: numbers that are hard, comparisons that fail on NaN, and the list of instruction sets.

#![allow(dead_code, reason = "each test file uses a part of it")]

use edgethink_kernels::Isa;

/// The instruction sets of this machine, printed, so that a log shows what was tested. `EDGETHINK_REQUIRE_ISA=a,b` makes a missing
/// one a failure.
pub(crate) fn isas() -> Vec<Isa> {
    let found: Vec<Isa> = Isa::available().collect();
    let names: Vec<String> = found.iter().map(Isa::to_string).collect();
    eprintln!("instruction sets tested: {}", names.join(", "));
    if let Ok(required) = std::env::var("EDGETHINK_REQUIRE_ISA") {
        for name in required.split(',').filter(|name| !name.is_empty()) {
            let isa: Isa = name.parse().expect("EDGETHINK_REQUIRE_ISA");
            assert!(
                found.contains(&isa),
                "EDGETHINK_REQUIRE_ISA={required}, but this machine has no {isa}"
            );
        }
    }
    found
}

/// SplitMix64: the same numbers on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Roughly normal, variance 1.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() / 2.0
    }

    pub(crate) fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

/// Inputs that break careless kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Hard {
    Normal,
    /// One value in 50 is 20 times as large.
    Outliers,
    Zeros,
    /// Below the smallest normal f32.
    Denormal,
    /// Near 1e30.
    Huge,
    /// Half zeros, among them −0.
    Sparse,
}

impl Hard {
    pub(crate) const ALL: [Self; 6] = [
        Self::Normal,
        Self::Outliers,
        Self::Zeros,
        Self::Denormal,
        Self::Huge,
        Self::Sparse,
    ];

    pub(crate) fn values(self, random: &mut Random, n: usize) -> Vec<f32> {
        let mut x = random.normals(n);
        for value in &mut x {
            *value = match self {
                Self::Normal => *value,
                Self::Outliers if random.below(50) == 0 => *value * 20.0,
                Self::Outliers => *value,
                Self::Zeros => 0.0,
                Self::Denormal => *value * 1e-39,
                Self::Huge => *value * 1e30,
                Self::Sparse if random.below(2) == 0 => 0.0f32.copysign(*value),
                Self::Sparse => *value,
            };
        }
        x
    }
}

/// Asserts |got − want| <= `tolerance` · `scale` for every element; `scale` is what the error is relative to (Σ|terms| of a sum).
/// Fails on NaN and on a wrong length.
#[track_caller]
pub(crate) fn assert_near(got: &[f32], want: &[f64], scale: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    assert_eq!(scale.len(), want.len(), "{what}: lengths");
    for (i, ((&got, &want), &scale)) in got.iter().zip(want).zip(scale).enumerate() {
        let error = (f64::from(got) - want).abs();
        // Below the smallest normal f32 the error is absolute.
        let limit = tolerance * scale + 1.2e-38;
        assert!(
            error <= limit,
            "{what}: element {i} is {got:e}, should be {want:e}, error {error:e} > {limit:e}"
        );
    }
}

/// Asserts equality of every bit, except that 0 equals −0.
#[track_caller]
pub(crate) fn assert_same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            got == want,
            "{what}: element {i} is {got:e}, should be exactly {want:e}"
        );
    }
}
