//! The sums of two parts of a sequence, added.

/// Expands to the kernel that adds them, beside `attention_kernels!` and with its names.
macro_rules! attention_merge {
    ($features:literal) => {
        /// Adds what rows have seen of `part` to what they have seen of `whole`.
        #[target_feature(enable = $features)]
        pub(crate) fn merge(whole: &mut Rows<'_>, part: &Rows<'_>) {
            let count = part.max.len();
            let width = part.acc.len() / count;
            for r in 0..count {
                // A part in which the row saw nothing leaves it as it is, to the sign of a zero.
                if part.sum[r] == [0.0; LANES] {
                    continue;
                }
                let max = whole.max[r].max(part.max[r]);
                // Where a row has seen nothing, its largest score is −∞ and its share 0. Differences must be −∞ then, not NaN.
                let base = max.max(f32::MIN);
                let mut shares = [f32::NEG_INFINITY; W];
                (shares[0], shares[1]) = (whole.max[r] - base, part.max[r] - base);
                let below = lanes::load(&shares);
                lanes::store(exp_negative(below), &mut shares);
                let (own, other) = (lanes::splat(shares[0]), lanes::splat(shares[1]));
                whole.max[r] = max;
                let acc = &mut whole.acc[r * width..][..width];
                let more = &part.acc[r * width..][..width];
                for (sums, more) in [(acc, more), (&mut whole.sum[r][..], &part.sum[r][..])] {
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
