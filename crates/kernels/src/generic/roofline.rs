//! Reading at the machine's full width.

/// Expands to `read_all` of `roofline.rs`.
macro_rules! read_kernel {
    ($features:literal) => {
        /// The sum of `data`, eight vectors at a time.
        #[target_feature(enable = $features)]
        pub(crate) fn read_all(data: &[f32]) -> f32 {
            use super::lanes::{self, W};
            let mut sums = [lanes::splat(0.0); 8];
            let (vectors, tail) = data.as_chunks::<W>();
            let (blocks, rest) = vectors.as_chunks::<8>();
            for block in blocks {
                for (sum, x) in sums.iter_mut().zip(block) {
                    *sum = lanes::add(*sum, lanes::load(x));
                }
            }
            for x in rest {
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
