//! Bundles that come back as they were packed, and bundles that are wrong in one way each.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::head::HeadTensor;
use crate::{AdapterDtype, Family, Linear, LoraPair, SaveOptions, Tensor, reference};

#[path = "panels_tests.rs"]
mod panels;

/// A base, an activated adapter and a switcher, packed.
struct Packed {
    dir: TempDir,
    base: TempDir,
}

/// A random model without a tokenizer.
fn tiny_model(seed: usize) -> TempDir {
    let config = Config {
        family: Family::Llama,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 40,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        rope_scaling: None,
        tie_word_embeddings: true,
        attention_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        sliding_window: None,
    };
    let mut shapes = vec![
        ("embed_tokens".to_owned(), vec![40, 32]),
        ("norm".to_owned(), vec![32]),
    ];
    for layer in 0..2 {
        for linear in Linear::ALL {
            let (out, inner) = config.linear_shape(linear);
            shapes.push((
                format!("layers.{layer}.{}", linear.hf_name()),
                vec![out, inner],
            ));
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push((format!("layers.{layer}.{norm}"), vec![32]));
        }
    }
    let tensors: Vec<(String, Tensor)> = shapes
        .into_iter()
        .enumerate()
        .map(|(k, (name, shape))| {
            let len: usize = shape.iter().product();
            let value = |i: usize| ((i * 31 + k * 7 + seed) % 97) as f32 / 97.0 - 0.45;
            let values: Vec<f32> = (0..len).map(value).collect();
            let tensor = Tensor::from_f32(shape, &values).expect("its shape");
            (format!("model.{name}.weight"), tensor)
        })
        .collect();
    let dir = tempfile::tempdir().expect("temp dir");
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
    crate::save(dir.path(), &config, tensors, &SaveOptions::default()).expect("saved");
    dir
}

fn adapter_of(base: &Config) -> Adapter {
    let mut layers = vec![[const { None }; 7]; base.num_hidden_layers];
    for (layer, linear) in [(0, Linear::Q), (1, Linear::Down)] {
        let (out, inner) = base.linear_shape(linear);
        let matrix = |rows: usize, cols: usize, k: usize| {
            let values: Vec<f32> = (0..rows * cols)
                .map(|i| ((i * k) % 23) as f32 / 60.0 - 0.18)
                .collect();
            Tensor::from_f32(vec![rows, cols], &values).expect("a matrix")
        };
        layers[layer][linear as usize] = Some(LoraPair {
            a: matrix(4, inner, 7),
            b: matrix(out, 4, 5),
            scale: 2.0,
        });
    }
    Adapter::new("think", Some(vec![5, 6]), layers, base).expect("valid")
}

fn head_of(model: &Model, base: String) -> HeadFile {
    let tensor = HeadTensor {
        shape: vec![2],
        data: vec![0.5, -1.0],
    };
    HeadFile {
        kind: "switcher".to_owned(),
        base,
        hidden_size: model.config.hidden_size,
        settings: serde_json::from_value(json!({ "threshold": 0.25 })).expect("an object"),
        tensors: [("w".to_owned(), tensor)].into(),
    }
}

/// Place of the last part: two files of the base, three of the adapter, two of the head.
const LAST: usize = 6;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn options(adapter_dtype: AdapterDtype) -> PackOptions {
    PackOptions {
        name: "tiny".to_owned(),
        program: "edgethink test".to_owned(),
        licence: Some("MIT".to_owned()),
        adapter_dtype,
        int8_heads: adapter_dtype != AdapterDtype::Float,
    }
}

