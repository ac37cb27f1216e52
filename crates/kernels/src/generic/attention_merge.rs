//! The sums of two parts of a sequence, added.

/// Expands to the kernel that adds them, beside `attention_kernels!` and with its names.
macro_rules! attention_merge {
    ($features:literal) => {
        /// Adds what rows have seen of `part` to what they have seen of `whole`.
        #[target_feature(enable = $features)]
        pub(crate) fn merge(whole: &mut Rows<'_>, part: &Rows<'_>) {
            for r in 0..part.max.len() {
                let Some([own, other]) = whole.raise(part, r) else {
                    continue;
                };
                let mut shares = [f32::NEG_INFINITY; W];
                (shares[0], shares[1]) = (own, other);
                let below = lanes::load(&shares);
                lanes::store(exp_negative(below), &mut shares);
                let (own, other) = (lanes::splat(shares[0]), lanes::splat(shares[1]));
                for (sums, more) in whole.beside(part, r) {
                    let more = more.as_chunks::<W>().0;
                    for (sum, more) in sums.as_chunks_mut::<W>().0.iter_mut().zip(more) {
                        let own = lanes::mul(lanes::load(sum), own);
                        lanes::store(lanes::fma(lanes::load(more), other, own), sum);
                    }
                }
            }
        }
    };
}
pub(crate) use attention_merge;
