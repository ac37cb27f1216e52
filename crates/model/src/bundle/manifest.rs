//! The manifest of a bundle: what is in it, as JSON, and the safetensors header that follows from it.
//!
//! The header is a function of the manifest's text alone ([`header`]). So a reader that makes it again and compares it to the file's knows
//! that every byte in front of the data is the one that was written.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::BundleError;
use crate::json::parse_object_bytes;

/// The newest format that this program reads: a base with matrices of Q6_K in panels. 2 is written where those in panels are of Q4_0 and
/// Q8_0 alone, and 1 where the base is a file as it was.
pub const FORMAT: u64 = 3;
/// Data begins at a multiple of this in the file, and so does the data inside every safetensors and GGUF part.
pub const ALIGNMENT: u64 = 64;
/// Longest header that is read: as for any safetensors file.
pub(super) const MAX_HEADER: u64 = 100_000_000;
const MANIFEST: &str = "edgethink.manifest";
const MANIFEST_HASH: &str = "edgethink.manifest.blake3";

/// What a bundle holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format.
    pub format: u64,
    /// The program that wrote it, with its version.
    pub program: String,
    /// Name for people.
    pub name: String,
    /// Under which licence the parts may be used, in the packer's words.
    pub licence: Option<String>,
    /// The base model.
    pub base: BaseEntry,
    /// Adapters, the one that is used by default first.
    pub adapters: Vec<AdapterEntry>,
    /// Heads, at most one of a kind.
    pub heads: Vec<HeadEntry>,
    /// All parts in the order of their data.
    pub parts: Vec<Part>,
}

/// The base model of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseEntry {
    /// [`crate::Model::hash`] in hex: what adapters and heads belong to.
    pub hash: String,
    /// Folder of its parts.
    pub folder: String,
    /// `model_type`, such as `qwen2`.
    pub family: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Dtypes of its tensors, such as `BF16` or `Q4_0` with `F32`.
    pub dtypes: Vec<String>,
    /// Whether it has a chat template.
    pub template: bool,
}

/// An adapter of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterEntry {
    /// Name by which it is asked for.
    pub name: String,
    /// Folder of its parts.
    pub folder: String,
    /// Hash of the base that it was packed with.
    pub base: String,
    /// [`crate::Adapter::hash`] in hex, of the values as they are in the bundle.
    pub hash: String,
    /// `float`, `int8` per channel, or `int4` per group.
    pub dtype: String,
    /// Where it begins; none for a plain LoRA.
    pub invocation: Option<Vec<u32>>,
    /// What `edgethink.json` says: budget line, closing phrase.
    pub thinking: Option<Value>,
}

/// A head of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadEntry {
    /// `switcher` or `verifier`.
    pub kind: String,
    /// Folder of its parts.
    pub folder: String,
    /// Hash of the base whose hidden states it reads.
    pub base: String,
    /// `int8` per row for one whose weights are stored so; none for one that is as it was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Its settings, thresholds among them.
    pub settings: Value,
}

/// A file inside a bundle, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Folder and file name, such as `base/config.json`.
    pub path: String,
    /// First byte, counted from the beginning of the data.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the bytes, in hex.
    pub blake3: String,
}