impl Packed {
    fn new(dtype: AdapterDtype) -> Self {
        let (dir, base) = (tempfile::tempdir().expect("temp dir"), tiny_model(9));
        let packed = Self { dir, base };
        let model = packed.model();
        let adapter = packed.dir.path().join("think");
        adapter_of(&model.config)
            .save_peft(&adapter, None)
            .expect("saved");
        fs::write(adapter.join("edgethink.json"), r#"{"budget_line": "{B}!"}"#).expect("written");
        let hash = model.hash().expect("read").to_string();
        head_of(&model, hash)
            .save(&packed.dir.path().join("head"))
            .expect("saved");
        let mut told = (0, 0);
        let mut progress = |now, all| told = (now, all);
        pack(
            &packed.sources(),
            &packed.file(),
            &options(dtype),
            &mut progress,
        )
        .expect("packed");
        assert!(told.0 == told.1 && told.1 > 0);
        packed
    }

    fn model(&self) -> Model {
        Model::load(text(self.base.path())).expect("it loads")
    }

    fn sources(&self) -> PackSources {
        PackSources {
            base: text(self.base.path()).to_owned(),
            adapters: vec![self.dir.path().join("think")],
            heads: vec![self.dir.path().join("head")],
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("b.edgethink")
    }

    fn open(&self) -> Bundle {
        Bundle::open(&self.file()).expect("it opens")
    }

    /// The bundle with `change` made to its manifest, and hash and header made anew.
    fn with_manifest(&self, change: impl FnOnce(&mut Value)) -> Result<Bundle, BundleError> {
        let bytes = fs::read(self.file()).expect("there");
        let data = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("8 bytes")) as usize;
        let mut manifest = serde_json::to_value(self.open().manifest()).expect("JSON");
        change(&mut manifest);
        let text = manifest.to_string();
        // Parts as far as they can be placed: what cannot is refused before the header is compared.
        let parts =
            serde_json::from_value::<Vec<Part>>(manifest["parts"].clone()).unwrap_or_default();
        let placed = parts.iter().all(|p| p.offset.checked_add(p.size).is_some());
        let ordered = parts
            .windows(2)
            .all(|w| w[0].offset + w[0].size <= w[1].offset);
        let parts = if placed && ordered { &parts[..] } else { &[] };
        let mut all = manifest::header(&text, parts);
        all.extend(&bytes[data..]);
        let path = self.dir.path().join("changed.edgethink");
        fs::write(&path, all).expect("written");
        Bundle::open(&path)
    }

    fn refused(&self, change: impl FnOnce(&mut Value)) -> String {
        self.with_manifest(change).expect_err("refused").to_string()
    }
}

#[test]
fn a_bundle_is_what_was_packed() {
    let packed = Packed::new(AdapterDtype::Float);
    let (bundle, want) = (packed.open(), packed.model());
    bundle.verify(&mut |_, _| {}).expect("as it was packed");
    let got = Model::load(text(&packed.file())).expect("it loads");
    assert_eq!(got.source, Source::Bundle(packed.file()));
    assert_eq!(got.hash().expect("read"), want.hash().expect("read"));
    for (name, tensor) in got.weights.named() {
        let matrix = tensor.shape.len() > 1;
        assert_eq!(tensor.storage().is_mapped(), matrix, "{name}");
        assert!(
            !matrix || tensor.storage().is_aligned(64),
            "{name} is aligned"
        );
    }
    let (adapter, folder) = bundle
        .adapter(None, &got.config)
        .expect("valid")
        .expect("there");
    assert_eq!(adapter.hash, adapter_of(&want.config).hash);
    assert_eq!(
        (adapter.name.as_str(), folder.name().as_str()),
        ("think", "adapter")
    );
    assert_eq!(
        folder.read("edgethink.json").expect("there"),
        br#"{"budget_line": "{B}!"}"#
    );
    let head = bundle.head("switcher").expect("valid").expect("there");
    head.expect(
        "switcher",
        &got.hash().expect("read"),
        got.config.hidden_size,
    )
    .expect("fits");
    assert!(bundle.head("verifier").expect("none").is_none());
    let tokens = [1, 2, 5, 6, 7];
    let logits = |model: &Model, adapter: &Adapter| {
        let from = adapter.start(&tokens).expect("invoked");
        reference::forward(model, &tokens, Some((adapter, from)))
            .expect("tokens")
            .logits
    };
    assert_eq!(
        logits(&got, &adapter),
        logits(&want, &adapter_of(&want.config))
    );
    let error = bundle
        .adapter(Some("other"), &got.config)
        .expect_err("no such");
    assert!(error.to_string().contains("\"think\""), "{error}");
}

#[test]
fn parts_come_back_byte_for_byte() {
    let packed = Packed::new(AdapterDtype::Float);
    let out = packed.dir.path().join("out");
    packed
        .open()
        .unpack(&out, &mut |_, _| {})
        .expect("unpacked");
    let mut compared = 0;
    for (folder, from) in [
        ("base", packed.base.path().to_path_buf()),
        ("adapter", packed.dir.path().join("think")),
        ("switcher", packed.dir.path().join("head")),
    ] {
        for entry in fs::read_dir(&from).expect("there") {
            let name = entry.expect("an entry").file_name();
            let want = fs::read(from.join(&name)).expect("there");
            assert!(
                fs::read(out.join(folder).join(&name)).expect("unpacked") == want,
                "{name:?}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, packed.open().manifest().parts.len());
    let error = packed
        .open()
        .unpack(&out, &mut |_, _| {})
        .expect_err("not empty");
    assert!(matches!(error, BundleError::NotEmpty { .. }));
}

#[test]
fn other_programs_see_a_safetensors_file() {
    let packed = Packed::new(AdapterDtype::Float);
    let bytes = fs::read(packed.file()).expect("there");
    let file = ::safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let part = file.tensor("base/config.json").expect("there");
    assert_eq!(
        part.data(),
        fs::read(packed.base.path().join("config.json")).expect("there")
    );
}

/// Every byte counts: a flip in front of the data is seen when the file is opened, one in the data when it is verified.
#[test]
fn every_flipped_byte_is_seen() {
    let packed = Packed::new(AdapterDtype::Float);
    let mut bytes = fs::read(packed.file()).expect("there");
    let data = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("8 bytes")) as usize;
    let path = packed.dir.path().join("flipped.edgethink");
    let places = (0..data)
        .step_by(3)
        .chain((data..bytes.len()).step_by(9_973));
    let ends = [data - 1, data, bytes.len() - 1];
    for at in places.chain(ends) {
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).expect("written");
        let opened = Bundle::open(&path);
        let seen = match &opened {
            Ok(bundle) => bundle.verify(&mut |_, _| {}).is_err(),
            Err(_) => true,
        };
        assert!(seen, "byte {at} of {}, data from {data}", bytes.len());
        assert!(
            at >= data || opened.is_err(),
            "byte {at} is in front of the data"
        );
        bytes[at] ^= 0x10;
    }
}

#[test]
fn damage_is_named_and_never_loaded() {
    let packed = Packed::new(AdapterDtype::Float);
    let bundle = packed.open();
    let part = |path: &str| {
        let parts = &bundle.manifest().parts;
        parts
            .iter()
            .find(|p| p.path == path)
            .expect("there")
            .clone()
    };
    let bytes = fs::read(packed.file()).expect("there");
    for name in [
        "base/model.safetensors",
        "adapter/adapter_model.safetensors",
        "switcher/head.safetensors",
    ] {
        let mut bytes = bytes.clone();
        let last = bundle.range(&part(name)).end - 1;
        bytes[last] ^= 1;
        let path = packed.dir.path().join("damaged.edgethink");
        fs::write(&path, bytes).expect("written");
        let damaged = Bundle::open(&path).expect("the header is whole");
        let config = packed.model().config;
        let error = match name.split('/').next() {
            Some("base") => damaged.model().expect_err("damaged"),
            Some("adapter") => damaged
                .adapter(None, &config)
                .map(|_| ())
                .expect_err("damaged"),
            _ => damaged.head("switcher").map(|_| ()).expect_err("damaged"),
        };
        let mut said = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            said += &format!(": {cause}");
            source = cause.source();
        }
        assert!(said.contains(name) && said.contains("damaged"), "{said}");
    }
    for cut in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        let path = packed.dir.path().join("cut.edgethink");
        fs::write(&path, &bytes[..cut]).expect("written");
        assert!(Bundle::open(&path).is_err(), "cut at {cut}");
    }
    let mut longer = bytes;
    longer.push(0);
    let path = packed.dir.path().join("longer.edgethink");
    fs::write(&path, longer).expect("written");
    assert!(matches!(
        Bundle::open(&path),
        Err(BundleError::Length { .. })
    ));
}

