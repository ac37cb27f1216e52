//! f32 to int8 with one scale, equal to the scalar kernel bit for bit; half to f32.

/// Expands to the kernels of `quantize.rs`.
macro_rules! quantize_kernels {
    ($features:literal) => {
        use super::lanes::{self, W};
        use $crate::columns::ColumnsMut;
        use $crate::packed::GROUP;
        use $crate::quantize::{QuantGroup, WHOLE};
        use $crate::scalar::quantize::scale_of;

        /// Quantizes groups; the index of the first group that holds a non-finite value, if any.
        #[target_feature(enable = $features)]
        pub(crate) fn groups(x: &[[f32; GROUP]], out: &mut [QuantGroup]) -> Option<usize> {
            for (index, (x, out)) in x.iter().zip(out).enumerate() {
                let mut values = [lanes::splat(0.0); GROUP / W];
                let mut max = lanes::splat(0.0);
                for (value, x) in values.iter_mut().zip(x.as_chunks::<W>().0) {
                    *value = lanes::load(x);
                    max = lanes::max_bits(max, lanes::abs(*value));
                }
                let max = lanes::largest_bits(max);
                if !max.is_finite() {
                    return Some(index);
                }
                let (scale, inverse) = scale_of(max);
                for value in &mut values {
                    *value = lanes::mul(*value, lanes::splat(inverse));
                }
                out.scale = scale;
                out.halves = lanes::store_group(values, &mut out.q);
                out.sum = i32::from(out.halves[0] + out.halves[1]);
                out.start = WHOLE - (8 * out.sum) as f32;
            }
            None
        }

        /// The same to some columns of a matrix; the first row that holds a non-finite value, if any.
        #[target_feature(enable = $features)]
        pub(crate) fn columns(
            x: &[[f32; GROUP]],
            out: &mut ColumnsMut<'_, QuantGroup>,
        ) -> Option<usize> {
            for (row, x) in x.chunks_exact(out.width().max(1)).enumerate() {
                if groups(x, out.row_mut(row)).is_some() {
                    return Some(row);
                }
            }
            None
        }

        /// Quantizes one vector with one scale; `None` if it holds a non-finite value.
        #[target_feature(enable = $features)]
        pub(crate) fn vector(x: &[f32], q: &mut [i8]) -> Option<f32> {
            let (body, tail) = x.as_chunks::<W>();
            let mut last = [0.0; W];
            last[..tail.len()].copy_from_slice(tail);
            let last = lanes::load(&last);
            let mut max = lanes::abs(last);
            for x in body {
                max = lanes::max_bits(max, lanes::abs(lanes::load(x)));
            }
            let max = lanes::largest_bits(max);
            if !max.is_finite() {
                return None;
            }
            let (scale, inverse) = scale_of(max);
            let inverse = lanes::splat(inverse);
            let (q, q_tail) = q.as_chunks_mut::<W>();
            for (x, q) in body.iter().zip(q) {
                lanes::store_i8(lanes::mul(lanes::load(x), inverse), q);
            }
            if !tail.is_empty() {
                let mut codes = [0; W];
                lanes::store_i8(lanes::mul(last, inverse), &mut codes);
                q_tail.copy_from_slice(&codes[..q_tail.len()]);
            }
            Some(scale)
        }

        /// Half to f32.
        #[target_feature(enable = $features)]
        pub(crate) fn widen_f16(halves: &[u16], out: &mut [f32]) {
            let (body, tail) = halves.as_chunks::<W>();
            let (out, out_tail) = out[..halves.len()].as_chunks_mut::<W>();
            for (out, half) in out.iter_mut().zip(body) {
                lanes::store(lanes::load_f16(half), out);
            }
            if !tail.is_empty() {
                let mut padded = [0; W];
                padded[..tail.len()].copy_from_slice(tail);
                let mut full = [0.0; W];
                lanes::store(lanes::load_f16(&padded), &mut full);
                out_tail.copy_from_slice(&full[..tail.len()]);
            }
        }
    };
}
pub(crate) use quantize_kernels;
