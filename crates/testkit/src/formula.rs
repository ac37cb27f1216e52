//! Random numbers that Python can make too: weights of golden models are a formula, not a file.
//!
//! Number `i` of the tensor `name` under `seed` is
//! `h = fnv1a64(name) ^ (seed * 0x9E3779B97F4A7C15)`, `z = splitmix64(h + (i + 1) * 0x9E3779B97F4A7C15)`,
//! `u = (z >> 40) / 2^23 - 1`, uniform in `[-1, 1)` and exact in f32. `golden/formula.py` is the other half.

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// `len` numbers in `[-1, 1)` for a tensor.
pub fn formula(seed: u64, name: &str, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    formula_into(seed, name, 0, &mut out);
    out
}

/// Numbers `first..first + out.len()` for a tensor.
pub fn formula_into(seed: u64, name: &str, first: usize, out: &mut [f32]) {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv) ^ seed.wrapping_mul(GAMMA);
    for (i, x) in out.iter_mut().enumerate() {
        let z = splitmix64(hash.wrapping_add((first as u64 + i as u64 + 1).wrapping_mul(GAMMA)));
        *x = (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    }
}

/// The finalizer of splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
fn splitmix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_and_depend_on_everything() {
        let values = formula(1, "a", 10_000);
        assert!(values.iter().all(|x| (-1.0..1.0).contains(x)));
        let mean = values.iter().sum::<f32>() / 10_000.0;
        let square = values.iter().map(|x| x * x).sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((square - 1.0 / 3.0).abs() < 0.02, "{square}");
        assert_ne!(formula(2, "a", 4), values[..4]);
        assert_ne!(formula(1, "b", 4), values[..4]);
        let mut part = [0.0; 3];
        formula_into(1, "a", 5, &mut part);
        assert_eq!(part, values[5..8]);
    }

    /// The values of `golden/formula.py`.
    #[test]
    fn python_agrees() {
        assert_eq!(formula(7, "model.norm.weight", 3), [PY[0], PY[1], PY[2]]);
    }
    const PY: [f32; 3] = [0.047_734_38, -0.139_904_74, 0.390_441_3];
}
