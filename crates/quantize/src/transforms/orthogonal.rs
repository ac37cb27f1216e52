//! An orthogonal matrix of any size that is cheap to apply: Q = (H (x) C) diag(signs), for n = 2^a m with m odd.
//!
//! H is the Hadamard matrix of size 2^a over sqrt(2^a), C the cosine transform (DCT-II) of size m, the signs are random. Every element of
//! Q then is of size about 1 / sqrt(n): an outlier is spread over all coordinates (QuaRot, arXiv 2404.00456).

/// Q, `[n, n]`.
#[derive(Debug, Clone)]
pub struct Orthogonal {
    signs: Vec<f32>,
    /// C, `[m, m]`.
    cosine: Vec<f32>,
    m: usize,
}

impl Orthogonal {
    /// The matrix of size `n` (at least 1) with the signs of a seed.
    pub fn new(n: usize, seed: u64) -> Self {
        let m = n >> n.trailing_zeros();
        let angle =
            |k: usize, j: usize| std::f64::consts::PI * (k as f64) * (j as f64 + 0.5) / m as f64;
        let size = |k: usize| if k == 0 { 1.0 } else { 2.0f64 } / m as f64;
        let cosine = (0..m * m)
            .map(|i| (size(i / m).sqrt() * angle(i / m, i % m).cos()) as f32)
            .collect();
        let signs = (0..n as u64)
            .map(|i| {
                if mix(seed.wrapping_add(i)) & 1 == 0 {
                    1.0
                } else {
                    -1.0
                }
            })
            .collect();
        Self { signs, cosine, m }
    }

    /// n.
    pub fn size(&self) -> usize {
        self.signs.len()
    }

    /// x -> Q x.
    ///
    /// # Panics
    /// If `x` has another length.
    pub fn apply(&self, x: &mut [f32]) {
        assert_eq!(x.len(), self.signs.len(), "a vector of another size");
        let m = self.m;
        x.iter_mut().zip(&self.signs).for_each(|(x, s)| *x *= s);
        if m > 1 {
            let mut mixed = vec![0.0; m];
            for run in x.chunks_exact_mut(m) {
                for (y, row) in mixed.iter_mut().zip(self.cosine.chunks_exact(m)) {
                    *y = row.iter().zip(&*run).map(|(c, x)| c * x).sum();
                }
                run.copy_from_slice(&mixed);
            }
        }
        // Butterflies over runs of m: (a, b) -> (a + b, a - b).
        let mut width = m;
        while width < x.len() {
            for pair in x.chunks_exact_mut(2 * width) {
                let (a, b) = pair.split_at_mut(width);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            width *= 2;
        }
        let size = ((m as f64 / x.len() as f64).sqrt()) as f32;
        x.iter_mut().for_each(|x| *x *= size);
    }
}

/// splitmix64: 64 well-mixed bits of a number (<https://prng.di.unimi.it/splitmix64.c>).
fn mix(x: u64) -> u64 {
    let mut z = x
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_angles_stay() {
        for n in [1, 2, 3, 7, 8, 12, 56, 96, 128] {
            let q = Orthogonal::new(n, 5);
            let columns: Vec<Vec<f32>> = (0..n)
                .map(|i| {
                    let mut e = vec![0.0; n];
                    e[i] = 1.0;
                    q.apply(&mut e);
                    e
                })
                .collect();
            for (i, a) in columns.iter().enumerate() {
                for (j, b) in columns.iter().enumerate() {
                    let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    let want = if i == j { 1.0 } else { 0.0 };
                    assert!(
                        (dot - want).abs() < 1e-5,
                        "n = {n}: column {i} times {j} is {dot}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_outlier_is_spread() {
        for n in [64, 896] {
            let mut x = vec![0.0; n];
            x[3] = (n as f32).sqrt();
            Orthogonal::new(n, 0).apply(&mut x);
            let most = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert!(most < 1.5, "n = {n}: {most}");
        }
    }

    #[test]
    fn the_seed_decides_the_signs() {
        let signs = |seed| Orthogonal::new(64, seed).signs;
        assert_eq!(signs(1), signs(1));
        assert_ne!(signs(1), signs(2));
        assert!((16..48).contains(&signs(1).iter().filter(|s| **s < 0.0).count()));
    }
}
