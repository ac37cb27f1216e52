//! NEON with the dot-product instructions. Every function here needs the features of [`Isa::NeonDot`](crate::Isa), in `i8mm` those of
//! [`Isa::NeonI8mm`](crate::Isa); the dispatch checks them.

pub(crate) mod i8mm;
pub(crate) mod lanes;
pub(crate) mod packed;
mod quads;
pub(crate) mod roofline;

pub(crate) mod attention {
    crate::generic::attention_kernels!("neon,dotprod", 24, 3, super::floats);
    crate::generic::attention_merge!("neon,dotprod");
}
mod floats {
    crate::generic::attention_floats!("neon,dotprod");
}
pub(crate) mod attention_i8 {
    pub(crate) use super::codes::quantize;
    crate::generic::attention_kernels!("neon,dotprod", 8, 4, super::codes);
}
mod codes {
    crate::generic::attention_codes!("neon,dotprod", 4, super::quads);
}
pub(crate) mod dense {
    crate::generic::dense_dispatch!("neon,dotprod");
}
mod dense_bf16 {
    crate::generic::dense_kernels!("neon,dotprod", u16, 0, load_bf16);
}
mod dense_f16 {
    crate::generic::dense_kernels!("neon,dotprod", u16, 0, load_f16);
}
mod dense_f32 {
    crate::generic::dense_kernels!("neon,dotprod", f32, 0.0, load);
}
mod dense_i8 {
    crate::generic::dense_kernels!("neon,dotprod", i8, 0, load_i8);
}
pub(crate) mod elementwise {
    crate::generic::elementwise_kernels!("neon,dotprod");
}
pub(crate) mod quantize {
    crate::generic::quantize_kernels!("neon,dotprod");
}