impl Manifest {
    /// Reads a manifest. A newer format is told before anything else is looked at.
    pub(super) fn parse(text: &str) -> Result<Self, BundleError> {
        let map = parse_object_bytes(text.as_bytes()).map_err(|source| BundleError::Json {
            what: "manifest",
            source,
        })?;
        let bad = |reason: String| BundleError::Manifest { reason };
        let format = map.get("format").and_then(Value::as_u64);
        let found = format.ok_or_else(|| bad("`format` must be a whole number".to_owned()))?;
        if found > FORMAT {
            let program = map.get("program").and_then(Value::as_str);
            return Err(BundleError::Newer {
                found,
                program: program.unwrap_or("another program").to_owned(),
                supported: FORMAT,
            });
        }
        let manifest: Manifest =
            serde_json::from_value(Value::Object(map)).map_err(|e| bad(e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Names that are safe as files, parts in order without overlap, folders that are there.
    fn check(&self) -> Result<(), BundleError> {
        let bad = |reason: String| Err(BundleError::Manifest { reason });
        let mut end = 0;
        let mut seen = std::collections::HashSet::new();
        for part in &self.parts {
            if !safe(&part.path) || !part.path.contains('/') {
                return bad(format!("{:?} is no name of a part", part.path));
            }
            if !seen.insert(&part.path) {
                return bad(format!("the part {:?} is there twice", part.path));
            }
            if !is_hash(&part.blake3) {
                return bad(format!("the hash of {:?} is no hash", part.path));
            }
            // A gap is padding, which is always shorter than the alignment.
            if part.offset < end || part.offset - end >= ALIGNMENT {
                return bad(format!("the part {:?} is out of place", part.path));
            }
            end = match part.offset.checked_add(part.size) {
                Some(end) => end,
                None => return bad(format!("the part {:?} is too large", part.path)),
            };
        }
        let has = |folder: &str, file: &str| seen.contains(&format!("{folder}/{file}"));
        let missing = |folder: &str, file: &str| {
            Err(BundleError::MissingPart {
                part: format!("{folder}/{file}"),
            })
        };
        let base = &self.base;
        let bases = ["config.json", super::GGUF, super::PANELS];
        if !bases.iter().any(|file| has(&base.folder, file)) {
            return missing(&base.folder, "config.json");
        }
        let adapters = self.adapters.iter();
        let adapters = adapters.map(|a| {
            (
                "adapter",
                &a.name,
                &a.folder,
                "adapter_config.json",
                &a.base,
            )
        });
        let heads = self.heads.iter();
        let heads = heads.map(|h| ("head", &h.kind, &h.folder, "head.json", &h.base));
        for (what, name, folder, file, of) in adapters.chain(heads) {
            if !has(folder, file) {
                return missing(folder, file);
            }
            if *of != base.hash {
                return Err(BundleError::OtherBase {
                    what,
                    name: name.clone(),
                    expected: base.hash.clone(),
                    found: of.clone(),
                });
            }
        }
        Ok(())
    }

    /// Bytes of all data.
    pub(super) fn data_len(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.offset + part.size)
    }
}

/// The bytes in front of the data: 8 of length, and the safetensors header that says the manifest and every part as a U8 tensor.
/// The format allows no holes, so padding is a tensor too.
pub(super) fn header(text: &str, parts: &[Part]) -> Vec<u8> {
    let mut tensors = Map::new();
    let hash = blake3::hash(text.as_bytes()).to_hex();
    tensors.insert(
        "__metadata__".to_owned(),
        json!({ MANIFEST: text, MANIFEST_HASH: hash.as_str() }),
    );
    let mut put = |name: String, start: u64, end: u64| {
        let value = json!({ "dtype": "U8", "shape": [end - start], "data_offsets": [start, end] });
        tensors.insert(name, value);
    };
    let mut end = 0;
    for part in parts {
        if part.offset > end {
            put(format!("~padding.{end}"), end, part.offset);
        }
        end = part.offset + part.size;
        put(part.path.clone(), part.offset, end);
    }
    let mut json = Value::Object(tensors).to_string().into_bytes();
    let len = (8 + json.len()).next_multiple_of(ALIGNMENT as usize);
    json.resize(len - 8, b' ');
    let mut all = (json.len() as u64).to_le_bytes().to_vec();
    all.extend(json);
    all
}

/// The text of the manifest in a header, after its hash was compared.
pub(super) fn manifest_text(header: &[u8]) -> Result<Option<String>, BundleError> {
    let map = parse_object_bytes(header).map_err(|source| BundleError::Json {
        what: "header",
        source,
    })?;
    let field = |name| map.get("__metadata__")?.get(name)?.as_str();
    let (Some(text), Some(expected)) = (field(MANIFEST), field(MANIFEST_HASH)) else {
        return Ok(None);
    };
    let found = blake3::hash(text.as_bytes()).to_hex();
    if found.as_str() != expected {
        return Err(BundleError::ManifestHash {
            expected: expected.to_owned(),
            found: found.to_string(),
        });
    }
    Ok(Some(text.to_owned()))
}

/// Whether a name stays inside the directory it is unpacked to, on every system.
pub(super) fn safe(path: &str) -> bool {
    let name = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && part.chars().all(plain)
    };
    path.len() <= 200 && path.split('/').count() <= 4 && path.split('/').all(name)
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
