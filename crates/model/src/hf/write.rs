//! Writing a model directory. Every file is written beside its place and renamed, so that a reader never sees half a file
//! and a mapping of the old one stays valid.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Config, Dtype, GenerationConfig, LoadError, SafetensorsError, Tensor};

/// What a model directory holds beside config and weights. Nothing is written for what is `None`.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions<'a> {
    /// Text of tokenizer.json.
    pub tokenizer_json: Option<&'a str>,
    /// Text of chat_template.jinja.
    pub chat_template: Option<&'a str>,
    /// `bos_token`, `eos_token`, and so on: the variables of the template, for tokenizer_config.json.
    pub special_tokens: Map<String, Value>,
    /// generation_config.json.
    pub generation: Option<&'a GenerationConfig>,
}

/// A tensor to be written, whose bytes may be made when they are asked for.
pub trait Stored {
    /// F32, F16 or BF16.
    fn dtype(&self) -> Dtype;
    /// Dimensions, the row length last.
    fn shape(&self) -> &[usize];
    /// The bytes, as many as dtype and shape need.
    fn bytes(&self) -> Cow<'_, [u8]>;
}

/// A tensor of dtype I8 is written as the F32 that it stands for.
impl Stored for &Tensor {
    fn dtype(&self) -> Dtype {
        self.written_dtype()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        match self.floats() {
            Cow::Borrowed(tensor) => Tensor::bytes(tensor),
            Cow::Owned(floats) => Cow::Owned(Tensor::bytes(&floats).into_owned()),
        }
    }
}

/// Writes a model directory, which is made if it does not exist.
///
/// # Errors
/// [`LoadError::Io`], or [`LoadError::Safetensors`] for a tensor in a block format.
pub fn save<S: Stored>(
    dir: &Path,
    config: &Config,
    tensors: impl IntoIterator<Item = (String, S)>,
    options: &SaveOptions<'_>,
) -> Result<(), LoadError> {
    fs::create_dir_all(dir).map_err(LoadError::io(dir))?;
    let text = |name: &str, text: &str| {
        let path = dir.join(name);
        write_atomic(&path, |file| file.write_all(text.as_bytes())).map_err(LoadError::io(&path))
    };
    save_tensors(&dir.join("model.safetensors"), tensors)?;
    if let Some(tokenizer) = options.tokenizer_json {
        text("tokenizer.json", tokenizer)?;
        let mut map = options.special_tokens.clone();
        map.insert(
            "tokenizer_class".to_owned(),
            "PreTrainedTokenizerFast".into(),
        );
        map.insert(
            "model_max_length".to_owned(),
            config.max_position_embeddings.into(),
        );
        text("tokenizer_config.json", &pretty(map))?;
    }
    if let Some(template) = options.chat_template {
        text("chat_template.jinja", template)?;
    }
    if let Some(generation) = options.generation {
        text(
            "generation_config.json",
            &pretty(generation_json(generation)),
        )?;
    }
    text("config.json", &config.to_json())
}

/// Writes one safetensors file.
///
/// # Errors
/// [`LoadError::Io`], or [`LoadError::Safetensors`] for a tensor in a block format.
pub fn save_tensors<S: Stored>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, S)>,
) -> Result<(), LoadError> {
    let damaged = |source| LoadError::Safetensors {
        path: path.to_path_buf(),
        source,
    };
    let mut entries = BTreeMap::new();
    for (name, tensor) in tensors {
        if !tensor.dtype().is_float() {
            let dtype = tensor.dtype().to_string();
            return Err(damaged(SafetensorsError::Dtype { name, dtype }));
        }
        if entries.insert(name.clone(), tensor).is_some() {
            return Err(damaged(SafetensorsError::Twice { name }));
        }
    }
    write_atomic(path, |file| write_tensors(file, &entries)).map_err(LoadError::io(path))
}

