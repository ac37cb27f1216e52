//! Any bytes as a bundle: an error, or parts inside the file. No fuzzer guesses a hash, so the same bytes are also taken as a manifest and,
//! behind a byte of 1, data, and a container with the right hash and header is put around them.
#![no_main]

use edgethink_model::bundle::Bundle;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

fn read(path: &std::path::Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("temp dir");
    if let Ok(bundle) = Bundle::open(path) {
        for part in &bundle.manifest().parts {
            if let Ok(found) = bundle.part(&part.path) {
                assert_eq!(found.len() as u64, part.size);
            }
        }
        let _ = bundle.verify(&mut |_, _| {});
    }
}

/// The container that belongs to a manifest, as far as it says where its parts are.
fn container(text: &str, data: &[u8]) -> Option<Vec<u8>> {
    let manifest: Value = serde_json::from_str(text).ok()?;
    let mut header = Map::new();
    let hash = blake3::hash(text.as_bytes()).to_hex();
    let metadata = json!({ "edgethink.manifest": text, "edgethink.manifest.blake3": hash.as_str() });
    header.insert("__metadata__".to_owned(), metadata);
    let mut end = 0;
    for part in manifest["parts"].as_array()? {
        let (start, size) = (part["offset"].as_u64()?, part["size"].as_u64()?);
        let entry = |start: u64, end: u64| json!({ "dtype": "U8", "shape": [end - start], "data_offsets": [start, end] });
        if start > end {
            header.insert(format!("~padding.{end}"), entry(end, start));
        }
        end = start.checked_add(size)?;
        header.insert(part["path"].as_str()?.to_owned(), entry(start, end));
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize((8 + header.len()).next_multiple_of(64) - 8, b' ');
    let mut all = (header.len() as u64).to_le_bytes().to_vec();
    all.extend(header);
    all.extend(data);
    Some(all)
}

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("b.edgethink");
    read(&path, bytes);
    let cut = bytes.iter().position(|&byte| byte == 1).unwrap_or(bytes.len());
    let (text, data) = (&bytes[..cut], bytes.get(cut + 1..).unwrap_or_default());
    if let Some(bytes) = std::str::from_utf8(text).ok().and_then(|text| container(text, data)) {
        read(&path, &bytes);
    }
});
