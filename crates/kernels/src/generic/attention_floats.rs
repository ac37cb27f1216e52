//! f32 keys and values in attention.

/// Expands to how f32 keys and values are loaded and multiplied: units of one row, in their order.
macro_rules! attention_floats {
    ($features:literal) => {
        use super::lanes::{self, V, W};
        use $crate::attention::{Rows, STEP, vectors};

        pub(crate) type Element = f32;
        /// A vector of sums.
        pub(crate) type Sum = V;
        /// Rows that are multiplied at once.
        pub(crate) const UNIT: usize = 1;
        /// Words of what they are multiplied with.
        pub(crate) const WORDS: usize = 1;

        /// What row `r` multiplies keys with.
        #[inline]
        pub(crate) fn query<'a>(rows: &'a Rows<'_>, r: usize) -> &'a [f32] {
            let d = rows.query.len() / rows.max.len();
            &rows.query[r * d..][..d]
        }

        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn zero() -> Sum {
            lanes::splat(0.0)
        }

        /// N vectors of a unit.
        pub(crate) type Part<'a, const N: usize> = &'a [[f32; W]; N];

        /// Those of a unit, `width` lanes wide, from vector `first` on.
        #[inline]
        pub(crate) fn part<const N: usize>(unit: &[f32], _: usize, first: usize) -> Part<'_, N> {
            vectors(unit, first)
        }

        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn load<const N: usize>(part: Part<'_, N>, v: usize) -> V {
            lanes::load(&part[v])
        }

        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn splat(words: &[f32; WORDS]) -> V {
            lanes::splat(words[0])
        }

        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn multiply_add(sum: Sum, x: V, by: V) -> Sum {
            lanes::fma(by, x, sum)
        }

        /// The sums as numbers.
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn value(sum: Sum) -> V {
            sum
        }

        /// Stores the weights of a step's tokens as what values are multiplied with.
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn store(weights: [V; STEP / W], words: &mut [f32; STEP]) {
            for (weight, words) in weights.into_iter().zip(words.as_chunks_mut::<W>().0) {
                lanes::store(weight, words);
            }
        }
    };
}
pub(crate) use attention_floats;
