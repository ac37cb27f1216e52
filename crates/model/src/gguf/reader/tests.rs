//! Files that are wrong in one way each, and random damage: always a typed error, never a panic.

use proptest::prelude::*;

use super::*;
use crate::Tensor;
use crate::gguf::{Entry, GgufWriter};

/// A small valid file with two tensors and a key of every kind.
fn sample() -> Vec<u8> {
    let mut writer = GgufWriter::new();
    let entries: [(&str, Entry<'_>); 9] = [
        ("general.architecture", Entry::String("qwen2")),
        ("u32", Entry::U32(7)),
        ("u64", Entry::U64(u64::MAX)),
        ("f32", Entry::F32(0.5)),
        ("bool", Entry::Bool(true)),
        ("texts", Entry::Strings(&["a", "", "ä"])),
        ("u32s", Entry::U32s(&[1, 2, 3])),
        ("i32s", Entry::I32s(&[-1, 2])),
        ("f32s", Entry::F32s(&[1.5])),
    ];
    for (key, entry) in &entries {
        writer.key(key, entry).expect("new key");
    }
    writer
        .tensor(
            "a",
            Tensor::from_f32(vec![2, 3], &[0., 1., 2., 3., 4., 5.]).expect("2x3"),
        )
        .expect("new");
    writer
        .tensor("b", Tensor::from_f32(vec![4], &[9.0; 4]).expect("4"))
        .expect("new");
    let mut bytes = Vec::new();
    writer.write(&mut bytes).expect("memory");
    bytes
}

/// Replaces `n` bytes where `pattern` ends.
fn patch(bytes: &[u8], pattern: &[u8], with: &[u8]) -> Vec<u8> {
    let at = bytes
        .windows(pattern.len())
        .position(|w| w == pattern)
        .expect("pattern")
        + pattern.len();
    let mut out = bytes.to_vec();
    out[at..at + with.len()].copy_from_slice(with);
    out
}

fn text(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat()
}

/// A file from raw key and tensor entries, without data.
fn raw(keys: &[Vec<u8>], tensors: &[Vec<u8>], data: usize) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&(keys.len() as u64).to_le_bytes());
    keys.iter()
        .chain(tensors)
        .for_each(|part| out.extend_from_slice(part));
    out.resize(out.len().next_multiple_of(32) + data, 0);
    out
}

fn key_u32(name: &str, value: u32) -> Vec<u8> {
    [
        text(name),
        4u32.to_le_bytes().to_vec(),
        value.to_le_bytes().to_vec(),
    ]
    .concat()
}

fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut out = text(name);
    out.extend_from_slice(&(dims.len() as u32).to_le_bytes());
    dims.iter()
        .for_each(|d| out.extend_from_slice(&d.to_le_bytes()));
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out
}

#[test]
fn what_the_writer_writes_is_read_back() {
    let bytes = sample();
    let gguf = Gguf::parse(&bytes).expect("valid");
    let meta = &gguf.metadata;
    assert_eq!(
        meta.text("general.architecture").expect("text"),
        Some("qwen2")
    );
    assert_eq!(meta.count("u32").expect("count"), Some(7));
    assert_eq!(meta.get("u64"), Some(&Value::Unsigned(u64::MAX)));
    assert_eq!(meta.number("f32").expect("number"), Some(0.5));
    assert_eq!(meta.boolean("bool").expect("boolean"), Some(true));
    assert_eq!(
        meta.texts("texts").expect("texts"),
        Some(&["a", "", "ä"][..])
    );
    let i32s: Vec<_> = meta
        .numbers("i32s")
        .expect("numbers")
        .expect("there")
        .iter()
        .collect();
    assert_eq!(i32s, [Value::Signed(-1), Value::Signed(2)]);
    let a = gguf.tensor("a").expect("a");
    assert_eq!(
        (a.shape.as_slice(), a.range.start % 32, a.range.len()),
        (&[2, 3][..], 0, 24)
    );
    assert_eq!(&bytes[a.range.clone()][4..8], &1f32.to_le_bytes());
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = sample();
    let end = Gguf::parse(&bytes)
        .expect("valid")
        .tensor("b")
        .expect("b")
        .range
        .end;
    for len in 0..end {
        assert!(Gguf::parse(&bytes[..len]).is_err(), "{len} of {end} bytes");
    }
    assert!(
        Gguf::parse(&bytes[..end]).is_ok(),
        "the padding after the last tensor may be missing"
    );
}

#[test]
fn lengths_beyond_the_file_are_refused_before_anything_is_allocated() {
    let bytes = sample();
    for huge in [u64::MAX, 1 << 62, 1 << 40, bytes.len() as u64] {
        let huge = huge.to_le_bytes();
        // The counts of tensors and keys, a key's length, a text's length, two array lengths, a tensor name's length.
        for at in [8, 16, 24] {
            let mut bad = bytes.clone();
            bad[at..at + 8].copy_from_slice(&huge);
            assert!(Gguf::parse(&bad).is_err(), "at {at}");
        }
        for pattern in [
            &b"general.architecture\x08\0\0\0"[..],
            b"texts\x09\0\0\0\x08\0\0\0",
            b"u32s\x09\0\0\0\x04\0\0\0",
        ] {
            assert!(
                Gguf::parse(&patch(&bytes, pattern, &huge)).is_err(),
                "{pattern:?}"
            );
        }
    }
}

