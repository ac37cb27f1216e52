//! Writing a bundle: everything is loaded and checked first, then hashed, then copied.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::manifest::{self, ALIGNMENT, AdapterEntry, BaseEntry, HeadEntry, Manifest, Part};
use super::panels::{self, PANELS, To};
use super::{BundleError, CHUNK, GGUF, adapter_error};
use crate::gguf::Gguf;
use crate::head::HeadFile;
use crate::json::parse_object_bytes;
use crate::{
    Adapter, AdapterDtype, Bytes, Config, ContentHash, Folder, MappedFile, Model, Source,
    write_atomic,
};

const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
const HEAD_FILES: [&str; 2] = ["head.json", "head.safetensors"];
/// How an adapter was taught to think (`reason` reads it).
const THINKING: &str = "edgethink.json";
const BASE_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
];
/// Where the tensors of a model in several files are.
const INDEX: &str = "model.safetensors.index.json";

/// Whether [`pack`] takes a file of this name out of the directory of a model, an adapter or a head. What a training leaves there besides
/// is not taken.
#[must_use]
pub fn is_packed(name: &str) -> bool {
    let others = [&INDEX, &THINKING];
    let mut small = BASE_FILES
        .iter()
        .chain(&ADAPTER_FILES)
        .chain(&HEAD_FILES)
        .chain(others);
    name.ends_with(".safetensors") || small.any(|file| *file == name)
}

/// What goes into a bundle.
#[derive(Debug, Clone, Default)]
pub struct PackSources {
    /// Model directory, GGUF file or hub id.
    pub base: String,
    /// PEFT directories, the default one first.
    pub adapters: Vec<PathBuf>,
    /// Directories of heads.
    pub heads: Vec<PathBuf>,
}

/// What a bundle says of itself, and how adapters and heads are stored.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Name for people.
    pub name: String,
    /// The program that packs, with its version.
    pub program: String,
    /// Under which licence the parts may be used.
    pub licence: Option<String>,
    /// How the adapters' matrices are stored.
    pub adapter_dtype: AdapterDtype,
    /// The weights of heads as INT8 per row instead of as they are; biases, means and deviations stay F32.
    pub int8_heads: bool,
}

/// A part before it is written.
struct Item {
    path: String,
    bytes: Content,
}

enum Content {
    File(PathBuf),
    /// A GGUF file, its matrices turned to the panels of a format.
    Panels(Bytes, u64),
    Memory(Vec<u8>),
}

