//! Heads as files: what is written is read back, and everything else is refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use edgethink_model::{ContentHash, HeadError, HeadFile, HeadTensor, Tensor, save_tensors};
use serde_json::{Value, json};

fn base() -> ContentHash {
    ContentHash([0xab; 32])
}

fn head() -> HeadFile {
    let tensor = |shape: &[usize], data: &[f32]| HeadTensor {
        shape: shape.to_vec(),
        data: data.to_vec(),
    };
    let settings = json!({"layer": "final_norm", "threshold": 0.25, "curve": [{"share": 0.5, "threshold": 0.1}]});
    HeadFile {
        kind: "switcher".to_owned(),
        base: base().to_string(),
        hidden_size: 3,
        settings: settings.as_object().cloned().unwrap_or_default(),
        tensors: BTreeMap::from([
            ("mean".to_owned(), tensor(&[3], &[1.0, -2.5, 1e-30])),
            ("w".to_owned(), tensor(&[1, 3], &[0.0, f32::MAX, -0.0])),
            ("bias".to_owned(), tensor(&[], &[7.0])),
        ]),
    }
}

/// Rewrites head.json.
fn edit(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("head.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(&path, value.to_string()).unwrap();
}

/// The error of reading a head after `change` was done to its directory.
fn after(change: impl FnOnce(&Path)) -> HeadError {
    let dir = tempfile::tempdir().unwrap();
    head().save(dir.path()).unwrap();
    change(dir.path());
    HeadFile::load(dir.path()).unwrap_err()
}

#[test]
fn a_head_is_read_back_as_it_was_written_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new/switcher");
    let mut head = head();
    head.save(&dir).unwrap();
    assert_eq!(HeadFile::load(&dir).unwrap(), head);
    head.settings.insert("threshold".to_owned(), json!(0.75));
    head.tensors.remove("bias");
    head.save(&dir).unwrap();
    assert_eq!(HeadFile::load(&dir).unwrap(), head);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "nothing is left");
}

#[test]
fn a_head_is_for_its_kind_and_its_base() {
    let head = head();
    head.expect("switcher", &base(), 3).unwrap();
    let error = head.expect("verifier", &base(), 3).unwrap_err();
    assert!(matches!(error, HeadError::Kind { .. }));
    let error = head
        .expect("switcher", &ContentHash([1; 32]), 3)
        .unwrap_err();
    assert!(matches!(error, HeadError::Base { .. }));
    assert_eq!(
        error.to_string(),
        "this switcher reads the base abababababab, the loaded one is 010101010101; \
         load the base it was trained on, or train a switcher for this one"
    );
    let error = head.expect("switcher", &base(), 4).unwrap_err();
    assert!(matches!(error, HeadError::Width { .. }));
}

#[test]
fn tensors_have_names_and_shapes() {
    let head = head();
    assert_eq!(head.tensor("mean", &[3]).unwrap(), [1.0, -2.5, 1e-30]);
    let missing = head.tensor("std", &[3]).unwrap_err();
    assert!(matches!(missing, HeadError::Missing { name, .. } if name == "std"));
    let shape = head.tensor("w", &[3]).unwrap_err();
    assert!(matches!(shape, HeadError::Shape { found, .. } if found == [1, 3]));
}

#[test]
fn damaged_files_are_refused_by_name() {
    for file in ["head.json", "head.safetensors"] {
        let error = after(|dir| fs::remove_file(dir.join(file)).unwrap());
        assert!(matches!(error, HeadError::NotAHead { file: f, .. } if f == file));
    }
    let cut = |file: &str, keep: usize| {
        after(|dir| {
            let bytes = fs::read(dir.join(file)).unwrap();
            fs::write(dir.join(file), &bytes[..bytes.len().min(keep)]).unwrap();
        })
    };
    for keep in [0, 7, 100] {
        assert!(matches!(cut("head.json", keep), HeadError::Json { .. }));
        let error = cut("head.safetensors", keep);
        assert!(error.to_string().contains("head.safetensors"), "{error}");
    }
    // A damaged file whose hash head.json knows.
    let error = after(|dir| {
        let path = dir.join("head.safetensors");
        let bytes = fs::read(&path).unwrap();
        let cut = &bytes[..bytes.len() - 4];
        fs::write(&path, cut).unwrap();
        edit(dir, |v| {
            v["tensors"] = json!(blake3::hash(cut).to_hex().as_str())
        });
    });
    assert!(matches!(error, HeadError::Tensors(_)), "{error}");
}

#[test]
fn the_tensors_of_another_head_are_refused() {
    let error = after(|dir| {
        let mut other = head();
        other.tensors.remove("bias");
        let elsewhere = tempfile::tempdir().unwrap();
        other.save(elsewhere.path()).unwrap();
        let file = "head.safetensors";
        fs::copy(elsewhere.path().join(file), dir.join(file)).unwrap();
    });
    assert!(matches!(error, HeadError::Mixed { .. }));
}

#[test]
fn other_formats_and_fields_are_refused() {
    for format in [json!(2), json!("1"), json!(null), json!(1.5)] {
        let error = after(|dir| edit(dir, |v| v["format"] = format));
        assert!(matches!(error, HeadError::Format { .. }));
    }
    for (field, value) in [
        ("kind", json!("")),
        ("base", json!("AB".repeat(32))),
        ("base", json!("ab")),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-3)),
        ("tensors", json!(5)),
        ("settings", json!([])),
    ] {
        let error = after(|dir| edit(dir, |v| v[field] = value));
        assert!(matches!(error, HeadError::Field { field: f, .. } if f == field));
    }
    let error = after(|dir| edit(dir, |v| v["thresold"] = json!(1)));
    assert!(matches!(error, HeadError::UnknownField { field, .. } if field == "thresold"));
    let twice = after(|dir| fs::write(dir.join("head.json"), "{\"a\":1,\"a\":1}").unwrap());
    assert!(matches!(twice, HeadError::Json { .. }));
}

#[test]
fn values_that_are_not_finite_or_not_f32_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut head = head();
        head.tensors.get_mut("mean").unwrap().data[1] = bad;
        let error = head.save(dir.path()).unwrap_err();
        assert!(matches!(error, HeadError::NonFinite { index: 1, .. }));
    }
    let mut short = head();
    short.tensors.get_mut("mean").unwrap().data.pop();
    let error = short.save(dir.path()).unwrap_err();
    assert!(matches!(error, HeadError::Size { .. }));
    // Files that another program wrote.
    let foreign = |tensor: Tensor| {
        after(|dir| {
            let path = dir.join("head.safetensors");
            save_tensors(&path, [("mean".to_owned(), &tensor)]).unwrap();
            let hash = blake3::hash(&fs::read(&path).unwrap());
            edit(dir, |v| v["tensors"] = json!(hash.to_hex().as_str()));
        })
    };
    let nan = foreign(Tensor::from_f32(vec![2], &[1.0, f32::NAN]).unwrap());
    assert!(matches!(nan, HeadError::NonFinite { index: 1, .. }));
    let half = foreign(Tensor::bf16_from_f32(vec![1], &[1.0]).unwrap());
    assert!(matches!(half, HeadError::Dtype { .. }));
}
