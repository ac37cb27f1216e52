//! Tensor types of GGUF: the number in the file, the name, and our [`Dtype`] where this program reads it.
//!
//! Numbers are those of `enum ggml_type` in ggml (<https://github.com/ggml-org/ggml/blob/master/include/ggml.h>).

use crate::Dtype;

/// Names of the types that this program reads, for error messages.
pub(crate) const SUPPORTED: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K";

/// Number, ggml's name and, when supported, the dtype.
const TYPES: &[(u32, &str, Option<Dtype>)] = &[
    (0, "F32", Some(Dtype::F32)),
    (1, "F16", Some(Dtype::F16)),
    (2, "Q4_0", Some(Dtype::Q4_0)),
    (3, "Q4_1", Some(Dtype::Q4_1)),
    (4, "Q4_2", None),
    (5, "Q4_3", None),
    (6, "Q5_0", Some(Dtype::Q5_0)),
    (7, "Q5_1", Some(Dtype::Q5_1)),
    (8, "Q8_0", Some(Dtype::Q8_0)),
    (9, "Q8_1", None),
    (10, "Q2_K", None),
    (11, "Q3_K", None),
    (12, "Q4_K", Some(Dtype::Q4K)),
    (13, "Q5_K", Some(Dtype::Q5K)),
    (14, "Q6_K", Some(Dtype::Q6K)),
    (15, "Q8_K", None),
    (16, "IQ2_XXS", None),
    (17, "IQ2_XS", None),
    (18, "IQ3_XXS", None),
    (19, "IQ1_S", None),
    (20, "IQ4_NL", None),
    (21, "IQ3_S", None),
    (22, "IQ2_S", None),
    (23, "IQ4_XS", None),
    (24, "I8", None),
    (25, "I16", None),
    (26, "I32", None),
    (27, "I64", None),
    (28, "F64", None),
    (29, "IQ1_M", None),
    (30, "BF16", Some(Dtype::BF16)),
    (31, "Q4_0_4_4", None),
    (32, "Q4_0_4_8", None),
    (33, "Q4_0_8_8", None),
    (34, "TQ1_0", None),
    (35, "TQ2_0", None),
    (39, "MXFP4", None),
    (40, "NVFP4", None),
    (41, "Q1_0", None),
];

/// The dtype with this number, or the name (or the number, when unknown) for the error message.
pub(crate) fn dtype_of(id: u32) -> Result<Dtype, String> {
    match TYPES.iter().find(|(n, ..)| *n == id) {
        Some((_, _, Some(dtype))) => Ok(*dtype),
        Some((_, name, None)) => Err((*name).to_owned()),
        None => Err(format!("number {id}")),
    }
}

/// The number of a dtype in the file.
pub(crate) fn id_of(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Q4_0 => 2,
        Dtype::Q4_1 => 3,
        Dtype::Q5_0 => 6,
        Dtype::Q5_1 => 7,
        Dtype::Q8_0 => 8,
        Dtype::Q4K => 12,
        Dtype::Q5K => 13,
        Dtype::Q6K => 14,
        Dtype::I8 => 24,
        Dtype::BF16 => 30,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_is_in_the_table_once_and_in_the_message() {
        use Dtype::*;
        for dtype in [F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4K, Q5K, Q6K] {
            assert_eq!(dtype_of(id_of(dtype)), Ok(dtype));
            assert!(
                SUPPORTED.split(", ").any(|name| name == dtype.to_string()),
                "{dtype}"
            );
        }
        assert_eq!(
            SUPPORTED.split(", ").count(),
            TYPES.iter().filter(|t| t.2.is_some()).count()
        );
    }

    #[test]
    fn an_unsupported_type_is_refused_by_name() {
        assert_eq!(dtype_of(10), Err("Q2_K".to_owned()));
        assert_eq!(dtype_of(99), Err("number 99".to_owned()));
    }
}