/// Writes the bundle `out`, replacing what is there when all of it is written. `progress` is told the bytes that are copied, and those of
/// all parts.
///
/// # Errors
/// [`BundleError`] for a part that cannot be loaded, a head of another base, or a failed read or write.
pub fn pack(
    sources: &PackSources,
    out: &Path,
    options: &PackOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest, BundleError> {
    let load = |e| BundleError::Load(Box::new(e));
    let model = Model::load(&sources.base).map_err(load)?;
    let hash = model
        .hash()
        .map_err(BundleError::io(Path::new(&sources.base)))?;
    let mut items = base_items(&model)?;
    let mut adapters = Vec::new();
    for (i, dir) in sources.adapters.iter().enumerate() {
        adapters.push(adapter(
            dir,
            i,
            &model.config,
            &hash,
            options.adapter_dtype,
            &mut items,
        )?);
    }
    let mut heads: Vec<HeadEntry> = Vec::new();
    for dir in &sources.heads {
        let entry = head(dir, &model, &hash, options.int8_heads, &mut items)?;
        if heads.iter().any(|head| head.kind == entry.kind) {
            let reason = format!("there is another {} already", entry.kind);
            return Err(unpackable(dir, reason));
        }
        heads.push(entry);
    }
    let mut dtypes: Vec<String> = Vec::new();
    for (_, tensor) in model.weights.named() {
        let dtype = tensor.dtype.to_string();
        if !dtypes.contains(&dtype) {
            dtypes.push(dtype);
        }
    }
    let format = items.iter().find_map(|item| match item.bytes {
        Content::Panels(_, format) => Some(format),
        _ => None,
    });
    let manifest = Manifest {
        format: format.unwrap_or(1),
        program: options.program.clone(),
        name: options.name.clone(),
        licence: options.licence.clone(),
        base: BaseEntry {
            hash: hash.to_string(),
            folder: "base".to_owned(),
            family: model.config.family.model_type().to_owned(),
            parameters: model.config.parameters() as u64,
            dtypes,
            template: model.template.is_some(),
        },
        adapters,
        heads,
        parts: parts(&items)?,
    };
    let text = serde_json::to_string(&manifest).map_err(|e| BundleError::Manifest {
        reason: e.to_string(),
    })?;
    // What is written is what a reader accepts.
    let manifest = Manifest::parse(&text)?;
    write(out, &text, &manifest, &items, progress)?;
    Ok(manifest)
}

/// The files of the base: a directory's by name, or the GGUF file.
fn base_items(model: &Model) -> Result<Vec<Item>, BundleError> {
    let dir = match &model.source {
        Source::Gguf(path) => {
            let file = MappedFile::open(path).map_err(BundleError::io(path))?;
            let file = Bytes::whole(&file);
            return Ok(vec![match panels::format(&file) {
                Some(format) => Item {
                    path: format!("base/{PANELS}"),
                    bytes: Content::Panels(file, format),
                },
                None => Item::file("base", GGUF, path.clone()),
            }]);
        }
        Source::Directory(dir) => dir,
        Source::Bundle(path) => {
            let reason = "it is a bundle already; unpack it first".to_owned();
            return Err(unpackable(path, reason));
        }
        Source::Memory => {
            let reason = "the model is in memory alone".to_owned();
            return Err(unpackable(Path::new("the base"), reason));
        }
    };
    let mut names: Vec<String> = BASE_FILES.map(str::to_owned).to_vec();
    if dir.join("model.safetensors").is_file() {
        names.push("model.safetensors".to_owned());
    } else {
        let index = dir.join(INDEX);
        let text = std::fs::read(&index).map_err(BundleError::io(&index))?;
        let map = parse_object_bytes(&text).map_err(|source| BundleError::Json {
            what: "index of the weights",
            source,
        })?;
        names.push(INDEX.to_owned());
        let shards = map.get("weight_map").and_then(Value::as_object);
        let shards = shards.into_iter().flatten().filter_map(|(_, f)| f.as_str());
        let shards: std::collections::BTreeSet<&str> = shards.collect();
        names.extend(shards.into_iter().map(str::to_owned));
    }
    names.retain(|name| dir.join(name).is_file());
    let item = |name: String| Item::file("base", &name, dir.join(&name));
    Ok(names.into_iter().map(item).collect())
}

fn adapter(
    dir: &Path,
    place: usize,
    base: &Config,
    hash: &ContentHash,
    dtype: AdapterDtype,
    items: &mut Vec<Item>,
) -> Result<AdapterEntry, BundleError> {
    if !dir.is_dir() {
        let reason = "it is no PEFT directory; make one with `edgethink export peft`";
        return Err(unpackable(dir, reason.to_owned()));
    }
    let name = Folder::disk(dir).name();
    let failed = |e| adapter_error(&name, e);
    let adapter = Adapter::load(dir, base).map_err(failed)?;
    let folder = match place {
        0 => "adapter".to_owned(),
        _ => format!("adapters/{name}"),
    };
    let [config, tensors] = ADAPTER_FILES;
    items.push(Item::file(&folder, config, dir.join(config)));
    let thinking_path = dir.join(THINKING);
    let mut thinking = None;
    if thinking_path.is_file() {
        let text = std::fs::read(&thinking_path).map_err(BundleError::io(&thinking_path))?;
        let map = parse_object_bytes(&text).map_err(|source| BundleError::Json {
            what: "edgethink.json beside the adapter",
            source,
        })?;
        thinking = Some(Value::Object(map));
        items.push(Item::file(&folder, THINKING, thinking_path));
    }
    let path = dir.join(tensors);
    items.push(match dtype.encode(&path).map_err(|e| failed(e.into()))? {
        Some(stored) => Item {
            path: format!("{folder}/{tensors}"),
            bytes: Content::Memory(stored),
        },
        None => Item::file(&folder, tensors, path),
    });
    // The identity is that of the values as a reader of the bundle gets them.
    let adapter_hash = dtype.rounded(&adapter, base).map_err(failed)?.hash;
    Ok(AdapterEntry {
        name,
        folder,
        base: hash.to_string(),
        hash: adapter_hash.to_string(),
        dtype: dtype.as_str().to_owned(),
        invocation: adapter.invocation,
        thinking,
    })
}

fn head(
    dir: &Path,
    model: &Model,
    hash: &ContentHash,
    as_int8: bool,
    items: &mut Vec<Item>,
) -> Result<HeadEntry, BundleError> {
    let failed = |source| BundleError::Head {
        name: dir.display().to_string(),
        source: Box::new(source),
    };
    let head = HeadFile::load(dir).map_err(failed)?;
    head.expect(&head.kind, hash, model.config.hidden_size)
        .map_err(failed)?;
    let folder = head.kind.clone();
    let stored = match as_int8 {
        true => HeadFile::stored_in_int8(dir)
            .map_err(failed)?
            .map(Content::Memory),
        false => HEAD_FILES.map(|file| Content::File(dir.join(file))),
    };
    for (file, bytes) in HEAD_FILES.into_iter().zip(stored) {
        let path = format!("{folder}/{file}");
        items.push(Item { path, bytes });
    }
    Ok(HeadEntry {
        kind: head.kind,
        folder,
        base: head.base,
        dtype: as_int8.then(|| "int8".to_owned()),
        settings: Value::Object(head.settings),
    })
}

/// Hashes the items and gives each its place, so that the data inside it begins at a multiple of [`ALIGNMENT`].
fn parts(items: &[Item]) -> Result<Vec<Part>, BundleError> {
    let mut end = 0u64;
    let mut parts = Vec::new();
    for item in items {
        let mut hasher = blake3::Hasher::new();
        let size = item.copy(&mut |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        // The header's length is a multiple of the alignment, so offsets in the data are as good as offsets in the file.
        let inner = item.data_start()?;
        let offset = (end + inner).next_multiple_of(ALIGNMENT) - inner;
        end = offset + size;
        parts.push(Part {
            path: item.path.clone(),
            offset,
            size,
            blake3: hasher.finalize().to_hex().to_string(),
        });
    }
    Ok(parts)
}

fn write(
    out: &Path,
    text: &str,
    manifest: &Manifest,
    items: &[Item],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), BundleError> {
    let all: u64 = manifest.parts.iter().map(|part| part.size).sum();
    let mut failed = None;
    let written = write_atomic(out, |file| {
        file.write_all(&manifest::header(text, &manifest.parts))?;
        let (mut end, mut done) = (0, 0);
        for (part, item) in manifest.parts.iter().zip(items) {
            file.write_all(&vec![0; (part.offset - end) as usize])?;
            end = part.offset + part.size;
            let mut hasher = blake3::Hasher::new();
            let copied = item.copy(&mut |bytes| {
                hasher.update(bytes);
                done += bytes.len() as u64;
                progress(done, all);
                file.write_all(bytes)
            });
            let same =
                |size| size == part.size && hasher.finalize().to_hex().as_str() == part.blake3;
            failed = match copied {
                Ok(size) if same(size) => continue,
                Ok(_) => Some(BundleError::Changed {
                    path: PathBuf::from(&item.path),
                }),
                Err(error) => Some(error),
            };
            return Err(io::Error::other("a part failed"));
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => written.map_err(BundleError::io(out)),
    }
}

impl Item {
    fn file(folder: &str, name: &str, path: PathBuf) -> Self {
        Self {
            path: format!("{folder}/{name}"),
            bytes: Content::File(path),
        }
    }

    /// Gives all bytes to `take`, a run at a time; their number.
    fn copy(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<u64, BundleError> {
        let path = match &self.bytes {
            Content::Memory(bytes) => {
                take(bytes).map_err(BundleError::io(Path::new(&self.path)))?;
                return Ok(bytes.len() as u64);
            }
            Content::Panels(file, format) => {
                let mut size = 0;
                let turned = panels::turn(file, To::Panels, panels::dtypes(*format), &mut |run| {
                    size += run.len() as u64;
                    take(run)
                });
                turned.map_err(BundleError::io(Path::new(&self.path)))?;
                return Ok(size);
            }
            Content::File(path) => path,
        };
        let copy = || {
            let mut file = File::open(path)?;
            let mut buffer = vec![0; CHUNK];
            let mut size = 0;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(size),
                    n => {
                        take(&buffer[..n])?;
                        size += n as u64;
                    }
                }
            }
        };
        let mut copy = copy;
        copy().map_err(BundleError::io(path))
    }

    /// Where the tensors' data begins inside a safetensors or GGUF file; 0 for other files.
    fn data_start(&self) -> Result<u64, BundleError> {
        let start = |bytes: &[u8], path: &str| {
            if path.ends_with(".safetensors") {
                let len = bytes.first_chunk::<8>().map(|len| u64::from_le_bytes(*len));
                return 8 + len.unwrap_or(0);
            }
            let gguf = Gguf::parse(bytes).ok();
            let first = gguf.and_then(|gguf| gguf.tensors.iter().map(|t| t.range.start).min());
            first.unwrap_or(0) as u64
        };
        let has_tensors = [".safetensors", ".gguf", PANELS];
        if !has_tensors.iter().any(|end| self.path.ends_with(end)) {
            return Ok(0);
        }
        match &self.bytes {
            Content::Panels(file, _) => Ok(start(file.as_slice(), &self.path)),
            Content::Memory(bytes) => Ok(start(bytes, &self.path)),
            Content::File(path) => {
                let file = MappedFile::open(path).map_err(BundleError::io(path))?;
                Ok(start(file.bytes(), &self.path))
            }
        }
    }
}

fn unpackable(path: &Path, reason: String) -> BundleError {
    BundleError::Unpackable {
        path: path.to_path_buf(),
        reason,
    }
}