#[test]
fn a_newer_bundle_is_refused_by_its_program() {
    let packed = Packed::new(AdapterDtype::Float);
    let said = packed.refused(|m| {
        m["format"] = json!(FORMAT + 1);
        m["program"] = json!("edgethink 7.0");
        m["a_field_of_the_future"] = json!([]);
    });
    assert!(
        said.contains(&format!("format {}", FORMAT + 1)) && said.contains("edgethink 7.0"),
        "{said}"
    );
}

#[test]
fn parts_of_another_base_are_refused() {
    let packed = Packed::new(AdapterDtype::Float);
    for (list, name) in [("adapters", "think"), ("heads", "switcher")] {
        let said = packed.refused(|m| m[list][0]["base"] = json!("f".repeat(64)));
        assert!(
            said.contains(name) && said.contains("ffffffffffff"),
            "{said}"
        );
    }
    let other = tiny_model(10);
    let mut sources = packed.sources();
    text(other.path()).clone_into(&mut sources.base);
    let before = fs::read(packed.file()).expect("there");
    let error = pack(
        &sources,
        &packed.file(),
        &options(AdapterDtype::Float),
        &mut |_, _| {},
    );
    let error = error.expect_err("the head is of another base");
    assert!(matches!(&error, BundleError::Head { .. }), "{error}");
    assert!(
        fs::read(packed.file()).expect("there") == before,
        "the old bundle is left alone"
    );
    let count = packed.open().manifest().parts.len();
    assert!(count > 0);
}

