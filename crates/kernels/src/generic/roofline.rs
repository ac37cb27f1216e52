//! Reading at the machine's full width.

/// Expands to `read_all` of `roofline.rs`.
macro_rules! read_kernel {
    ($features:literal) => {
        /// The sum of `data`, four runs of it side by side: one run alone does not keep the machine's prefetchers busy.
        #[target_feature(enable = $features)]
        pub(crate) fn read_all(data: &[f32]) -> f32 {
            use super::lanes::{self, W};
            let mut sums = [lanes::splat(0.0); 8];
            let (vectors, tail) = data.as_chunks::<W>();
            let (pairs, last) = vectors.as_chunks::<2>();
            let (runs, rest) = pairs.split_at(pairs.len() / 4 * 4);
            let run = runs.len() / 4;
            for i in 0..run {
                for (r, sums) in sums.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    for (sum, x) in sums.iter_mut().zip(&runs[r * run + i]) {
                        *sum = lanes::add(*sum, lanes::load(x));
                    }
                }
            }
            for x in rest.as_flattened().iter().chain(last) {
                sums[0] = lanes::add(sums[0], lanes::load(x));
            }
            let [a, b, c, d, e, f, g, h] = sums;
            let four = [
                lanes::add(a, b),
                lanes::add(c, d),
                lanes::add(e, f),
                lanes::add(g, h),
            ];
            lanes::sum4(four).iter().sum::<f32>() + tail.iter().sum::<f32>()
        }
    };
}
pub(crate) use read_kernel;
