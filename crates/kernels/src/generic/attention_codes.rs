//! int8 keys and values in attention, multiplied with codes of 16 bits.

/// Expands to how int8 keys and values are multiplied with codes of 16 bits, in whole numbers, by `$products`: units of `$unit` rows, of
/// which two lie in pairs.
macro_rules! attention_codes {
    ($features:literal, $unit:literal, $products:path) => {
        use super::lanes::{self, V, W};
        pub(crate) use products::{Part, Sum, load, multiply_add, part, splat, value, zero};
        use $crate::attention::{MOST, Rows, STEP};
        use $crate::scalar::quantize::TINY;
        use $products as products;

        pub(crate) type Element = i8;
        /// Rows that are multiplied at once.
        pub(crate) const UNIT: usize = $unit;
        /// Words of what they are multiplied with: two codes each.
        pub(crate) const WORDS: usize = UNIT / 2;

        /// What row `r` multiplies keys with.
        #[inline]
        pub(crate) fn query<'a>(rows: &'a Rows<'_>, r: usize) -> &'a [f32] {
            let words = rows.codes.len() / rows.max.len();
            &rows.codes[r * words..][..words]
        }

        /// Stores the weights of a step's tokens as what values are multiplied with.
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn store(weights: [V; STEP / W], words: &mut [f32; STEP]) {
            let pairs = weights.as_chunks::<2>().0;
            for ([a, b], words) in pairs.iter().zip(words.as_chunks_mut::<W>().0) {
                lanes::store(products::words(*a, *b), words);
            }
        }

        /// Codes of queries `[R, d]` and their scales: not finite if an element is not.
        #[target_feature(enable = $features)]
        pub(crate) fn quantize(queries: &[f32], d: usize, codes: &mut [f32], scales: &mut [f32]) {
            let words = codes.len() / scales.len();
            let rows = codes.chunks_exact_mut(words).zip(scales);
            for (query, (words, scale)) in queries.chunks_exact(d).zip(rows) {
                let (pairs, tail) = query.as_chunks::<{ 2 * W }>();
                let mut last = [0.0; 2 * W];
                last[..tail.len()].copy_from_slice(tail);
                let mut max = lanes::splat(0.0);
                for pair in pairs.iter().chain([&last]) {
                    let [a, b] = vectors(pair);
                    max = lanes::max_bits(max, lanes::max_bits(lanes::abs(a), lanes::abs(b)));
                }
                let max = lanes::largest_bits(max);
                if max < TINY {
                    words.fill(0.0);
                    *scale = 0.0;
                    continue;
                }
                let inverse = lanes::splat(MOST / max);
                let words = words.as_chunks_mut::<W>().0;
                for (pair, words) in pairs.iter().chain([&last]).zip(words) {
                    let [a, b] = vectors(pair);
                    let codes = products::words(lanes::mul(a, inverse), lanes::mul(b, inverse));
                    lanes::store(codes, words);
                }
                *scale = max / MOST;
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn vectors(pair: &[f32; 2 * W]) -> [V; 2] {
            let pair = pair.as_chunks::<W>().0;
            [lanes::load(&pair[0]), lanes::load(&pair[1])]
        }
    };
}
pub(crate) use attention_codes;
