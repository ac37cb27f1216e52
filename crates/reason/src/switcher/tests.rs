//! The head's arithmetic by hand, and the files that are refused.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

const BASE: ContentHash = ContentHash([7; 32]);

/// E = 3, H = 2.
fn mlp() -> Mlp {
    Mlp {
        mean: vec![1.0, 0.0, -1.0],
        std: vec![2.0, 1.0, 0.5],
        fc1_weight: vec![1.0, -1.0, 0.5, -2.0, 0.0, 1.0],
        fc1_bias: vec![0.25, -1.0],
        fc2_weight: vec![2.0, 3.0],
        fc2_bias: -1.5,
    }
}

fn file() -> HeadFile {
    let settings = json!({
        "layer": "final_norm", "chunk_tokens": 4, "alpha": 0.5, "threshold": 0.5, "invocation": [8, 9],
    });
    HeadFile {
        kind: KIND.to_owned(),
        base: BASE.to_string(),
        hidden_size: 3,
        settings: settings.as_object().cloned().unwrap_or_default(),
        tensors: mlp().tensors(),
    }
}

fn refused(change: impl FnOnce(&mut HeadFile)) -> SwitcherError {
    let mut file = file();
    change(&mut file);
    Switcher::new(&file, &BASE, 3).unwrap_err()
}

#[test]
fn the_score_by_hand() {
    let switcher = Switcher::new(&file(), &BASE, 3).unwrap();
    // (x - mean) / std = (1, -0.5, 3); hidden = relu(1 + 0.5 + 1.5 + 0.25, -2 + 3 - 1) = (3.25, 0); logit = 6.5 - 1.5.
    let score = switcher.score(&[3.0, -0.5, 0.5]).unwrap();
    assert!((f64::from(score) - 1.0 / (1.0 + (-5.0f64).exp())).abs() < 1e-7);
    // At the mean: hidden = relu(0.25, -1) = (0.25, 0); logit = 0.5 - 1.5.
    let low = switcher.score(&[1.0, 0.0, -1.0]).unwrap();
    assert!((f64::from(low) - 1.0 / (1.0 + 1.0f64.exp())).abs() < 1e-7);
    assert!(switcher.thinks(score) && !switcher.thinks(low) && switcher.thinks(0.5));
}

#[test]
fn numbers_that_are_not_finite_are_errors() {
    let switcher = Switcher::new(&file(), &BASE, 3).unwrap();
    let nan = switcher.score(&[f32::NAN, 0.0, 0.0]);
    assert!(matches!(nan, Err(SwitcherError::NotFinite { .. })));
    assert_eq!(switcher.score(&[f32::MAX, 0.0, 0.0]).unwrap(), 1.0);
    let short = switcher.score(&[0.0; 2]);
    assert!(matches!(
        short,
        Err(SwitcherError::Rows {
            values: 2,
            width: 3
        })
    ));
}

#[test]
fn it_reads_what_stands_before_the_last_generation_prompt() {
    let switcher = Switcher::new(&file(), &BASE, 3).unwrap();
    for (prompt, reads) in [
        (&[1, 2, 8, 9][..], 2),
        (&[8, 9, 1, 8, 9, 3], 3),
        (&[8, 9], 0),
        (&[9, 8, 1], 3),
        (&[8], 1),
        (&[], 0),
    ] {
        assert_eq!(switcher.reads(prompt), reads, "{prompt:?}");
    }
    assert_eq!(read_tokens(&[], &[1, 2]), 2);
}

#[test]
fn heads_of_others_and_damaged_ones_are_refused() {
    let of_kind = refused(|file| file.kind = "verifier".to_owned());
    assert!(matches!(
        of_kind,
        SwitcherError::Head(edgethink_model::HeadError::Kind { .. })
    ));
    let other_base = Switcher::new(&file(), &ContentHash([8; 32]), 3).unwrap_err();
    assert!(
        other_base
            .to_string()
            .contains("load the base it was trained on")
    );
    for (name, value) in [
        ("layer", json!("layer.12")),
        ("chunk_tokens", json!(0)),
        ("chunk_tokens", json!(1.5)),
        ("alpha", json!(0.0)),
        ("alpha", json!(1.01)),
        ("threshold", json!(-0.1)),
        ("threshold", json!("high")),
        ("invocation", json!([1, -1])),
    ] {
        let error = refused(|file| {
            file.settings.insert(name.to_owned(), value);
        });
        assert!(
            matches!(error, SwitcherError::Setting { name: n, .. } if n == name),
            "{error}"
        );
        let missing = refused(|file| {
            file.settings.remove(name);
        });
        assert!(
            matches!(missing, SwitcherError::Setting { .. }),
            "{missing}"
        );
    }
    for name in [
        "mean",
        "std",
        "fc1.weight",
        "fc1.bias",
        "fc2.weight",
        "fc2.bias",
    ] {
        let error = refused(|file| {
            file.tensors.remove(name);
        });
        assert!(error.to_string().contains(name), "{error}");
    }
    let zero = refused(|file| {
        if let Some(std) = file.tensors.get_mut("std") {
            std.data[1] = 0.0;
        }
    });
    assert!(matches!(zero, SwitcherError::Std { index: 1 }));
    let none = refused(|file| file.tensors = BTreeMap::new());
    assert!(matches!(
        none,
        SwitcherError::Head(edgethink_model::HeadError::Missing { .. })
    ));
}

#[test]
fn the_papers_head_has_its_number_of_values() {
    let (e, h) = (3584, 8);
    let mlp = Mlp {
        mean: vec![0.0; e],
        std: vec![1.0; e],
        fc1_weight: vec![0.0; e * h],
        fc1_bias: vec![0.0; h],
        fc2_weight: vec![0.0; h],
        fc2_bias: 0.0,
    };
    let trained = mlp
        .tensors()
        .into_iter()
        .filter(|(name, _)| name.starts_with("fc"));
    let values: usize = trained.map(|(_, tensor)| tensor.data.len()).sum();
    assert_eq!(values, 28_689);
}