#[test]
fn hostile_manifests_are_refused() {
    let packed = Packed::new(AdapterDtype::Float);
    assert!(
        packed.with_manifest(|_| {}).is_ok(),
        "the unchanged one is read"
    );
    for path in [
        "../x",
        "base/../../x",
        "/etc/x",
        "base//x",
        "base/.x",
        "x",
        "base/x\u{e9}",
        "base/x:y",
        "base\\x/y",
        "a/b/c/d/e",
    ] {
        let said = packed.refused(|m| m["parts"][0]["path"] = json!(path));
        assert!(said.contains("no name of a part"), "{path}: {said}");
    }
    type Change<'a> = &'a dyn Fn(&mut Value);
    let refusals: [(&str, Change<'_>); 9] = [
        ("twice", &|m| {
            m["parts"][1]["path"] = m["parts"][0]["path"].clone()
        }),
        ("out of place", &|m| m["parts"][1]["offset"] = json!(0)),
        ("out of place", &|m| {
            m["parts"][1]["offset"] = json!(1u64 << 40)
        }),
        ("too large", &|m| m["parts"][LAST]["size"] = json!(u64::MAX)),
        ("no hash", &|m| {
            m["parts"][0]["blake3"] = json!("F".repeat(64))
        }),
        ("no part base/config.json", &|m| {
            m["parts"][0]["path"] = json!("base/other.json")
        }),
        ("no part nowhere/adapter_config.json", &|m| {
            m["adapters"][0]["folder"] = json!("nowhere")
        }),
        ("unknown field", &|m| m["base"]["more"] = json!(1)),
        ("format", &|m| m["format"] = json!("one")),
    ];
    for (says, change) in refusals {
        let said = packed.refused(change);
        assert!(said.contains(says), "{says}: {said}");
    }
    let error = packed.with_manifest(|m| m["parts"][LAST]["size"] = json!(1u64 << 50));
    assert!(matches!(error, Err(BundleError::Length { .. })));
}

#[test]
fn an_adapter_in_fewer_bits_is_near_and_smaller() {
    let whole = Packed::new(AdapterDtype::Float);
    let size = |p: &Packed| {
        let parts = p.open().manifest().parts.clone();
        let part = parts
            .into_iter()
            .find(|p| p.path == "adapter/adapter_model.safetensors");
        part.expect("there").size
    };
    let mut sizes = vec![size(&whole)];
    // The largest error is half a step of a row; in 4 bits it may also be what a smaller scale cuts off.
    for (dtype, name, step) in [
        (AdapterDtype::Int8, "int8", 0.5001 / 127.0),
        (AdapterDtype::Int4, "int4", 0.4),
    ] {
        let packed = Packed::new(dtype);
        let bundle = packed.open();
        bundle.verify(&mut |_, _| {}).expect("as it was packed");
        let config = packed.model().config;
        let (got, _) = bundle
            .adapter(None, &config)
            .expect("valid")
            .expect("there");
        let entry = &bundle.manifest().adapters[0];
        assert_eq!(
            (entry.dtype.as_str(), &entry.hash),
            (name, &got.hash.to_string())
        );
        let want = adapter_of(&config);
        for (layer, linear) in [(0, Linear::Q), (1, Linear::Down)] {
            let (got, want) = (
                got.pair(layer, linear).expect("there"),
                want.pair(layer, linear).expect("there"),
            );
            for (got, want) in [(&got.a, &want.a), (&got.b, &want.b)] {
                let cols = want.cols();
                let (got, want) = (got.to_f32(), want.to_f32());
                for (got, want) in got.chunks(cols).zip(want.chunks(cols)) {
                    let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
                    for (g, w) in got.iter().zip(want) {
                        assert!((g - w).abs() <= largest * step, "{name}: {g} for {w}");
                    }
                }
            }
        }
        sizes.push(size(&packed));
    }
    assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
}

#[test]
fn heads_in_8_bits_keep_everything_but_their_weights() {
    let packed = Packed::new(AdapterDtype::Float);
    let model = packed.model();
    let hash = model.hash().expect("read");
    let values = |n: usize| {
        (0..n)
            .map(|i| ((i * 29) % 31) as f32 / 31.0 - 0.4)
            .collect()
    };
    let tensor = |shape: &[usize]| HeadTensor {
        shape: shape.to_vec(),
        data: values(shape.iter().product()),
    };
    let head = HeadFile {
        tensors: [
            ("mean".to_owned(), tensor(&[32])),
            ("fc1.weight".to_owned(), tensor(&[3, 32])),
            ("fc1.bias".to_owned(), tensor(&[3])),
            ("weight".to_owned(), tensor(&[32])),
        ]
        .into(),
        ..head_of(&model, hash.to_string())
    };
    let dir = packed.dir.path().join("head");
    head.save(&dir).expect("saved");
    let options = PackOptions {
        int8_heads: true,
        ..options(AdapterDtype::Float)
    };
    pack(&packed.sources(), &packed.file(), &options, &mut |_, _| {}).expect("packed");
    let bundle = packed.open();
    bundle.verify(&mut |_, _| {}).expect("as it was packed");
    assert_eq!(bundle.manifest().heads[0].dtype.as_deref(), Some("int8"));
    assert_eq!(bundle.manifest().adapters[0].dtype, "float");
    let got = bundle.head("switcher").expect("valid").expect("there");
    assert_eq!((&got.settings, &got.base), (&head.settings, &head.base));
    for name in ["mean", "fc1.bias"] {
        assert_eq!(got.tensors[name], head.tensors[name], "{name}");
    }
    for name in ["fc1.weight", "weight"] {
        let (got, want) = (&got.tensors[name], &head.tensors[name]);
        assert_eq!(got.shape, want.shape);
        assert_ne!(got.data, want.data, "{name} is rounded");
        for (got, want) in got.data.chunks(32).zip(want.data.chunks(32)) {
            let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
            for (g, w) in got.iter().zip(want) {
                // Half a step of the row.
                assert!((g - w).abs() <= largest / 127.0 * 0.5001, "{g} for {w}");
            }
        }
    }
    // A head of another base is refused before anything is written.
    let other = head_of(&model, "ab".repeat(32));
    other.save(&dir).expect("saved");
    let error = pack(&packed.sources(), &packed.file(), &options, &mut |_, _| {});
    assert!(matches!(error, Err(BundleError::Head { .. })), "{error:?}");
    // Unpacked, it is a head as any other.
    let out = packed.dir.path().join("unpacked");
    bundle.unpack(&out, &mut |_, _| {}).expect("written");
    assert_eq!(HeadFile::load(&out.join("switcher")).expect("a head"), got);
}