/// The format is 8 bytes of header length, the header padded with spaces to a multiple of 8, and the data without holes
/// (<https://github.com/huggingface/safetensors#format>). Wider dtypes first, so that every tensor is aligned.
fn write_tensors<S: Stored>(file: &mut dyn Write, entries: &BTreeMap<String, S>) -> io::Result<()> {
    let mut order: Vec<(&String, &S)> = entries.iter().collect();
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().block_bytes()));
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut end = 0;
    let size = |tensor: &S| tensor.dtype().tensor_bytes(tensor.shape());
    let too_large = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the tensors are larger than any file",
        )
    };
    for (name, tensor) in &order {
        let start = end;
        end = size(tensor)
            .and_then(|size| size.checked_add(start))
            .ok_or_else(too_large)?;
        let (dtype, shape) = (tensor.dtype().to_string(), tensor.shape());
        header.insert(
            (*name).clone(),
            json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }),
        );
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(
        ' ',
        header.len().next_multiple_of(8) - header.len(),
    ));
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for (name, tensor) in order {
        let bytes = tensor.bytes();
        if Some(bytes.len()) != size(tensor) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{name}` gave {} bytes", bytes.len()),
            ));
        }
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes a file beside `path`, flushes it to the disk, and renames it. On an error nothing is left behind.
///
/// # Errors
/// Those of the system and of `write`.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = (|| {
        let mut file = Runs {
            file: File::create(&temporary)?,
            run: Vec::new(),
        };
        write(&mut file)?;
        file.flush()?;
        file.file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The first error says what happened; that the part could not be removed adds nothing.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A file that is written in runs of 2 MiB at multiples of it, so that the system can keep each in one large page: weights that are used
/// on a mapping of the file are read faster from those.
struct Runs {
    file: File,
    run: Vec<u8>,
}

impl Runs {
    const LEN: usize = 2 << 20;
}

impl Write for Runs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(Self::LEN - self.run.len());
        self.run.extend_from_slice(&bytes[..taken]);
        if self.run.len() == Self::LEN {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.run)?;
        self.run.clear();
        Ok(())
    }
}

fn generation_json(generation: &GenerationConfig) -> Map<String, Value> {
    let GenerationConfig {
        eos_token_ids,
        bos_token_id,
        pad_token_id,
        do_sample,
        temperature,
        top_p,
        top_k,
        min_p,
        repetition_penalty,
    } = generation;
    let number =
        |x: &Option<f32>| x.map(|x| json!(x.to_string().parse::<f64>().unwrap_or(f64::from(x))));
    let fields = [
        (
            "eos_token_id",
            (!eos_token_ids.is_empty()).then(|| json!(eos_token_ids)),
        ),
        ("bos_token_id", bos_token_id.map(Value::from)),
        ("pad_token_id", pad_token_id.map(Value::from)),
        ("do_sample", do_sample.map(Value::from)),
        ("temperature", number(temperature)),
        ("top_p", number(top_p)),
        ("top_k", top_k.map(Value::from)),
        ("min_p", number(min_p)),
        ("repetition_penalty", number(repetition_penalty)),
    ];
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

fn pretty(map: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(map))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;
    use crate::hf::safetensors::open;

    #[test]
    fn tensors_are_read_back_aligned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let odd = Tensor::bf16_from_f32(vec![3], &[1.0, 2.0, 3.0]).unwrap();
        let wide = Tensor::from_f32(vec![1, 2], &[0.5, -0.5]).unwrap();
        let empty = Tensor::from_f32(vec![0, 4], &[]).unwrap();
        let tensors = [("a", &odd), ("b", &wide), ("\u{e9}\"", &odd), ("e", &empty)];
        save_tensors(
            &path,
            tensors.map(|(name, tensor)| (name.to_owned(), tensor)),
        )
        .unwrap();
        let read = open(&path).unwrap();
        assert_eq!(read.len(), 4);
        for (name, tensor) in tensors {
            let got = &read[name];
            assert_eq!((got.dtype, &got.shape), (tensor.dtype, &tensor.shape));
            assert_eq!(got.to_f32(), tensor.to_f32());
            assert!(
                got.storage().is_mapped(),
                "{name} needed no copy for its alignment"
            );
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomic(&path, |file| file.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no part is left behind"
        );
    }

    #[test]
    fn block_formats_and_equal_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let blocks = Tensor::new(Dtype::Q8_0, vec![1, 32], Bytes::copy_of(&[0; 34])).unwrap();
        let error = save_tensors(&path, [("q".to_owned(), &blocks)]).unwrap_err();
        assert!(matches!(
            error,
            LoadError::Safetensors {
                source: SafetensorsError::Dtype { .. },
                ..
            }
        ));
        let one = Tensor::from_f32(vec![1], &[1.0]).unwrap();
        let twice = [("a".to_owned(), &one), ("a".to_owned(), &one)];
        let error = save_tensors(&path, twice).unwrap_err();
        assert!(matches!(
            error,
            LoadError::Safetensors {
                source: SafetensorsError::Twice { .. },
                ..
            }
        ));
        assert!(!path.exists());
    }
}
