//! Bundles whose base lies in panels.

use super::*;
use crate::bundle::panels::{To, dtypes, turn};

/// A GGUF file.
fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/gguf");
    folder.join(format!("{name}.gguf"))
}

/// A bundle of a base alone.
fn pack_alone(base: &Path, out: &Path) -> Result<Manifest, BundleError> {
    let sources = PackSources {
        base: text(base).to_owned(),
        ..PackSources::default()
    };
    pack(&sources, out, &options(AdapterDtype::Float), &mut |_, _| ())
}

#[test]
fn a_quantized_base_lies_in_panels_and_unpacks_to_its_file() {
    let formats = [
        ("qwen2-q4_0", 2),
        ("qwen2-q8_0", 2),
        ("llama-q8_0", 2),
        ("qwen2-q4_k", 3),
    ];
    for (name, format) in formats {
        let dir = tempfile::tempdir().expect("temp dir");
        let (base, out) = (golden(name), dir.path().join("b.edgethink"));
        let manifest = pack_alone(&base, &out).expect("packed");
        assert_eq!(manifest.format, format, "{name}");
        assert_eq!(manifest.parts[0].path, "base/model.panels");

        let bundle = Bundle::open(&out).expect("opened");
        bundle.verify(&mut |_, _| ()).expect("verified");
        let (ours, file) = (bundle.model().expect("loads"), Model::load(text(&base)));
        let file = file.expect("loads");
        assert_eq!(ours.hash().expect("read"), file.hash().expect("read"));
        let mut in_panels = 0;
        for ((tensor, a), (_, b)) in ours.weights.named().into_iter().zip(file.weights.named()) {
            assert_eq!(a.bytes(), b.bytes(), "{name}: {tensor}");
            in_panels += usize::from(a.panels().is_some());
        }
        assert!(in_panels > 2, "{name}: {in_panels} matrices in panels");

        let unpacked = dir.path().join("unpacked");
        bundle.unpack(&unpacked, &mut |_, _| ()).expect("unpacked");
        let again = fs::read(unpacked.join("base/model.gguf")).expect("written");
        assert!(again == fs::read(&base).expect("read"), "{name}");

        // What is damaged is told, whichever way it is used.
        let mut bytes = fs::read(&out).expect("read");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&out, bytes).expect("written");
        let damaged = Bundle::open(&out).expect("opened");
        let told =
            |result: Result<(), BundleError>| matches!(result, Err(BundleError::Damaged { .. }));
        assert!(told(damaged.verify(&mut |_, _| ())), "{name}");
        assert!(
            told(damaged.unpack(&dir.path().join("x"), &mut |_, _| ())),
            "{name}"
        );
        assert!(damaged.model().is_err(), "{name}");
    }
}

/// A bundle of format 2 has its Q6_K matrices in rows.
#[test]
fn each_format_says_what_lies_in_panels() {
    let path = golden("qwen2-q4_k");
    let file = crate::Bytes::whole(&crate::MappedFile::open(&path).expect("golden"));
    let want = Model::load(text(&path)).expect("loads");
    for (format, in_panels) in [(2, 0), (3, 3)] {
        let dir = tempfile::tempdir().expect("temp dir");
        let (mut turned, dtypes) = (Vec::new(), dtypes(format));
        let mut take = |run: &[u8]| {
            turned.extend_from_slice(run);
            Ok(())
        };
        turn(&file, To::Panels, dtypes, &mut take).expect("finite");
        assert_eq!(turned == file.as_slice(), in_panels == 0);
        fs::write(dir.path().join(PANELS), &turned).expect("written");
        let got = crate::gguf::load_from(&Folder::disk(dir.path()), PANELS, dtypes);
        let got = got.expect("loads");
        let (got, want) = (got.weights.named(), want.weights.named());
        let panels = got.iter().filter(|(_, t)| t.panels().is_some());
        assert_eq!(panels.count(), in_panels, "format {format}");
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            assert_eq!(got.bytes(), want.bytes(), "format {format}: {name}");
        }
    }
}

#[test]
fn a_base_of_floats_stays_a_gguf_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let out = dir.path().join("b.edgethink");
    let manifest = pack_alone(&golden("qwen2-f32"), &out).expect("packed");
    assert_eq!(manifest.format, 1);
    assert_eq!(manifest.parts[0].path, "base/model.gguf");
    Bundle::open(&out)
        .expect("opened")
        .verify(&mut |_, _| ())
        .expect("verified");
}

#[test]
fn a_scale_that_is_not_finite_is_not_packed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (base, out) = (dir.path().join("m.gguf"), dir.path().join("b.edgethink"));
    let mut bytes = fs::read(golden("qwen2-q4_0")).expect("read");
    let gguf = crate::gguf::Gguf::parse(&bytes).expect("golden");
    let of_codes =
        |t: &&crate::gguf::TensorInfo<'_>| t.dtype == crate::Dtype::Q4_0 && t.shape.len() == 2;
    let tensor = gguf.tensors.iter().find(of_codes).expect("a Q4_0 matrix");
    let (at, name) = (tensor.range.start, tensor.name.to_owned());
    bytes[at..at + 2].copy_from_slice(&[0, 0x7c]);
    fs::write(&base, bytes).expect("written");
    let error = pack_alone(&base, &out).expect_err("an infinite scale");
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert!(
        format!("{error} {source:?}").contains(&name),
        "{error} {source:?}"
    );
    assert!(!out.exists());
}