#[test]
fn each_kind_of_damage_has_its_error() {
    let t = |dims: &[u64], kind, offset| raw(&[], &[tensor("t", dims, kind, offset)], 64);
    let bad: [(&str, Vec<u8>); 17] = [
        ("Magic", b"GGML\x03\0\0\0".to_vec()),
        ("Version", b"GGUF\x01\0\0\0\0\0\0\0".to_vec()),
        ("Version", b"GGUF\0\0\0\x03\0\0\0\0".to_vec()),
        (
            "DuplicateKey",
            raw(&[key_u32("a", 1), key_u32("a", 1)], &[], 0),
        ),
        ("Alignment", raw(&[key_u32("general.alignment", 0)], &[], 0)),
        (
            "Alignment",
            raw(&[key_u32("general.alignment", 24)], &[], 0),
        ),
        (
            "Alignment",
            raw(&[key_u32("general.alignment", 1 << 30)], &[], 0),
        ),
        (
            "NestedArray",
            raw(
                &[[
                    text("a"),
                    vec![9, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0],
                ]
                .concat()],
                &[],
                64,
            ),
        ),
        (
            "ValueType",
            raw(&[[text("a"), vec![13, 0, 0, 0, 0]].concat()], &[], 0),
        ),
        (
            "Bool",
            raw(&[[text("a"), vec![7, 0, 0, 0, 2]].concat()], &[], 0),
        ),
        ("Dims", t(&[], 0, 0)),
        ("Dims", t(&[4, 0], 0, 0)),
        ("TooLarge", t(&[1, 1, 1, 1, 1], 0, 0)),
        ("TensorType", t(&[256], 10, 0)),
        ("Block", t(&[33], 8, 0)),
        ("Overflow", t(&[1 << 32, 1 << 32], 0, 0)),
        ("Misaligned", t(&[4], 0, 4)),
    ];
    for (want, bytes) in bad {
        let error = Gguf::parse(&bytes).expect_err(want);
        assert!(format!("{error:?}").starts_with(want), "{want}: {error:?}");
    }
    for (want, bytes) in [
        ("OutOfFile", t(&[17], 0, 0)),
        ("OutOfFile", t(&[4], 0, u64::MAX - 31)),
        (
            "DuplicateTensor",
            raw(
                &[],
                &[tensor("t", &[4], 0, 0), tensor("t", &[4], 0, 32)],
                64,
            ),
        ),
        (
            "Overlap",
            raw(
                &[],
                &[tensor("t", &[9], 0, 0), tensor("u", &[4], 0, 32)],
                64,
            ),
        ),
        (
            "Overlap",
            raw(&[], &[tensor("t", &[4], 0, 0), tensor("u", &[4], 0, 0)], 64),
        ),
    ] {
        let error = Gguf::parse(&bytes).expect_err(want);
        assert!(format!("{error:?}").starts_with(want), "{want}: {error:?}");
    }
}

#[test]
fn an_unsupported_type_is_named_with_the_remedy() {
    let bytes = raw(&[], &[tensor("blk.0.attn_q.weight", &[256], 16, 0)], 512);
    let message = Gguf::parse(&bytes).expect_err("IQ2_XXS").to_string();
    assert!(
        message.contains("blk.0.attn_q.weight")
            && message.contains("IQ2_XXS")
            && message.contains("Q4_0"),
        "{message}"
    );
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let mut writer = GgufWriter::new();
    let one = || Tensor::from_f32(vec![1], &[1.0]).expect("1");
    writer.key("a", &Entry::U32(1)).expect("new");
    assert!(matches!(
        writer.key("a", &Entry::U32(1)),
        Err(GgufError::DuplicateKey { .. })
    ));
    writer.tensor("t", one()).expect("new");
    assert!(matches!(
        writer.tensor("t", one()),
        Err(GgufError::DuplicateTensor { .. })
    ));
    let empty = Tensor::from_f32(vec![0, 4], &[]).expect("empty");
    assert!(matches!(
        writer.tensor("u", empty),
        Err(GgufError::Unwritable { .. })
    ));
    let five = Tensor::from_f32(vec![1; 5], &[1.0]).expect("5 dimensions");
    assert!(matches!(
        writer.tensor("v", five),
        Err(GgufError::Unwritable { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any bytes: an error or a file whose tensors lie inside it, and no panic.
    #[test]
    fn random_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), header in any::<bool>()) {
        if header && bytes.len() >= 24 {
            bytes[..8].copy_from_slice(b"GGUF\x03\0\0\0");
            bytes[8..24].fill(0);
            bytes[8] = 1;
            bytes[16] = 1;
        }
        check(&bytes);
    }

    /// A valid file with some bytes changed.
    #[test]
    fn flipped_bytes_do_no_harm(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = sample();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check(&bytes);
    }
}

fn check(bytes: &[u8]) {
    if let Ok(gguf) = Gguf::parse(bytes) {
        for t in &gguf.tensors {
            assert!(
                t.range.end <= bytes.len() && t.dtype.tensor_bytes(&t.shape) == Some(t.range.len())
            );
        }
    }
}
