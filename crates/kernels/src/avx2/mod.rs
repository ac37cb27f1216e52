//! AVX2 with FMA and F16C. Every function here needs the features of [`Isa::Avx2`](crate::Isa), in `vnni` those of
//! [`Isa::AvxVnni`](crate::Isa); the dispatch checks them.

pub(crate) mod lanes;
pub(crate) mod packed;
mod pairs;
pub(crate) mod roofline;
mod six_bits;
pub(crate) mod vnni;

pub(crate) mod attention {
    crate::generic::attention_kernels!("avx2,fma,f16c", 12, 3, super::floats);
    crate::generic::attention_merge!("avx2,fma,f16c");
}
mod floats {
    crate::generic::attention_floats!("avx2,fma,f16c");
}
pub(crate) mod attention_i8 {
    pub(crate) use super::codes::quantize;
    crate::generic::attention_kernels!("avx2,fma,f16c", 12, 4, super::codes);
}
mod codes {
    crate::generic::attention_codes!("avx2,fma,f16c", 2, super::pairs);
}
pub(crate) mod dense {
    crate::generic::dense_dispatch!("avx2,fma,f16c");
}
mod dense_bf16 {
    crate::generic::dense_kernels!("avx2,fma,f16c", u16, 0, load_bf16);
}
mod dense_f16 {
    crate::generic::dense_kernels!("avx2,fma,f16c", u16, 0, load_f16);
}
mod dense_f32 {
    crate::generic::dense_kernels!("avx2,fma,f16c", f32, 0.0, load);
}
mod dense_i8 {
    crate::generic::dense_kernels!("avx2,fma,f16c", i8, 0, load_i8);
}
pub(crate) mod elementwise {
    crate::generic::elementwise_kernels!("avx2,fma,f16c");
}
pub(crate) mod quantize {
    crate::generic::quantize_kernels!("avx2,fma,f16c");
}
