//! Blocks of every format against the `gguf` Python package (golden/gguf/blocks.gguf, made by benchmarks/llama_cpp/golden.py).

use std::path::Path;

use super::*;
use crate::gguf::{Gguf, TensorInfo};

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn open() -> Golden {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/gguf/blocks.gguf");
        Golden {
            bytes: std::fs::read(path).expect("golden file"),
        }
    }

    fn get(&self, name: &str) -> (Dtype, &[u8]) {
        let gguf = Gguf::parse(&self.bytes).expect("well-formed");
        let TensorInfo { dtype, range, .. } = gguf
            .tensor(name)
            .unwrap_or_else(|| panic!("{name}"))
            .clone();
        (dtype, &self.bytes[range])
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.get(name)
            .1
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect()
    }
}

const FORMATS: [&str; 8] = [
    "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K",
];

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_format_dequantizes_to_the_bit() {
    let golden = Golden::open();
    for name in FORMATS {
        let (dtype, blocks) = golden.get(&format!("{name}.blocks"));
        assert_eq!(dtype.to_string(), name);
        let want = golden.floats(&format!("{name}.values"));
        let mut got = vec![0.0; want.len()];
        dequantize_blocks(dtype, blocks, &mut got);
        assert_eq!(bits(&got), bits(&want), "{name}");
    }
}

/// The codes mean the same values, up to the rounding of the two products.
#[test]
fn codes_mean_the_dequantized_values() {
    let golden = Golden::open();
    for name in FORMATS.into_iter().filter(|name| *name != "Q6_K") {
        let (dtype, blocks) = golden.get(&format!("{name}.blocks"));
        let want = golden.floats(&format!("{name}.values"));
        let groups = want.len() / GROUP;
        let (mut codes, mut scales, mut offsets) =
            (vec![0; want.len()], vec![0.0; groups], vec![0.0; groups]);
        block_codes(dtype, blocks, &mut codes, &mut scales, &mut offsets);
        let most = if dtype.code_bits() == Some(4) {
            15
        } else {
            255
        };
        assert!(codes.iter().all(|&c| c <= most), "{name}");
        for (i, (&code, &want)) in codes.iter().zip(&want).enumerate() {
            let (scale, offset) = (scales[i / GROUP], offsets[i / GROUP]);
            let got = scale * f32::from(code) + offset;
            let unit = scale.abs() * 256.0 + offset.abs() + want.abs();
            assert!(
                (got - want).abs() <= unit * 1e-6,
                "{name} {i}: {got} for {want}"
            );
        }
        if !has_offsets(dtype) {
            let zero = if most == 15 { 8.0 } else { 128.0 };
            assert!(
                scales.iter().zip(&offsets).all(|(s, o)| *o == -zero * s),
                "{name} is symmetric"
            );
        }
    }
}

#[test]
fn quantizing_gives_the_reference_bytes() {
    let golden = Golden::open();
    let values = golden.floats("quantize.values");
    for name in ["Q8_0", "Q4_0"] {
        let (dtype, want) = golden.get(&format!("quantize.{name}"));
        let got = quantize(dtype, &values).expect("finite");
        for (i, (got, want)) in got
            .chunks(dtype.block_bytes())
            .zip(want.chunks(dtype.block_bytes()))
            .enumerate()
        {
            assert_eq!(got, want, "{name}, block {i}");
        }
    }
}

#[test]
fn what_cannot_be_quantized_is_an_error() {
    let mut values = [0.5f32; 64];
    values[40] = f32::NAN;
    assert!(
        matches!(quantize(Dtype::Q8_0, &values), Err(QuantError::NonFinite { index: 40, value }) if value.is_nan())
    );
    values[40] = f32::NEG_INFINITY;
    assert!(matches!(
        quantize(Dtype::Q4_0, &values),
        Err(QuantError::NonFinite { index: 40, .. })
    ));
    values[40] = 1e30;
    assert!(matches!(
        quantize(Dtype::Q4_0, &values),
        Err(QuantError::TooLarge { index: 32, .. })
    ));
    assert!(matches!(
        quantize(Dtype::Q8_0, &values[..33]),
        Err(QuantError::Length { len: 33, block: 32 })
    ));
    assert!(matches!(
        quantize(Dtype::Q6K, &[0.0; 256]),
        Err(QuantError::Format { dtype: Dtype::Q6K })
    ));
}

#[test]
fn a_block_of_zeros_stays_zero() {
    for dtype in [Dtype::Q8_0, Dtype::Q4_0] {
        let blocks = quantize(dtype, &[0.0; 32]).expect("zeros");
        let mut out = [1.0; 32];
        dequantize_blocks(dtype, &blocks, &mut out);
        assert_eq!(out, [0.0; 32], "{dtype}");
    }
}

proptest::proptest! {
    /// The error is at most half a step of Q8_0 (and the rounding of its f16 scale: 2^-11 of the value).
    #[test]
    fn q8_0_is_close(values in proptest::collection::vec(-100f32..100.0, 32)) {
        let blocks = quantize(Dtype::Q8_0, &values).expect("finite");
        let mut out = [0.0; 32];
        dequantize_blocks(Dtype::Q8_0, &blocks, &mut out);
        let most = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        for (got, want) in out.iter().zip(&values) {
            proptest::prop_assert!((got - want).abs() <= most * (0.5 / 127.0 + 1.0 / 2048.0) + 1e-7, "{} for {}", got, want);
        }
    }
}
