//! AVX-512 with VNNI. Every function here needs the features of [`Isa::Avx512Vnni`](crate::Isa); the dispatch checks them.

pub(crate) mod amx;
pub(crate) mod lanes;
pub(crate) mod packed;
mod pairs;
pub(crate) mod roofline;

pub(crate) mod attention {
    crate::generic::attention_kernels!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
        16,
        8,
        super::floats
    );
    crate::generic::attention_merge!("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c");
}
mod floats {
    crate::generic::attention_floats!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"
    );
}
pub(crate) mod attention_i8 {
    pub(crate) use super::codes::quantize;
    crate::generic::attention_kernels!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
        16,
        8,
        super::codes
    );
}
mod codes {
    crate::generic::attention_codes!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
        2,
        super::pairs
    );
}
pub(crate) mod dense {
    crate::generic::dense_dispatch!("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c");
}
mod dense_bf16 {
    crate::generic::dense_kernels!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
        u16,
        0,
        load_bf16
    );
}
mod dense_f16 {
    crate::generic::dense_kernels!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
        u16,
        0,
        load_f16
    );
}
mod dense_f32 {
    crate::generic::dense_kernels!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
        f32,
        0.0,
        load
    );
}
mod dense_i8 {
    crate::generic::dense_kernels!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
        i8,
        0,
        load_i8
    );
}
pub(crate) mod elementwise {
    crate::generic::elementwise_kernels!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"
    );
}
pub(crate) mod quantize {
    crate::generic::quantize_kernels!(
        "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"
    );
}
